/** The supervisors that are measured: how each is told of the same programs, started and ended. */

import { freePort } from "../tests/support/free_port.ts";
import { findTool } from "../tests/support/find_tool.ts";
import { output, programCommand } from "./programs.ts";
import { argvOf } from "./replication_probe.ts";

export interface Program {
  readonly name: string;
  /** A line for /bin/sh. */
  readonly line: string;
  /** Its output is kept in a file; false: it has none. */
  readonly logs: boolean;
}

export interface Subject {
  readonly name: string;
  /** No supervisor, but the least that any could do: it asks and decides nothing, and of it only speed is measured. */
  readonly isBound?: true;
  /** Null: it is not installed, and cannot be measured. */
  readonly version: () => Promise<string | null>;
  /** Writes what it needs into `home` and gives the command that runs it in the foreground. */
  prepare(home: string, programs: readonly Program[]): Promise<Prepared>;
}

export interface Prepared {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Where the output of a program goes. */
  logOf(name: string): string;
}

/** One that runs, with all that it started. */
export class Running implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;

  constructor({ argv, env }: Prepared, home: string) {
    const [command = "", ...args] = argv;
    this.#child = new Deno.Command(command, {
      args: [...args],
      clearEnv: true,
      env: { PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin", HOME: home, ...env },
      cwd: home,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  /** The supervisor's own processes: all but the programs. */
  pids(): number[] {
    return [this.#child.pid, ...below(this.#child.pid)].filter((pid) => {
      const [command = ""] = argvOf(pid);
      return command !== "" && !/(^|\/)(sh|sleep|dd)$/.test(command);
    });
  }

  /** Frozen first, so that nobody starts again what has just ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    const pids = [this.#child.pid, ...below(this.#child.pid)];
    for (const signal of ["SIGSTOP", "SIGKILL"] as const) {
      for (const pid of pids) {
        try {
          Deno.kill(pid, signal);
        } catch {
          // It has ended.
        }
      }
    }
    await this.#child.status;
  }
}

/** Also those whose parent is gone, as long as their own parents stand. */
function below(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    } catch {
      // It has ended.
    }
  }
  const all = (of: number): number[] => (children.get(of) ?? []).flatMap((each) => [each, ...all(each)]);
  return all(pid);
}

async function debianVersion(program: string, name: string): Promise<string | null> {
  if (findTool(program) === null) return null;
  return await output(["dpkg-query", "-W", "-f", "${Version}", name]).catch(() => "unknown");
}

/** The delay before a restart is left out everywhere: what is measured is the supervisor, not what it was told to wait. */
export const ours: Subject = {
  name: "state-manager",
  version: () => output(programCommand(["version"])),
  async prepare(home, programs) {
    const processes = programs.map(({ name, line, logs }) => [name, {
      command: ["/bin/sh", "-c", line],
      essential: false,
      restart: "always",
      restart_delay: "0s",
      restart_max_delay: "1s",
      start_limit: { burst: 1000, interval: "1h" },
      logs: logs ? { path: `${home}/${name}.log`, max_size: 0 } : { pass_through: false },
    }]);
    const config = {
      storage: { directory: `${home}/store` },
      checkpoint: { interval: "24h" },
      processes: Object.fromEntries(processes),
    };
    await Deno.writeTextFile(`${home}/config.json`, JSON.stringify(config), { mode: 0o600 });
    return {
      argv: programCommand(["--config", `${home}/config.json`, "--data-dir", `${home}/data`]),
      env: { STATE_MANAGER_SERVER_LISTEN: `127.0.0.1:${freePort()}` },
      logOf: (name) => `${home}/${name}.log`,
    };
  },
};

/** s6 and runit: a folder for each program, with a program of its own for the log. */
async function writeFolders(
  home: string,
  programs: readonly Program[],
  log: (folder: string) => string,
): Promise<void> {
  for (const { name, line, logs } of programs) {
    const folder = `${home}/services/${name}`;
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(`${folder}/run`, `#!/bin/sh\n${line}\n`, { mode: 0o755 });
    if (!logs) continue;
    await Deno.mkdir(`${folder}/log`);
    await Deno.mkdir(`${home}/logs/${name}`, { recursive: true });
    await Deno.writeTextFile(`${folder}/log/run`, `#!/bin/sh\n${log(`${home}/logs/${name}`)}\n`, {
      mode: 0o755,
    });
  }
}

