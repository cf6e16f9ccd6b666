/** A restore of databases to the past whose manager died after its intent: the next start finishes it, goes on with it, or gives it up. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import type { CheckpointRecord, Head } from "../../src/checkpoint/types.ts";
import { stagePathOf } from "../../src/database/database_swap.ts";
import { WRITTEN_LEVELS } from "../../src/database/replica_layout.ts";
import { PIECE_BYTES } from "../../src/database/restore_fetch.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { directoryStore } from "../../src/storage/mod.ts";
import { readJournal } from "../support/chain.ts";
import { type Place, placeAt, restoreTo, startAt, untilRow } from "../support/database_place.ts";
import { keptHistory } from "../support/kept_history.ts";
import { type ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import type { TestStore } from "../support/test_stores.ts";

const clock = systemClock();

async function startedAgain(place: Place, manager: ManagerProcess): Promise<void> {
  const again = () => readJournal(place.journal).starts.length === 2;
  await waitFor("the program again", again, 60_000, () => manager.tail());
}

function existingFiles(folder: string): Deno.DirEntry[] {
  try {
    return [...Deno.readDirSync(folder)];
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return [];
  }
}

/** As its holder would have left the head, had it died right after the intent of a restore of databases. */
async function beginRestore(folder: string, databases: NonNullable<CheckpointRecord["databases"]>) {
  const objects = directoryStore({ path: folder, clock, random: systemRandom() });
  const { body, etag } = await objects.get("head.json");
  const head: Head = JSON.parse(new TextDecoder().decode(body));
  const current = head.checkpoints.at(-1);
  assert.ok(current !== undefined);
  const id = current.id.slice(0, -1) + (current.id.endsWith("z") ? "y" : "z");
  const record = { ...current, id, n: current.n + 1, kind: "restore" as const };
  const intent = { record, on_start: null, files: [], databases };
  const next = new TextEncoder().encode(JSON.stringify({ ...head, seq: head.seq + 1, intent }));
  await objects.put("head.json", next, { condition: { etag } });
  await objects.close();
}

Deno.test("a restore that was begun to a state which is gone is given up by the next start, and said so", async () => {
  using scratch = scratchFolder();
  const folder = `${scratch.path}/store`;
  const store: TestStore = { args: ["--directory", folder], env: {}, config: { directory: folder } };
  const place = placeAt(`${scratch.path}/one`);
  {
    await using manager = startAt(place, store);
    await untilRow(place, manager, 50);
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
  }
  await beginRestore(folder, { app: { txid: 1_000_000 } });
  await using manager = startAt(place, store);
  await startedAgain(place, manager);
  assert.ok((await manager.checkpoint()).checkpoint.n > 1, "the head is free again");
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(), 0, manager.tail());
  const [told] = keptHistory(`${place.root}/data`, "restore");
  assert.equal(told?.subject, "app");
  assert.match(told?.summary ?? "", /given up/);
});

Deno.test("a restore of a database that its holder began is finished once by the next, and nothing of it is called diverged", async () => {
  using scratch = scratchFolder();
  const folder = `${scratch.path}/store`;
  const store: TestStore = { args: ["--directory", folder], env: {}, config: { directory: folder } };
  const place = placeAt(`${scratch.path}/one`);
  let early: CheckpointRecord;
  let later: number;
  {
    await using manager = startAt(place, store);
    await untilRow(place, manager, 50);
    early = (await manager.checkpoint()).checkpoint;
    later = (readJournal(place.journal).rows.at(-1)?.n ?? 0) + 100;
    await untilRow(place, manager, later);
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
  }
  await beginRestore(folder, early.databases ?? {});

  await using manager = startAt(place, store);
  await startedAgain(place, manager);
  const back = readJournal(place.journal).starts.at(-1) ?? 0;
  assert.ok(back >= 50 && back < later, `${back} rows came back`);
  const { databases: [status] } = await manager.json("/databases");
  assert.equal(status.origin, "kept");
  assert.equal((await manager.json("/checkpoints")).checkpoints.at(-1).current, true);
  const aside = [...Deno.readDirSync(`${place.root}/data/stale`)];
  assert.equal(aside.length, 1, "what was there before the restore, and nothing else");
});

Deno.test("a restore to the past that was cut off goes on with what it had fetched of large objects", async () => {
  using scratch = scratchFolder();
  const folder = `${scratch.path}/store`;
  const store: TestStore = { args: ["--directory", folder], env: {}, config: { directory: folder } };
  const place = placeAt(`${scratch.path}/one`);
  Deno.mkdirSync(`${place.root}/db`);
  const database = new DatabaseSync(place.database);
  database.exec("PRAGMA journal_mode = WAL; CREATE TABLE large(body)");
  database.exec(`INSERT INTO large VALUES (randomblob(${PIECE_BYTES * 1.5}))`);
  database.close();
  let early: CheckpointRecord;
  {
    await using manager = startAt(place, store);
    await untilRow(place, manager, 20);
    early = (await manager.checkpoint()).checkpoint;
    await untilRow(place, manager, (readJournal(place.journal).rows.at(-1)?.n ?? 0) + 20);
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
  }
  await beginRestore(folder, early.databases ?? {});
  const kept = `${stagePathOf(place.database)}.pieces`;
  Deno.mkdirSync(kept);
  for (const level of WRITTEN_LEVELS) {
    const path = `${folder}/databases/app/ltx/${level}`;
    for (const { name } of existingFiles(path)) {
      const bytes = Deno.readFileSync(`${path}/${name}`);
      if (bytes.length <= PIECE_BYTES) continue;
      const piece = `${level}-${name.replace(".ltx", "")}-${bytes.length}-0`;
      Deno.writeFileSync(`${kept}/${piece}`, bytes.subarray(0, PIECE_BYTES));
    }
  }
  assert.ok(existingFiles(kept).length > 0, "something large is in the store");

  await using manager = startAt(place, store);
  await startedAgain(place, manager);
  const reused = /an interrupted restore went on.*"bytesReused":(\d+)/.exec(manager.stderr)?.[1];
  assert.equal(Number(reused), PIECE_BYTES, manager.tail());
  assert.deepEqual(existingFiles(kept), [], "nothing is left of it");
  assert.equal(
    await restoreTo(store, `${scratch.path}/early.db`, ["--checkpoint", early.id]),
    readJournal(place.journal).starts.at(-1),
  );
});
