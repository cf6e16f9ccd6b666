/** The scan of one files root. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { byteText } from "../../src/checkpoint/byte_text.ts";
import { openForReading, openRootFolder } from "../../src/checkpoint/file_reader.ts";
import { type ScanOptions, scanTree } from "../../src/checkpoint/scan.ts";
import type { FilesRoot, FileWarning, TreeEntry } from "../../src/checkpoint/types.ts";
import { isError } from "../../src/platform/errors.ts";
import {
  closeFd,
  LibcError,
  makeFifoAt,
  makeHardLinkAt,
  OPEN,
  openAt,
  pathBytes,
  setTimesAt,
  withFolder,
} from "../../src/platform/libc_files.ts";
import { canMount, tool } from "../support/mounts.ts";
import { filesRoot } from "../support/tree_capture.ts";
import { scratchFolder } from "../support/tree_model.ts";

function scan(
  root: FilesRoot,
  options: ScanOptions = {},
): { entries: TreeEntry[]; warnings: FileWarning[] } {
  const warnings: FileWarning[] = [];
  const found = [
    ...scanTree(root, {
      onWarning: (warning) => warnings.push(warning),
      ...options,
    }),
  ];
  return { entries: found.map(({ entry }) => entry), warnings };
}

const pathsOf = (entries: readonly TreeEntry[]) => entries.map((entry) => byteText(entry.path));

Deno.test("scan lists whole paths in byte order, the root first", async () => {
  await using folder = scratchFolder("scan-");
  for (const path of ["a", "a/x", "b"]) {
    Deno.mkdirSync(`${folder.path}/${path}`);
  }
  for (const path of ["a-b", "a/x/1", "a/x-", "a0", "ä", "b/y"]) {
    Deno.writeTextFileSync(`${folder.path}/${path}`, "1");
  }
  const paths = pathsOf(scan(filesRoot(folder.path)).entries);
  assert.deepEqual(paths, [...paths].sort());
  assert.deepEqual(paths, [
    "",
    "a",
    "a-b",
    "a/x",
    "a/x-",
    "a/x/1",
    "a0",
    "b",
    "b/y",
    byteText(pathBytes("ä")),
  ]);
});

Deno.test("scan keeps names that are not UTF-8, nanoseconds, modes and raw targets", async () => {
  await using folder = scratchFolder("scan-");
  const name = Uint8Array.from([0x61, 0xff, 0x62]);
  withFolder(pathBytes(folder.path), (fd) => {
    closeFd(openAt(fd, name, OPEN.write | OPEN.create));
    setTimesAt(fd, name, -1_500_000_001n);
    Deno.symlinkSync("/nowhere", `${folder.path}/link`);
    makeFifoAt(fd, pathBytes("pipe"), 0o600);
  });
  Deno.chmodSync(folder.path, 0o1750);
  const { entries } = scan(filesRoot(folder.path));
  assert.equal(entries[0]?.mode, 0o1750);
  assert.deepEqual(entries[1]?.path, name);
  assert.equal(entries[1]?.mtimeNs, -1_500_000_001n);
  assert.deepEqual(entries[2]?.target, pathBytes("/nowhere"));
  assert.deepEqual(entries.map((entry) => entry.type), [
    "directory",
    "file",
    "symlink",
    "fifo",
  ]);
});

Deno.test("scan groups hard links", async () => {
  await using folder = scratchFolder("scan-");
  Deno.writeTextFileSync(`${folder.path}/b`, "1");
  Deno.writeTextFileSync(`${folder.path}/alone`, "1");
  withFolder(
    pathBytes(folder.path),
    (fd) => makeHardLinkAt(fd, pathBytes("b"), fd, pathBytes("a")),
  );
  const groups = scan(filesRoot(folder.path)).entries.map((
    entry,
  ) => [byteText(entry.path), entry.linkGroup]);
  assert.deepEqual(groups, [["", undefined], ["a", 1], ["alone", undefined], [
    "b",
    1,
  ]]);
});

Deno.test("scan warns of sockets and goes on", async () => {
  await using folder = scratchFolder("scan-");
  using _listener = Deno.listen({
    transport: "unix",
    path: `${folder.path}/s`,
  });
  const { entries, warnings } = scan(filesRoot(folder.path));
  assert.deepEqual(pathsOf(entries), [""]);
  assert.match(warnings[0]?.reason ?? "", /socket/);
});

Deno.test({
  name: "scan warns of devices and goes on [needs mknod]",
  ignore: !canMakeDevices(),
  async fn() {
    await using folder = scratchFolder("scan-");
    assert.ok(tool("mknod", `${folder.path}/null`, "c", "1", "3"));
    Deno.writeTextFileSync(`${folder.path}/zz`, "1");
    const { entries, warnings } = scan(filesRoot(folder.path));
    assert.deepEqual(pathsOf(entries), ["", "zz"]);
    assert.deepEqual(warnings.map(({ path }) => path), ["null"]);
    assert.match(warnings[0]?.reason ?? "", /device/);
  },
});

function canMakeDevices(): boolean {
  const folder = Deno.makeTempDirSync({ prefix: "device-probe-" });
  try {
    return tool("mknod", `${folder}/null`, "c", "1", "3");
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("scan leaves out excluded folders with all below, and our own", async () => {
  await using folder = scratchFolder("scan-");
  for (const path of ["cache", "store", ".sm-stale", "keep"]) {
    Deno.mkdirSync(`${folder.path}/${path}`);
    Deno.writeTextFileSync(`${folder.path}/${path}/f`, "1");
  }
  const root = filesRoot(folder.path, {
    exclude: ["/cache"],
    excludePaths: [`${folder.path}/store`],
  });
  assert.deepEqual(pathsOf(scan(root).entries), ["", "keep", "keep/f"]);
});

Deno.test("scan knows a database and leaves its companions to the snapshot", async () => {
  await using folder = scratchFolder("scan-");
  const path = `${folder.path}/app.db`;
  const database = new DatabaseSync(path);
  database.exec(
    "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)",
  );
  Deno.writeTextFileSync(`${folder.path}/note-wal`, "no database beside it");
  Deno.writeFileSync(`${folder.path}/zeros`, new Uint8Array(1024));
  const found = [...scanTree(filesRoot(folder.path))];
  assert.deepEqual(pathsOf(found.map(({ entry }) => entry)), [
    "",
    "app.db",
    "note-wal",
    "zeros",
  ]);
  assert.equal(found[1]?.entry.sqlite, true);
  assert.equal(found[1]?.wal?.size, Deno.statSync(path + "-wal").size);
  assert.equal(found[3]?.entry.sqlite, undefined);
  const without = scan(filesRoot(folder.path, { includeDatabases: false })).entries;
  assert.deepEqual(pathsOf(without), ["", "note-wal", "zeros"]);
  database.close();
});

Deno.test("scan refuses a root that is missing, no folder, or suddenly on another device", async () => {
  await using folder = scratchFolder("scan-");
  Deno.writeTextFileSync(`${folder.path}/file`, "1");
  for (const path of [`${folder.path}/none`, `${folder.path}/file`]) {
    assert.throws(
      () => scan(filesRoot(path)),
      (error) => isError(error, "source-missing"),
      path,
    );
  }
  const root = filesRoot(folder.path);
  assert.throws(
    () => scan(root, { expectedDev: 1n }),
    (error) => isError(error, "source-missing"),
  );
  const [first] = scanTree(root);
  assert.equal(
    scan(root, { expectedDev: first?.facts.dev ?? 0n }).entries.length,
    2,
  );
});

Deno.test("scan skips what vanishes while it walks", async () => {
  await using folder = scratchFolder("scan-");
  for (const name of ["a", "b"]) Deno.mkdirSync(`${folder.path}/${name}`);
  Deno.writeTextFileSync(`${folder.path}/b/x`, "1");
  const walk = scanTree(filesRoot(folder.path));
  assert.equal(walk.next().value?.entry.type, "directory"); // the root; its folders are listed with the next one
  walk.next();
  Deno.removeSync(`${folder.path}/b`, { recursive: true });
  assert.deepEqual(pathsOf([...walk].map(({ entry }) => entry)), ["b"]);
});

Deno.test({
  name: "scan does not enter another filesystem, and keeps the folder it is mounted on [needs mount]",
  ignore: !canMount,
  async fn() {
    await using folder = scratchFolder("scan-");
    const path = `${folder.path}/mnt`;
    Deno.mkdirSync(path);
    const bound = `${folder.path}/bound`;
    Deno.mkdirSync(bound);
    assert.ok(tool("mount", "-t", "tmpfs", "none", path));
    assert.ok(tool("mount", "--bind", "/etc", bound));
    try {
      Deno.writeTextFileSync(`${path}/inside`, "1");
      const { entries, warnings } = scan(filesRoot(folder.path));
      assert.deepEqual(pathsOf(entries), ["", "bound", "mnt"]);
      assert.equal(warnings.length, 2);
    } finally {
      tool("umount", path);
      tool("umount", bound);
    }
  },
});

Deno.test("reading shows data and holes in order, and whether the file changed", async () => {
  await using folder = scratchFolder("scan-");
  const path = `${folder.path}/sparse`;
  const file = Deno.openSync(path, { write: true, create: true });
  file.truncateSync(10_000_000);
  file.seekSync(5_000_000, Deno.SeekMode.Start);
  file.writeSync(new Uint8Array(1000).fill(1));
  const rootFd = openRootFolder(folder.path);
  const entry = scan(filesRoot(folder.path)).entries[1];
  assert.ok(entry);
  const opened = openForReading(rootFd, entry.path);
  const extents = opened.extents();
  assert.deepEqual(extents.map((extent) => extent.kind), [
    "hole",
    "data",
    "hole",
  ]);
  assert.equal(
    extents.reduce(
      (at, extent) => (assert.equal(extent.offset, at), at + extent.length),
      0,
    ),
    10_000_000,
  );
  const buffer = new Uint8Array(2000);
  assert.equal(opened.read(5_000_000, buffer), 2000);
  assert.equal(buffer[999], 1);
  assert.equal(buffer[1000], 0);
  assert.equal(opened.changed(), false);
  file.writeSync(new Uint8Array([1]));
  assert.equal(opened.changed(), true);
  opened.close();
  file.close();
  closeFd(rootFd);
});

Deno.test("reading never follows a symlink that took a folder's or file's place", async () => {
  await using folder = scratchFolder("scan-");
  Deno.mkdirSync(`${folder.path}/d`);
  Deno.writeTextFileSync(`${folder.path}/d/passwd`, "1");
  const entries = scan(filesRoot(folder.path)).entries;
  Deno.removeSync(`${folder.path}/d`, { recursive: true });
  Deno.symlinkSync("/etc", `${folder.path}/d`);
  const rootFd = openRootFolder(folder.path);
  const entry = entries[2];
  assert.ok(entry);
  assert.throws(
    () => openForReading(rootFd, entry.path),
    (error) => error instanceof LibcError,
  );
  closeFd(rootFd);
});
