/** Rules over single keys and over several: what is refused, what is only warned of, and what passes. */

import assert from "node:assert/strict";
import { FOLDER_STORE, load, problemsOf } from "../support/config_files.ts";
import { backoffSpanMs } from "../../src/config/backoff.ts";
import { UNAVAILABLE } from "../../src/config/unavailable.ts";

const A = { command: ["a"] };

/** The problems of `part` beside a folder store. */
function refused(
  part: Record<string, unknown>,
): Promise<Record<string, string>> {
  return problemsOf(load({ file: { ...FOLDER_STORE, ...part } }));
}

async function accepted(part: Record<string, unknown>) {
  const loaded = await load({ file: { ...FOLDER_STORE, ...part } });
  assert.ok(loaded.config !== null);
  return { ...loaded, config: loaded.config };
}

Deno.test("what this version lacks is refused by name and with what to do instead", async () => {
  for (const { key, except } of UNAVAILABLE) {
    const value = except === undefined ? {} : { "lease.mode": "follow" }[key] ??
      "freeze";
    const path = key.replace("*", "web").split(".");
    const file = path.reduceRight<unknown>(
      (inner, part) => ({ [part]: inner }),
      value,
    ) as Record<string, unknown>;
    const problems = await refused(file);
    const detail = problems[`/${path.join("/")}`] ?? "";
    assert.match(
      detail,
      /: not available in this version; ./,
      `${key}: ${JSON.stringify(problems)}`,
    );
    assert.ok(detail.startsWith(path.join(".")), detail);
  }
  const variable = await problemsOf(
    load({
      file: FOLDER_STORE,
      environment: { STATE_MANAGER_MOUNTS: "{}" },
    }),
  );
  assert.match(variable["STATE_MANAGER_MOUNTS"] ?? "", /not available/);
});

Deno.test("a mistyped value is told as such, not as a feature that is missing", async () => {
  assert.match(
    (await refused({ lease: { mode: "folow" } }))["/lease/mode"] ?? "",
    /wanted "required" or "none"/,
  );
  assert.equal(
    (await accepted({ lease: { mode: "none", hand_over: "never" } })).config
      .lease.mode,
    "none",
  );
  const asks = await accepted({ lease: { hand_over: "on_request" } });
  assert.equal(asks.config.lease.handOver, "on_request");
  assert.equal(
    (await accepted({ checkpoint: { consistency: "live" } })).config.checkpoint
      .onStop,
    true,
  );
});

Deno.test("a command is a list, or a text with shell", async () => {
  assert.match(
    (await refused({ processes: { a: { command: "x" } } }))[
      "/processes/a/command"
    ] ?? "",
    /shell: true/,
  );
  assert.match(
    (await refused({ processes: { a: { command: ["x"], shell: true } } }))[
      "/processes/a/command"
    ] ?? "",
    /wanted one text/,
  );
  for (const command of [[], "", [1], ["a\0"], 5, {}, null]) {
    const problems = await refused({
      processes: { a: { command, shell: typeof command === "string" } },
    });
    assert.ok(
      Object.keys(problems).some((pointer) => pointer.startsWith("/processes/a/command")),
      String(command),
    );
  }
  assert.match(
    (await refused({ processes: { a: {} } }))["/processes/a/command"] ?? "",
    /got nothing/,
  );
  const { config } = await accepted({
    processes: { a: { command: "x | y", shell: true } },
  });
  assert.deepEqual(config.processes["a"]?.command, ["/bin/sh", "-c", "x | y"]);
});

Deno.test("hooks of checkpoints need consistency hooks, and that needs one", async () => {
  const none = await refused({ checkpoint: { consistency: "hooks" } });
  assert.match(none["/checkpoint/consistency"] ?? "", /without a command/);
  const idle = await refused({ checkpoint: { consistency: "freeze", before: "sync", after: ["x"] } });
  assert.match(idle["/checkpoint/before"] ?? "", /wanted "hooks"/);
  assert.match(idle["/checkpoint/after"] ?? "", /wanted "hooks"/);
  for (const before of [[], "", [1], 5, {}]) {
    const problems = await refused({ checkpoint: { consistency: "hooks", before } });
    assert.ok(
      Object.keys(problems).some((at) => at.startsWith("/checkpoint/before")),
      JSON.stringify(before),
    );
  }
  const { config } = await accepted({
    checkpoint: { consistency: "hooks", before: 'echo "$HOME"', after: ["x", "${y}"], capture_limit: "2s" },
  });
  const { before, after, captureLimitMs, hookTimeoutMs } = config.checkpoint;
  assert.deepEqual(before, ["/bin/sh", "-c", 'echo "$HOME"']);
  assert.deepEqual(after, ["x", "${y}"], "commands are passed on untouched");
  assert.deepEqual([captureLimitMs, hookTimeoutMs], [2000, 30_000]);
});

