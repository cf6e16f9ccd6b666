/** Where a configuration comes from: layers, variables, files of secrets, and what is said when it is wrong. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { CONFIG_KEYS, describeProblems, loadConfig, validateBody } from "../../src/config/mod.ts";
import { withoutPaths } from "../../src/config/without_paths.ts";
import { isError } from "../../src/platform/errors.ts";
import { fakeFiles, FOLDER_STORE, load, optionsFor, problemsOf } from "../support/config_files.ts";

const KEYS = {
  AWS_ACCESS_KEY_ID: "AKIAEXAMPLE",
  AWS_SECRET_ACCESS_KEY: "very-secret-key",
};

Deno.test("loadConfig is unconfigured when no storage is given anywhere", async () => {
  const loaded = await load({
    environment: { STATE_MANAGER_TOKEN: "0123456789abcdef" },
  });
  assert.equal(loaded.config, null);
  assert.equal(loaded.redacted(), null);
  assert.equal(loaded.raw, null);
  assert.equal(loaded.file, "/data/config.json");
  assert.deepEqual(loaded.server.listen, { hostname: "127.0.0.1", port: 8080 });
  assert.deepEqual(
    loaded.server.tokens.map(({ name, scope }) => ({ name, scope })),
    [
      { name: "environment", scope: "write" },
    ],
  );
});

Deno.test("loadConfig takes the seed's configuration as it is", async () => {
  const { config } = await load({
    file: {
      storage: {
        bucket: "your-bucket",
        endpoint: "https://your-endpoint",
        access_key: "your-access-key",
        secret_key: "your-secret-key",
        region: "your-region",
        key_prefix: "your-prefix",
      },
      processes: {
        component1: { command: ["a"] },
        component2: { command: ["b"] },
      },
      stacks: ["component1", "component2"],
    },
  });
  assert.deepEqual(config?.stacks, ["lease", "component1", "component2"]);
  assert.equal(config?.name, "your-prefix");
  assert.equal(config?.processes["component1"]?.timeoutStopMs, 90_000);
  assert.equal(config?.processes["component1"]?.restartDelayMs, 1000);
  assert.deepEqual(config?.processes["component1"]?.startLimit, {
    burst: 10,
    intervalMs: 300_000,
    rearmMs: null,
  });
});

Deno.test("loadConfig lays defaults, file, variables and flags over each other and says which won", async () => {
  const loaded = await load({
    file: {
      storage: { bucket: "from-file", region: "file", key_prefix: "file" },
      lease: { ttl: "20s" },
    },
    environment: {
      ...KEYS,
      AWS_REGION: "fallback",
      BUCKET_NAME: "fallback",
      STATE_MANAGER_STORAGE_BUCKET: "from-variable",
      STATE_MANAGER_STORAGE_KEY_PREFIX: "variable",
    },
    flags: { bucket: "from-flag" },
  });
  const { config, origins } = loaded;
  assert.equal(
    config?.storage.kind === "s3" && config.storage.bucket,
    "from-flag",
  );
  assert.equal(config?.storage.keyPrefix, "variable");
  assert.equal(config?.storage.kind === "s3" && config.storage.region, "file");
  assert.equal(config?.lease.ttlMs, 20_000);
  assert.equal(config?.lease.renewMs, 5333);
  assert.deepEqual(origins["storage.bucket"], {
    layer: "flags",
    source: "--bucket",
  });
  assert.deepEqual(origins["storage.key_prefix"], {
    layer: "environment",
    source: "STATE_MANAGER_STORAGE_KEY_PREFIX",
  });
  assert.deepEqual(origins["storage.region"], {
    layer: "file",
    source: "/data/config.json",
  });
  assert.deepEqual(origins["storage.access_key"], {
    layer: "fallback",
    source: "AWS_ACCESS_KEY_ID",
  });
  assert.equal(origins["storage.force_path_style"], undefined);
});

Deno.test("loadConfig starts from the platform's bucket variables alone", async () => {
  const { config } = await load({
    environment: {
      ...KEYS,
      BUCKET_NAME: "fly-bucket",
      AWS_ENDPOINT_URL_S3: "https://fly.storage.tigris.dev/",
    },
  });
  assert.equal(config?.storage.kind, "s3");
  assert.equal(
    config?.storage.kind === "s3" && config.storage.endpoint,
    "https://fly.storage.tigris.dev",
  );
});

Deno.test("a layer that chooses one kind of store hides the other kind below it", async () => {
  const environment = { ...KEYS, BUCKET_NAME: "fallback" };
  const folder = await load({
    file: { storage: { bucket: "bucket" } },
    environment,
    flags: { directory: "store" },
  });
  assert.equal(
    folder.config?.storage.kind === "directory" &&
      folder.config.storage.directory,
    "/home/me/store",
  );
  const bucket = await load({
    file: FOLDER_STORE,
    environment,
    flags: { bucket: "bucket" },
  });
  assert.equal(bucket.config?.storage.kind, "s3");
  const problems = await problemsOf(
    load({
      file: { storage: { directory: "/a", bucket: "bbb" } },
      environment,
    }),
  );
  assert.match(
    problems["/storage/directory"] ?? "",
    /both directory and bucket/,
  );
});

Deno.test("flags of run make one process of exactly that command", async () => {
  const { config } = await load({
    file: { ...FOLDER_STORE, processes: { other: { command: ["other"] } } },
    flags: {
      command: ["/usr/bin/my.server", "--x", "${HOME}", "$$"],
      files: [{ path: "data" }, { name: "b", path: "/srv/b/" }],
      timeoutStop: "4",
      leaseWait: false,
      restore: "v3",
    },
  });
  assert.deepEqual(Object.keys(config?.processes ?? {}), ["my"]);
  const process = config?.processes["my"];
  assert.deepEqual(process?.command, [
    "/usr/bin/my.server",
    "--x",
    "${HOME}",
    "$$",
  ]);
  assert.equal(process?.restart, "no");
  assert.equal(process?.essential, true);
  assert.equal(process?.timeoutStopMs, 4000);
  const passedOn = { SIGHUP: "SIGHUP", SIGUSR1: "SIGUSR1", SIGUSR2: "SIGUSR2" };
  assert.deepEqual(process?.forwardSignals, passedOn);
  assert.equal(config?.files["data"]?.path, "/home/me/data");
  assert.equal(config?.files["b"]?.path, "/srv/b");
  assert.equal(config?.lease.wait, false);
  assert.equal(config?.restore.onStart, "v3");
});

Deno.test("flags that give one name twice are wrong usage, exit 64", async () => {
  const flags = { files: [{ path: "/a/data" }, { path: "/b/data" }] };
  await assert.rejects(
    load({ flags }),
    (error) => isError(error, "usage") && error.meaning.exit === 64,
  );
});

Deno.test("every key has a variable, and what it holds reaches the schema", async () => {
  for (const { variable, kind, path } of CONFIG_KEYS) {
    if (kind === "text" && path.at(-1) === "name") continue; // every short text is a name
    const nonsense = kind === "json" || kind === "list" ? '["\\u0001"]' : "\u0001";
    const problems = await problemsOf(
      load({ file: FOLDER_STORE, environment: { [variable]: nonsense } }),
    );
    const pointers = Object.keys(problems);
    assert.ok(
      pointers.includes(variable),
      `${variable}: ${pointers.join(" ")}`,
    );
  }
});

Deno.test("variables of all kinds are converted", async () => {
  const { config } = await load({
    environment: {
      STATE_MANAGER_STORAGE_DIRECTORY: "/store",
      STATE_MANAGER_PROCESSES: '{"web": {"command": ["a"]}, "b": {"command": ["b"]}}',
      STATE_MANAGER_FILES: '{"d": {"path": "/srv"}}',
      STATE_MANAGER_STACKS: "d, web",
      STATE_MANAGER_LEASE_WAIT: "90",
      STATE_MANAGER_CHECKPOINT_ON_STOP: "0",
      STATE_MANAGER_SERVER_LISTEN: "9000",
      STATE_MANAGER_LEASE_STANDBY_READY: "true",
      STATE_MANAGER_LOG_LEVEL: "", // empty is unset
    },
  });
  assert.deepEqual(config?.stacks, ["lease", "d", "web"]);
  assert.equal(config?.lease.wait, 90_000);
  assert.equal(config?.checkpoint.onStop, false);
  assert.equal(config?.server.listen.port, 9000);
  assert.equal(config?.lease.standbyReady, true);
  assert.equal(config?.log.level, "info");
});

Deno.test("unknown variables of ours are warned of with what was meant", async () => {
  const { warnings } = await load({
    environment: { STATE_MANAGER_STORAGE_BUKET: "x", OTHER: "y" },
  });
  assert.deepEqual(warnings, [
    'unknown variable STATE_MANAGER_STORAGE_BUKET, did you mean "STATE_MANAGER_STORAGE_BUCKET"? (ignored)',
  ]);
});

Deno.test("a secret is read from the file that a variable names", async () => {
  const environment = {
    STATE_MANAGER_STORAGE_BUCKET: "bucket",
    STATE_MANAGER_STORAGE_ACCESS_KEY: "id",
    STATE_MANAGER_STORAGE_SECRET_KEY_FILE: "/run/secret",
    STATE_MANAGER_TOKEN_FILE: "/run/token",
  };
  const files = {
    "/run/secret": "s3cret\n",
    "/run/token": "a-token-of-enough-length\n",
  };
  const { config } = await load({ environment, files });
  assert.equal(
    config?.storage.kind === "s3" && config.storage.secretKey.reveal(),
    "s3cret",
  );
  const sha256 = createHash("sha256").update("a-token-of-enough-length").digest(
    "hex",
  );
  assert.deepEqual(config?.server.tokens, [{
    name: "environment",
    scope: "write",
    sha256,
  }]);
  const missing = await problemsOf(load({ environment, files: {} }));
  assert.match(
    missing["STATE_MANAGER_STORAGE_SECRET_KEY_FILE"] ?? "",
    /cannot be read/,
  );
  const both = { ...environment, STATE_MANAGER_STORAGE_SECRET_KEY: "x" };
  assert.match(
    (await problemsOf(load({ environment: both, files })))[
      "STATE_MANAGER_STORAGE_SECRET_KEY"
    ] ?? "",
    /both/,
  );
});

Deno.test("credentials of a folder of variables win and rotate without a restart", async () => {
  const files: Record<string, string> = {
    "/data/config.json": JSON.stringify({
      storage: { bucket: "bucket", env_dir: "${MOUNT}/s3" },
    }),
    "/run/s3/AWS_ACCESS_KEY_ID": "first\n",
    "/run/s3/AWS_SECRET_ACCESS_KEY": "first-secret",
    "/run/s3/..data": "ignored",
    "/run/s3/DATABASE_URL": "postgres://x\n\n",
  };
  const access = fakeFiles(files);
  const environment = {
    MOUNT: "/run",
    AWS_ACCESS_KEY_ID: "outer",
    AWS_SECRET_ACCESS_KEY: "outer",
  };
  const loaded = await loadConfig({
    environment,
    flags: {},
    dataDir: "/data",
    folder: "/",
    access,
  });
  assert.equal(loaded.currentCredentials()?.accessKey.reveal(), "first");
  assert.equal(loaded.environment["DATABASE_URL"], "postgres://x\n");
  assert.equal(loaded.environment["..data"], undefined);
  assert.equal(await loaded.refreshCredentials(), false);
  files["/run/s3/AWS_ACCESS_KEY_ID"] = "second";
  files["/run/s3/AWS_SECRET_ACCESS_KEY"] = "second-secret";
  files["/run/s3/AWS_SESSION_TOKEN"] = "session";
  assert.equal(await loaded.refreshCredentials(), true);
  assert.equal(
    loaded.currentCredentials()?.secretKey.reveal(),
    "second-secret",
  );
  assert.equal(loaded.currentCredentials()?.sessionToken?.reveal(), "session");
  files["/run/s3/AWS_SECRET_ACCESS_KEY"] = "not one word";
  await assert.rejects(
    loaded.refreshCredentials(),
    (error) => isError(error, "config-invalid"),
  );
  assert.equal(
    loaded.currentCredentials()?.secretKey.reveal(),
    "second-secret",
  );
});

Deno.test("readings of the folder that differ are read again", async () => {
  let calls = 0;
  const access = {
    ...fakeFiles({
      "/data/config.json": JSON.stringify({
        storage: { bucket: "bucket", env_dir: "/e" },
      }),
    }),
    listFiles: () => Promise.resolve(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
  };
  const { readText } = access;
  access.readText = (path) => {
    if (!path.startsWith("/e/")) return readText(path);
    return Promise.resolve(++calls <= 1 ? "old" : "new"); // the swap comes between the two files
  };
  const loaded = await loadConfig({
    environment: {},
    flags: {},
    dataDir: "/data",
    folder: "/",
    access,
  });
  assert.equal(loaded.currentCredentials()?.accessKey.reveal(), "new");
  assert.equal(loaded.currentCredentials()?.secretKey.reveal(), "new");
});

Deno.test("references are expanded in the file's texts, not in commands, and raw stays as written", async () => {
  const file = {
    storage: { directory: "${BASE}/store", key_prefix: "${NAME:-main}" },
    processes: {
      a: { command: ["${BASE}", "$$"], env: { X: "$${BASE}", Y: "${BASE}" } },
    },
  };
  const { config, raw } = await load({ file, environment: { BASE: "/b" } });
  assert.equal(
    config?.storage.kind === "directory" && config.storage.directory,
    "/b/store",
  );
  assert.equal(config?.name, "main");
  assert.deepEqual(config?.processes["a"]?.command, ["${BASE}", "$$"]);
  assert.deepEqual(config?.processes["a"]?.env, { X: "${BASE}", Y: "/b" });
  assert.deepEqual(raw, file);
  const problems = await problemsOf(load({ file }));
  assert.match(problems["/storage/directory"] ?? "", /BASE unset/);
  assert.match(problems["/processes/a/env/Y"] ?? "", /BASE unset/);
});

Deno.test("a body keeps its dollars, and reads back from the file as it was sent", async () => {
  const body = {
    storage: { directory: "/store/${X}" },
    processes: {
      a: { command: ["sh", "-c", "echo $$ ${HOME}"], env: { X: "a$$b${Y}" } },
    },
  };
  const checked = await validateBody(
    body,
    optionsFor({ environment: { X: "expanded" } }),
  );
  assert.equal(
    checked.config?.storage.kind === "directory" &&
      checked.config.storage.directory,
    "/store/${X}",
  );
  const again = await load({
    file: checked.raw,
    environment: { X: "expanded" },
  });
  assert.deepEqual(again.config, checked.config);
  assert.equal(again.config?.processes["a"]?.env["X"], "a$$b${Y}");
});

Deno.test("a body must name a store, be an object, and hold no placeholder", async () => {
  const check = (body: unknown) => problemsOf(validateBody(body, optionsFor({})));
  assert.match(
    (await check({}))["/storage"] ?? "",
    /neither bucket nor directory/,
  );
  assert.match((await check([]))[""] ?? "", /got a list, wanted an object/);
  assert.match((await check(null))[""] ?? "", /got null, wanted an object/);
  const problems = await check({
    storage: { bucket: "bucket", access_key: "***", secret_key: "x" },
  });
  assert.match(problems["/storage/access_key"] ?? "", /stands for a secret/);
  const deep = JSON.parse("[".repeat(500) + "]".repeat(500));
  assert.ok(
    Object.values(await check({ files: deep })).some((detail) => /levels/.test(detail)),
  );
  const polluted = JSON.parse(
    '{"processes": {"__proto__": {"command": ["x"]}, "constructor": {"command": ["x"]}}, "toString": 1}',
  );
  assert.deepEqual(Object.keys(await check(polluted)), [
    "/processes/__proto__",
    "/processes/constructor",
    "/toString",
  ]);
});

Deno.test("no message and no redacted configuration shows a secret or a body's value", async () => {
  const secret = "s3cr3t-value";
  const file = {
    storage: {
      bucket: "bucket",
      endpoint: `https://user:${secret}@host`,
      access_key: `${secret} `,
      secret_key: [secret],
      [secret]: 1,
    },
    processes: { a: { command: `run ${secret}`, env: { P: { v: secret } } } },
    server: { tokens: [{ name: "x", scope: "write", hash: secret }] },
  };
  await assert.rejects(load({ file }), (error) => {
    assert.ok(isError(error, "config-invalid"));
    const shown = error.details.map(({ detail }) => detail).join("\n") +
      error.message;
    assert.ok(!shown.includes(secret), shown);
    assert.ok(error.details.length >= 6, describeProblems(error));
    return true;
  });
  const body = {
    storage: { bucket: 5, region: `${secret}\u0001` },
    log: { level: secret },
    lease: { ttl: secret },
  };
  await assert.rejects(validateBody(body, optionsFor({})), (error) => {
    assert.ok(
      isError(error, "config-invalid") &&
        !describeProblems(error).includes(secret),
    );
    return true;
  });
  const loaded = await load({
    file: {
      storage: {
        bucket: "bucket",
        access_key: secret,
        secret_key: secret,
        session_token: secret,
      },
      processes: { a: { command: ["x"], env: { PASSWORD: secret } } },
    },
  });
  const shown = JSON.stringify(loaded.redacted()) +
    JSON.stringify(loaded.config?.storage) +
    Deno.inspect(loaded.config?.storage);
  assert.ok(!shown.includes(secret));
  assert.ok(JSON.stringify(loaded.redacted()).includes('"access_key":"***"'));
});

Deno.test("a file that does not parse is told by line, before anything else", async () => {
  const problems = await problemsOf(load({ file: '{\n  "a": 1\n  "b": 2 }' }));
  assert.match(
    problems["/data/config.json"] ?? "",
    /line 3, column 3: .*wanted JSON/,
  );
  assert.deepEqual(Object.keys(problems), ["/data/config.json"]);
  for (const text of ["", "// only a comment", "[".repeat(100_000)]) {
    assert.ok(
      "/data/config.json" in await problemsOf(load({ file: text })),
      JSON.stringify(text.slice(0, 20)),
    );
  }
  const tree = "[1]";
  assert.match(
    (await problemsOf(load({ file: tree })))[""] ?? "",
    /got a list, wanted an object/,
  );
});

Deno.test("comments, trailing commas and a byte order mark are fine, a key given twice is not", async () => {
  const file = '\ufeff{ /* c */ "storage": { "directory": "/s", }, // d\n }';
  assert.equal((await load({ file })).config?.storage.kind, "directory");
  const twice = await problemsOf(
    load({ file: '{"storage": {"directory": "/a", "directory": "/b"}}' }),
  );
  assert.match(twice["/storage/directory"] ?? "", /twice/);
});

