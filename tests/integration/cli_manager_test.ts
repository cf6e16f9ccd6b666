import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { StateManagerError } from "../../src/platform/errors.ts";
import {
  checkpointRecord,
  checkpointResult,
  processStatus,
  reloadResult,
  restoreResult,
} from "../support/fake_control.ts";
import { command } from "../support/fake_terminal.ts";
import { serveControl } from "../support/served_control.ts";

Deno.test("commands find the manager by its data folder, also where the socket had to move", async () => {
  await using served = await serveControl();
  const { code, out, err } = await command([
    "status",
    "--data-dir",
    served.dataDir,
  ]);
  assert.deepEqual([code, err], [0, ""]);
  assert.match(out, /state:\s+running/);
  assert.match(out, /web\s+running/);
  const byVariable = await command(["ps"], {
    environment: { STATE_MANAGER_DATA_DIR: served.dataDir },
  });
  assert.match(byVariable.out, /NAME.*\nweb .*SIGKILL/);
  const own = `${served.dataDir}/elsewhere.sock`;
  await using moved = await serveControl({}, {
    socket: { path: own, dataDir: served.dataDir },
  });
  assert.equal(moved.server.socketPath, own);
  assert.equal((await command(["ps", "--data-dir", served.dataDir])).code, 0);
});

Deno.test("--json prints the API's own document", async () => {
  await using served = await serveControl();
  const ask = async (...argv: string[]) =>
    JSON.parse(
      (await command([...argv, "--json", "--data-dir", served.dataDir])).out,
    );
  assert.equal((await ask("status")).state, "running");
  assert.equal((await ask("ps")).processes.length, 1);
  assert.equal((await ask("lease")).token, 7);
  assert.equal((await ask("lease", "release")).state, "released");
  assert.equal((await ask("config", "show")).storage.secret_key, "***");
  assert.deepEqual(
    (await ask("checkpoint", "list")).checkpoints.map((each: { n: number }) => each.n),
    [1, 2, 3],
  );
  assert.equal((await ask("checkpoint", "show", "v2")).n, 2);
});

Deno.test("checkpoint list goes through all pages", async () => {
  const all = Array.from(
    { length: 2300 },
    (_, index) => checkpointRecord(index + 1),
  );
  await using served = await serveControl({
    checkpoints: () => Promise.resolve(all),
  });
  const { out } = await command([
    "checkpoint",
    "list",
    "--data-dir",
    served.dataDir,
    "--json",
  ]);
  assert.equal(JSON.parse(out).checkpoints.length, 2300);
});

Deno.test("checkpoint create passes comment and labels on and prints the id", async () => {
  const asked: unknown[] = [];
  await using served = await serveControl({
    checkpoint: (request) => {
      asked.push(request);
      return Promise.resolve(checkpointResult());
    },
  });
  const argv = [
    "checkpoint",
    "create",
    "-m",
    "before",
    "--label",
    "by=me",
    "--label",
    "x=a=b",
    "--data-dir",
    served.dataDir,
  ];
  const { code, out, err } = await command(argv);
  assert.deepEqual([code, out], [0, `v4  ${checkpointRecord(4).id}\n`]);
  assert.match(err, /4\.0 KiB/);
  assert.deepEqual(asked, [{
    comment: "before",
    labels: { by: "me", x: "a=b" },
  }]);
  const lines = (await command([...argv, "--json"])).out.trimEnd().split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual([lines.at(-1).type, lines.at(-1).checkpoint.n], [
    "complete",
    4,
  ]);
});

Deno.test("files that could not be read make a checkpoint partial: exit 2, each named", async () => {
  const warnings = [{ root: "app", path: "secret", reason: "not permitted" }];
  await using served = await serveControl({
    checkpoint: () => Promise.resolve(checkpointResult({ warnings })),
  });
  const { code, err } = await command([
    "checkpoint",
    "create",
    "--data-dir",
    served.dataDir,
  ]);
  assert.equal(code, 2);
  assert.match(err, /app: secret: not permitted/);
});

Deno.test("the manager's errors keep their exit code, before a stream and in it", async () => {
  const errors: [StateManagerError, number][] = [
    [
      new StateManagerError("busy", "make checkpoint: another runs", {
        hint: "wait",
      }),
      75,
    ],
    [new StateManagerError("store-unreachable", "put: no answer"), 69],
    [new StateManagerError("data-damaged", "read pack: checksum"), 65],
    [new StateManagerError("wrong-state", "make checkpoint: not running"), 1],
  ];
  for (const [error, expected] of errors) {
    for (const late of [false, true]) {
      await using served = await serveControl({
        checkpoint: async (_request, work) => {
          if (late) {
            work?.onProgress?.({
              phase: "scan",
              entries: 0,
              bytes: 0,
              totalBytes: null,
            });
            await new Promise((resolve) => setTimeout(resolve, 20));
          }
          throw error;
        },
      });
      const { code, err } = await command([
        "checkpoint",
        "create",
        "--data-dir",
        served.dataDir,
      ]);
      assert.equal(code, expected, `${error.code} ${late}`);
      assert.ok(err.includes(error.message), err);
    }
  }
});

