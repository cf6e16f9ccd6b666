/** Extended attributes through whole checkpoints: read by one thread and by several, kept in the cache, restored. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { isRoot, pathBytes, withFolder } from "../../src/platform/libc_files.ts";
import { setXattr } from "../../src/platform/libc_xattrs.ts";
import { CheckpointRuns, watchedStore } from "../support/checkpoint_runs.ts";
import { makeTree } from "../support/tree_model.ts";
import { giveXattrs, listXattrLines, python } from "../support/xattr_model.ts";

const asRoot = isRoot();

for (const cores of [1, 4]) {
  Deno.test({
    name:
      `checkpoint read with ${cores} cores brings extended attributes back, changed ones too [needs python3] [needs root]`,
    ignore: python === null || !asRoot, // some folders' ACLs keep their own owner out
    async fn() {
      await using runs = new CheckpointRuns(watchedStore().store);
      runs.machine = { cores, memoryLimitBytes: 2 ** 40 };
      // More files than one thread is left to read by itself, where there are cores for more.
      makeTree(runs.files, { seed: cores, files: cores === 1 ? 100 : 1600, asRoot });
      const database = new DatabaseSync(`${runs.files}/app.db`);
      database.exec("CREATE TABLE t(a)");
      database.close();
      await giveXattrs(runs.files, cores, asRoot);
      set(runs.files, "app.db", "user.database");
      const first = await runs.create();
      assert.deepEqual(first.warnings, []);
      assert.deepEqual(await listXattrLines((await runs.stage()).path), await listXattrLines(runs.files));
      runs.later(); // all times are old now: what is unchanged comes from the cache
      await runs.create();
      assert.equal((await runs.create()).record, null, "nothing changed");
      set(runs.files, "hole-all", "user.new");
      set(runs.files, "empty", "user.new");
      const second = await runs.create();
      assert.notEqual(second.record, null);
      assert.ok(second.totals.bytesRead < first.totals.bytesRead / 2, "the others were not read again");
      assert.deepEqual(await listXattrLines((await runs.stage()).path), await listXattrLines(runs.files));
    },
  });
}

function set(folder: string, name: string, xattr: string): void {
  withFolder(pathBytes(folder), (folderFd) => {
    setXattr({ folderFd, name: pathBytes(name) }, pathBytes(xattr), Uint8Array.of(7, 0, 255));
  });
}