Deno.test("logs have files of their own, sizes that last, and defaults that depend on each other", async () => {
  const path = "/var/log/a.log";
  const shared = await refused({ processes: { a: { ...A, logs: { path } }, b: { ...A, logs: { path } } } });
  assert.match(shared["/processes/b/logs/path"] ?? "", /the file that a writes/);
  await accepted({
    processes: { a: { ...A, logs: { path: "/dev/stdout" } }, b: { ...A, logs: { path: "/dev/stdout" } } },
  });
  for (
    const logs of [{ path: "relative" }, { max_size: "1KiB" }, { max_files: 0 }, { policy: "wait" }, {
      rate_limit: {},
    }, { format: "xml" }]
  ) {
    const problems = Object.keys(await refused({ processes: { a: { ...A, logs } } }));
    assert.ok(
      problems.some((at) => at.startsWith("/processes/a/logs/")),
      `${JSON.stringify(logs)}: ${problems}`,
    );
  }
  const { config } = await accepted({
    processes: {
      plain: A,
      filed: { ...A, logs: { path, max_size: 0, rate_limit: { lines_per_second: 5 } } },
      both: { ...A, logs: { path: "/var/log/b.log", pass_through: true, format: "json" } },
    },
  });
  const { plain, filed, both } = config.processes;
  assert.deepEqual(plain?.logs, {
    path: null,
    maxSizeBytes: 10 << 20,
    maxFiles: 5,
    compression: "none",
    policy: "block",
    rateLimit: null,
    passThrough: true,
    format: null,
  });
  assert.deepEqual([filed?.logs.maxSizeBytes, filed?.logs.passThrough], [Infinity, false]);
  assert.deepEqual(filed?.logs.rateLimit, { linesPerSecond: 5, burst: 50 });
  assert.deepEqual([both?.logs.passThrough, both?.logs.format], [true, "json"]);
});

Deno.test("dependencies must exist and have no cycle", async () => {
  const cycle = await refused({
    processes: {
      a: { ...A, depends_on: { b: "ready" } },
      b: { ...A, depends_on: { c: "started" } },
      c: { ...A, depends_on: { b: "completed" } },
    },
  });
  assert.match(Object.values(cycle).join(), /cycle b → c → b/);
  assert.match(
    (await refused({ processes: { a: { ...A, depends_on: { a: "ready" } } } }))[
      "/processes/a/depends_on/a"
    ] ?? "",
    /the process itself/,
  );
  assert.match(
    (await refused({
      processes: { web: A, a: { ...A, depends_on: { wed: "ready" } } },
    }))[
      "/processes/a/depends_on/wed"
    ] ?? "",
    /did you mean "web"/,
  );
  const diamond = {
    a: { ...A, depends_on: { b: "started", c: "succeeded" } },
    b: { ...A, depends_on: { d: "ready" } },
    c: { ...A, depends_on: { d: "completed" } },
    d: A,
  };
  assert.deepEqual(
    (await accepted({ processes: diamond })).config.processes["a"]?.dependsOn,
    {
      b: "started",
      c: "succeeded",
    },
  );
});

Deno.test("a lone process is essential unless it says otherwise", async () => {
  assert.equal(
    (await accepted({ processes: { a: A } })).config.processes["a"]?.essential,
    true,
  );
  assert.equal(
    (await accepted({ processes: { a: { ...A, essential: false } } })).config
      .processes["a"]?.essential,
    false,
  );
  assert.equal(
    (await accepted({ processes: { a: A, b: A } })).config.processes["a"]
      ?.essential,
    false,
  );
});

