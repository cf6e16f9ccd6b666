/** Judges a database that chain_writer.ts wrote, and reads what the writer told. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { chainHash, type ChainWriterOptions } from "./chain_writer.ts";

const root = new URL("../../", import.meta.url).pathname;
const WRITER = new URL("./chain_writer.ts", import.meta.url).pathname;

/** argv of the writer. */
export function chainProgram(options: ChainWriterOptions): string[] {
  return [
    Deno.execPath(),
    "run",
    "-A",
    "--quiet",
    "--no-check",
    "--config",
    `${root}tests/deno.json`,
    WRITER,
    JSON.stringify(options),
  ];
}

export interface ToldRow {
  readonly n: number;
  /** CLOCK_BOOTTIME. */
  readonly atMs: number;
}

export interface ToldChain {
  /** Row that was newest at each start. */
  readonly starts: readonly number[];
  /** Since the last start. */
  readonly rows: readonly ToldRow[];
}

/** A line that a kill cut short is left out. */
export function readJournal(path: string): ToldChain {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch {
    return { starts: [], rows: [] };
  }
  const starts: number[] = [];
  let rows: ToldRow[] = [];
  for (const line of text.split("\n").slice(0, -1)) {
    const [kind, n, atMs] = line.split(" ");
    if (kind === "start") {
      starts.push(Number(n));
      rows = [];
    } else rows.push({ n: Number(n), atMs: Number(atMs) });
  }
  return { starts, rows };
}

/**
 * Asserts that the file is a whole database with an unbroken chain from row 1 on; gives its length. With `readOnly` it
 * may be in use by its program, never by this process.
 */
export function checkChain(path: string, options: { readonly readOnly?: boolean } = {}): number {
  const database = new DatabaseSync(path, options);
  try {
    const [check] = database.prepare("PRAGMA integrity_check").all();
    assert.equal(check?.["integrity_check"], "ok", `integrity_check of ${path}`);
    let n = 0;
    let hash = "";
    for (const row of database.prepare("SELECT n, hash FROM chain ORDER BY n").iterate()) {
      n++;
      assert.equal(row["n"], n, `row ${n} is missing`);
      hash = chainHash(n, hash);
      assert.equal(row["hash"], hash, `row ${n} is not the one that followed row ${n - 1}`);
    }
    return n;
  } finally {
    database.close();
  }
}
