/** Which files count as unchanged. */

import assert from "node:assert/strict";
import { openScanCache, RACY_NS, type ScanCache } from "../../src/checkpoint/scan_cache.ts";
import { type ScannedEntry, scanTree } from "../../src/checkpoint/scan.ts";
import type { ContentPart } from "../../src/checkpoint/types.ts";
import type { Clock } from "../../src/platform/clock.ts";
import { pathBytes, setTimesAt, withFolder } from "../../src/platform/libc_files.ts";
import { filesRoot } from "../support/tree_capture.ts";
import { scratchFolder } from "../support/tree_model.ts";

/** A clock that stands still, `aheadMs` past the machine's: the files on disk have the machine's times. */
function clockAhead(aheadMs: number): Clock {
  return {
    wallMs: () => Date.now() + aheadMs,
    monotonicMs: () => 0,
    sleep: () => Promise.resolve(),
  };
}

const PARTS: readonly ContentPart[] = [
  { kind: "chunk", id: "a".repeat(64), length: 3 },
  { kind: "hole", length: 70_000 },
];
const LATER_MS = Number(RACY_NS / 1_000_000n) + 60_000;

async function open(
  folder: string,
  rootPath = folder,
  aheadMs = LATER_MS,
): Promise<ScanCache> {
  return await openScanCache({
    path: `${folder}.cache`,
    rootPath,
    clock: clockAhead(aheadMs),
  });
}

function scanned(folder: string, name: string): ScannedEntry {
  for (const one of scanTree(filesRoot(folder))) {
    if (new TextDecoder().decode(one.entry.path) === name) return one;
  }
  throw new Error(`no ${name}`);
}

/** Saves a cache that holds the file "f". */
async function remembered(folder: string, aheadMs = LATER_MS): Promise<void> {
  const cache = await open(folder, folder, aheadMs);
  cache.remember(scanned(folder, "f"), PARTS);
  await cache.save();
}

Deno.test("an untouched file is unchanged", async () => {
  await using folder = scratchFolder("cache-");
  Deno.writeTextFileSync(`${folder.path}/f`, "abc");
  await remembered(folder.path);
  assert.deepEqual(
    (await open(folder.path)).find(scanned(folder.path, "f")),
    PARTS,
  );
  Deno.removeSync(`${folder.path}.cache`);
});

Deno.test("an edit that keeps size and mtime is seen by its ctime", async () => {
  await using folder = scratchFolder("cache-");
  Deno.writeTextFileSync(`${folder.path}/f`, "abc");
  const before = scanned(folder.path, "f");
  await remembered(folder.path);
  Deno.writeTextFileSync(`${folder.path}/f`, "xyz");
  withFolder(
    pathBytes(folder.path),
    (fd) => setTimesAt(fd, pathBytes("f"), before.entry.mtimeNs),
  );
  const after = scanned(folder.path, "f");
  assert.equal(after.entry.mtimeNs, before.entry.mtimeNs);
  assert.equal(after.entry.size, before.entry.size);
  assert.equal((await open(folder.path)).find(after), null);
  Deno.removeSync(`${folder.path}.cache`);
});

Deno.test("a file written about when the last scan began is read again", async () => {
  await using folder = scratchFolder("cache-");
  Deno.writeTextFileSync(`${folder.path}/f`, "abc");
  await remembered(folder.path, 1000); // the scan began one second after the write: within the margin
  assert.equal((await open(folder.path)).find(scanned(folder.path, "f")), null);
  Deno.removeSync(`${folder.path}.cache`);
});

Deno.test("a file replaced by one with equal size is another file", async () => {
  await using folder = scratchFolder("cache-");
  Deno.writeTextFileSync(`${folder.path}/f`, "abc");
  await remembered(folder.path);
  Deno.writeTextFileSync(`${folder.path}/g`, "xyz");
  Deno.renameSync(`${folder.path}/g`, `${folder.path}/f`);
  assert.equal((await open(folder.path)).find(scanned(folder.path, "f")), null);
  Deno.removeSync(`${folder.path}.cache`);
});

Deno.test("a database changes with its log, and is not taken for one that was read as a plain file", async () => {
  await using folder = scratchFolder("cache-");
  Deno.writeTextFileSync(`${folder.path}/f`, "abc");
  const plain = scanned(folder.path, "f");
  const wal = { size: 32, mtimeNs: 5n, ctimeNs: 5n, ino: 9n };
  const database: ScannedEntry = {
    ...plain,
    entry: { ...plain.entry, sqlite: true },
    wal,
  };
  const cache = await open(folder.path);
  cache.remember(database, PARTS);
  await cache.save();
  const next = await open(folder.path);
  assert.deepEqual(next.find(database), PARTS);
  assert.equal(next.find({ ...database, wal: { ...wal, size: 64 } }), null);
  assert.equal(next.find({ ...database, wal: { ...wal, ctimeNs: 6n } }), null);
  assert.equal(next.find({ ...database, wal: null }), null);
  assert.equal(next.find(plain), null);
  assert.equal(next.knownDatabase(plain.entry.path, plain.facts), true);
  assert.equal(
    next.knownDatabase(plain.entry.path, { ...plain.facts, ino: 1n }),
    undefined,
  );
  Deno.removeSync(`${folder.path}.cache`);
});

Deno.test("a damaged cache, and one of another root, is ignored", async () => {
  await using folder = scratchFolder("cache-");
  Deno.writeTextFileSync(`${folder.path}/f`, "abc");
  const file = scanned(folder.path, "f");
  await remembered(folder.path);
  assert.equal((await open(folder.path, "/elsewhere")).find(file), null);
  const path = `${folder.path}.cache`;
  const good = Deno.readTextFileSync(path);
  const damages = [
    good.slice(0, -1),
    good.replace(/a{64}/, "b".repeat(64)),
    "",
    "x",
    good + "\n",
    "{}\n{}",
  ];
  for (const [index, text] of damages.entries()) {
    Deno.writeTextFileSync(path, text);
    assert.equal((await open(folder.path)).find(file), null, `damage ${index}`);
  }
  Deno.writeTextFileSync(path, good);
  assert.deepEqual((await open(folder.path)).find(file), PARTS);
  Deno.removeSync(path);
});
