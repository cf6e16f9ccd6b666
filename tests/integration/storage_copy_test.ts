/** `storage copy` below its command line: what is copied, in which layout, and what is refused. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { DatabaseSync } from "node:sqlite";
import { openRepository } from "../../src/checkpoint/mod.ts";
import type { ReplicaLayout } from "../../src/database/mod.ts";
import { encodeLease } from "../../src/lease/mod.ts";
import { copyChains } from "../../src/manager/copy_objects.ts";
import { type CopyOptions, copyRepository, type CopyResult } from "../../src/manager/copy_repository.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { type ErrorCode, isError, StateManagerError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import {
  directoryStore,
  listAll,
  memoryStore,
  type ObjectStore,
  prefixed,
  withOperations,
} from "../../src/storage/mod.ts";
import { command } from "../support/fake_terminal.ts";
import { ReplicaBuilder } from "../support/replica_builder.ts";
import { type SmallRepository, smallRepository } from "../support/small_repository.ts";

const clock = systemClock();
const random = systemRandom();

interface Scene extends AsyncDisposable {
  readonly repository: SmallRepository;
  readonly source: ObjectStore;
  readonly database: ReplicaBuilder;
}

/** A small repository with a database of six commits, a merge and a snapshot. */
async function scene(): Promise<Scene> {
  const repository = await smallRepository();
  const { path, directory, keyPrefix } = repository;
  const source = prefixed(directoryStore({ path: directory, clock, random }), keyPrefix);
  const database = new ReplicaBuilder({
    store: source,
    place: { layout: "folder", name: "app" },
    folder: path,
    token: 3,
  });
  await database.commit("CREATE TABLE t(n)");
  for (let n = 2; n <= 6; n++) await database.commit(`INSERT INTO t VALUES(${n})`);
  await database.put({ level: 9, minTxid: 1, maxTxid: 2 });
  await database.put({ level: 1, minTxid: 3, maxTxid: 4 });
  const dispose = async () => {
    database[Symbol.dispose]();
    await repository[Symbol.asyncDispose]();
  };
  return { repository, source, database, [Symbol.asyncDispose]: dispose };
}

function copy(
  from: ObjectStore,
  to: ObjectStore,
  more: Partial<CopyOptions> & { readonly layout?: ReplicaLayout; readonly sourceLayout?: ReplicaLayout } =
    {},
): Promise<CopyResult> {
  const { layout = "folder", sourceLayout = "folder", ...options } = more;
  return copyRepository({
    source: { store: from, layout: sourceLayout },
    target: { store: to, plain: to, layout },
    clock,
    random,
    signal: new AbortController().signal,
    dryRun: false,
    info: {},
    onProgress: () => {},
    onWaiting: () => {},
    ...options,
  });
}

/** All objects but the lease, as text that can be compared. */
async function contentOf(store: ObjectStore): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for await (const { key } of listAll(store, "")) {
    if (key !== "lease.json") found.set(key, Buffer.from((await store.get(key)).body).toString("base64"));
  }
  return found;
}

async function textOf(store: ObjectStore, key: string): Promise<string> {
  return new TextDecoder().decode((await store.get(key)).body);
}

function bytesOf(value: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(value) + "\n");
}

/** The head with these changes, as its next version. */
async function changeHead(store: ObjectStore, change: Readonly<Record<string, unknown>> = {}): Promise<void> {
  const head = JSON.parse(await textOf(store, "head.json"));
  await store.put("head.json", bytesOf({ ...head, seq: head.seq + 1, ...change }));
}

const isCode = (...codes: ErrorCode[]) => (error: unknown) => {
  assert.ok(isError(error, ...codes), String(error));
  return true;
};

/** `store` with something before each get. */
function watched(store: ObjectStore, before: (key: string) => Promise<void> | void): ObjectStore {
  return withOperations(store, {
    get: async (key, options) => {
      await before(key);
      return await store.get(key, options);
    },
  });
}