Deno.test("a start limit that the delays make impossible is refused, a default one grows with them", async () => {
  const slow = { ...A, restart_delay: "60s", restart_max_delay: "60s" };
  const problems = await refused({
    processes: { a: { ...slow, start_limit: { burst: 10, interval: "9m" } } },
  });
  assert.match(
    problems["/processes/a/start_limit"] ?? "",
    /wanted an interval over 10m48s/,
  );
  const { config } = await accepted({ processes: { a: slow } });
  const limit = config.processes["a"]?.startLimit;
  assert.ok(
    limit !== undefined &&
      limit.intervalMs > backoffSpanMs(60_000, 60_000, limit.burst),
  );
  await accepted({ processes: { a: { ...A, restart_delay: "0s" } }, supervisor: { restart_delay: 0 } });
  assert.ok(
    "/processes/a/start_limit" in await refused({
      processes: { a: { ...A, restart_delay: "0s", start_limit: { burst: 10, interval: "1s" } } },
    }),
  );
  await accepted({
    processes: {
      a: { ...slow, restart: "no", start_limit: { burst: 10, interval: "1s" } },
    },
  });
  assert.ok(
    "/processes/a/restart_max_delay" in
      await refused({
        processes: {
          a: { ...A, restart_delay: "5s", restart_max_delay: "1s" },
        },
      }),
  );
});

Deno.test("the lease's renewals must fit into its ttl twice, and a short ttl alone brings its own", async () => {
  assert.match(
    (await refused({ lease: { renew: "13s" } }))["/lease/renew"] ?? "",
    /ttl of 30s/,
  );
  for (const ttl of ["2s", "5s", "30s", "1m", "1h"]) {
    await accepted({ lease: { ttl } });
  }
  assert.ok("/lease/ttl" in await refused({ lease: { ttl: "1s" } }));
  assert.equal(
    (await accepted({ lease: { wait: "5m" } })).config.lease.wait,
    300_000,
  );
  assert.ok("/lease/wait" in await refused({ lease: { wait: "never" } }));
  assert.ok(
    (await accepted({ lease: { mode: "none" } })).warnings.some((warning) =>
      /nothing protects/.test(warning)
    ),
  );
});

Deno.test("files are apart from each other, from the store, the data folder and the kernel's folders", async () => {
  for (
    const path of [
      "/",
      "/proc/x",
      "/dev",
      "/data",
      "/data/x",
      "/store/x",
      "/store",
      "relative",
      "",
      "/a\0b",
    ]
  ) {
    assert.ok(
      "/files/a/path" in await refused({ files: { a: { path } } }),
      path,
    );
  }
  assert.match(
    (await refused({
      files: { a: { path: "/srv" }, b: { path: "/srv//x/../y/" } },
    }))["/files/b/path"] ?? "",
    /overlaps with that of files.a/,
  );
  const { config } = await accepted({
    files: { a: { path: "/srv/a/" }, b: { path: "/srv/ab" } },
  });
  assert.equal(config.files["a"]?.path, "/srv/a");
  await accepted({ files: { a: { path: "/prod" } } }); // only "/proc" itself and what is below it
});

Deno.test("stacks are known, each once, lease first", async () => {
  const parts = {
    processes: { web: A, worker: A },
    files: { data: { path: "/srv" } },
  };
  const stacksOf = async (stacks?: string[]) =>
    (await accepted({ ...parts, ...(stacks === undefined ? {} : { stacks }) }))
      .config.stacks;
  assert.deepEqual(await stacksOf(), ["lease", "files", "processes"]);
  assert.deepEqual(await stacksOf(["files", "web"]), ["lease", "files", "web"]);
  assert.deepEqual(await stacksOf(["lease", "mounts", "data", "processes"]), [
    "lease",
    "data",
    "processes",
  ]);
  assert.match(
    (await refused({ ...parts, stacks: ["wbe"] }))["/stacks/0"] ?? "",
    /did you mean "web"/,
  );
  assert.match(
    (await refused({ ...parts, stacks: ["something-else"] }))["/stacks/0"] ??
      "",
    /wanted one of lease, .*data, web, worker/,
  );
  assert.match(
    (await refused({ ...parts, stacks: ["web", "web"] }))["/stacks/1"] ?? "",
    /twice/,
  );
  assert.match(
    (await refused({ ...parts, stacks: ["web", "lease"] }))["/stacks/1"] ?? "",
    /first/,
  );
  assert.match(
    (await refused({
      processes: { data: A },
      files: { data: { path: "/srv" } },
      stacks: ["data"],
    }))["/stacks/0"] ?? "",
    /two different names/,
  );
  assert.match(
    (await refused({ processes: { lease: A } }))["/processes/lease"] ?? "",
    /built-in stack/,
  );
  const { warnings } = await accepted({ ...parts, stacks: ["web", "data"] });
  assert.ok(
    warnings.some((warning) => /processes.worker is in no stack/.test(warning)),
  );
  // Whatever the order, all is restored before any process starts.
  assert.ok(!warnings.some((warning) => /restored/.test(warning)));
  const lacking = {
    web: { ...A, depends_on: { worker: "started" } },
    worker: A,
  };
  assert.ok(
    "/processes/web/depends_on/worker" in
      await refused({ processes: lacking, stacks: ["web"] }),
  );
});