Deno.test("every problem is told at once, by variable or flag where one set it", async () => {
  const problems = await problemsOf(load({
    file: {
      storage: { bucket: "bucket", endpont: "x" },
      processes: {
        web: {
          command: ["x"],
          TimeoutStop: 5,
          restart: "sometimes",
          depends_on: { wep: "ready" },
        },
      },
      shutdown: { budget: "2s", flush_reserve: "3s" },
      lease: { ttl: "1 s" },
      frobnicate: true,
      storrage: {},
    },
    environment: { STATE_MANAGER_LOG_LEVEL: "loud" },
    flags: { checkpointInterval: "often" },
  }));
  assert.match(problems["/storage/endpont"] ?? "", /did you mean "endpoint"/);
  assert.match(
    problems["/processes/web/TimeoutStop"] ?? "",
    /did you mean "timeout_stop"/,
  );
  assert.match(
    problems["/processes/web/restart"] ?? "",
    /got "sometimes", wanted "always" or "on-failure" or "no"/,
  );
  assert.match(
    problems["/processes/web/depends_on/wep"] ?? "",
    /not configured, did you mean "web"|another process/,
  );
  assert.match(
    problems["/shutdown/flush_reserve"] ?? "",
    /less than the budget/,
  );
  assert.match(problems["/lease/ttl"] ?? "", /wanted a duration from 2s to 1h/);
  assert.equal(problems["/frobnicate"], "unknown key");
  assert.match(problems["/storrage"] ?? "", /^unknown key, did you mean "storage"/);
  assert.match(problems["STATE_MANAGER_LOG_LEVEL"] ?? "", /got "loud"/);
  assert.match(problems["--checkpoint-interval"] ?? "", /got "often"/);
  assert.match(problems["/storage/access_key"] ?? "", /AWS_ACCESS_KEY_ID/);
});

