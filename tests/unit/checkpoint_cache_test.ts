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
  const file = scanned(folder, "f");
  cache.remember(file, PARTS);
  await cache.save(null);
}

Deno.test("an untouched file is unchanged", async () => {
  await using folder = scratchFolder("cache-");
  Deno.writeTextFileSync(`${folder.path}/f`, "abc");
  await remembered(folder.path);
  assert.deepEqual(
    (await open(folder.path)).find(scanned(folder.path, "f"))?.parts,
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
  await cache.save(null);
  const next = await open(folder.path);
  assert.deepEqual(next.find(database)?.parts, PARTS);
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
  const good = Deno.readFileSync(path);
  const flipped = (at: number) => good.map((byte, i) => i === at ? byte ^ 1 : byte);
  const texts = ["", "x", "{}\n{}", `${"0".repeat(64)}\n{}\n`].map((text) => new TextEncoder().encode(text));
  const places = [0, 64, 70, good.length - 100, good.length - 1];
  const damages = [...places.map(flipped), good.slice(0, -1), new Uint8Array([...good, 10]), ...texts];
  for (const [index, bytes] of damages.entries()) {
    Deno.writeFileSync(path, bytes);
    assert.equal((await open(folder.path)).find(file), null, `damage ${index}`);
  }
  Deno.writeFileSync(path, good);
  assert.deepEqual((await open(folder.path)).find(file)?.parts, PARTS);
  Deno.removeSync(path);
});

const SUMMARY = { entries: 4, bytes: 3, manifest_sha256: "0".repeat(64) };

/** Saves the cache of a tree: a file, a folder and a symlink; gives what `unchanged` says after `edit`. */
async function unchangedAfter(
  edit: (folder: string) => void,
  { aheadMs = LATER_MS, stamp = "", forget = false } = {},
): Promise<unknown> {
  await using folder = scratchFolder("cache-");
  Deno.writeTextFileSync(`${folder.path}/f`, "abc");
  Deno.mkdirSync(`${folder.path}/d`);
  Deno.symlinkSync("f", `${folder.path}/l`);
  const first = await open(folder.path, folder.path, aheadMs);
  const entries = [...scanTree(filesRoot(folder.path))];
  for (const entry of entries) {
    if (entry.entry.type !== "file") first.pass(entry);
    else if (forget) first.miss();
    else first.remember(entry, PARTS);
  }
  await first.save(SUMMARY);
  edit(folder.path);
  const path = `${folder.path}.cache`;
  try {
    const next = await openScanCache({ path, rootPath: folder.path, clock: clockAhead(LATER_MS), stamp });
    next.beginScan();
    for (const entry of scanTree(filesRoot(folder.path))) next.compare(entry);
    return next.unchanged();
  } finally {
    Deno.removeSync(path);
  }
}

Deno.test("a tree in which nothing changed has the manifest of the last run", async () => {
  assert.deepEqual(await unchangedAfter(() => {}), SUMMARY);
});

Deno.test("a tree in which anything changed, or may have, needs a new manifest", async () => {
  const edits: Record<string, (folder: string) => void> = {
    mode: (folder) => Deno.chmodSync(`${folder}/f`, 0o600),
    "mode of a folder": (folder) => Deno.chmodSync(`${folder}/d`, 0o700),
    "time of a file": (folder) => Deno.utimeSync(`${folder}/f`, 1, 1),
    "new file": (folder) => Deno.writeTextFileSync(`${folder}/d/g`, ""),
    "file gone": (folder) => Deno.removeSync(`${folder}/f`),
    "other name": (folder) => Deno.renameSync(`${folder}/f`, `${folder}/e`),
    "other target": (folder) => {
      Deno.removeSync(`${folder}/l`);
      Deno.symlinkSync("d", `${folder}/l`);
    },
    "hard link": (folder) => Deno.linkSync(`${folder}/f`, `${folder}/d/f`),
    "same size and time": (folder) => {
      const { atime, mtime } = Deno.statSync(`${folder}/f`);
      Deno.writeTextFileSync(`${folder}/f`, "xyz");
      Deno.utimeSync(`${folder}/f`, atime ?? 0, mtime ?? 0);
    },
  };
  for (const [name, edit] of Object.entries(edits)) assert.equal(await unchangedAfter(edit), null, name);
  assert.equal(await unchangedAfter(() => {}, { aheadMs: 1000 }), null, "written about when the scan began");
  assert.equal(await unchangedAfter(() => {}, { stamp: "another version" }), null);
  assert.equal(await unchangedAfter(() => {}, { forget: true }), null, "a file that could not be read");
});

Deno.test("a tree whose last entries are gone is another one, and a scan done again begins anew", async () => {
  await using folder = scratchFolder("cache-");
  Deno.writeTextFileSync(`${folder.path}/f`, "abc");
  const first = await open(folder.path);
  const entries = [...scanTree(filesRoot(folder.path))];
  for (const entry of entries) entry.entry.type === "file" ? first.remember(entry, PARTS) : first.pass(entry);
  await first.save(SUMMARY);
  const next = await open(folder.path);
  next.beginScan();
  for (const entry of entries.slice(0, -1)) next.compare(entry);
  assert.equal(next.unchanged(), null);
  next.beginScan();
  for (const entry of entries) next.compare(entry);
  assert.deepEqual(next.unchanged(), SUMMARY);
  Deno.removeSync(`${folder.path}.cache`);
});
