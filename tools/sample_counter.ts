/** The sample program of `deno task dev`: counts in a SQLite database and writes a file beside it. */

import { DatabaseSync } from "node:sqlite";

const files = Deno.args[0] ?? ".";
const database = new DatabaseSync(`${files}/counter.db`);
database.exec("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000");
database.exec("CREATE TABLE IF NOT EXISTS ticks (id INTEGER PRIMARY KEY, time TEXT NOT NULL)");
const insert = database.prepare("INSERT INTO ticks (time) VALUES (?)");
const count = () => Number(database.prepare("SELECT count(*) AS n FROM ticks").get()?.["n"]);

function say(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

say(`sample: starting at ${count()} ticks`);
const timer = setInterval(() => {
  insert.run(new Date().toISOString());
  const ticks = count();
  Deno.writeTextFileSync(`${files}/note.txt`, `${ticks} ticks\n`);
  if (ticks % 10 === 0) say(`sample: ${ticks} ticks`);
}, 1000);

Deno.addSignalListener("SIGTERM", () => {
  clearInterval(timer);
  say(`sample: stopping at ${count()} ticks`);
  database.close();
  Deno.exit(143);
});
