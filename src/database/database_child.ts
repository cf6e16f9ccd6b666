/**
 * The database child: the hidden subcommand `__database`, which lives for one restore, plan, drill, verification or list of points.
 * Decoding, writing and SQLite's checks happen here, synchronously, so that the manager stays small and quick. It may
 * be killed at any moment: it changes nothing live and nothing in the store, so only an unfinished file is left, which
 * the next restore to the same place removes. It ends when its stdin closes.
 */

import { buildInfo } from "../platform/build_info.ts";
import { systemClock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { keepHeapSmallWhereShort } from "../platform/heap.ts";
import { exitNow, openParentPipe, type ParentPipe } from "../platform/parent_pipe.ts";
import { systemRandom } from "../platform/random.ts";
import { errorToWire } from "../platform/wire_error.ts";
import { openWireStore } from "../storage/mod.ts";
import {
  DATABASE_LINE_LIMIT_BYTES,
  DATABASE_PROTOCOL,
  type DatabaseReplyLine,
  type DatabaseRequestLine,
  type DatabaseResults,
} from "./database_protocol.ts";
import { drillDatabase } from "./drill.ts";
import { planDatabaseRestore, restoreDatabase } from "./restore_database.ts";
import { listRestorePoints } from "./restore_points.ts";
import type { RestoreProgress } from "./restore_types.ts";
import { verifyPositions } from "./verify_positions.ts";

/** A sign of life, so that the manager can tell slow from stuck. */
const ALIVE_INTERVAL_MS = 1000;

type Send = (line: DatabaseReplyLine) => Promise<void>;

/** Runs the one operation. Resolves with its exit code; 0 also for an error that was told. */
export async function databaseMain(): Promise<number> {
  keepHeapSmallWhereShort();
  const pipe = openParentPipe(DATABASE_LINE_LIMIT_BYTES);
  const send: Send = (line) => pipe.send(line);
  await send({ type: "hello", protocol: DATABASE_PROTOCOL, build: buildInfo().build });
  const first = await pipe.lines.next();
  if (first.done === true) return 0; // the manager went away before it asked
  // Nobody is left to tell: end at once. The unfinished file is garbage.
  endWithParent(pipe).catch(() => exitNow(1));
  const alive = setInterval(() => {
    send({ type: "alive" }).catch(() => exitNow(1));
  }, ALIVE_INTERVAL_MS);
  try {
    const request: DatabaseRequestLine = JSON.parse(first.value);
    if (request.protocol !== DATABASE_PROTOCOL) {
      throw new StateManagerError(
        "wrong-state",
        `restore database: protocol ${request.protocol}, known is ${DATABASE_PROTOCOL}`,
        { hint: "the program was replaced while it ran: restart the manager" },
      );
    }
    const result = await runOperation(request, send);
    await send({ type: "done", result });
  } catch (error) {
    await send({ type: "error", error: errorToWire(error) });
  } finally {
    clearInterval(alive);
  }
  return 0;
}

async function endWithParent(pipe: ParentPipe): Promise<void> {
  while (!(await pipe.lines.next()).done);
  exitNow(0);
}

async function runOperation(
  line: DatabaseRequestLine,
  send: Send,
): Promise<DatabaseResults[DatabaseRequestLine["op"]]> {
  const clock = systemClock();
  const random = systemRandom();
  const store = openWireStore(line.store, { clock, random });
  const onProgress = (progress: RestoreProgress) => {
    send({ type: "progress", progress }).catch(() => exitNow(1));
  };
  const signal = new AbortController().signal; // cancelling is killing
  const environment = { store, clock, signal, onProgress };
  try {
    switch (line.op) {
      case "restore":
        return await restoreDatabase(line.request, environment);
      case "plan":
        return await planDatabaseRestore(line.request, environment);
      case "drill":
        return await drillDatabase(line.request, environment);
      case "points":
        return await listRestorePoints(line.request, environment);
      case "verify":
        return await verifyPositions(line.request, { ...environment, random });
    }
  } finally {
    await store.close();
  }
}
