/**
 * The catalog's SQLite file, used only by the Worker beside this file. Nothing depends on what is in it: where it is
 * damaged, lost or of a newer version, it is moved aside and begun anew, which a notice tells.
 */

import type { Client, Row } from "@libsql/client";
import { isPresent, setAside } from "../platform/set_aside.ts";
import { CATALOG_KINDS } from "./catalog_types.ts";
import {
  type CatalogInsert,
  type CatalogKind,
  type CatalogRow,
  type EventPlace,
  type HistoryQuery,
  UNNUMBERED,
} from "./catalog_types.ts";

/** Each entry brings user_version from its index to the next. Never change one that was released: add another. */
const MIGRATIONS: readonly (readonly string[])[] = [
  [
    `CREATE TABLE events (
       id INTEGER PRIMARY KEY AUTOINCREMENT,
       time_ms INTEGER NOT NULL,
       kind TEXT NOT NULL,
       subject TEXT NOT NULL,
       summary TEXT NOT NULL,
       detail TEXT NOT NULL
     ) STRICT`,
    "CREATE INDEX events_by_kind ON events (kind, id)",
  ],
  [
    "ALTER TABLE events ADD COLUMN run TEXT",
    "ALTER TABLE events ADD COLUMN sequence INTEGER",
    "CREATE INDEX events_by_place ON events (run, sequence)",
  ],
];

/** Pruning costs a seek per kind; between two, at most this many rows are too many. */
const PRUNE_EVERY_ROWS = 500;
const COMPANIONS = ["-wal", "-shm", "-journal"];

/** Thrown where the file itself is at fault, so that another one is begun. */
class UnusableFile extends Error {}

function isDamage(error: unknown): boolean {
  if (error instanceof UnusableFile) return true;
  if (!(error instanceof Error)) return false;
  const code = "code" in error ? String(error.code) : "";
  return /^SQLITE_(CORRUPT|NOTADB|FORMAT)/.test(code) ||
    /malformed|not a database/i.test(error.message);
}

async function migrate(client: Client): Promise<void> {
  const version = Number(
    (await client.execute("PRAGMA user_version")).rows[0]?.[0] ?? 0,
  );
  if (version > MIGRATIONS.length) {
    throw new UnusableFile(
      `its version is ${version}, known are 0 to ${MIGRATIONS.length}`,
    );
  }
  for (let next = version; next < MIGRATIONS.length; next++) {
    // One transaction with the version: if we die within, neither is there.
    await client.batch([
      ...MIGRATIONS[next] ?? [],
      `PRAGMA user_version = ${next + 1}`,
    ], "write");
  }
}

async function openOnce(path: string): Promise<Client> {
  const { createClient } = await import("@libsql/client/sqlite3");
  const url = `file://${path.split("/").map(encodeURIComponent).join("/")}`;
  // One connection: the client's pool would open others, with other PRAGMAs.
  const client = createClient({ url, concurrency: 1 });
  try {
    await client.execute("PRAGMA journal_mode = WAL");
    await client.execute("PRAGMA synchronous = NORMAL"); // a power cut may lose the last events, not the file
    const check = await client.execute("PRAGMA quick_check(1)");
    if (check.rows[0]?.[0] !== "ok") {
      throw new UnusableFile(String(check.rows[0]?.[0]));
    }
    await migrate(client);
    return client;
  } catch (error) {
    client.close();
    throw error;
  }
}

function rowOf(row: Row): CatalogRow {
  const [id, run] = [Number(row["id"]), row["run"]];
  return {
    id,
    place: typeof run === "string"
      ? { run, sequence: Number(row["sequence"]) }
      : { run: UNNUMBERED, sequence: id },
    timeMs: Number(row["time_ms"]),
    kind: String(row["kind"]) as CatalogKind,
    subject: String(row["subject"]),
    summary: String(row["summary"]),
    detail: JSON.parse(String(row["detail"])),
  };
}

/**
 * The row that divides what comes behind `place` from the rest; it may have been pruned, or never have been kept. Null:
 * nothing of its run is there.
 */
async function rowBehind(
  client: Client,
  { run, sequence }: EventPlace,
  order: HistoryQuery["order"],
): Promise<number | null> {
  if (run === UNNUMBERED) return sequence;
  const before = await client.execute({
    sql: "SELECT id, sequence FROM events WHERE run = ? AND sequence <= ? ORDER BY sequence DESC LIMIT 1",
    args: [run, sequence],
  });
  const nearest = before.rows[0];
  if (nearest !== undefined) {
    const isItself = Number(nearest["sequence"]) === sequence;
    return Number(nearest["id"]) + (isItself || order === "oldest-first" ? 0 : 1);
  }
  const later = await client.execute({
    sql: "SELECT id FROM events WHERE run = ? ORDER BY sequence LIMIT 1",
    args: [run],
  });
  const first = later.rows[0];
  if (first === undefined) return null;
  return Number(first["id"]) - (order === "oldest-first" ? 1 : 0);
}