Deno.test("a copy in another folder has the same objects, restores the same, and is brought up to date by the next", async () => {
  await using made = await scene();
  const { repository, source, database } = made;
  const { path } = repository;
  const target = directoryStore({ path: `${path}/copy`, clock, random });
  const before = await contentOf(source);
  const plan = await copy(source, target, { dryRun: true });
  assert.deepEqual(await Array.fromAsync(listAll(target, "")), [], "a dry run writes nothing");
  const first = await copy(source, target);
  assert.deepEqual(first.copied, first.all);
  assert.deepEqual(plan.copied, first.all);
  assert.equal(first.all.objects, before.size - 2, "all but repo.json and head.json");
  assert.deepEqual([...await contentOf(target)].sort(), [...before].sort());
  const lease = JSON.parse(await textOf(target, "lease.json"));
  assert.equal(lease.state, "released");
  assert.equal(lease.token, (first.source.head?.epoch ?? 0) + 1, "above every token of the source");

  const store = ["--directory", `${path}/copy`, "--data-dir", `${path}/none`];
  const restored = await command(["restore", "latest", "--to", `${path}/restored`, ...store]);
  assert.equal(restored.code, 0, restored.err);
  assert.equal(await Deno.readTextFile(`${path}/restored/app/sub/b`), "new");
  const rows = await command(["db", "restore", "app", "--to", `${path}/restored.db`, ...store]);
  assert.equal(rows.code, 0, rows.err);
  const restoredDatabase = new DatabaseSync(`${path}/restored.db`, { readOnly: true });
  assert.equal(restoredDatabase.prepare("SELECT max(n) AS n FROM t").get()?.["n"], 6);
  restoredDatabase.close();

  const again = await copy(source, target);
  assert.deepEqual([again.copied.objects, again.rounds], [0, 1]);
  await database.commit("INSERT INTO t VALUES(7)");
  await database.remove({ level: 0, minTxid: 3, maxTxid: 3 });
  await changeHead(source, { nonce: "later" });
  const next = await copy(source, target);
  assert.equal(next.copied.objects, 1);
  assert.equal(await textOf(target, "head.json"), await textOf(source, "head.json"));
  const keys = new Set((await contentOf(target)).keys());
  assert.ok(
    keys.has("databases/app/ltx/0/0000000000000003-0000000000000003.ltx"),
    "what the source lacks stays",
  );
  assert.ok(keys.has("databases/app/ltx/0/0000000000000007-0000000000000007.ltx"));
});

Deno.test("databases lie in a bucket as a bucket's readers look for them, and come back to a folder as they were", async () => {
  await using made = await scene();
  const { source, repository } = made;
  const bucket = memoryStore({ tags: "unique" });
  await copy(source, bucket, { layout: "bucket" });
  const keys = [...(await contentOf(bucket)).keys()].filter((key) => key.startsWith("databases/"));
  assert.equal(keys.length, 8);
  for (const key of keys) assert.match(key, /^databases\/app\/000[019]\/[0-9a-f]{16}-[0-9a-f]{16}\.ltx$/);
  const slot = await bucket.head("databases/app/0000/0000000000000005-0000000000000005.ltx");
  assert.equal(slot.metadata["sm-token"], "3");
  assert.ok(Number.isFinite(Date.parse(slot.metadata["litestream-timestamp"] ?? "")));
  const merged = await bucket.head("databases/app/0001/0000000000000003-0000000000000004.ltx");
  assert.deepEqual(Object.keys(merged.metadata), ["litestream-timestamp"]);

  const other = memoryStore({ tags: "unique" });
  await copy(bucket, other, { sourceLayout: "bucket", layout: "bucket" });
  const same = await other.head("databases/app/0000/0000000000000005-0000000000000005.ltx");
  assert.deepEqual(same.metadata, slot.metadata);
  const back = directoryStore({ path: `${repository.path}/back`, clock, random });
  await copy(bucket, back, { sourceLayout: "bucket" });
  assert.deepEqual([...await contentOf(back)].sort(), [...await contentOf(source)].sort());
});

