/**
 * The load: small transactions at an even pace, each committed by itself and timed where an application would feel it.
 * After a time to warm up one window is measured; then it tells what it saw and writes on at the same pace until it is
 * stopped, so that whoever looks at the end of the window still sees the load. The rows are a chain that
 * tests/support/chain.ts judges.
 */

import { DatabaseSync } from "node:sqlite";
import { systemClock } from "../src/platform/clock.ts";
import { chainHash } from "../tests/support/chain_writer.ts";

/** First argument, as JSON. */
export interface WriterOptions {
  readonly database: string;
  /** `begun` is made here when the window begins, `result.json` when it has ended. */
  readonly folder: string;
  readonly perSecond: number;
  readonly warmUpSeconds: number;
  readonly seconds: number;
}

export interface WriterResult {
  /** Row of the window's first transaction; those after it are one more each. */
  readonly firstRow: number;
  /** CLOCK_BOOTTIME after each commit of the window. */
  readonly committedMs: readonly number[];
  /** How long each commit took. */
  readonly tookMs: readonly number[];
}

/** The shortest that a timer waits. */
const TICK_MS = 1;

function main(options: WriterOptions): void {
  const { database: path, folder, perSecond, warmUpSeconds, seconds } = options;
  const clock = systemClock();
  const database = new DatabaseSync(path);
  database.exec("PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
  database.exec("CREATE TABLE IF NOT EXISTS chain (n INTEGER PRIMARY KEY, hash TEXT NOT NULL)");
  const insert = database.prepare("INSERT INTO chain VALUES (?, ?)");
  const committedMs: number[] = [];
  const tookMs: number[] = [];
  const firstMs = clock.monotonicMs();
  const beginMs = firstMs + warmUpSeconds * 1000;
  const endMs = beginMs + seconds * 1000;
  let [n, hash, firstRow, told] = [0, "", 0, false];
  const timer = setInterval(() => {
    const due = Math.floor((clock.monotonicMs() - firstMs) / 1000 * perSecond) - n;
    // One that was held up does not make up for all of it in one turn.
    for (let i = 0; i < Math.min(due, perSecond); i++) {
      n++;
      hash = chainHash(n, hash);
      const begin = performance.now();
      insert.run(n, hash);
      const took = performance.now() - begin;
      const nowMs = clock.monotonicMs();
      if (nowMs < beginMs || nowMs >= endMs) continue;
      if (firstRow === 0) {
        firstRow = n;
        Deno.writeTextFileSync(`${folder}/begun`, "");
      }
      committedMs.push(nowMs);
      tookMs.push(took);
    }
    if (told || clock.monotonicMs() < endMs) return;
    told = true;
    const result: WriterResult = { firstRow, committedMs, tookMs };
    Deno.writeTextFileSync(`${folder}/result.tmp`, JSON.stringify(result));
    Deno.renameSync(`${folder}/result.tmp`, `${folder}/result.json`);
  }, TICK_MS);
  Deno.addSignalListener("SIGTERM", () => {
    clearInterval(timer);
    database.close();
    Deno.exit(0);
  });
}

if (import.meta.main) main(JSON.parse(Deno.args[0] ?? "{}"));