Deno.test("of very many unknown keys of one object a few are told", async () => {
  const unknown = Object.fromEntries(Array.from({ length: 10_000 }, (_, n) => [`unknown_${n}`, n]));
  const problems = await problemsOf(load({ file: { ...FOLDER_STORE, ...unknown } }));
  assert.equal(Object.keys(problems).length, 20);
});

Deno.test("of very many wrong values a hundred are told and all are counted", async () => {
  const many = (value: unknown) =>
    Object.fromEntries(Array.from({ length: 20_000 }, (_, n) => [`NAME_${n}`, value]));
  const files = Object.fromEntries(Object.keys(many(1)).map((name) => [name.toLowerCase(), { unknown: 1 }]));
  for (
    const file of [
      { ...FOLDER_STORE, processes: { web: { command: ["sleep", "1"], env: many([]) } } },
      { ...FOLDER_STORE, files },
    ]
  ) {
    const error = await load({ file }).then(() => assert.fail("taken"), (error) => error);
    assert.match(error.message, /: [2-4]0000 problems/);
    assert.equal(error.details.length, 100);
  }
});

Deno.test("withoutPaths takes parts of a value away and leaves all else", () => {
  const value = { a: { b: 1, c: [0, { d: 1, e: 2 }, 2, 3] }, f: [], g: null };
  const paths = [["a", "b"], ["a", "c", "0"], ["a", "c", "1", "d"], ["a", "c", "3"], ["f", "0"], ["g", "x"], [
    "h",
  ], []];
  assert.deepEqual(withoutPaths(value, paths), { a: { c: [{ e: 2 }, 2] }, f: [], g: null });
  assert.deepEqual(withoutPaths(value, [["a", "c"], ["a", "c", "1"]]), { a: { b: 1 }, f: [], g: null });
  assert.equal(withoutPaths(value, []), value);
});

Deno.test("a file that was named must exist, and one that everybody can read is warned of", async () => {
  const problems = await problemsOf(load({ flags: { config: "other.json" } }));
  assert.match(problems["--config"] ?? "", /\/home\/me\/other.json/);
  const named = await load({
    environment: { STATE_MANAGER_CONFIG: "/etc/sm.json" },
    files: { "/etc/sm.json": JSON.stringify(FOLDER_STORE) },
  });
  assert.equal(named.file, "/etc/sm.json");
  const access = fakeFiles({
    "/data/config.json": JSON.stringify(FOLDER_STORE),
  }, 0o644);
  const { warnings } = await loadConfig({ ...optionsFor({}), access });
  assert.ok(warnings.some((warning) => /chmod 600/.test(warning)));
});
