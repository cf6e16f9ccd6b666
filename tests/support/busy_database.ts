/** A program that writes to a database as fast as it can: `path seed`. Tables t and u have equal counts at each commit. */

import { DatabaseSync } from "node:sqlite";
import { seededRandom } from "./tree_model.ts";

const [path = "", seed = "1"] = Deno.args;
const random = seededRandom(Number(seed));
const database = new DatabaseSync(path);
database.exec(`PRAGMA busy_timeout=5000; PRAGMA cache_size=20; PRAGMA wal_autocheckpoint=${seed}0`);
const below = (count: number) => Math.floor(random() * count);

function one(): string {
  const kind = random();
  if (kind < 0.85) {
    const bytes = below(3000);
    return `BEGIN IMMEDIATE; INSERT INTO t(b) VALUES(randomblob(${bytes})); INSERT INTO u(b) VALUES(0); COMMIT`;
  }
  if (kind < 0.9) return `BEGIN IMMEDIATE; UPDATE t SET b=randomblob(900); ROLLBACK`;
  if (kind < 0.95) {
    return "BEGIN IMMEDIATE; DELETE FROM t WHERE a%3=0; " +
      "DELETE FROM u WHERE a<=(SELECT min(a) FROM u)+(SELECT count(*) FROM u)-(SELECT count(*) FROM t)-1; COMMIT";
  }
  return `PRAGMA wal_checkpoint(${["PASSIVE", "FULL", "RESTART", "TRUNCATE"][below(4)]})`;
}

for (let i = 0;; i++) {
  try {
    database.exec(one());
  } catch (error) {
    if (!/locked|busy/.test(String(error))) throw error;
    try {
      database.exec("ROLLBACK");
    } catch {
      // none was open
    }
  }
  // At once: its checkpoints wait for a follower that is not at work yet, as long as they are patient.
  if (i === 0) Deno.stdout.writeSync(new TextEncoder().encode("writing\n"));
}
