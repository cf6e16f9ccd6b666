/** Real processes as other users, with limits, umask, niceness and files of variables. */

import assert from "node:assert/strict";
import { specsOf } from "../../src/manager/process_specs.ts";
import { load } from "../support/config_files.ts";
import { processSpec, shellSpec } from "../support/process_specs.ts";
import { binaryPath, programCommand, scratchFolder } from "../support/manager_process.ts";
import { Supervised, until } from "../support/supervised.ts";

const isRoot = Deno.uid() === 0;
const PLAIN = processSpec().execution;

async function linesOf(script: string, change: Parameters<typeof shellSpec>[2]): Promise<string[]> {
  await using app = new Supervised(shellSpec("app", script, change));
  const outcome = await app.start().supervisor.outcome;
  assert.equal(outcome.exitCode, 0, JSON.stringify(app.status("app")) + app.lines("app").join("\n"));
  return app.lines("app");
}

Deno.test({
  name:
    "Process with a user has its uid, gid, groups, HOME and USER, no other, and no privilege left [needs root]",
  ignore: !isRoot,
  fn: async () => {
    const execution = { ...PLAIN, user: "daemon" };
    const script =
      "id -u; id -g; id -G; echo $HOME $USER $LOGNAME; grep -E '^(Uid|Gid|CapEff)' /proc/self/status";
    const lines = await linesOf(script, { execution, ownEnv: { USER: "mine" } });
    assert.deepEqual(lines.slice(0, 4), ["1", "1", "1", "/usr/sbin mine daemon"]);
    assert.deepEqual(lines.slice(4).map((line) => line.split(/\s+/).slice(1).join(" ")), [
      "1 1 1 1",
      "1 1 1 1",
      "0000000000000000",
    ]);
  },
});

Deno.test({
  name: "Exec helper gives every supplementary group, and takes the manager's own away [needs root]",
  ignore: !isRoot,
  fn: async () => {
    const plan = {
      identity: { uid: 4242, gid: 7, groups: [7, 8, 44] },
      umask: null,
      nice: null,
      limits: {},
      terminal: false,
      env: {},
    };
    const [command = "", ...args] = programCommand(["__exec", JSON.stringify(plan), "id", "-G"]);
    const output = await new Deno.Command("setpriv", { args: ["--groups=0,20", command, ...args] }).output();
    assert.equal(new TextDecoder().decode(output.stdout), "7 8 44\n");
  },
});

Deno.test({
  name: "Process with a number and a group has these alone [needs root]",
  ignore: !isRoot,
  fn: async () => {
    const execution = { ...PLAIN, user: "4242", group: "daemon" };
    assert.deepEqual(await linesOf("id -u; id -G; echo $HOME $USER", { execution }), ["4242", "1", "/ 4242"]);
  },
});

Deno.test("Process with umask, niceness and limits starts with them, a clean signal mask and no stray descriptor", async () => {
  const execution = { ...PLAIN, umask: 0o027, nice: 7, limits: { nofile: 333, core: 0 } };
  const script = "umask; nice; ulimit -n; ulimit -Hn; ulimit -c; " +
    "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '";
  const plain = await linesOf(script, {});
  const lines = await linesOf(script, { execution });
  assert.deepEqual(lines.slice(0, 5), ["0027", "7", "333", "333", "0"]);
  // The rest is as in a process that was started without the helper.
  assert.deepEqual(lines.slice(5), plain.slice(5));
});

Deno.test("Process by the helper keeps pid, group, arguments and bytes of its environment, and ends as itself", async () => {
  const execution = { ...PLAIN, umask: 0o022 };
  const command = ["sh", "-c", 'echo "$$ $1 $2 $SOME"; kill -9 $$', "sh", "a b", ""];
  await using app = new Supervised(
    processSpec({ command, execution, ownEnv: { SOME: "ä\n$x" } }),
  );
  await app.start().supervisor.outcome;
  const started = app.events.find((event) => event.type === "started");
  assert.ok(started?.type === "started");
  assert.deepEqual(app.lines("app"), [`${started.pid} a b  ä`, "$x"]);
  assert.deepEqual(app.status("app").lastExit, { kind: "signal", signal: "SIGKILL", number: 9 });
});

Deno.test("Exec helper that cannot run the command says why and ends with 127 or 126", async () => {
  const execution = { ...PLAIN, umask: 0o022 };
  const cases: [string, number, RegExp][] = [
    ["no-such-program-here", 127, /start no-such-program-here: run it: not found/],
    ["/etc/passwd", 126, /start \/etc\/passwd: run it: permission denied/],
  ];
  for (const [command, code, wanted] of cases) {
    await using app = new Supervised(processSpec({ command: [command], execution }));
    const outcome = await app.start().supervisor.outcome;
    assert.equal(outcome.exitCode, code);
    assert.match(app.lines("app").join("\n"), wanted);
  }
});