function selectionOf(
  query: HistoryQuery,
  from: number | undefined,
): { sql: string; args: (string | number)[] } {
  const { kinds, sinceMs, untilMs, order, limit } = query;
  const wanted: string[] = [];
  const args: (string | number)[] = [];
  const want = (condition: string, ...values: readonly (string | number)[]) => {
    wanted.push(condition);
    args.push(...values);
  };
  if (from !== undefined) want(order === "oldest-first" ? "id > ?" : "id < ?", from);
  if (kinds !== undefined) want(`kind IN (${kinds.map(() => "?").join(", ")})`, ...kinds);
  if (sinceMs !== undefined) want("time_ms >= ?", sinceMs);
  if (untilMs !== undefined) want("time_ms < ?", untilMs);
  return {
    sql: `SELECT * FROM events ${wanted.length === 0 ? "" : `WHERE ${wanted.join(" AND ")}`}
          ORDER BY id ${order === "oldest-first" ? "ASC" : "DESC"} LIMIT ?`,
    args: [...args, limit],
  };
}

/** The open catalog. One call at a time: the Worker sees to that. */
export class CatalogFile {
  readonly #path: string;
  readonly #rowsPerKind: number;
  #client: Client | undefined;
  #rowsSincePrune = PRUNE_EVERY_ROWS;
  readonly #notices: string[] = [];

  constructor(path: string, rowsPerKind: number) {
    this.#path = path;
    this.#rowsPerKind = rowsPerKind;
  }

  /** What the operator should know, told once. */
  takeNotices(): string[] {
    return this.#notices.splice(0);
  }

  /** Opens it, or begins a new one where it can't be used. Throws only where that fails too (disk full, no right). */
  async open(stamp: string): Promise<void> {
    try {
      this.#client = await openOnce(this.#path);
    } catch (error) {
      if (!isDamage(error)) throw error;
      await this.#beginAnew(stamp, error);
    }
  }

  async #beginAnew(stamp: string, reason: unknown): Promise<void> {
    this.close();
    const text = reason instanceof Error ? reason.message : String(reason);
    setAside(this.#path, COMPANIONS, stamp);
    this.#notices.push(
      `history begins anew: the catalog could not be used (${text}) and was moved aside`,
    );
    this.#rowsSincePrune = PRUNE_EVERY_ROWS;
    this.#client = await openOnce(this.#path);
  }

  async #opened(stamp: string): Promise<Client> {
    if (this.#client !== undefined && !isPresent(this.#path)) {
      this.close();
      this.#notices.push("history begins anew: the catalog's file is gone");
    }
    if (this.#client === undefined) await this.open(stamp);
    if (this.#client === undefined) {
      throw new Error("use catalog: it is closed, wanted an open one");
    }
    return this.#client;
  }

  /** Runs `work` on an open file; once more on a new one when the file proves damaged. */
  async #use<Result>(
    stamp: string,
    work: (client: Client) => Promise<Result>,
  ): Promise<Result> {
    try {
      return await work(await this.#opened(stamp));
    } catch (error) {
      if (!isDamage(error)) throw error;
      await this.#beginAnew(stamp, error);
      return await work(await this.#opened(stamp));
    }
  }

  /** All rows or none, in one transaction. */
  async record(rows: readonly CatalogInsert[], stamp: string): Promise<void> {
    await this.#use(stamp, async (client) => {
      const inserts = rows.map((row) => ({
        sql:
          "INSERT INTO events (time_ms, kind, subject, summary, detail, run, sequence) VALUES (?, ?, ?, ?, ?, ?, ?)",
        args: [
          row.timeMs,
          row.kind,
          row.subject,
          row.summary,
          row.detail,
          row.place?.run ?? null,
          row.place?.sequence ?? null,
        ],
      }));
      const prune = this.#rowsSincePrune + rows.length >= PRUNE_EVERY_ROWS;
      await client.batch(
        [...inserts, ...(prune ? this.#prunes() : [])],
        "write",
      );
      this.#rowsSincePrune = prune ? 0 : this.#rowsSincePrune + rows.length;
    });
  }

  #prunes() {
    return CATALOG_KINDS.map((kind) => ({
      sql: `DELETE FROM events WHERE kind = ? AND id <=
              (SELECT id FROM events WHERE kind = ? ORDER BY id DESC LIMIT 1 OFFSET ?)`,
      args: [kind, kind, this.#rowsPerKind],
    }));
  }

  /** Null: nothing is kept of the run of the event behind which rows are asked for. */
  async history(query: HistoryQuery, stamp: string): Promise<CatalogRow[] | null> {
    return await this.#use(stamp, async (client) => {
      const from = query.after === undefined ? undefined : await rowBehind(client, query.after, query.order);
      if (from === null) return null;
      const result = await client.execute(selectionOf(query, from));
      return result.rows.map(rowOf);
    });
  }

  close(): void {
    try {
      this.#client?.close();
    } catch {
      // A damaged file may refuse even that; the connection is given up either way.
    }
    this.#client = undefined;
  }
}
