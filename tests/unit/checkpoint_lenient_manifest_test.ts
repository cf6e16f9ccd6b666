/** Manifests of which pieces are lost, read in batches. */

import assert from "node:assert/strict";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { chunkId } from "../../src/checkpoint/ids.ts";
import { openLeniently } from "../../src/checkpoint/lenient_manifest.ts";
import { comparePaths, ManifestWriter } from "../../src/checkpoint/manifest.ts";
import type { FilesItem } from "../../src/checkpoint/records.ts";
import type { ManifestEntry, TreeEntry } from "../../src/checkpoint/types.ts";
import { isError } from "../../src/platform/errors.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (path: Uint8Array) => new TextDecoder().decode(path);

function entry(path: string, more: Partial<TreeEntry> = {}): TreeEntry {
  const common = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 1_700_000_000_123_456_789n };
  return { path: bytes(path), type: "file", size: 0, ...common, ...more };
}

const FILES = 1500;

/** Files "a-…", which sort between folder "a" and what is in it, then those in "a"; some are hard links. */
function members(): ManifestEntry[] {
  const folder = (path: string): ManifestEntry => ({ entry: entry(path, { type: "directory" }), parts: [] });
  const file = (path: string, n: number): ManifestEntry => ({
    entry: entry(path, { size: 10, ...(n % 100 === 0 ? { linkGroup: n / 100 + 1 } : {}) }),
    parts: [{ kind: "chunk", id: chunkId(bytes(path)), length: 10 }],
  });
  const numbers = Array.from({ length: FILES }, (_, n) => n);
  const name = (n: number) => `${"x".repeat(80)}-${String(n).padStart(5, "0")}`;
  return [
    folder(""),
    folder("a"),
    ...numbers.map((n) => file(`a-${name(n)}`, n)),
    ...numbers.map((n) => {
      const { entry, parts } = file(`a/${name(n)}`, n);
      return { entry, parts: entry.linkGroup === undefined ? parts : [] };
    }),
  ];
}

/** Counts the lines that are taken out of it. */
class WatchedPiece extends Uint8Array<ArrayBuffer> {
  static taken = 0;

  override subarray(start?: number, end?: number): Uint8Array<ArrayBuffer> {
    WatchedPiece.taken++;
    return new Uint8Array(this.buffer).subarray(start, end);
  }
}

function written(entries: readonly ManifestEntry[]) {
  const pieces: Uint8Array[] = [];
  const writer = new ManifestWriter((piece) => void pieces.push(piece), plainCipher);
  for (const each of entries) writer.add(each);
  const summary = writer.finish();
  const item: FilesItem = { ...summary, manifest: pieces.map((_, n) => `piece-${n}`) };
  const found = new Map(
    pieces.map((piece, n) => [`piece-${n}`, new WatchedPiece(new Uint8Array(piece).buffer)]),
  );
  return { item, found };
}

const WHOLE = written(members());

/** What is known when these pieces are lost, in batches of `size`. */
function known(lost: readonly string[], size: number) {
  const found = new Map([...WHOLE.found].filter(([id]) => !lost.includes(id)));
  const manifest = openLeniently(WHOLE.item, "data", found, plainCipher);
  const batches = [...manifest.batches(size)];
  return { manifest, batches, entries: batches.flat() };
}

const LOST: readonly (readonly string[])[] = [[], ["piece-0"], ["piece-1"], ["piece-0", "piece-3"]];

Deno.test("a manifest with lost pieces says the same in batches of any size, in path order, and as often as asked", () => {
  assert.ok(WHOLE.item.manifest.length > 4, `${WHOLE.item.manifest.length} pieces`);
  for (const lost of LOST) {
    const { entries, manifest } = known(lost, Infinity);
    assert.deepEqual(manifest.lostPieces, lost);
    assert.equal(entries.length < FILES * 2 + 2, lost.length > 0);
    for (const size of [1, 7, 64, 1000]) {
      const { batches, entries: again } = known(lost, size);
      assert.ok(batches.every(({ length }) => length <= size));
      const differs = again.findIndex((each, n) => line(each) !== line(entries[n]));
      assert.equal(differs, -1, `${lost} in ${size}: entry ${differs}`);
      assert.equal(again.length, entries.length);
    }
    for (let n = 1; n < entries.length; n++) {
      const [before, after] = [entries[n - 1], entries[n]];
      assert.ok(before !== undefined && after !== undefined);
      assert.ok(comparePaths(before.entry.path, after.entry.path) < 0, `entry ${n}`);
    }
    assert.equal(manifest.batches(10).next().value?.length, 10);
  }
});

function line(each: { readonly entry: TreeEntry; readonly isCut: boolean } | undefined): string {
  if (each === undefined) return "none";
  const { path, type, linkGroup } = each.entry;
  return `${text(path)} ${type} ${linkGroup} ${each.isCut}`;
}

Deno.test("folders whose own lines are lost come where they belong, before neighbours that sort behind them", () => {
  const { entries } = known(["piece-0"], 7);
  const [root, folder, first] = entries.map(({ entry }) => entry);
  assert.deepEqual([root?.type, folder?.type, first?.type], ["directory", "directory", "file"]);
  assert.deepEqual([root, folder].map((each) => text(each?.path ?? bytes("?"))), ["", "a"]);
  assert.equal(folder?.mode, 0o700);
  assert.ok(text(first?.path ?? bytes("")).startsWith("a-"), "as its neighbour");
  // Hard links whose first is in the lost piece have nothing in them.
  assert.ok(entries.some(({ isCut }) => isCut));
});

Deno.test("a manifest with lost pieces is read no further than the batches that are taken", () => {
  const lines = known(["piece-1"], Infinity).entries.length;
  const found = new Map([...WHOLE.found].filter(([id]) => id !== "piece-1"));
  const manifest = openLeniently(WHOLE.item, "data", found, plainCipher);
  WatchedPiece.taken = 0;
  const batches = manifest.batches(7);
  for (let n = 0; n < 5; n++) batches.next();
  // The piece of which the fifth batch is, and none after it.
  assert.ok(
    WatchedPiece.taken > 0 && WatchedPiece.taken < lines / 4,
    `${WatchedPiece.taken} of ${lines} lines`,
  );
});

Deno.test("a whole manifest that is not right is damaged, in batches as at once", () => {
  const wrong = { ...WHOLE.item, manifest_sha256: "0".repeat(64) };
  for (const size of [7, Infinity]) {
    const manifest = openLeniently(wrong, "data", WHOLE.found, plainCipher);
    assert.deepEqual(manifest.lostPieces, []);
    assert.throws(() => [...manifest.batches(size)], (error) => isError(error, "data-damaged"));
  }
});
