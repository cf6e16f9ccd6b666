/** Extended attributes, ACLs and capabilities: read, written into a manifest, restored. */

import assert from "node:assert/strict";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { ManifestReader, ManifestWriter } from "../../src/checkpoint/manifest.ts";
import { openScanCache } from "../../src/checkpoint/scan_cache.ts";
import { scanTree } from "../../src/checkpoint/scan.ts";
import type { FileWarning, ManifestEntry } from "../../src/checkpoint/types.ts";
import { XattrReader } from "../../src/checkpoint/xattrs.ts";
import { isRoot, pathBytes, withFolder } from "../../src/platform/libc_files.ts";
import { getXattr, listXattrs, setXattr } from "../../src/platform/libc_xattrs.ts";
import { canMount, tool } from "../support/mounts.ts";
import { asUser } from "../support/other_user.ts";
import { captureTree, filesRoot, stageCaptured } from "../support/tree_capture.ts";
import { hashTree, makeTree, scratchFolder } from "../support/tree_model.ts";
import { giveXattrs, listXattrLines, python } from "../support/xattr_model.ts";

const asRoot = isRoot();
const needsPython = python === null;
const NOBODY = 65534;

/** Through the text of a manifest and back. */
function throughManifest(entries: readonly ManifestEntry[]): readonly ManifestEntry[] {
  const pieces: Uint8Array[] = [];
  const writer = new ManifestWriter((piece) => void pieces.push(piece), plainCipher);
  for (const entry of entries) writer.add(entry);
  const reader = new ManifestReader("manifest", writer.finish(), plainCipher);
  for (const piece of pieces) reader.add(piece);
  return reader.finish();
}

for (const seed of [1, 2, 3]) {
  Deno.test({
    name:
      `restored tree has the extended attributes, ACLs and capabilities of the old one, seed ${seed} [needs python3] [needs root]`,
    ignore: needsPython || !asRoot, // some folders' ACLs keep their own owner out
    async fn() {
      await using folder = scratchFolder("xattrs-");
      const live = `${folder.path}/live`;
      Deno.mkdirSync(live);
      makeTree(live, { seed, files: 120, asRoot });
      await giveXattrs(live, seed, asRoot);
      const before = await listXattrLines(live);
      assert.ok(before.length > 100, `${before.length} attributes`);
      const tree = captureTree(filesRoot(live));
      assert.deepEqual(tree.warnings, []);
      const entries = [...throughManifest(tree.entries)];
      assert.deepEqual(entries, tree.entries);
      assert.deepEqual(await stageCaptured({ ...tree, entries }, `${folder.path}/stage`, seed), []);
      assert.deepEqual(await listXattrLines(`${folder.path}/stage`), before);
      const [old, restored] = [await hashTree(live), await hashTree(`${folder.path}/stage`)];
      assert.deepEqual(restored.lines, old.lines);
    },
  });
}

Deno.test({
  name: "restored tree inherits no ACL of the folder it is staged in [needs python3]",
  ignore: needsPython,
  async fn() {
    await using folder = scratchFolder("xattrs-");
    const live = `${folder.path}/live`;
    const holder = `${folder.path}/holder`;
    for (const path of [live, holder, `${live}/sub`]) Deno.mkdirSync(path);
    Deno.writeTextFileSync(`${live}/sub/f`, "1");
    const acl = Uint8Array.from([
      2,
      0,
      0,
      0,
      ...ACL_ENTRIES.flatMap(([tag, bits, id]) => [tag, 0, bits, 0, id, id, id, id]),
    ]);
    withFolder(pathBytes(holder), (fd) => setXattr(fd, pathBytes("system.posix_acl_default"), acl));
    await stageCaptured(captureTree(filesRoot(live)), `${holder}/stage`);
    assert.deepEqual(await listXattrLines(`${holder}/stage`), []);
  },
});
/** Tag, permissions, and the byte that the id is made of. */
const ACL_ENTRIES: readonly (readonly [number, number, number])[] = [
  [1, 7, 255],
  [2, 7, 0],
  [4, 5, 255],
  [16, 7, 255],
  [32, 5, 255],
];

