/** Reading a file for a checkpoint leaves no trace in its times. */

import assert from "node:assert/strict";
import {
  AT_CWD,
  closeFd,
  isRoot,
  OPEN,
  openAt,
  type PathBytes,
  pathBytes,
  readAt,
} from "../../src/platform/libc_files.ts";
import { openToRead } from "../../src/platform/open_to_read.ts";
import { asUser } from "../support/other_user.ts";

const NOBODY = 65534;
const LONG_AGO = new Date("2020-02-03T04:05:06Z");

async function inFolder(use: (folder: string, fd: number) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  await Deno.chmod(folder, 0o755);
  const fd = openAt(AT_CWD, pathBytes(folder), OPEN.read | OPEN.directory);
  try {
    await use(folder, fd);
  } finally {
    closeFd(fd);
    await Deno.remove(folder, { recursive: true });
  }
}

async function write(path: string): Promise<void> {
  await Deno.writeTextFile(path, "content");
  await Deno.chmod(path, 0o644);
  await Deno.utime(path, LONG_AGO, LONG_AGO);
}

function readWhole(folderFd: number, path: PathBytes): string {
  const fd = openToRead(folderFd, path);
  try {
    const buffer = new Uint8Array(100);
    return new TextDecoder().decode(buffer.subarray(0, readAt(fd, buffer, 0)));
  } finally {
    closeFd(fd);
  }
}

Deno.test("a file that is read for a checkpoint keeps the time of its last access", async () => {
  await inFolder(async (folder, fd) => {
    await write(`${folder}/a`);
    assert.equal(readWhole(fd, pathBytes("a")), "content");
    assert.deepEqual((await Deno.stat(`${folder}/a`)).atime, LONG_AGO);
  });
});

Deno.test({
  name: "files of others, whose time of access nobody may keep, are read all the same [needs root]",
  ignore: !isRoot(),
  async fn() {
    await inFolder(async (folder, fd) => {
      for (const name of ["theirs", "theirs too"]) await write(`${folder}/${name}`);
      await asUser(NOBODY, () => {
        assert.equal(readWhole(fd, pathBytes("theirs")), "content");
        assert.equal(readWhole(fd, pathBytes("theirs too")), "content");
      });
      assert.throws(() => openToRead(fd, pathBytes("nothing")), /ENOENT/);
    });
  },
});
