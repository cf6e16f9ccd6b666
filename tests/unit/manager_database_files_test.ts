/** What the head knows of owner and mode of the databases' files: who is believed, and when it is written. */

import assert from "node:assert/strict";
import type { CheckpointRecord, DatabaseFile, Head } from "../../src/checkpoint/types.ts";
import { DatabaseFiles, recordedFile } from "../../src/manager/database_files.ts";
import { changeHead } from "../../src/manager/head_changes.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { scratchFolder } from "../support/tree_model.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

isRoot(); // loads libc, which older runtimes count as a leak of the test that does it

function record(n: number, mode: number | null): CheckpointRecord {
  const position = { txid: n, ...(mode === null ? {} : { file: { uid: 1, gid: 1, mode } }) };
  return {
    ...{ id: `c${n}`, n, time: n, token: 1, parent: null, kind: "interval", comment: "", labels: {} },
    ...{ root: "", root_sha256: "", files: {}, warnings: 0, databases: { app: position } },
  };
}

function head(change: Partial<Head> = {}): Head {
  return {
    ...{ format: 1, repo_id: "r", epoch: 1, seq: 1, current: null, checkpoints: [], indexes: [] },
    ...{ intent: null, on_start_applied: null, doomed: [] },
    ...change,
  };
}

Deno.test("the head's own word on a database's file counts before that of its checkpoints, the newest of these before others", () => {
  const checkpoints = [record(1, 0o600), record(2, 0o640), record(3, null)];
  assert.equal(recordedFile(head(), "app"), null);
  assert.equal(recordedFile(head({ checkpoints }), "app")?.mode, 0o640);
  const told = changeHead(head({ checkpoints }), {
    kind: "database-files",
    files: { app: { uid: 2, gid: 2, mode: 0o660 } },
  });
  assert.deepEqual(recordedFile(told, "app"), { uid: 2, gid: 2, mode: 0o660 });
  assert.equal(recordedFile(told, "other"), null);
});

Deno.test("a checkpoint of what the programs wrote renews what the head knows, one that a restore brings back does not", () => {
  const first = changeHead(head(), { kind: "current", record: record(1, 0o600), indexes: [] });
  const second = changeHead(first, { kind: "current", record: record(2, 0o640), indexes: [] });
  assert.equal(recordedFile(second, "app")?.mode, 0o640);
  const old = { ...record(3, 0o600), kind: "restore" as const };
  const begun = changeHead(second, { kind: "set-intent", record: old, onStart: null, files: [] });
  assert.equal(recordedFile(changeHead(begun, { kind: "finish-intent" }), "app")?.mode, 0o640);
});

class FakeHead {
  head = head();
  commits = 0;
  failure: StateManagerError | null = null;

  commit(change: (head: Head) => Head): Promise<void> {
    this.commits++;
    if (this.failure !== null) return Promise.reject(this.failure);
    this.head = change(this.head);
    return Promise.resolve();
  }
}

Deno.test("owner and mode are written when a database is new and when a look each minute finds them changed, never else", async () => {
  await using folder = scratchFolder("database-files-");
  const clock = new VirtualClock();
  const fake = new FakeHead();
  const files = new DatabaseFiles({ head: fake, clock });
  const app = { name: "app", path: `${folder.path}/app.db` };
  const look = async (...databases: (typeof app)[]): Promise<DatabaseFile["mode"] | undefined> => {
    files.look(databases);
    await clock.advance(0);
    return files.recorded("app")?.mode;
  };
  Deno.writeTextFileSync(app.path, "");
  Deno.chmodSync(app.path, 0o640);
  assert.equal(await look(), undefined);
  assert.equal(await look(app), 0o640);
  Deno.chmodSync(app.path, 0o600);
  assert.equal(await look(app), 0o640, "not each time");
  await clock.advance(60_000);
  assert.equal(await look(app), 0o600);
  await clock.advance(60_000);
  await look(app);
  assert.equal(fake.commits, 2, "nothing has changed");
  assert.equal(await look(app, { name: "gone", path: `${folder.path}/none` }), 0o600);
  assert.equal(fake.commits, 2, "a file that is not there tells nothing");

  const next = new DatabaseFiles({ head: fake, clock });
  next.look([app]);
  await clock.advance(0);
  assert.equal(fake.commits, 2, "the next term finds what it would write");
});

Deno.test("what could not be written is tried again a minute later", async () => {
  await using folder = scratchFolder("database-files-");
  const clock = new VirtualClock();
  const fake = new FakeHead();
  const files = new DatabaseFiles({ head: fake, clock });
  const app = { name: "app", path: `${folder.path}/app.db` };
  Deno.writeTextFileSync(app.path, "");
  fake.failure = new StateManagerError("store-unreachable", "away");
  files.look([app]);
  await clock.advance(0);
  assert.equal(files.recorded("app"), null);
  fake.failure = null;
  files.look([app]);
  assert.equal(fake.commits, 1);
  await clock.advance(60_000);
  files.look([app]);
  await clock.advance(0);
  assert.notEqual(files.recorded("app"), null);
});