Deno.test({
  name:
    "restore by a user that may not set them counts warnings for each kind and sets the rest [needs python3]",
  ignore: needsPython || !asRoot,
  async fn() {
    await using folder = scratchFolder("xattrs-");
    const live = `${folder.path}/live`;
    Deno.mkdirSync(live);
    makeTree(live, { seed: 5, files: 80, asRoot: false });
    await giveXattrs(live, 5, true);
    const before = await listXattrLines(live);
    const tree = captureTree(filesRoot(live));
    Deno.chmodSync(folder.path, 0o777);
    const entries = tree.entries.map(({ entry, parts }) => ({
      entry: { ...entry, uid: NOBODY, gid: 0 },
      parts,
    }));
    const warnings = await asUser(NOBODY, () => stageCaptured({ ...tree, entries }, `${folder.path}/stage`));
    const mayBoth = /'(?:user\.|system\.)/;
    assert.deepEqual(
      await listXattrLines(`${folder.path}/stage`),
      before.filter((line) => mayBoth.test(line)),
      "what a user may set is set, on files without write permission, too",
    );
    const counts = countedBy(warnings);
    const paths = (pattern: RegExp) => before.filter((line) => pattern.test(line)).length;
    assert.equal(counts.get("extended attribute (trusted.*)"), paths(/'trusted\./));
    assert.equal(counts.get("file capability"), paths(/'security\./));
    assert.equal(counts.get("ACL"), undefined);
  },
});

/** Kind → times, from "KIND not set, here and on N others". */
function countedBy(warnings: readonly FileWarning[]): ReadonlyMap<string, number> {
  return new Map(warnings.map(({ reason }) => {
    const [, kind = "", others] = /^(.*) not set, here and on (\d+) others/.exec(reason) ?? [];
    return [kind, 1 + Number(others)];
  }));
}

Deno.test({
  name:
    "a filesystem without extended attributes has none of them, and a restore to it counts warnings [needs mount]",
  ignore: !canMount || needsPython,
  async fn() {
    await using folder = scratchFolder("xattrs-");
    const bare = `${folder.path}/bare`;
    const live = `${folder.path}/live`;
    for (const path of [bare, live]) Deno.mkdirSync(path);
    assert.ok(tool("mount", "-t", "ramfs", "none", bare));
    try {
      makeTree(live, { seed: 4, files: 40, asRoot });
      await giveXattrs(live, 4, asRoot);
      const tree = captureTree(filesRoot(live));
      const counts = countedBy(await stageCaptured(tree, `${bare}/stage`));
      assert.ok((counts.get("ACL") ?? 0) > 0);
      const again = captureTree(filesRoot(`${bare}/stage`));
      assert.deepEqual(again.warnings, []);
      assert.ok(again.entries.every(({ entry }) => entry.xattrs === undefined));
      const [old, restored] = [await hashTree(live), await hashTree(`${bare}/stage`)];
      assert.equal(restored.lines.length, old.lines.length);
    } finally {
      assert.ok(tool("umount", bare));
    }
  },
});

Deno.test("extended attributes that are too many are left out with a warning, the others are kept", () => {
  // A filesystem in memory takes what the kernel allows; the disk's may have room for a few kilobytes only.
  const warnings: string[] = [];
  const reader = new XattrReader((_path, reason) => void warnings.push(reason));
  const memory = Deno.makeTempDirSync({ dir: "/dev/shm" });
  try {
    Deno.writeTextFileSync(`${memory}/f`, "1");
    withFolder(pathBytes(memory), (folderFd) => {
      const place = { folderFd, name: pathBytes("f") };
      for (const [name, size] of [["user.a", 60_000], ["user.b", 60_000], ["user.c", 5]] as const) {
        setXattr(place, pathBytes(name), new Uint8Array(size).fill(size % 251));
      }
      const { xattrs = [] } = reader.read(place, { path: pathBytes("f"), type: "file" }, 7n);
      assert.deepEqual(xattrs.map(({ name, value }) => [name, value.length]), [["user.a", 60_000], [
        "user.c",
        5,
      ]]);
      assert.match(warnings.join(), /1 extended attribute/);
      assert.deepEqual(getXattr(place, pathBytes("user.c")), new Uint8Array(5).fill(5));
      assert.equal(listXattrs(place).length, 3);
    });
  } finally {
    Deno.removeSync(memory, { recursive: true });
  }
});

Deno.test("an unchanged file's attributes come from the cache, a changed one's are read", async () => {
  await using folder = scratchFolder("xattrs-");
  Deno.writeTextFileSync(`${folder.path}/f`, "abc");
  const xattrs = [{ name: "user.\xff", value: Uint8Array.of(0, 255) }];
  const [scanned] = [...scanTree(filesRoot(folder.path))].filter(({ entry }) => entry.path.length > 0);
  assert.ok(scanned);
  const clock = { wallMs: () => Date.now() + 100_000, monotonicMs: () => 0, sleep: () => Promise.resolve() };
  const options = { path: `${folder.path}.cache`, rootPath: folder.path, clock };
  const cache = await openScanCache(options);
  cache.remember({ ...scanned, entry: { ...scanned.entry, xattrs } }, []);
  await cache.save(null);
  const next = await openScanCache(options);
  assert.deepEqual(next.find(scanned)?.xattrs, { xattrs });
  withFolder(pathBytes(folder.path), (folderFd) => {
    setXattr({ folderFd, name: pathBytes("f") }, pathBytes("user.new"), Uint8Array.of(1));
  });
  const [changed] = [...scanTree(filesRoot(folder.path))].filter(({ entry }) => entry.path.length > 0);
  assert.ok(changed);
  assert.equal(next.find(changed), null, "a new attribute moves ctime");
  Deno.removeSync(options.path);
});