Deno.test("listening beyond loopback needs a token once configured, and not before", async () => {
  for (
    const listen of [
      ":8080",
      "0.0.0.0:1",
      "[::]:1",
      "10.1.2.3:1",
      "example.com:1",
    ]
  ) {
    assert.match(
      (await refused({ server: { listen } }))["/server/listen"] ?? "",
      /with no token/,
      listen,
    );
  }
  for (const listen of ["127.0.0.9:1", "[::1]:1", "localhost:1", "9"]) {
    await accepted({ server: { listen } });
  }
  const hash = `sha256:${"ab".repeat(32)}`;
  const tokens = [{ name: "ops", scope: "write", hash }];
  const { config } = await accepted({ server: { listen: ":1", tokens } });
  assert.deepEqual(config.server.tokens, [{
    name: "ops",
    scope: "write",
    sha256: "ab".repeat(32),
  }]);
  const unconfigured = await load({ file: { server: { listen: ":8080" } } });
  assert.equal(unconfigured.config, null);
  assert.equal(unconfigured.server.listen.hostname, "0.0.0.0");
});

Deno.test("tokens have one source and different names", async () => {
  const hash = `sha256:${"0".repeat(64)}`;
  const tokens = [
    { name: "a", scope: "read" },
    { name: "a", scope: "read", hash, token_file: "/x" },
    { name: "environment", scope: "write", hash },
    { name: "b", scope: "admin", hash: "plain" },
  ];
  const scopes = await refused({ server: { tokens } });
  assert.match(
    scopes["/server/tokens/3/scope"] ?? "",
    /wanted "read" or "write"/,
  );
  const problems = await refused({ server: { tokens: tokens.slice(0, 3) } });
  assert.match(problems["/server/tokens/0"] ?? "", /both or neither/);
  assert.match(problems["/server/tokens/1/name"] ?? "", /twice/);
  assert.match(problems["/server/tokens/2/name"] ?? "", /variable's token/);
});

Deno.test("a stop timeout beyond the budget is a warning where somebody wrote it", async () => {
  assert.deepEqual((await accepted({ processes: { a: A } })).warnings, []);
  const { warnings } = await accepted({
    processes: { a: { ...A, timeout_stop: "10s" } },
    supervisor: { timeout_stop: "6s" },
  });
  assert.deepEqual(warnings.map((warning) => warning.split(" is ")[0]), [
    "processes.a.timeout_stop 10s",
  ]);
  assert.equal(
    (await accepted({ shutdown: { budget: "3s" } })).config.shutdown
      .flushReserveMs,
    1000,
  );
});

Deno.test("names, signals, exit codes and restore points keep to their kinds", async () => {
  for (const name of ["", "-a", "a.b", "a b", "é", "x".repeat(64)]) {
    assert.ok(
      Object.keys(await refused({ processes: { [name]: A } })).length > 0,
      name,
    );
  }
  const { config } = await accepted({
    name: "My.Repo",
    processes: {
      a: {
        ...A,
        stop_signal: "int",
        success_exit: [3],
        forward_signals: ["SIGHUP", "usr1"],
      },
    },
    restore: { on_start: "2026-01-31T12:00:00+01:00" },
  });
  assert.equal(config.processes["a"]?.stopSignal, "SIGINT");
  assert.deepEqual(config.processes["a"]?.forwardSignals, { SIGHUP: "SIGHUP", SIGUSR1: "SIGUSR1" });
  assert.equal(config.name, "My.Repo");
  for (const stop_signal of ["SIGSTOP", "SIGFOO", "", 15]) {
    assert.ok(
      "/processes/a/stop_signal" in
        await refused({ processes: { a: { ...A, stop_signal } } }),
    );
  }
  for (
    const on_start of [
      "newest",
      "0",
      "2026-01-31",
      "2026-13-01T00:00:00Z",
      "2026-01-31T12:00:00",
      "",
    ]
  ) {
    assert.ok(
      "/restore/on_start" in await refused({ restore: { on_start } }),
      on_start,
    );
  }
  for (
    const on_start of [
      "latest",
      "none",
      "7",
      "v7",
      "01hzx3kqf8e6v9m2c4t7r1b5dn",
    ]
  ) {
    assert.equal(
      (await accepted({ restore: { on_start } })).config.restore.onStart,
      on_start,
    );
  }
});

Deno.test("the maps are bounded", async () => {
  const many = (count: number, value: unknown) =>
    Object.fromEntries(
      Array.from({ length: count }, (_, index) => [`n${index}`, value]),
    );
  assert.match(
    (await refused({ processes: many(257, A) }))["/processes"] ?? "",
    /at most 256/,
  );
  const files = Object.fromEntries(
    Array.from(
      { length: 65 },
      (_, index) => [`n${index}`, { path: `/f${index}` }],
    ),
  );
  assert.match((await refused({ files }))["/files"] ?? "", /at most 64/);
  assert.equal(
    Object.keys((await accepted({ processes: many(256, A) })).config.processes)
      .length,
    256,
  );
});

Deno.test("key prefixes are normalised, and refused where a store would change them", async () => {
  const prefixOf = async (key_prefix: string) =>
    (await load({ file: { storage: { directory: "/store", key_prefix } } }))
      .config?.storage.keyPrefix;
  assert.equal(await prefixOf("/a/b/"), "a/b");
  assert.equal(await prefixOf(""), "");
  for (
    const key_prefix of ["a//b", "a/../b", "a b", "é", ".", "x".repeat(513)]
  ) {
    const problems = await problemsOf(
      load({ file: { storage: { directory: "/store", key_prefix } } }),
    );
    assert.ok("/storage/key_prefix" in problems, key_prefix);
  }
});

Deno.test("databases beside an encryption key are warned of by name, since their replicas are not encrypted", async () => {
  const key = { checkpoint: { encryption_key_file: "/run/secrets/key" } };
  const databases = { app: { path: "/srv/app.db" } };
  const { warnings, config, redacted } = await accepted({ ...key, databases });
  assert.ok(
    warnings.some((text) => /replicated databases \(app\) are NOT encrypted/.test(text)),
    warnings.join(),
  );
  assert.equal(config.checkpoint.encryptionKeyFile, "/run/secrets/key");
  assert.deepEqual(
    (redacted()?.["checkpoint"] as Record<string, unknown>)["encryption_key_file"],
    "/run/secrets/key",
  );
  for (const part of [key, { databases }]) {
    assert.ok(!(await accepted(part)).warnings.some((text) => /encrypted/.test(text)));
  }
  assert.ok(
    "/checkpoint/encryption_key_file" in await refused({ checkpoint: { encryption_key_file: "relative" } }),
  );
});

Deno.test("checkpoints' compression and limits of their transfers are kinds and sizes", async () => {
  const { config } = await accepted({
    checkpoint: { compression: "max", upload_limit: "1.5MiB", download_limit: 2_000_000 },
  });
  const { compression, uploadLimit, downloadLimit } = config.checkpoint;
  assert.deepEqual([compression, uploadLimit, downloadLimit], ["max", 1_572_864, 2_000_000]);
  const plain = (await accepted({})).config.checkpoint;
  assert.deepEqual([plain.compression, plain.uploadLimit, plain.downloadLimit], ["auto", 0, 0]);
  assert.equal((await accepted({ checkpoint: { upload_limit: 0 } })).config.checkpoint.uploadLimit, 0);
  const problems = await refused({
    checkpoint: { compression: "best", upload_limit: "10M", download_limit: "5B" },
  });
  assert.match(problems["/checkpoint/compression"] ?? "", /wanted "auto" or "fast" or "max" or "off"/);
  assert.match(
    problems["/checkpoint/upload_limit"] ?? "",
    /wanted a size such as 10MiB, at least 1KiB, or 0/,
  );
  assert.match(problems["/checkpoint/download_limit"] ?? "", /at least 1KiB/);
});

Deno.test("watch leaves out the data folder, the store, logs and what editors write, and makes no restart of its own", async () => {
  const { config } = await load({
    file: {
      storage: { directory: "/mnt/store" },
      processes: {
        web: { command: ["x"], watch: { paths: "/app", exclude: ["*.map"] }, logs: { path: "/app/web.log" } },
      },
    },
  });
  const web = config?.processes["web"];
  assert.deepEqual(web?.watch?.paths, ["/app"]);
  assert.deepEqual(web?.watch?.ignore, ["/data", "/mnt/store", "/app/web.log"]);
  assert.ok(web?.watch?.exclude.includes("*.map") && web.watch.exclude.includes(".git"));
  assert.deepEqual([web?.restart, web?.essential], ["no", false]);
});