Deno.test("restore asks before it overwrites, and refuses where nobody can answer", async () => {
  const asked: unknown[] = [];
  await using served = await serveControl({
    restore: (request) => {
      asked.push(request);
      return Promise.resolve(
        request.dryRun ? restoreResult({ checkpoint: null, safety: null }) : restoreResult(),
      );
    },
  });
  const argv = ["restore", "v1", "--data-dir", served.dataDir];
  assert.equal((await command(argv)).code, 64);
  assert.equal((await command(argv, { answer: "" })).code, 130);
  assert.equal((await command(argv, { answer: "no" })).code, 130);
  assert.equal(asked.length, 0);
  assert.equal((await command(argv, { answer: "Yes" })).code, 0);
  const { code, out } = await command([
    ...argv,
    "--yes",
    "--files",
    "app",
    "--no-safety",
  ]);
  assert.equal(code, 0);
  assert.match(out, /^restored v1 .* as v5 /);
  assert.match(
    (await command([...argv, "--dry-run"])).out,
    /^would restore v1 /,
  );
  assert.equal((await command([...argv, "--yes", "--databases", "main", "--consistent"])).code, 0);
  assert.equal((await command([...argv, "--yes", "--path", "a/b/", "--path", "./c"])).code, 0);
  assert.equal((await command([...argv, "--yes", "--path", "../etc"])).code, 64);
  assert.equal((await command([...argv, "--yes", "--path", "a", "--databases", "main"])).code, 64);
  const rest = {
    target: { checkpoint: "1" },
    files: null,
    paths: null,
    databases: null,
    consistent: false,
    dryRun: false,
    safety: true,
  };
  assert.deepEqual(asked, [
    rest,
    { ...rest, files: ["app"], safety: false },
    { ...rest, dryRun: true },
    { ...rest, databases: ["main"], consistent: true },
    { ...rest, paths: ["a/b", "c"] },
  ]);
});

Deno.test("db list and db points ask the manager where one runs", async () => {
  const points = [1, 2, 3].map((txid) => ({ txid, timeMs: Date.parse("2026-01-31T12:00:00Z") + txid }));
  const asked: unknown[] = [];
  await using served = await serveControl({
    restorePoints: (name, query) => {
      asked.push([name, query.afterTxid]);
      const from = query.afterTxid;
      return Promise.resolve({ points: points.slice(from, from + 2), nextAfter: from === 0 ? 2 : null });
    },
  });
  const argv = ["--data-dir", served.dataDir];
  const list = await command(["db", "list", ...argv]);
  assert.match(list.out, /^NAME +STATE +TXID +DURABLE +LAG .*\nmain +following +12 +11 +0\.25 /, list.err);
  const { databases } = JSON.parse((await command(["db", "--json", ...argv])).out);
  assert.equal(databases[0].durable_txid, 11);
  const all = JSON.parse((await command(["db", "points", "main", "--all", "--json", ...argv])).out);
  const views = points.map(({ txid, timeMs }) => ({ txid, time: new Date(timeMs).toISOString() }));
  assert.deepEqual(all, { database: "main", total: 3, points: views });
  assert.deepEqual(asked, [["main", 0], ["main", 2]]);
  const one = await command(["db", "points", "main", "--limit", "1", ...argv]);
  assert.equal(one.out, `TXID  TIME\n3     ${views[2]?.time}\n`);
  assert.match(one.err, /2 older points not shown/);
});

Deno.test("--url needs the token that the manager wants: 77 without, and it is taken from file or variable", async () => {
  const sha256 = createHash("sha256").update("t0ken").digest("hex");
  const tokens = [{ name: "ops", scope: "read" as const, sha256 }];
  await using served = await serveControl({
    access: () => ({ tokens, setupToken: null, behindTlsProxy: false }),
  });
  const argv = ["status", "--url", served.url];
  assert.equal((await command(argv)).code, 77);
  assert.equal(
    (await command(argv, { environment: { STATE_MANAGER_TOKEN: "wrong" } }))
      .code,
    77,
  );
  assert.equal(
    (await command(argv, { environment: { STATE_MANAGER_TOKEN: "t0ken" } }))
      .code,
    0,
  );
  const file = `${served.dataDir}/token`;
  await Deno.writeTextFile(file, "t0ken\n");
  assert.equal((await command([...argv, "--token-file", file])).code, 0);
  const write = await command([
    "lease",
    "release",
    "--url",
    served.url,
    "--token-file",
    file,
  ]);
  assert.equal(write.code, 77);
  assert.equal(
    (await command([...argv, "--token-file", "/no/such/file"])).code,
    64,
  );
});

