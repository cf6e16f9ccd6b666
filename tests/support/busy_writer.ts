/** A program under test: keeps writing files and rows until it is told to stop; `work/rows` says how many rows are committed. */

import { DatabaseSync } from "node:sqlite";

const files = Deno.args[0] ?? ".";
Deno.mkdirSync(`${files}/work`, { recursive: true });
const database = new DatabaseSync(`${files}/app.db`);
database.exec("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000");
database.exec(
  "CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, text TEXT)",
);
const insert = database.prepare("INSERT INTO log (text) VALUES (?)");
let rows = Number(
  (database.prepare("SELECT count(*) AS n FROM log").get() as { n: number }).n,
);

Deno.addSignalListener("SIGTERM", () => {
  database.close();
  Deno.exit(143);
});

let turn = 0;
setInterval(() => {
  for (let i = 0; i < 5; i++) insert.run(`row ${rows++} ${"x".repeat(200)}`);
  // Written beside and renamed, so that a reader never sees an empty file.
  Deno.writeTextFileSync(`${files}/work/.rows`, String(rows));
  Deno.renameSync(`${files}/work/.rows`, `${files}/work/rows`);
  Deno.writeTextFileSync(
    `${files}/work/${turn++ % 200}`,
    `turn ${turn}\n`.repeat(turn % 50),
  );
}, 10);
