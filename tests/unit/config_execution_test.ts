/** Keys that say as whom a process runs and what it may use, and what of the manager's variables it gets. */

import assert from "node:assert/strict";
import { processEnvironment, processSpecs, specsOf } from "../../src/manager/process_specs.ts";
import { withProcessesOf } from "../../src/config/mod.ts";
import { FOLDER_STORE, load, problemsOf } from "../support/config_files.ts";

const app = (keys: Record<string, unknown>) =>
  load({ file: { ...FOLDER_STORE, processes: { app: { command: ["x"], ...keys } } } });

async function problemAt(key: string, keys: Record<string, unknown>): Promise<string> {
  return (await problemsOf(app(keys)))[`/processes/app/${key}`] ?? "";
}

Deno.test("user, group, umask, nice, limits and env_file are read into one form", async () => {
  const { config } = await app({
    user: "app",
    group: 1001,
    umask: "027",
    nice: -5,
    limits: { nofile: 65536, core: 0, stack: "8MiB", memlock: "unlimited" },
    env_file: "/run/secrets//a.env",
    memory_limit: "1GiB",
  });
  const process = config?.processes["app"];
  assert.deepEqual(process?.execution, {
    user: "app",
    group: "1001",
    umask: 0o027,
    nice: -5,
    limits: { nofile: 65536, core: 0, stack: 8_388_608, memlock: null },
  });
  assert.deepEqual(process?.envFiles, ["/run/secrets/a.env"]);
  assert.deepEqual(process?.memoryLimit, {
    maxBytes: 1_073_741_824,
    warnBytes: 966_367_641,
    forMs: 15_000,
  });
});

Deno.test("wrong users, masks, limits and files of variables are refused by their key", async () => {
  assert.match(await problemAt("user", { user: "a:b" }), /a name or a number/);
  assert.match(await problemAt("user", { user: -1 }), /a name or a number/);
  assert.match(await problemAt("umask", { umask: "0888" }), /octal/);
  assert.match(await problemAt("umask", { umask: 22 }), /octal/);
  assert.match(await problemAt("nice", { nice: 20 }), /from -20 to 19/);
  assert.match(await problemAt("limits/nofile", { limits: { nofile: "64MiB" } }), /whole number/);
  assert.match(await problemAt("limits/core", { limits: { core: "much" } }), /a size/);
  assert.match(await problemAt("limits/as", { limits: { as: 1 } }), /./);
  assert.match(await problemAt("env_file", { env_file: "secrets.env" }), /absolute path/);
  assert.match(await problemAt("memory_limit/warn", { memory_limit: { max: "2MiB", warn: "3MiB" } }), /max/);
});

Deno.test("process gets none of the manager's credentials and settings but those that env_from names", async () => {
  const manager = {
    PATH: "/bin",
    AWS_ACCESS_KEY_ID: "key",
    AWS_SECRET_ACCESS_KEY: "secret",
    STATE_MANAGER_TOKEN: "token",
    BUCKET_NAME: "bucket",
    MY_AWS_NAME: "mine",
  };
  assert.deepEqual(processEnvironment({ envFrom: ["AWS_ACCESS_KEY_ID"] }, manager), {
    PATH: "/bin",
    AWS_ACCESS_KEY_ID: "key",
    MY_AWS_NAME: "mine",
  });
  const { config } = await app({ user: "app", env: { A: "1" } });
  assert.ok(config);
  const text = JSON.stringify(processSpecs(config, manager));
  assert.doesNotMatch(text, /secret|token|"bucket"/);
});

Deno.test("what is to run is made once of a configuration, and anew of what a reload makes of it", async () => {
  const loaded = await app({});
  assert.ok(loaded.config);
  const specs = specsOf(loaded, loaded.config);
  assert.equal(specsOf(loaded, loaded.config), specs);
  const other = await app({ nice: 5 });
  const reloaded = withProcessesOf(loaded, other);
  assert.ok(reloaded.config);
  assert.equal(specsOf(reloaded, reloaded.config)[0]?.execution.nice, 5);
});

Deno.test("processes come in the order of stacks, those of the built-in one in that of the file, and no others", async () => {
  const processes = { a: { command: ["a"] }, b: { command: ["b"] }, c: { command: ["c"] } };
  const of = async (...stacks: string[]) => {
    const { config } = await load({ file: { ...FOLDER_STORE, processes, stacks } });
    assert.ok(config);
    return processSpecs(config, {}).map(({ name }) => name);
  };
  assert.deepEqual(await of("processes"), ["a", "b", "c"]);
  assert.deepEqual(await of("c", "a"), ["c", "a"]);
  assert.deepEqual(await of("lease", "c", "processes"), ["c", "a", "b"]);
  assert.deepEqual(await of("b", "processes", "a"), ["b", "a", "c"]);
});