Deno.test("healthcheck tells alive and ready by its exit code", async () => {
  await using served = await serveControl();
  const alive = await command(["healthcheck", "--data-dir", served.dataDir]);
  assert.deepEqual([alive.code, alive.out], [0, "ok\n"]);
  assert.equal(
    (await command(["healthcheck", "--ready", "--data-dir", served.dataDir]))
      .code,
    1,
  );
});

Deno.test("config apply sends a file or standard input and tells every problem", async () => {
  const bodies: unknown[] = [];
  await using served = await serveControl({
    configure: (body) => {
      bodies.push(body);
      const details = [{
        pointer: "/storage/bucket",
        detail: "got a number, wanted a text",
      }];
      return Promise.reject(
        new StateManagerError(
          "config-invalid",
          "check the configuration: 1 problem",
          { details },
        ),
      );
    },
  });
  const argv = ["config", "apply", "-", "--data-dir", served.dataDir];
  const { code, err } = await command(argv, {
    input: '{"storage":{"bucket":5}}',
  });
  assert.equal(code, 78);
  assert.match(err, /\/storage\/bucket/);
  assert.deepEqual(bodies, [{ storage: { bucket: 5 } }]);
  assert.equal((await command(argv, { input: "{" })).code, 64);
});

Deno.test("a manager that dies in the middle of a stream is told as unreachable, not as done", async () => {
  const begun = Promise.withResolvers<void>();
  await using served = await serveControl({
    checkpoint: (_request, work) => {
      work?.onProgress?.({
        phase: "scan",
        entries: 0,
        bytes: 0,
        totalBytes: null,
      });
      begun.resolve();
      return new Promise(() => {});
    },
  });
  const running = command([
    "checkpoint",
    "create",
    "--data-dir",
    served.dataDir,
  ]);
  await begun.promise;
  await new Promise((resolve) => setTimeout(resolve, 50));
  await served.server.stop(1000);
  assert.equal((await running).code, 69);
});

Deno.test("stop names who is in the way and ends with 1, and what failed does not hide what was done", async () => {
  const blocker = { pid: 7, name: "sl\u001beep", state: "D", wchan: "nfs_wait" };
  const stopping = processStatus({
    name: "db",
    state: "stopping",
    stop: { blockers: [blocker], killMs: null, command: null },
  });
  await using served = await serveControl({
    stopProcess: (name) => {
      if (name === "none") return Promise.reject(new StateManagerError("not-found", "find process none"));
      return Promise.resolve(name === "db" ? stopping : processStatus({ state: "stopped", pid: null }));
    },
  });
  const stop = (...names: string[]) =>
    command(["stop", ...names, "--wait", "1s", "--data-dir", served.dataDir]);
  const slow = await stop("web", "db", "web");
  assert.equal(slow.code, 1);
  assert.match(
    slow.out,
    /^web: stopped\ndb: stopping, pid 43, still there: 7 \(sl.*eep, D, nfs_wait\)\n$/,
  );
  const unknown = await stop("none", "web");
  assert.equal(unknown.code, 1);
  assert.equal(unknown.out, "web: stopped\n");
  assert.match(unknown.err, /find process none/);
  assert.equal((await stop()).code, 64);
});

Deno.test("config reload says what it did, or would do", async () => {
  await using served = await serveControl({
    reload: ({ dryRun, restart }) =>
      Promise.resolve(reloadResult({ dryRun, restarted: restart ? ["web"] : [] })),
  });
  const reload = async (...argv: string[]) =>
    (await command(["config", "reload", ...argv, "--data-dir", served.dataDir])).out;
  assert.equal(
    await reload(),
    [
      "worker: started",
      "old: stopped",
      "web: restart_delay changed at once",
      "web: command from its next start on (restart web)",
      "checkpoint.interval: needs a restart of the manager",
      "",
    ].join("\n"),
  );
  assert.match(
    await reload("--dry-run", "--restart"),
    /^worker: would be started\n[^]*^web: would be restarted$/m,
  );
  assert.equal(JSON.parse(await reload("--json")).added[0], "worker");
});
