/** One manager in given surroundings with many programs, and what this machine sees of them. */

import {
  descendants,
  freePort,
  type Json,
  ManagerProcess,
  scratchFolder,
  waitFor,
} from "./manager_process.ts";
import type { Surroundings } from "./surroundings.ts";

export interface SceneFiles {
  /** Without the right to be run. */
  readonly plain: string;
  /** A program that somebody writes to. */
  readonly busy: string;
}

export class FaultScene implements AsyncDisposable {
  readonly #scratch = scratchFolder();
  readonly root = this.#scratch.path;
  readonly manager: ManagerProcess;
  readonly #surroundings: Surroundings;
  #writer: Deno.FsFile | null = null;

  constructor(
    surroundings: Surroundings,
    processes: (files: SceneFiles) => Json,
    change: { readonly config?: Json; readonly env?: Record<string, string> } = {},
  ) {
    this.#surroundings = surroundings;
    const { root } = this;
    const files = { plain: `${root}/plain`, busy: `${root}/busy` };
    for (const folder of ["store", "data", "files"]) Deno.mkdirSync(`${root}/${folder}`);
    Deno.writeTextFileSync(files.plain, "#!/bin/sh\n", { mode: 0o644 });
    Deno.copyFileSync("/bin/sleep", files.busy);
    Deno.chmodSync(files.busy, 0o755);
    this.#writer = Deno.openSync(files.busy, { write: true });
    const config = {
      storage: { directory: `${root}/store` },
      files: { app: { path: `${root}/files` } },
      checkpoint: { interval: "1h" },
      // Two seconds for the programs, and for the last checkpoint whatever a loaded machine takes.
      shutdown: { budget: "62s", flush_reserve: "60s" },
      processes: processes(files),
      ...change.config,
    };
    Deno.writeTextFileSync(`${root}/config.json`, JSON.stringify(config), { mode: 0o600 });
    if (!surroundings.isRoot) new Deno.Command("chown", { args: ["-R", "65534:65534", root] }).outputSync();
    const port = freePort();
    this.manager = new ManagerProcess({
      args: ["--config", `${root}/config.json`, "--data-dir", `${root}/data`],
      port,
      wrap: surroundings.wrap(root),
      env: { ...surroundings.env(root), FAULT_SCENE: root, ...change.env },
    });
  }

  /** Waits until it runs; one that ended instead is told at once. */
  async running(): Promise<void> {
    const ended = this.manager.ended.then(({ code }) => {
      throw new Error(`manager ended with ${code}\n${this.manager.tail()}`);
    });
    await Promise.race([this.manager.state("running", 60_000), ended]);
  }

  endWriting(): void {
    this.#writer?.close();
    this.#writer = null;
  }

  async processes(): Promise<Record<string, Json>> {
    const { processes } = await this.manager.json("/processes");
    return Object.fromEntries(processes.map((process: Json) => [process.name, process]));
  }

  async when(name: string, what: string, is: (process: Json) => boolean): Promise<Json> {
    let last: Json;
    return await waitFor(
      `${name} to be ${what}`,
      async () => {
        last = await this.manager.json(`/processes/${name}`);
        return is(last) ? last : null;
      },
      60_000,
      () => JSON.stringify(last) + this.manager.tail(),
    );
  }

  /** The manager's pid as this machine sees it. */
  async managerPid(): Promise<number> {
    return await waitFor("the manager", () =>
      descendants(this.manager.pid).find((pid) => {
        const argv = textOf(`/proc/${pid}/cmdline`).split("\0");
        return /state-manager|deno/.test(argv[0] ?? "") && argv.includes("--data-dir");
      }));
  }

  /** Letter of the state in /proc; X where it is gone. */
  stateOf(pid: number): string {
    return /\) (.) /.exec(textOf(`/proc/${pid}/stat`).split("\n")[0] ?? "")?.[1] ?? "X";
  }

  /** Processes of the program that can still run, by what is in their environment. */
  alive(name: string): number {
    let count = 0;
    for (const { name: entry } of Deno.readDirSync("/proc")) {
      if (!/^\d+$/.test(entry)) continue;
      const environment = textOf(`/proc/${entry}/environ`);
      if (!environment.includes(`FAULT_SCENE=${this.root}\0`)) continue;
      if (!environment.includes(`SM_UNIT=${name}.`)) continue;
      if (!"ZX".includes(this.stateOf(Number(entry)))) count++;
    }
    return count;
  }

  /** As the container's runtime does it: the signal goes to process 1 of the namespace. */
  signal(managerPid: number, signal: Deno.Signal): void {
    Deno.kill(this.#surroundings.isInit ? managerPid : this.#init(managerPid), signal);
  }

  stop(managerPid: number): void {
    this.signal(managerPid, "SIGTERM");
  }

  /** Its configuration can't be read any more. */
  breakConfig(): void {
    Deno.writeTextFileSync(`${this.root}/config.json`, "{ this is no JSON");
  }

  #init(managerPid: number): number {
    return Number(/^PPid:\s+(\d+)/m.exec(textOf(`/proc/${managerPid}/status`))?.[1]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.endWriting();
    await this.manager[Symbol.asyncDispose]();
    this.#scratch[Symbol.dispose]();
  }
}

function textOf(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}