Deno.test("second interactive process, and a log or a log probe of one, are refused", async () => {
  const shell = { command: ["sh"], interactive: true };
  const loaded = (processes: Record<string, unknown>) => load({ file: { ...FOLDER_STORE, processes } });
  const { config } = await loaded({ shell, web: { command: ["web"] } });
  assert.deepEqual(config?.processes["shell"]?.interactive, true);
  assert.deepEqual(config?.processes["web"]?.interactive, false);
  const problems = await problemsOf(loaded({ a: shell, b: { ...shell, logs: { path: "/var/log/b" } } }));
  assert.match(problems["/processes/b/interactive"] ?? "", /beside a, wanted one/);
  assert.match(problems["/processes/b/logs/path"] ?? "", /terminal alone/);
  assert.match(
    await problemAt("probes/readiness/log", {
      interactive: true,
      probes: { readiness: { log: { contains: "up" } } },
    }),
    /not read/,
  );
});

Deno.test("signals that the manager cannot take, or that mean itself, are refused to be passed on, with those that can be", async () => {
  const { config } = await app({ forward_signals: ["quit", "SIGWINCH"] });
  const same = { SIGQUIT: "SIGQUIT", SIGWINCH: "SIGWINCH" };
  assert.deepEqual(config?.processes["app"]?.forwardSignals, same);
  for (const signal of ["SIGTERM", "SIGSEGV", "SIGKILL", "SIGXCPU", "NONE"]) {
    assert.match(
      await problemAt("forward_signals/0", { forward_signals: [signal] }),
      /one of SIGHUP, .*SIGWINCH.*cannot take/,
      signal,
    );
  }
});

Deno.test("signals that a program gets as another one are named by an object, and shown as they were given", async () => {
  const given = await app({ forward_signals: { hup: "usr1", SIGPWR: "SIGTERM" } });
  const forwarded = { SIGHUP: "SIGUSR1", SIGPWR: "SIGTERM" };
  assert.deepEqual(given.config?.processes["app"]?.forwardSignals, forwarded);
  const shown = (loaded: typeof given) =>
    (loaded.redacted() as { processes: { app: Record<string, unknown> } }).processes.app["forward_signals"];
  assert.deepEqual(shown(given), forwarded);
  assert.deepEqual(shown(await app({ forward_signals: { USR1: "USR1" } })), ["SIGUSR1"]);
  for (
    const wrong of [
      { SIGTERM: "SIGUSR1" },
      { SIGHUP: "SIGKILL" },
      { SIGHUP: "SIGSTOP" },
      { SIGHUP: 1 },
      "SIGHUP",
    ]
  ) {
    await assert.rejects(app({ forward_signals: wrong }), JSON.stringify(wrong));
  }
  const key = await problemAt("forward_signals/SIGTERM", { forward_signals: { SIGTERM: "SIGUSR1" } });
  assert.match(key, /name that is not allowed.*one of SIGHUP/);
  const value = await problemAt("forward_signals/SIGHUP", { forward_signals: { SIGHUP: "SIGKILL" } });
  assert.match(value, /got "SIGKILL", wanted a signal's name such as SIGUSR1, but none of SIGKILL/);
});

Deno.test("signals that stop the manager are those that nothing else is meant by, and are not passed on as well", async () => {
  const loadWith = (signals: unknown, forward_signals: unknown = []) =>
    load({
      file: {
        ...FOLDER_STORE,
        shutdown: { signals },
        processes: { app: { command: ["app"], forward_signals } },
      },
    });
  const loaded = await loadWith(["pwr", "SIGWINCH"], ["SIGHUP"]);
  assert.deepEqual(loaded.config?.shutdown.signals, ["SIGPWR", "SIGWINCH"]);
  const shown = loaded.redacted()?.["shutdown"] as Record<string, unknown>;
  assert.deepEqual(shown["signals"], ["SIGPWR", "SIGWINCH"]);
  for (const signal of ["SIGHUP", "SIGUSR1", "SIGTERM", "SIGKILL"]) {
    assert.match(
      (await problemsOf(loadWith([signal])))["/shutdown/signals/0"] ?? "",
      /one of SIGPWR, SIGWINCH/,
    );
  }
  const both = await problemsOf(loadWith(["SIGPWR"], { SIGPWR: "SIGTERM" }));
  assert.match(both["/processes/app/forward_signals"] ?? "", /SIGPWR, which stops the manager/);
});
