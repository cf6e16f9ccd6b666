/**
 * A program that commits one row after the other, each with the hash of the one before, and tells every commit to a
 * journal outside of what is replicated, after it: `<n> <CLOCK_BOOTTIME ms>`. So a restored database can be judged by
 * itself (its rows are one chain) and by the journal (how far the chain must reach).
 */

import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { systemClock } from "../../src/platform/clock.ts";

/** First argument, as JSON. */
export interface ChainWriterOptions {
  readonly database: string;
  readonly journal: string;
  readonly perSecond: number;
  /** journal_mode and the like, at each open. */
  readonly pragmas?: string;
}

/** The hash that row `n` holds. */
export function chainHash(n: number, previous: string): string {
  return createHash("sha256").update(`${n} ${previous}`).digest("hex");
}

/** How often it wakes; it commits as many as are due then, each by itself. */
const TICK_MS = 10;

function main(options: ChainWriterOptions): void {
  const clock = systemClock();
  const database = new DatabaseSync(options.database);
  database.exec("PRAGMA busy_timeout = 5000");
  database.exec(options.pragmas ?? "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
  database.exec("CREATE TABLE IF NOT EXISTS chain (n INTEGER PRIMARY KEY, hash TEXT NOT NULL)");
  const newest = database.prepare("SELECT n, hash FROM chain ORDER BY n DESC LIMIT 1").get();
  let n = Number(newest?.["n"] ?? 0);
  let hash = String(newest?.["hash"] ?? "");
  const insert = database.prepare("INSERT INTO chain VALUES (?, ?)");
  const journal = Deno.openSync(options.journal, { append: true, create: true });
  const tell = (text: string) => journal.writeSync(new TextEncoder().encode(text));
  tell(`start ${n} ${clock.monotonicMs()} ${Deno.pid}\n`);
  const firstMs = clock.monotonicMs();
  let made = 0;
  const timer = setInterval(() => {
    const due = Math.floor((clock.monotonicMs() - firstMs) / 1000 * options.perSecond) - made;
    // One that was held up does not make up for all of it in one turn.
    for (let i = 0; i < Math.min(due, options.perSecond); i++) {
      n++;
      hash = chainHash(n, hash);
      insert.run(n, hash);
      made++;
      tell(`row ${n} ${clock.monotonicMs()}\n`);
    }
  }, TICK_MS);
  Deno.addSignalListener("SIGTERM", () => {
    clearInterval(timer);
    database.close();
    Deno.exit(0);
  });
}

if (import.meta.main) main(JSON.parse(Deno.args[0] ?? "{}"));
