/** Packed entries of a scan come out as they went in. */

import assert from "node:assert/strict";
import type { ScannedEntry } from "../../src/checkpoint/scan.ts";
import { ScannedList } from "../../src/checkpoint/scanned_list.ts";
import { pathBytes } from "../../src/platform/libc_files.ts";
import type { TreeEntry } from "../../src/checkpoint/types.ts";

/** The number `n` of a list in which every field differs from its neighbours', with values at the ends of their ranges. */
function entryOf(n: number, more: Partial<TreeEntry> = {}): ScannedEntry {
  const entry: TreeEntry = {
    path: pathBytes(`folder-${n % 7}/${"long".repeat(n % 1000)}${n}`),
    type: "file",
    mode: n % 2 === 0 ? 0o7777 : 0o644,
    uid: n % 3 === 0 ? 0xffff_ffff : n,
    gid: n + 1,
    mtimeNs: n % 5 === 0 ? -1n : BigInt(n) * 1_000_000_007n,
    size: n % 11 === 0 ? 2 ** 50 + n : n,
    ...more,
  };
  const facts = {
    dev: n % 2 === 0 ? 2n ** 64n - 1n : 7n,
    ino: 2n ** 63n + BigInt(n),
    ctimeNs: BigInt(n),
    linkCount: n,
    blocks: n * 2 ** 33,
  };
  return { entry, facts, wal: null };
}

const RARE: readonly ScannedEntry[] = [
  entryOf(0, {
    path: new Uint8Array(0),
    type: "directory",
    xattrs: [{ name: "user.a", value: Uint8Array.of(1) }],
  }),
  entryOf(1, { type: "symlink", target: Uint8Array.of(0xff, 0x41) }),
  entryOf(2, { type: "fifo" }),
  entryOf(3, { linkGroup: 9 }),
  { ...entryOf(4, { sqlite: true }), wal: { size: 1, mtimeNs: 2n, ctimeNs: 3n, ino: 4n } },
];

Deno.test("a list of scanned entries gives each as it was pushed, over the borders of its blocks", () => {
  const list = new ScannedList();
  const wanted = [...RARE, ...Array.from({ length: 10_000 }, (_, i) => entryOf(i + RARE.length))];
  for (const each of wanted) list.push(each);
  assert.equal(list.length, wanted.length);
  for (const [i, each] of wanted.entries()) assert.deepEqual(list.at(i), each, `entry ${i}`);
  assert.throws(() => list.at(wanted.length), RangeError);
});
