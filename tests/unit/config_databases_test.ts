/** `databases`: their keys and defaults, the rules over their paths, their names, and where they come from. */

import assert from "node:assert/strict";
import { redactedConfig } from "../../src/config/mod.ts";
import { matchesPattern, patternsMeet } from "../../src/platform/name_pattern.ts";
import { FOLDER_STORE, type Given, load, problemsOf } from "../support/config_files.ts";

function refused(databases: unknown, rest: Record<string, unknown> = {}): Promise<Record<string, string>> {
  return problemsOf(load({ file: { ...FOLDER_STORE, ...rest, databases } }));
}

async function accepted(given: Given) {
  const { config, warnings } = await load({
    ...given,
    file: { ...FOLDER_STORE, ...(given.file as Record<string, unknown>) },
  });
  assert.ok(config !== null);
  return { config, warnings };
}

Deno.test("a database has its defaults, and every key its value", async () => {
  const { config } = await accepted({
    file: {
      databases: {
        app: { path: "/srv//app.db" },
        tenants: {
          path: "/srv/tenants/",
          pattern: "*.db",
          sync_interval: "250ms",
          snapshot_interval: "6h",
          retention: "30d",
          drill_interval: 0,
          journal: "convert",
          owner: "1000:33",
          mode: "0640",
        },
      },
    },
  });
  assert.deepEqual(config.databases, {
    app: {
      path: "/srv/app.db",
      pattern: null,
      syncIntervalMs: 1000,
      snapshotIntervalMs: 86_400_000,
      retentionMs: 86_400_000,
      drillIntervalMs: 86_400_000,
      journal: "follow",
      owner: null,
      mode: null,
    },
    tenants: {
      path: "/srv/tenants",
      pattern: "*.db",
      syncIntervalMs: 250,
      snapshotIntervalMs: 21_600_000,
      retentionMs: 2_592_000_000,
      drillIntervalMs: 0,
      journal: "convert",
      owner: { uid: 1000, gid: 33 },
      mode: 0o640,
    },
  });
  assert.deepEqual(config.stacks, ["lease", "databases"]);
  const shown = redactedConfig(config)["databases"];
  assert.deepEqual(shown, {
    app: {
      path: "/srv/app.db",
      sync_interval: "1s",
      snapshot_interval: "1d",
      retention: "1d",
      drill_interval: "1d",
      journal: "follow",
    },
    tenants: {
      path: "/srv/tenants",
      pattern: "*.db",
      sync_interval: "250ms",
      snapshot_interval: "6h",
      retention: "30d",
      drill_interval: "0s",
      journal: "convert",
      owner: "1000:33",
      mode: "0640",
    },
  });
  const again = await accepted({ file: { databases: shown } });
  assert.deepEqual(again.config.databases, config.databases); // what is shown may be given
});

Deno.test("owner and mode are numbers that a file can have", async () => {
  const path = "/srv/a.db";
  const of = async (key: string, value: unknown) =>
    (await accepted({ file: { databases: { a: { path, [key]: value } } } })).config.databases["a"];
  assert.deepEqual((await of("owner", 1000))?.owner, { uid: 1000, gid: null });
  assert.deepEqual((await of("owner", "0"))?.owner, { uid: 0, gid: null });
  assert.deepEqual((await of("mode", "600"))?.mode, 0o600);
  for (const owner of ["app", "app:app", "", ":5", "5:", "-1", -1, 1.5, "4294967295", "1:4294967295", {}]) {
    const problems = await refused({ a: { path, owner } });
    assert.match(problems["/databases/a/owner"] ?? "", /wanted numbers: "UID"/, String(owner));
  }
  for (const mode of ["0440", "640a", "1777", "0200", 640, "rw-r-----", ""]) {
    const problems = await refused({ a: { path, mode } });
    assert.match(problems["/databases/a/mode"] ?? "", /wanted octal digits/, String(mode));
  }
});