const s6: Subject = {
  name: "s6",
  version: () => debianVersion("s6-svscan", "s6"),
  async prepare(home, programs) {
    await writeFolders(home, programs, (folder) => `exec s6-log n1 s268435455 ${folder}`);
    const argv = ["s6-svscan", "-c", "500", `${home}/services`];
    return { argv, env: {}, logOf: (name) => `${home}/logs/${name}/current` };
  },
};

const runit: Subject = {
  name: "runit",
  version: () => debianVersion("runsvdir", "runit"),
  async prepare(home, programs) {
    await writeFolders(home, programs, (folder) => {
      Deno.writeTextFileSync(`${folder}/config`, "s0\n");
      return `exec svlogd ${folder}`;
    });
    const argv = ["runsvdir", `${home}/services`];
    return { argv, env: {}, logOf: (name) => `${home}/logs/${name}/current` };
  },
};

const supervisord: Subject = {
  name: "supervisord",
  version: () => debianVersion("supervisord", "supervisor"),
  async prepare(home, programs) {
    // A percent sign would be an expansion of its own, a semicolon a comment: the line goes into a file.
    const sections = await Promise.all(programs.map(async ({ name, line, logs }) => {
      await Deno.writeTextFile(`${home}/${name}.sh`, `#!/bin/sh\n${line}\n`, { mode: 0o755 });
      const log = logs
        ? `stdout_logfile=${home}/${name}.log\nstdout_logfile_maxbytes=0`
        : "stdout_logfile=NONE";
      return `[program:${name}]\ncommand=/bin/sh ${home}/${name}.sh\n${log}\nstderr_logfile=NONE\n`;
    }));
    const head = `[supervisord]\nnodaemon=true\nlogfile=${home}/supervisord.log\npidfile=${home}/pid\n` +
      `childlogdir=${home}\n`;
    await Deno.writeTextFile(`${home}/supervisord.conf`, head + sections.join(""));
    const argv = ["supervisord", "-c", `${home}/supervisord.conf`];
    return { argv, env: {}, logOf: (name) => `${home}/${name}.log` };
  },
};

const pm2Path = findTool("pm2-runtime") ?? ownPm2();

function ownPm2(): string | null {
  const path = new URL("../.cache/pm2/node_modules/pm2/bin/pm2-runtime", import.meta.url).pathname;
  try {
    return Deno.statSync(path).isFile ? path : null;
  } catch {
    return null;
  }
}

const pm2: Subject = {
  name: "PM2",
  version: async () => {
    if (pm2Path === null) return null;
    const folder = (await Deno.realPath(pm2Path)).replace(/\/bin\/[^/]+$/, "");
    return JSON.parse(await Deno.readTextFile(`${folder}/package.json`)).version;
  },
  async prepare(home, programs) {
    const apps = programs.map(({ name, line, logs }) => ({
      name,
      script: "/bin/sh",
      args: ["-c", line],
      interpreter: "none",
      out_file: logs ? `${home}/${name}.log` : "/dev/null",
      error_file: "/dev/null",
      merge_logs: true,
    }));
    await Deno.writeTextFile(`${home}/ecosystem.config.json`, JSON.stringify({ apps }));
    return {
      argv: [pm2Path ?? "pm2-runtime", "start", `${home}/ecosystem.config.json`],
      env: { PM2_HOME: `${home}/pm2`, PM2_DISCRETE_MODE: "true" },
      logOf: (name) => `${home}/${name}.log`,
    };
  },
};

/** A loop of the shell for each program, which starts it again as soon as it has ended, and `cat` for its log. */
const loop: Subject = {
  name: "sh loop",
  isBound: true,
  version: () => Promise.resolve("and cat"),
  async prepare(home, programs) {
    const loops = await Promise.all(programs.map(async ({ name, line, logs }) => {
      await Deno.writeTextFile(`${home}/${name}.sh`, `${line}\n`);
      const log = logs ? `| cat >${home}/${name}.log` : "";
      return `while :; do /bin/sh ${home}/${name}.sh ${log}; done &\n`;
    }));
    await Deno.writeTextFile(`${home}/all.sh`, `${loops.join("")}wait\n`);
    return { argv: ["/bin/sh", `${home}/all.sh`], env: {}, logOf: (name) => `${home}/${name}.log` };
  },
};

export const SUBJECTS: readonly Subject[] = [ours, s6, runit, supervisord, pm2, loop];