Deno.test("a copy is refused where another repository, a manager or a newer state is, and changes nothing there", async () => {
  await using made = await scene();
  const { source } = made;
  const repo = JSON.parse(await textOf(source, "repo.json"));
  const record = (state: "held" | "released", info: Record<string, string> = {}) =>
    encodeLease({ v: 1, token: 9, holder: "h", nonce: "n", state, ttlMs: 30_000, info });
  const cases: [string, (target: ObjectStore) => Promise<unknown>, ErrorCode][] = [
    ["another repository", (target) => openRepository(target, { name: "x", random }), "repository-mismatch"],
    ["something else", (target) => target.put("photo.jpg", bytesOf(1)), "repository-mismatch"],
    [
      "a repository further down",
      (target) => target.put("a/repo.json", bytesOf(repo)),
      "repository-mismatch",
    ],
    [
      "a manager that waits to begin",
      (target) => target.put("lease.json", record("held")),
      "lease-held-elsewhere",
    ],
    ["a manager that runs", async (target) => {
      await copy(source, target);
      await target.put("lease.json", record("held"));
    }, "lease-held-elsewhere"],
    ["a manager that ran", async (target) => {
      await copy(source, target);
      await target.put("lease.json", record("released"));
    }, "repository-mismatch"],
    ["a later version", async (target) => {
      await copy(source, target);
      await changeHead(target);
    }, "repository-mismatch"],
    ["a later term", async (target) => {
      await copy(source, target);
      await changeHead(target, { epoch: 99, seq: 0 });
    }, "repository-mismatch"],
    ["another history of the same length", async (target) => {
      await copy(source, target);
      const head = JSON.parse(await textOf(target, "head.json"));
      await target.put("head.json", bytesOf({ ...head, nonce: "other" }));
    }, "repository-mismatch"],
    ["half of a copy of another one", async (target) => {
      await target.put("lease.json", record("released", { copy_of: "0".repeat(32) }));
      await target.put("checkpoints/packs/00000001/x", bytesOf(1));
    }, "repository-mismatch"],
  ];
  for (const [name, prepare, code] of cases) {
    const target = memoryStore({ tags: "unique" });
    await prepare(target);
    const before = [...await contentOf(target), await textOf(target, "lease.json").catch(() => "")];
    for (const dryRun of [true, false]) {
      await assert.rejects(copy(source, target, { dryRun }), isCode(code), name);
    }
    const after = [...await contentOf(target), await textOf(target, "lease.json").catch(() => "")];
    assert.deepEqual(after, before, name);
  }
  await assert.rejects(copy(memoryStore(), memoryStore({ tags: "unique" })), isCode("object-not-found"));
});

