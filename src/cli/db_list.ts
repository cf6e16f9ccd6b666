/** `state-manager db list` and `db points`: what the store has of databases, straight from it. */

import { listRestorePoints } from "../database/mod.ts";
import type { ListedPoint } from "../database/restore_points.ts";
import { POINTS_PAGE_LIMIT } from "../database/restore_plan.ts";
import { type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { databasesIn, findDatabase, openDatabaseStore } from "./db_store.ts";
import { count, json, size, table } from "./text.ts";

/** Points shown when nobody says how many; the newest are wanted nearly always. */
const POINTS_SHOWN = 50;

export async function listStoredDatabases(context: Context, options: Options): Promise<ExitCode> {
  await using opened = await openDatabaseStore(context, options);
  const databases = await databasesIn(opened);
  if (options.flag("json")) {
    const views = databases.map(({ name, files, bytes, newestTxid, modifiedMs }) => ({
      name,
      txid: newestTxid,
      objects: files,
      bytes,
      changed: new Date(modifiedMs).toISOString(),
    }));
    context.terminal.out(json({ databases: views }));
    return 0;
  }
  const rows = databases.map(({ name, files, bytes, newestTxid, modifiedMs }) => [
    name,
    String(newestTxid),
    String(files),
    size(bytes),
    new Date(modifiedMs).toISOString(),
  ]);
  context.terminal.out(table(["NAME", "TXID", "OBJECTS", "SIZE", "CHANGED"], rows));
  return 0;
}

export async function listPoints(
  context: Context,
  options: Options,
  args: readonly string[],
): Promise<ExitCode> {
  const limit = limitOf(options);
  await using opened = await openDatabaseStore(context, options);
  const place = await findDatabase(opened, args);
  const environment = { store: opened.store, signal: new AbortController().signal };
  const points: ListedPoint[] = [];
  let total = 0;
  let after: number | null = 0;
  do {
    const page: Awaited<ReturnType<typeof listRestorePoints>> = await listRestorePoints(
      { place, after, newest: limit !== null, limit: limit ?? POINTS_PAGE_LIMIT },
      environment,
    );
    points.push(...page.points);
    total = page.total;
    after = page.nextAfter;
  } while (after !== null);
  const views = points.map(({ txid, timestampMs, level }) => ({
    txid,
    time: new Date(timestampMs).toISOString(),
    level,
  }));
  if (options.flag("json")) context.terminal.out(json({ database: place.name, total, points: views }));
  else {
    const rows = views.map(({ txid, time, level }) => [String(txid), time, String(level)]);
    context.terminal.out(table(["TXID", "TIME", "LEVEL"], rows));
    const hidden = total - points.length;
    if (hidden > 0) say(context, options, `${count(hidden, "older point")} not shown: --all, or --limit N`);
  }
  return 0;
}

/** Null: all of them. */
function limitOf(options: Options): number | null {
  const text = options.text("limit");
  if (options.flag("all")) return null;
  if (text === undefined) return POINTS_SHOWN;
  const limit = Number(text);
  if (Number.isInteger(limit) && limit >= 1 && limit <= POINTS_PAGE_LIMIT) return limit;
  throw usageError(`read --limit: want a whole number from 1 to ${POINTS_PAGE_LIMIT}`);
}
