/** `state-manager db list` and `db points`: from the manager, or straight from the store. */

import { listRestorePoints } from "../database/mod.ts";
import type { ListedPoint } from "../database/restore_points.ts";
import { POINTS_PAGE_LIMIT } from "../database/restore_plan.ts";
import { type JsonObject, openClient } from "./client.ts";
import { type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { databasesIn, findDatabase, openDatabaseStore } from "./db_store.ts";
import { fromManagerOrStore } from "./manager_or_store.ts";
import { count, json, printable, size, table } from "./text.ts";

/** Points shown when nobody says how many; the newest are wanted nearly always. */
const POINTS_SHOWN = 50;

export async function listAllDatabases(context: Context, options: Options): Promise<ExitCode> {
  const { databases, text } = await fromManagerOrStore(context, options, followedDatabases, storedDatabases);
  context.terminal.out(options.flag("json") ? json({ databases }) : text);
  return 0;
}

interface Listed {
  readonly databases: readonly JsonObject[];
  readonly text: string;
}

async function followedDatabases(context: Context, options: Options): Promise<Listed> {
  using client = await openClient(context, options);
  const databases: JsonObject[] = [];
  let after: string | null = null;
  do {
    const page: { readonly databases: readonly JsonObject[]; readonly next_after: string | null } =
      await client
        .get(after === null ? "/databases" : `/databases?after=${encodeURIComponent(after)}`);
    databases.push(...page.databases);
    after = page.next_after ?? null; // a manager of before pages has none
  } while (after !== null);
  const rows = databases.map((database) => [
    told(database["name"]),
    told(database["state"]),
    told(database["txid"]),
    told(database["durable_txid"]),
    told(database["lag_seconds"]),
    told((database["last_snapshot"] as JsonObject | null)?.["time"]),
    told((database["last_drill"] as JsonObject | null)?.["outcome"]),
    told((database["last_error"] as JsonObject | null)?.["message"]),
  ]);
  const heads = ["NAME", "STATE", "TXID", "DURABLE", "LAG", "SNAPSHOT", "DRILL", "ERROR"];
  return { databases, text: table(heads, rows) };
}

function told(value: unknown): string {
  return value === null || value === undefined ? "-" : printable(String(value));
}

async function storedDatabases(context: Context, options: Options): Promise<Listed> {
  await using opened = await openDatabaseStore(context, options);
  const databases = await databasesIn(opened);
  const rows = databases.map(({ name, files, bytes, newestTxid, modifiedMs }) => [
    name,
    String(newestTxid),
    String(files),
    size(bytes),
    new Date(modifiedMs).toISOString(),
  ]);
  return {
    databases: databases.map(({ name, files, bytes, newestTxid, modifiedMs }) => ({
      name,
      txid: newestTxid,
      objects: files,
      bytes,
      changed: new Date(modifiedMs).toISOString(),
    })),
    text: table(["NAME", "TXID", "OBJECTS", "SIZE", "CHANGED"], rows),
  };
}

export async function listPoints(
  context: Context,
  options: Options,
  args: readonly string[],
): Promise<ExitCode> {
  const limit = limitOf(options);
  const { database, total, points } = await fromManagerOrStore(
    context,
    options,
    () => pointsOfManager(context, options, args, limit),
    () => pointsOfStore(context, options, args, limit),
  );
  if (options.flag("json")) context.terminal.out(json({ database, total, points }));
  else {
    const isLeveled = points.some(({ level }) => level !== undefined);
    const rows = points.map(({ txid, time, level }) => [
      String(txid),
      time ?? "-",
      ...(isLeveled ? [String(level)] : []),
    ]);
    context.terminal.out(table(["TXID", "TIME", ...(isLeveled ? ["LEVEL"] : [])], rows));
    const hidden = total - points.length;
    if (hidden > 0) say(context, options, `${count(hidden, "older point")} not shown: --all, or --limit N`);
  }
  return 0;
}

interface Points {
  readonly database: string;
  readonly total: number;
  /** `level` is the store's own matter, which a manager does not tell. */
  readonly points: readonly {
    readonly txid: number;
    readonly time: string | null;
    readonly level?: number;
  }[];
}

async function pointsOfManager(
  context: Context,
  options: Options,
  [name = ""]: readonly string[],
  limit: number | null,
): Promise<Points> {
  using client = await openClient(context, options);
  const all: { readonly txid: number; readonly time: string | null }[] = [];
  let after: number | null = 0;
  do {
    const path: string = `/databases/${encodeURIComponent(name)}/restore-points`;
    const page: { readonly restore_points: typeof all; readonly next_after: number | null } = await client
      .get(
        after === 0 ? path : `${path}?after=${after}`,
        null, // the manager has a limit of its own
      );
    all.push(...page.restore_points);
    after = page.next_after;
  } while (after !== null);
  return { database: name, total: all.length, points: limit === null ? all : all.slice(-limit) };
}

async function pointsOfStore(
  context: Context,
  options: Options,
  args: readonly string[],
  limit: number | null,
): Promise<Points> {
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
  return {
    database: place.name,
    total,
    points: points.map(({ txid, timestampMs, level }) => ({
      txid,
      time: new Date(timestampMs).toISOString(),
      level,
    })),
  };
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