Deno.test("Process whose user does not exist fails for good before anything is started", async () => {
  const execution = { ...PLAIN, user: "no-such-user" };
  await using app = new Supervised(processSpec({ execution, restart: "always" }));
  const outcome = await app.start().supervisor.outcome;
  assert.equal(outcome.exitCode, 126);
  assert.match(app.status("app").reason ?? "", /no-such-user is not in \/etc\/passwd/);
  assert.deepEqual(app.names("started"), []);
});

Deno.test("env_file is read at each start, over what is inherited and under env, and its absence is tried again", async () => {
  using scratch = scratchFolder();
  const path = `${scratch.path}/variables`;
  const script = 'echo "$A $B $C"; exit 1';
  await using app = new Supervised(shellSpec("app", script, {
    env: { PATH: "/usr/bin:/bin", A: "inherited", B: "inherited" },
    envFiles: [path],
    ownEnv: { B: "own" },
    restart: "always",
    startLimit: { burst: 1000, intervalMs: 60_000, rearmMs: null },
  }));
  app.start();
  await until(() => app.status("app").state === "backoff", "a backoff without the file");
  assert.equal(app.status("app").lastExit?.kind, "spawn-error");
  Deno.writeTextFileSync(path, "A=first\nB=file\nC='1 2'\n");
  await app.untilLine("app", "first own 1 2");
  Deno.writeTextFileSync(`${path}.new`, "A=second\n");
  Deno.renameSync(`${path}.new`, path);
  await app.untilLine("app", "second own ");
});

Deno.test({
  name:
    "Manager without privileges says that it cannot start a process as somebody else, and starts one as itself [needs root]",
  // From source it would need a cache of packages of its own.
  ignore: !isRoot || binaryPath === null,
  fn: async () => {
    using scratch = scratchFolder();
    Deno.chmodSync(scratch.path, 0o777);
    for (const [user, code, wanted] of [["daemon", 126, /CAP_SETUID/], ["4242", 0, /4242/]] as const) {
      const config = {
        storage: { directory: `${scratch.path}/store` },
        lease: { mode: "none" },
        server: { listen: "127.0.0.1:0" },
        processes: { app: { command: ["id", "-u"], user, group: user, umask: "0077", restart: "no" } },
      };
      const file = `${scratch.path}/config.json`;
      Deno.writeTextFileSync(file, JSON.stringify(config));
      const command = programCommand([
        "--config",
        file,
        "--data-dir",
        `${scratch.path}/data-${user}`,
      ]);
      const run = await new Deno.Command("setpriv", {
        args: ["--reuid=4242", "--regid=4242", "--clear-groups", ...command],
        clearEnv: true,
        env: { PATH: "/usr/bin:/bin", HOME: scratch.path },
      }).output();
      const text = new TextDecoder().decode(run.stdout) + new TextDecoder().decode(run.stderr);
      assert.equal(run.code, code, text);
      assert.match(text, wanted);
    }
  },
});

Deno.test("Variables of env_dir are read at each start: new ones, changed ones, none that is gone or withheld", async () => {
  using scratch = scratchFolder();
  const folder = `${scratch.path}/env`;
  Deno.mkdirSync(`${folder}/..data`, { recursive: true });
  const write = (name: string, value: string) => Deno.writeTextFileSync(`${folder}/${name}`, value);
  write("CHANGED", "one\n");
  write("GONE", "one");
  write("AWS_SECRET_ACCESS_KEY", "secret");
  write("AWS_REGION", "here");
  const file = { storage: { directory: "/store", env_dir: folder }, processes: { app: { command: ["x"] } } };
  const environment = { PATH: "/usr/bin:/bin", CHANGED: "manager's", STATE_MANAGER_TOKEN: "secret-token" };
  const loaded = await load({
    file: { ...file, processes: { app: { command: ["x"], env_from: ["AWS_REGION"], restart: "no" } } },
    environment,
    files: { [`${folder}/CHANGED`]: "one\n", [`${folder}/GONE`]: "one" },
  });
  assert.ok(loaded.config !== null);
  const [spec] = specsOf(loaded, loaded.config);
  assert.ok(spec);
  const script = 'echo "$CHANGED $GONE $NEW $AWS_REGION $AWS_SECRET_ACCESS_KEY$STATE_MANAGER_TOKEN"';
  await using app = new Supervised(
    { ...spec, command: ["sh", "-c", script] },
    shellSpec("other", "sleep 1000"),
  );
  await app.start().untilLine("app", "one one  here ");
  await app.untilState("app", "completed");
  write("CHANGED", "two");
  write("NEW", "new");
  Deno.removeSync(`${folder}/GONE`);
  app.supervisor.startProcess("app");
  await app.untilLine("app", "two  new here ");
  await app.untilState("app", "completed");
  // A mount that is away for a moment: a failed start, tried again by its policy.
  Deno.renameSync(folder, `${folder}.away`);
  app.supervisor.startProcess("app");
  await until(() => app.status("app").lastExit?.kind === "spawn-error", "a failed start");
  assert.match(JSON.stringify(app.status("app").lastExit), /env_dir .*: does not exist/);
});
