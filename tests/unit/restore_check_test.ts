/** SQLite's check of a restored file: what it finds, what it leaves alone, and what it cannot judge. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { checkDatabase } from "../../src/database/restore_check.ts";
import { scratchFolder } from "../support/tree_model.ts";

function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

Deno.test("a check of a database in WAL mode changes nothing and leaves nothing beside it", async () => {
  await using folder = scratchFolder("check-");
  const path = `${folder.path}/app.db`;
  const database = new DatabaseSync(path);
  database.exec("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)");
  database.close();
  Deno.chmodSync(path, 0o400);
  const before = Deno.readFileSync(path);
  assert.equal(before[18], 2, "its header says WAL");
  for (const mode of ["quick", "full"] as const) assert.equal(checkDatabase(path, mode).outcome, "passed");
  assert.equal(checkDatabase(path, "none").outcome, "skipped");
  assert.deepEqual(Deno.readFileSync(path), before);
  assert.deepEqual(names(folder.path), ["app.db"]);
});

Deno.test("a full check finds an index that differs from its table, a quick one the broken page", async () => {
  await using folder = scratchFolder("check-");
  const path = `${folder.path}/app.db`;
  const database = new DatabaseSync(path);
  database.exec("PRAGMA page_size=512; CREATE TABLE t(a); CREATE INDEX i ON t(a)");
  for (let row = 0; row < 100; row++) database.exec(`INSERT INTO t VALUES('row number ${row}')`);
  const [{ rootpage = null } = {}] = database.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'i'")
    .all();
  database.close();
  const bytes = Deno.readFileSync(path);
  const at = new TextDecoder("latin1").decode(bytes).indexOf("row number 50"); // in the table or in the index
  bytes[at] = 0x52;
  Deno.writeFileSync(path, bytes);
  assert.throws(() => checkDatabase(path, "full"), {
    code: "data-damaged",
    message: /SQLite says "row .* index i/,
  });
  bytes.fill(0xee, (Number(rootpage) - 1) * 512, Number(rootpage) * 512);
  Deno.writeFileSync(path, bytes);
  assert.throws(() => checkDatabase(path, "quick"), { code: "data-damaged" });
  Deno.writeFileSync(path, new Uint8Array(4096).fill(7));
  assert.throws(() => checkDatabase(path, "quick"), { code: "data-damaged", message: /not a database/ });
});

Deno.test("a check that needs the application's own functions is not run, which is no damage", async () => {
  await using folder = scratchFolder("check-");
  const path = `${folder.path}/app.db`;
  const database = new DatabaseSync(path);
  database.function("own", { deterministic: true }, (value) => value);
  database.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1); CREATE INDEX i ON t(own(a))");
  database.close();
  const result = checkDatabase(path, "full");
  assert.equal(result.outcome, "not-run");
  assert.match(result.outcome === "not-run" ? result.reason : "", /own/);
});