Deno.test("a database's values are checked like all others", async () => {
  const path = "/srv/a.db";
  for (
    const [key, value] of [
      ["path", "a.db"],
      ["path", 7],
      ["pattern", "*/a.db"],
      ["pattern", ""],
      ["pattern", "{a,b}"],
      ["sync_interval", "1ms"],
      ["sync_interval", "2h"],
      ["snapshot_interval", 0],
      ["retention", "5s"],
      ["drill_interval", -1],
      ["journal", "wal"],
      ["synk_interval", "1s"],
    ] as const
  ) {
    const problems = await refused({ a: { path, [key]: value } });
    assert.deepEqual(Object.keys(problems), [`/databases/a/${key}`], `${key} ${value}`);
  }
  assert.deepEqual(Object.keys(await refused({ a: {} })), ["/databases/a/path"]);
  assert.match(
    Object.entries(await refused({ "a.db": { path } })).join(),
    /a\.db.*a name: a letter or digit/,
  );
});

Deno.test("each database is replicated once, and nothing of the manager's own is", async () => {
  const files = { data: { path: "/srv/data" } };
  const catalog = { path: "/srv/catalog.db" };
  const refusals: readonly (readonly [Record<string, unknown>, string, RegExp])[] = [
    [{ a: { path: "/srv/x.db" }, b: { path: "/srv/./x.db" } }, "b", /databases\.a means too/],
    [{ a: { path: "/srv/t", pattern: "*.db" }, b: { path: "/srv/t/x.db" } }, "b", /databases\.a means too/],
    [{ a: { path: "/srv/t/x.db" }, b: { path: "/srv/t", pattern: "?.db" } }, "b", /databases\.a means too/],
    [
      { a: { path: "/srv/t", pattern: "a*.db" }, b: { path: "/srv/t", pattern: "*b.db" } },
      "b",
      /databases\.a means too/,
    ],
    [{ a: { path: "/data/x.db" } }, "a", /inside the data folder/],
    [{ a: { path: "/data", pattern: "*" } }, "a", /inside the data folder/],
    [{ a: { path: "/store/x.db" } }, "a", /inside the store/],
    [{ a: { path: "/store/sub", pattern: "*" } }, "a", /inside the store/],
    [{ a: { path: "/" } }, "a", /wanted a file/],
    [{ a: { path: "/proc/x.db" } }, "a", /kernel/],
    [{ a: { path: "/srv/x.db-wal" } }, "a", /SQLite keeps beside a database/],
    [{ a: { path: "/srv/data" } }, "a", /folder of files\.data, wanted a file/],
    [{ a: { path: "/srv" } }, "a", /folder of files\.data, wanted a file/],
    [{ a: { path: "/srv/catalog.db" } }, "a", /catalog's file/],
  ];
  for (const [databases, name, detail] of refusals) {
    const problems = await refused(databases, { files, catalog });
    assert.deepEqual(Object.keys(problems), [`/databases/${name}/path`], JSON.stringify(databases));
    assert.match(problems[`/databases/${name}/path`] ?? "", detail);
  }
  const { config, warnings } = await accepted({
    file: {
      files,
      catalog,
      databases: {
        inside: { path: "/srv/data/app.db" },
        folder: { path: "/srv/data", pattern: "tenant-*.db" },
        other: { path: "/srv/data", pattern: "*.sqlite" },
        deeper: { path: "/srv/data/sub/tenant-1.db" },
      },
    },
  });
  assert.equal(Object.keys(config.databases).length, 4);
  assert.deepEqual(warnings, []);
});

Deno.test("a database's name is a stack, databases come before files, and what is in no stack is told", async () => {
  const parts = {
    databases: { app: { path: "/srv/app.db" }, log: { path: "/srv/log.db" } },
    files: { data: { path: "/srv/data" } },
    processes: { web: { command: ["web"] } },
  };
  const of = async (stacks?: string[]) =>
    await accepted({ file: { ...parts, ...(stacks === undefined ? {} : { stacks }) } });
  assert.deepEqual((await of()).config.stacks, ["lease", "databases", "files", "processes"]);
  const some = await of(["files", "app", "web"]);
  assert.deepEqual(some.config.stacks, ["lease", "files", "app", "web"]);
  assert.deepEqual(some.warnings, [
    "databases.log is in no stack: it is neither restored nor kept",
  ]);
  const late = await of(["files", "web", "databases"]);
  assert.deepEqual(late.warnings, [], "all is restored before any process starts, whatever the order");
  const twice = await problemsOf(load({
    file: { ...FOLDER_STORE, ...parts, processes: { app: { command: ["a"] } }, stacks: ["lease", "app"] },
  }));
  assert.deepEqual(twice, {
    "/stacks/1": "got a name of a database and of a process, wanted two different names",
  });
  const unknown = await problemsOf(
    load({ file: { ...FOLDER_STORE, ...parts, stacks: ["proceses", "xyz"] } }),
  );
  const known = "wanted one of lease, databases, files, processes, mounts, app, log, data, web";
  assert.deepEqual(unknown, {
    "/stacks/0": `got a stack that is not configured, did you mean "processes"? ${known}`,
    "/stacks/1": `got a stack that is not configured, ${known}`,
  });
  const builtIn = await refused({ files: { path: "/srv/a.db" } });
  assert.match(builtIn["/databases/files"] ?? "", /built-in stack/);
});

Deno.test("databases come from flags and from a variable, by name, above the file", async () => {
  const { config } = await accepted({
    file: { databases: { app: { path: "/old/app.db", retention: "7d" } } },
    environment: { STATE_MANAGER_DATABASES: '{"log":{"path":"/srv/log.db"}}' },
    flags: {
      database: [{ path: "app.db" }, { name: "users", path: "/srv/u.sqlite3" }, {
        path: "/srv/.data.v2.db/",
      }],
    },
  });
  assert.deepEqual(
    Object.entries(config.databases).map(([name, { path }]) => [name, path]).sort(),
    [["app", "/home/me/app.db"], ["data-v2", "/srv/.data.v2.db"], ["log", "/srv/log.db"], [
      "users",
      "/srv/u.sqlite3",
    ]],
  );
  assert.equal(config.databases["app"]?.retentionMs, 7 * 86_400_000);
  const told = await problemsOf(
    load({ file: FOLDER_STORE, flags: { database: [{ path: "/store/a.db" }] } }),
  );
  assert.match(told["--database"] ?? "", /inside the store/);
  const named = await problemsOf(
    load({ file: FOLDER_STORE, environment: { STATE_MANAGER_DATABASES: "[]" } }),
  );
  assert.match(named["STATE_MANAGER_DATABASES"] ?? "", /wanted an object/);
});

Deno.test("two databases of one name on the command line are wrong usage", async () => {
  await assert.rejects(
    load({ file: FOLDER_STORE, flags: { database: [{ path: "/a/x.db" }, { path: "/b/x.sqlite" }] } }),
    (error: { code?: string; message?: string }) =>
      error.code === "usage" && /"x" twice/.test(error.message ?? ""),
  );
});

Deno.test("a remote primary of a database is refused with a reason, its token not shown", async () => {
  const problems = await refused({
    a: { path: "/srv/a.db", sync_url: "libsql://x", auth_token: "very-secret" },
  });
  for (const key of ["sync_url", "auth_token"]) {
    assert.match(problems[`/databases/a/${key}`] ?? "", /not available in this version; open the remote/);
  }
  assert.doesNotMatch(JSON.stringify(problems), /very-secret|libsql:/);
});

Deno.test("patterns match whole names, and are known to meet where one name fits both", () => {
  for (
    const [pattern, name, wanted] of [
      ["*.db", "a.db", true],
      ["*.db", ".db", false],
      [".*", ".db", true],
      ["*.db", "a.dbx", false],
      ["*.db", "a-db", false],
      ["a?c", "abc", true],
      ["a?c", "ac", false],
      ["**", "", true],
      ["a", "a\n", false],
      ["*", "a\n*?", true],
      ["a*b*c", "a-b-bc-c", true],
      ["a*b*c", "a-b-cb", false],
      ["*a".repeat(50), "a".repeat(254) + "b", false], // at once, though there are many ways
    ] as const
  ) assert.equal(matchesPattern(pattern, name), wanted, `${pattern} ${name}`);
  // Against all short names: they meet exactly if some name fits both.
  const letters = ["a", "b"];
  const names = [""];
  for (let length = 0, last = [""]; length < 6; length++) {
    last = last.flatMap((name) => letters.map((letter) => name + letter));
    names.push(...last);
  }
  const parts = ["", "a", "b", "*", "?", "ab", "a*", "*b", "?a", "*a*", "b?*", "aa?", "**"];
  for (const one of parts) {
    for (const other of parts) {
      const wanted = names.some((name) => matchesPattern(one, name) && matchesPattern(other, name));
      assert.equal(patternsMeet(one, other), wanted, `${one} ${other}`);
    }
  }
  assert.equal(patternsMeet("*a".repeat(50), "*b".repeat(50)), false); // at once, though there are many ways
});
