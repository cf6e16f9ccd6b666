/** The catalog on its real Worker and real files. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { type Catalog, openCatalog } from "../../src/database/mod.ts";
import { systemClock } from "../../src/platform/clock.ts";
import type { Log } from "../../src/platform/log.ts";

const clock = systemClock();

interface Place {
  readonly folder: string;
  readonly path: string;
  readonly warnings: string[];
  open(rowsPerKind?: number): Catalog;
}

async function withFolder(use: (place: Place) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "catalog #% ü " }); // characters that a URL would take for its own
  const path = `${folder}/catalog.db`;
  const warnings: string[] = [];
  const keep = (message: string) => void warnings.push(message);
  const log: Log = { debug: keep, info: keep, warn: keep, error: keep };
  try {
    await use({
      folder,
      path,
      warnings,
      open: (rowsPerKind) =>
        openCatalog({
          path,
          clock,
          log,
          ...(rowsPerKind === undefined ? {} : { rowsPerKind }),
        }),
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function record(catalog: Catalog, from: number, to: number): void {
  for (let n = from; n <= to; n++) {
    catalog.record({
      kind: n % 2 === 0 ? "process-exit" : "process-start",
      subject: `web${n}`,
      summary: "exit code 1",
      detail: { n, cause: "probe failed" },
    });
  }
}

function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
}

Deno.test("catalog goes on behind an event of any run, also where that one is not kept", async () => {
  await withFolder(async ({ open }) => {
    const catalog = open();
    const keep = (run: string, sequence: number, timeMs: number) =>
      catalog.keep({
        timeMs,
        kind: "restore",
        subject: `${run}${sequence}`,
        summary: "",
        detail: "{}",
        place: { run, sequence },
      });
    record(catalog, 1, 1);
    for (const sequence of [1, 2, 4]) keep("a", sequence, sequence);
    for (const sequence of [3, 4]) keep("b", sequence, 10 + sequence);
    const behind = async (run: string, sequence: number, order: "newest-first" | "oldest-first") =>
      (await catalog.history({ after: { run, sequence }, order, limit: 10 })).map(({ subject }) => subject)
        .join(" ");
    assert.equal(await behind("a", 2, "oldest-first"), "a4 b3 b4");
    assert.equal(await behind("a", 3, "oldest-first"), "a4 b3 b4");
    assert.equal(await behind("a", 9, "oldest-first"), "b3 b4");
    assert.equal(await behind("b", 0, "oldest-first"), "b3 b4");
    assert.equal(await behind("0", 1, "oldest-first"), "a1 a2 a4 b3 b4");
    assert.equal(await behind("a", 2, "newest-first"), "a1 web1");
    assert.equal(await behind("a", 3, "newest-first"), "a2 a1 web1");
    assert.equal(await behind("b", 0, "newest-first"), "a4 a2 a1 web1");
    assert.equal(await behind("0", 1, "newest-first"), "");
    await assert.rejects(behind("c", 1, "oldest-first"), { code: "not-found" });
    const query = { kinds: ["restore" as const], sinceMs: 2, untilMs: 13, order: "oldest-first" as const };
    const rows = await catalog.history({ ...query, limit: 10 });
    assert.deepEqual(rows.map(({ place }) => place), [{ run: "a", sequence: 2 }, { run: "a", sequence: 4 }]);
    await catalog.close(60_000);
  });
});

Deno.test("catalog gives back events newest first, by kind and page by page, also after a restart", async () => {
  await withFolder(async ({ open, warnings }) => {
    let catalog = open();
    record(catalog, 1, 6);
    const [newest] = await catalog.history({ order: "newest-first", limit: 1 });
    assert.deepEqual({ ...newest, timeMs: 0 }, {
      id: 6,
      place: { run: "0", sequence: 6 },
      timeMs: 0,
      kind: "process-exit",
      subject: "web6",
      summary: "exit code 1",
      detail: { n: 6, cause: "probe failed" },
    });
    assert.ok(Math.abs((newest?.timeMs ?? 0) - Date.now()) < 60_000);
    await catalog.close(60_000);
    catalog = open();
    const exits = await catalog.history({ order: "newest-first", kinds: ["process-exit"], limit: 2 });
    assert.deepEqual(exits.map((row) => row.id), [6, 4]);
    const rest = await catalog.history({
      order: "newest-first",
      kinds: ["process-exit"],
      limit: 2,
      after: { run: "0", sequence: 4 },
    });
    assert.deepEqual(rest.map((row) => row.id), [2]);
    await catalog.close(60_000);
    assert.deepEqual(warnings, []);
  });
});

Deno.test("catalog keeps a bounded number of rows of each kind", async () => {
  await withFolder(async ({ open }) => {
    const catalog = open(10);
    record(catalog, 1, 1000);
    catalog.record({ kind: "restore", subject: "old", summary: "restored" });
    record(catalog, 1001, 3000);
    const rows = await catalog.history({ order: "newest-first", limit: 1000 });
    assert.ok(rows.length <= 10 + 10 + 1 + 500, `${rows.length} rows`);
    assert.equal(rows.filter((row) => row.kind === "restore").length, 1);
    assert.equal(rows[0]?.subject, "web3000");
    await catalog.close(60_000);
  });
});

Deno.test("catalog moves a damaged file aside, begins anew and keeps at most two of these", async () => {
  await withFolder(async ({ folder, path, open, warnings }) => {
    for (let time = 0; time < 3; time++) {
      await Deno.writeTextFile(path, `no database ${time} `.repeat(1000));
      const catalog = open();
      record(catalog, 1, 1);
      assert.equal((await catalog.history({ order: "newest-first", limit: 10 })).length, 1);
      await catalog.close(60_000);
      await Deno.remove(`${path}-wal`).catch(() => {});
      await Deno.remove(`${path}-shm`).catch(() => {});
    }
    assert.equal(
      warnings.filter((each) => /begins anew.*not a database/.test(each))
        .length,
      3,
    );
    const aside = names(folder).filter((name) => /^catalog\.db\.damaged-[^-]*-[^-]*-[^-]*Z$/.test(name));
    assert.equal(aside.length, 2);
    assert.match(
      await Deno.readTextFile(`${folder}/${aside[1]}`),
      /^no database 2/,
    );
  });
});

Deno.test("catalog begins anew when damage shows only in use", async () => {
  await withFolder(async ({ path, open, warnings }) => {
    const catalog = open();
    record(catalog, 1, 400);
    await catalog.history({ order: "newest-first", limit: 1 });
    // Another process overwrites the file below an open catalog; its cached pages are stale by the changed counter.
    const other = new DatabaseSync(path);
    other.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    other.close();
    const size = (await Deno.stat(path)).size;
    await Deno.writeFile(
      path,
      crypto.getRandomValues(new Uint8Array(Math.min(size, 65536))),
    );
    record(catalog, 401, 401);
    await catalog.history({ order: "newest-first", limit: 1000 }).catch(() => {});
    record(catalog, 402, 402);
    const rows = await catalog.history({ order: "newest-first", limit: 1000 });
    assert.equal(rows[0]?.subject, "web402");
    assert.ok(
      warnings.some((each) => /begins anew/.test(each)),
      JSON.stringify(warnings),
    );
    await catalog.close(60_000);
  });
});

Deno.test("catalog moves a file of a newer version aside instead of guessing", async () => {
  await withFolder(async ({ folder, path, open, warnings }) => {
    const newer = new DatabaseSync(path);
    newer.exec("PRAGMA user_version = 99");
    newer.close();
    const catalog = open();
    record(catalog, 1, 1);
    assert.equal((await catalog.history({ order: "newest-first", limit: 10 })).length, 1);
    await catalog.close(60_000);
    assert.match(warnings.join(), /version is 99/);
    assert.ok(
      names(folder).some((name) => name.startsWith("catalog.db.damaged-")),
    );
  });
});

Deno.test("catalog begins anew when its file was deleted under it", async () => {
  await withFolder(async ({ path, open, warnings }) => {
    const catalog = open();
    record(catalog, 1, 2);
    await catalog.history({ order: "newest-first", limit: 1 });
    for (const suffix of ["", "-wal", "-shm"]) await Deno.remove(path + suffix);
    record(catalog, 3, 3);
    const rows = await catalog.history({ order: "newest-first", limit: 10 });
    assert.deepEqual(rows.map((row) => row.subject), ["web3"]);
    assert.deepEqual(warnings, [
      "history begins anew: the catalog's file is gone",
    ]);
    await catalog.close(60_000);
  });
});

Deno.test("catalog without a folder to write to tells what is wrong and harms nobody", async () => {
  await withFolder(async ({ folder, warnings }) => {
    const keep = (message: string) => void warnings.push(message);
    const log: Log = { debug: keep, info: keep, warn: keep, error: keep };
    const catalog = openCatalog({
      path: `${folder}/missing/catalog.db`,
      clock,
      log,
    });
    record(catalog, 1, 3);
    await assert.rejects(catalog.history({ order: "newest-first", limit: 1 }), { code: "local-io" });
    await catalog.close(60_000);
    assert.equal(warnings.length, 1);
    assert.equal(catalog.droppedEvents, 3);
  });
});
