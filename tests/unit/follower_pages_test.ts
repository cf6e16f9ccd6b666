/** Which pages a file has, where the page that never has content would be one of them. */

import assert from "node:assert/strict";
import { AT_CWD, closeFd, OPEN, openAt, pathBytes } from "../../src/platform/libc_files.ts";
import { allPages, changedPages, PageReader, pagesOf } from "../../src/database/follower_pages.ts";
import { lockPage } from "../../src/database/ltx/mod.ts";
import { scratchFolder } from "../support/tree_model.ts";

Deno.test("allPages and changedPages leave out the lock page of a database past a gibibyte", () => {
  const lock = lockPage(65536);
  const all = [...allPages(lock + 2, 65536)];
  assert.equal(all.length, lock + 1);
  assert.deepEqual(all.slice(-3), [lock - 1, lock + 1, lock + 2]);
  const inLog = new Map([[lock + 2, 32], [3, 64], [lock, 96]]);
  assert.deepEqual(changedPages(inLog, lock - 2, lock + 2, 65536), [3, lock - 1, lock + 1, lock + 2]);
  assert.deepEqual(changedPages(new Map([[9, 0], [2, 0]]), 9, 9, 512), [2, 9]);
});

Deno.test("pagesOf takes a page from the log, else from the database, else zeros", async () => {
  await using folder = scratchFolder("pages-");
  const databaseBytes = new Uint8Array(512 * 3 + 100).fill(1);
  const logBytes = new Uint8Array(2000).fill(2);
  Deno.writeFileSync(`${folder.path}/db`, databaseBytes);
  Deno.writeFileSync(`${folder.path}/log`, logBytes);
  const [databaseFd, logFd] = ["db", "log"].map((name) =>
    openAt(AT_CWD, pathBytes(`${folder.path}/${name}`), OPEN.read)
  );
  assert.ok(databaseFd !== undefined && logFd !== undefined);
  const log = { fd: logFd, pages: new Map([[2, 700]]) };
  const pages = [...pagesOf([1, 2, 3, 4, 9000], 512, log, new PageReader(databaseFd, 512))];
  assert.deepEqual(pages.map(({ data }) => [data.length, data[0], data[99], data[100], data[511]]), [
    [512, 1, 1, 1, 1],
    [512, 2, 2, 2, 2],
    [512, 1, 1, 1, 1],
    [512, 1, 1, 0, 0],
    [512, 0, 0, 0, 0],
  ]);
  closeFd(databaseFd);
  closeFd(logFd);
});