Deno.test("a copy that was interrupted is no repository yet, and the next one goes on with it", async () => {
  await using made = await scene();
  const { source } = made;
  const target = memoryStore({ tags: "unique" });
  const stop = new AbortController();
  let seen = 0;
  const slow = watched(source, (key) => {
    if (/^(checkpoints|databases)\//.test(key) && ++seen === 9) stop.abort(new Error("ctrl-C"));
  });
  await assert.rejects(copy(slow, target, { signal: stop.signal }), /ctrl-C/);
  const half = await contentOf(target);
  assert.ok(half.size >= 1 && !half.has("repo.json") && !half.has("head.json"), [...half.keys()].join());
  await assert.rejects(openRepository(target, { name: "shop", random }), isCode("repository-mismatch"));
  const puts: string[] = [];
  const noted = withOperations(target, {
    put: (key, body, options) => {
      if (key !== "lease.json") puts.push(key);
      return target.put(key, body, options);
    },
  });
  const rest = await copy(source, noted);
  assert.equal(rest.copied.objects, rest.all.objects - half.size);
  assert.deepEqual(puts.slice(-2), ["head.json", "repo.json"], "no manager starts on a part of a copy");
  assert.deepEqual([...await contentOf(target)].sort(), [...await contentOf(source)].sort());

  // One of another size, as no store of ours leaves it.
  await target.put("databases/app/ltx/0/0000000000000001-0000000000000001.ltx", bytesOf("cut"));
  assert.equal((await copy(source, target)).copied.objects, 1);
  assert.deepEqual([...await contentOf(target)].sort(), [...await contentOf(source)].sort());
});

Deno.test("a large object of whose put nobody knows is looked for, and sent again where it is not", async () => {
  const source = memoryStore();
  const sizeBytes = 21 * 1024 * 1024;
  await source.put("large", new Uint8Array(sizeBytes).fill(1));
  for (const lands of [true, false]) {
    const target = memoryStore({ tags: "unique" });
    const puts: string[] = [];
    const unsure = withOperations(target, {
      async putLarge(key, pieces, options) {
        puts.push(key);
        if (puts.length > 1 || lands) await target.putLarge(key, pieces, options);
        if (puts.length === 1) {
          throw new StateManagerError("outcome-unknown", "put: the last answer was lost");
        }
        return await target.head(key);
      },
    });
    let copied = 0;
    const gone = await copyChains([[{ from: "large", to: "large", sizeBytes, replica: null }]], {
      source: { store: source, layout: "bucket" },
      target: { store: unsure, layout: "bucket" },
      present: new Map(),
      signal: new AbortController().signal,
      onBytes: (bytes) => copied += bytes,
      onObject: () => {},
    });
    assert.deepEqual([gone, puts.length, copied], [0, lands ? 1 : 2, sizeBytes]);
    assert.equal((await target.head("large")).sizeBytes, sizeBytes);
  }
});

Deno.test("a copy waits for the lease of an earlier one that was killed", async () => {
  await using made = await scene();
  const { source } = made;
  const target = memoryStore({ tags: "unique" });
  const { repo_id } = JSON.parse(await textOf(source, "repo.json"));
  const left = {
    v: 1,
    token: 9,
    holder: "h",
    nonce: "n",
    state: "held",
    ttlMs: 200,
    info: { copy_of: repo_id },
  };
  await target.put("lease.json", bytesOf(left));
  await target.put("checkpoints/packs/00000001/x", bytesOf(1));
  let waited = 0;
  await copy(source, target, { onWaiting: () => void waited++ });
  assert.equal(waited, 1);
  const lease = JSON.parse(await textOf(target, "lease.json"));
  assert.deepEqual([lease.token, lease.state], [10, "released"]);
});

Deno.test("a source that moves is copied again until it stands, and given up when it never does", async () => {
  await using made = await scene();
  const { source, database } = made;
  const target = memoryStore({ tags: "unique" });
  let moved = false;
  const moving = watched(source, async (key) => {
    if (moved || !key.startsWith("databases/")) return;
    moved = true;
    await database.commit("INSERT INTO t VALUES(7)");
    await database.remove({ level: 0, minTxid: 6, maxTxid: 6 });
    await database.put({ level: 1, minTxid: 5, maxTxid: 6 });
    await changeHead(source);
  });
  const result = await copy(moving, target);
  assert.equal(result.rounds, 2);
  assert.equal(await textOf(target, "head.json"), await textOf(source, "head.json"));
  const there = await contentOf(target);
  for (const [key, body] of await contentOf(source)) assert.equal(there.get(key), body, key);

  const restless = watched(source, async (key) => {
    if (key === "head.json") await changeHead(source);
  });
  const other = memoryStore({ tags: "unique" });
  await assert.rejects(copy(restless, other), isCode("wrong-state"));
  const left = await contentOf(other);
  assert.ok(!left.has("repo.json") && !left.has("head.json"));
});

Deno.test("storage copy ends when it is asked to, and takes no signals of the process that it runs in", async () => {
  await using repository = await smallRepository();
  const { path, directory, keyPrefix } = repository;
  const taken: string[] = [];
  const { addSignalListener } = Deno;
  Deno.addSignalListener = (signal) => void taken.push(signal);
  try {
    const copyTo = (folder: string, interrupt?: AbortSignal) =>
      command(
        ["storage", "copy", "--directory", directory, "--prefix", keyPrefix, "--to-directory", folder],
        interrupt === undefined ? {} : { interrupt },
      );
    const whole = await copyTo(`${path}/whole`);
    assert.equal(whole.code, 0, whole.err);
    const ended = await copyTo(
      `${path}/ended`,
      AbortSignal.abort(new StateManagerError("cancelled", "storage copy: ended by SIGTERM")),
    );
    assert.equal(ended.code, 130, ended.err);
    assert.match(ended.err, /storage copy: ended by SIGTERM/);
  } finally {
    Deno.addSignalListener = addSignalListener;
  }
  assert.deepEqual(taken, []);
});

Deno.test("storage copy says what is wrong with its target", async () => {
  await using repository = await smallRepository();
  const { path, directory, keyPrefix } = repository;
  const from = [
    "storage",
    "copy",
    "--directory",
    directory,
    "--prefix",
    keyPrefix,
    "--data-dir",
    `${path}/none`,
  ];
  const cases: [string[], RegExp][] = [
    [[], /where to/],
    [["--to-directory", "/x", "--to-bucket", "b"], /where to/],
    [["--to-bucket", "b", "--to-endpoint", "http://127.0.0.1:1"], /STATE_MANAGER_TO_ACCESS_KEY/],
    [["--to-bucket", "b", "--to-endpoint", "nonsense"], /not clear/],
    [["--to-directory", directory, "--to-prefix", keyPrefix], /one place/],
    [["--to-directory", directory, "--to-prefix", `${keyPrefix}/sub`], /inside of the other/],
    [["--to-directory", `${directory}/${keyPrefix}/sub`], /inside of the other/],
  ];
  for (const [more, text] of cases) {
    const { code, err } = await command([...from, ...more]);
    assert.equal(code, 64, `${more.join(" ")}: ${err}`);
    assert.match(err, text);
  }
  const plan = await command([...from, "--to-directory", "copy", "--dry-run", "--json"], { folder: path });
  assert.equal(plan.code, 0, plan.err);
  const { objects, copied_objects: copied, name, dry_run: dryRun } = JSON.parse(plan.out.trimEnd());
  assert.deepEqual([objects > 0, copied === objects, name, dryRun], [true, true, "shop", true]);
  await assert.rejects(Deno.stat(`${path}/copy`), Deno.errors.NotFound);
});
