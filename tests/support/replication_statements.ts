/** What the programs of a random history do to their database: SQL from a seed, sized by the pages of the database. */

export interface Statements {
  /** One command for a program; what fails of it is rolled back. */
  next(): string;
  /** Commits something, as a rule. */
  write(): string;
  /** In any mode. */
  checkpoint(): string;
  /** Sent when a program opens the database. */
  opening(): string;
  /** A transaction that stays open: to be ended by COMMIT or ROLLBACK, or by the death of its program. */
  unfinished(): string;
  schema(): string;
}

const MODES = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] as const;
/** Pages that most programs keep in memory: a larger transaction is spilled into the log before it commits. */
const CACHE_PAGES = 10;
/** Of one large transaction. */
const LARGE_BYTES = 600_000;

/** `undoesSpilled`: a transaction may go back to a savepoint after parts of it were spilled (see `LogFollower`). */
export function statementsOf(random: () => number, pageSize: number, undoesSpilled: boolean): Statements {
  const below = (count: number) => Math.floor(random() * count);
  const pick = <T>(items: readonly [T, ...T[]]): T => items[below(items.length)] ?? items[0];
  const table = () => `extra${below(3)}`;

  function rows(pages: number, target = "t"): string {
    const bytes = Math.min(LARGE_BYTES, pages * pageSize);
    const size = 1 + below(pick([60, 900, 900, Math.max(900, 3 * pageSize)]));
    const count = Math.max(1, Math.min(400, Math.floor(bytes / (size + 20))));
    return `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<${count})` +
      ` INSERT INTO ${target}(b,c) SELECT randomblob(${size}), i||' of ${below(1000)}' FROM n;`;
  }

  const update = () =>
    `UPDATE t SET b=randomblob(${1 + below(300)}), c=c||'.' WHERE a%${2 + below(9)}=${below(2)};`;
  /** What a savepoint may undo. */
  const undone = () => undoesSpilled ? rows(30) : `INSERT INTO w VALUES(randomblob(9), '${below(1000)}');`;
  const remove = () => `DELETE FROM t WHERE a%${2 + below(4)}=1;`;
  const small = [
    () => rows(1 + below(6)),
    () => rows(1 + below(6)),
    update,
    remove,
    () => `BEGIN; ${rows(4)} ${update()} DELETE FROM t WHERE a<${below(100)}; COMMIT;`,
    () => `UPDATE t SET c='${below(1000)}' WHERE a=(SELECT min(a) FROM t);`,
    () => `PRAGMA user_version=${below(1000)};`,
    () => `REPLACE INTO w VALUES(${below(40)}, hex(randomblob(${below(pageSize)})));`,
    () => `DELETE FROM w WHERE k%2=${below(2)};`,
  ];
  const large = [
    () => `BEGIN; ${rows(60)} COMMIT;`,
    () => `BEGIN; ${rows(40)} ${remove()} ${rows(20)} COMMIT;`,
    () => `BEGIN; ${rows(60)} ROLLBACK;`,
    () => `BEGIN; ${undone()} SAVEPOINT s; ${undone()} ROLLBACK TO s; ${update()} COMMIT;`,
    () => `SAVEPOINT a; ${undone()} SAVEPOINT b; ${undone()} RELEASE b; ROLLBACK TO a; RELEASE a;`,
    () => `SAVEPOINT a; ${rows(10)} SAVEPOINT b; ${rows(20)} RELEASE b; RELEASE a;`,
    () => "UPDATE t SET b=randomblob(length(b));",
    // Pages that grow and are free again: where they stayed in memory, SQLite never writes them.
    () => `BEGIN; CREATE TABLE gone(b,c); ${rows(25, "gone")} DROP TABLE gone; ${rows(1)} COMMIT;`,
    () => "DELETE FROM t;",
    () => `DELETE FROM t WHERE a>(SELECT avg(a) FROM t);`,
  ];
  const schema = [
    () => `CREATE TABLE ${table()}(a INTEGER PRIMARY KEY, b, c TEXT);`,
    () => rows(5, table()),
    () => `DROP TABLE IF EXISTS ${table()};`,
    () => `ALTER TABLE ${table()} ADD COLUMN d${below(3)} DEFAULT 'x';`,
    () => "CREATE INDEX IF NOT EXISTS i ON t(c);",
    () => "CREATE UNIQUE INDEX IF NOT EXISTS j ON t(b,a) WHERE a%2=0;",
    () => `DROP INDEX IF EXISTS ${pick(["i", "j"])};`,
    () => "REINDEX;",
    () => "CREATE VIEW IF NOT EXISTS v AS SELECT count(*) FROM t;",
    () => `CREATE TRIGGER IF NOT EXISTS r AFTER DELETE ON w BEGIN INSERT INTO t(b) VALUES(old.v); END;`,
    () => "DROP TRIGGER IF EXISTS r;",
    () => "ANALYZE;",
  ];
  const upkeep = [
    () => `PRAGMA wal_checkpoint(${pick(MODES)});`,
    () => `PRAGMA wal_checkpoint(${pick(MODES)});`,
    () => `PRAGMA wal_checkpoint(${pick(MODES)});`,
    () => "VACUUM;",
    () => `PRAGMA incremental_vacuum(${below(20)});`,
    () => `PRAGMA wal_autocheckpoint=${pick([0, 5, 20, 1000])};`,
    () => `PRAGMA secure_delete=${below(2)};`,
  ];
  return {
    next() {
      const kind = random();
      const pool = kind < 0.45 ? small : kind < 0.65 ? large : kind < 0.78 ? schema : upkeep;
      return pool[below(pool.length)]?.() ?? "";
    },
    write: () => `${rows(1)} ${update()}`,
    checkpoint: () => `PRAGMA wal_checkpoint(${pick(MODES)});`,
    opening: () =>
      `PRAGMA busy_timeout=40; PRAGMA synchronous=OFF; PRAGMA cache_size=${
        pick([CACHE_PAGES, CACHE_PAGES, 2000])
      }; ` +
      `PRAGMA secure_delete=${pick([0, 0, 1])}; PRAGMA wal_autocheckpoint=${pick([0, 5, 50, 1000])};`,
    unfinished: () => `BEGIN IMMEDIATE; ${rows(40)} ${update()}`,
    schema: () =>
      "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c TEXT); CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID;",
  };
}
