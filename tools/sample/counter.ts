/**
 * The sample program of `deno task dev`: counts in a SQLite database and writes plain files beside it. Knows nothing of
 * its manager: it opens its folder, goes on where the data says it was, and stops cleanly on SIGTERM.
 */

import { DatabaseSync } from "node:sqlite";

const folder = Deno.args[0] ?? "data";
const INTERVAL_MS = 1000;
const SAY_EVERY = 10;
/** Plain files in turn, so that the folder stays small. */
const NOTES = 20;

Deno.mkdirSync(`${folder}/notes`, { recursive: true });
const database = new DatabaseSync(`${folder}/counter.db`);
database.exec("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000");
database.exec("CREATE TABLE IF NOT EXISTS counts (n INTEGER PRIMARY KEY, time TEXT NOT NULL)");
const insert = database.prepare("INSERT INTO counts (time) VALUES (?) RETURNING n");
const last = database.prepare("SELECT max(n) AS n FROM counts").get();

function say(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`counter: ${text}\n`));
}

function count(): void {
  const time = new Date().toISOString();
  const n = Number(insert.get(time)?.["n"]);
  Deno.writeTextFileSync(`${folder}/notes/${n % NOTES}.txt`, `count ${n} at ${time}\n`);
  if (n % SAY_EVERY === 0) say(`${n}`);
}

say(last?.["n"] ? `goes on after ${last["n"]}` : "begins at 1");
const timer = setInterval(count, INTERVAL_MS);
for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.addSignalListener(signal, () => {
    clearInterval(timer);
    database.close();
    say("stopped");
    Deno.exit(0);
  });
}
