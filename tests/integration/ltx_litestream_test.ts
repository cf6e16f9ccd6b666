/** The codec against the real Litestream, both ways. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import {
  LtxDecoder,
  type LtxHeader,
  type LtxHeaderInput,
  ltxName,
  mergePages,
  parseLtxName,
  readPages,
} from "../../src/database/ltx/mod.ts";
import { withFlippedPage } from "../support/damage.ts";
import { findLitestream, litestream, litestreamRestore } from "../support/litestream.ts";
import {
  assertSameBytes,
  changedPages,
  databaseOf,
  decodeLtx,
  encodeLtx,
  type Pages,
  pagesOf,
} from "../support/ltx_files.ts";

const ignore = findLitestream() === null;

async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "ltx_litestream_" });
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What a transaction of the model database does; the last ones shrink it. */
const STEPS: readonly string[] = [
  "create table t (id integer primary key, body blob); insert into t select value, randomblob(value * 7 % 900) " +
  "from (with recursive c(value) as (select 1 union all select value + 1 from c where value < 150) select * from c)",
  "update t set body = 'changed ' || id where id % 11 = 0",
  "create index i on t (body); insert into t (body) values (zeroblob(150000))",
  "insert into t (body) select randomblob(300) from t",
  "delete from t where id > 20",
  "vacuum",
  "update t set body = randomblob(2000) where id < 9",
];

interface State {
  /** The whole file, no WAL beside it. */
  readonly bytes: Uint8Array;
  readonly pages: Pages;
}

/** The database after each step, as SQLite left it. */
async function statesOf(folder: string, pageSize: number): Promise<State[]> {
  const path = `${folder}/source.db`;
  const states: State[] = [];
  for (const step of STEPS) {
    const database = new DatabaseSync(path);
    try {
      database.exec(`pragma page_size = ${pageSize}; pragma journal_mode = wal;`);
      database.exec(step);
    } finally {
      database.close();
    }
    const bytes = await Deno.readFile(path);
    // Where SQLite keeps it; 1 stands for 65536.
    const stored = ((bytes[16] ?? 0) << 8) | (bytes[17] ?? 0);
    assert.equal(stored === 1 ? 65536 : stored, pageSize);
    states.push({ bytes, pages: pagesOf(bytes, pageSize) });
  }
  return states;
}

class Replica {
  readonly folder: string;
  readonly #pageSize: number;

  constructor(folder: string, pageSize: number) {
    this.folder = folder;
    this.#pageSize = pageSize;
  }

  async put(
    level: number,
    header: Omit<LtxHeaderInput, "pageSize" | "timestampMs">,
    pages: Pages,
  ): Promise<void> {
    const { minTxid, maxTxid } = header;
    const timestampMs = 1_750_000_000_000 + maxTxid * 1000;
    const file = encodeLtx({ ...header, pageSize: this.#pageSize, timestampMs }, pages);
    const folder = `${this.folder}/ltx/${level}`;
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeFile(`${folder}/${ltxName(minTxid, maxTxid)}`, file);
  }

  /** Merges files of `level` from `minTxid` to `maxTxid` into one of `target`, and removes them. */
  async compact(
    level: number,
    target: number,
    minTxid: number,
    maxTxid: number,
    commit: number,
  ): Promise<void> {
    const files = (await this.files(level)).filter((file) =>
      file.header.minTxid >= minTxid && file.header.maxTxid <= maxTxid
    );
    const pages = new Map<number, Uint8Array>();
    for await (const page of mergePages(files.map((file) => readPages(chunksOf(file.bytes))), commit)) {
      pages.set(page.pgno, page.data);
    }
    await this.put(target, { commit, minTxid, maxTxid }, pages);
    for (const file of files) await Deno.remove(file.path);
  }

  /** The files of one level, oldest first. */
  files(level: number): Promise<FoundFile[]> {
    return filesIn(`${this.folder}/ltx/${level}`);
  }
}

interface FoundFile {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly header: LtxHeader;
}

async function filesIn(folder: string): Promise<FoundFile[]> {
  const files: FoundFile[] = [];
  for (const { name } of [...Deno.readDirSync(folder)].sort((a, b) => a.name < b.name ? -1 : 1)) {
    const path = `${folder}/${name}`;
    const bytes = await Deno.readFile(path);
    const decoder = new LtxDecoder(path);
    decoder.push(bytes);
    decoder.end();
    assert.ok(decoder.header !== null);
    const { minTxid, maxTxid } = decoder.header;
    assert.deepEqual(parseLtxName(name), { minTxid, maxTxid });
    files.push({ path, bytes, header: decoder.header });
  }
  return files;
}

async function* chunksOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 10_000) {
    yield await Promise.resolve(bytes.subarray(at, at + 10_000));
  }
}

/** Transaction 1 as a snapshot, the others as what changed. */
async function writeChain(replica: Replica, states: readonly State[], pageSize: number): Promise<void> {
  let before: Pages = new Map();
  for (const [i, state] of states.entries()) {
    const pages = changedPages(before, state.pages);
    const commit = state.bytes.length / pageSize;
    await replica.put(0, { commit, minTxid: i + 1, maxTxid: i + 1, walOffset: 32, nodeId: 41 }, pages);
    before = state.pages;
  }
}

async function restored(replica: Replica, target: string, txid: number): Promise<Uint8Array> {
  await litestreamRestore(replica.folder, target, "-txid", txid.toString(16).padStart(16, "0"));
  return await Deno.readFile(target);
}

for (const pageSize of [512, 1024, 4096, 16384, 65536]) {
  Deno.test(
    `litestream restores each transaction of a chain of ours with pages of ${pageSize} bytes [needs litestream]`,
    {
      ignore,
    },
    async () => {
      await withFolder(async (folder) => {
        const states = await statesOf(folder, pageSize);
        const sizes = states.map((state) => state.bytes.length);
        assert.ok(sizes.some((size, i) => size < (sizes[i - 1] ?? 0)), "the model never shrinks");
        const replica = new Replica(`${folder}/replica`, pageSize);
        await writeChain(replica, states, pageSize);
        for (const [i, state] of states.entries()) {
          assertSameBytes(await restored(replica, `${folder}/at-${i + 1}.db`, i + 1), state.bytes);
        }
      });
    },
  );
}

Deno.test("litestream restores what our merges made of a chain, at every level [needs litestream]", {
  ignore,
}, async () => {
  await withFolder(async (folder) => {
    const pageSize = 4096;
    const states = await statesOf(folder, pageSize);
    const commitAt = (txid: number) => (states[txid - 1]?.bytes.length ?? 0) / pageSize;
    const replica = new Replica(`${folder}/replica`, pageSize);
    await writeChain(replica, states, pageSize);
    await replica.put(9, { commit: commitAt(2), minTxid: 1, maxTxid: 2 }, states[1]?.pages ?? new Map());
    await replica.compact(0, 1, 3, 4, commitAt(4));
    await replica.compact(0, 1, 5, 6, commitAt(6));
    await replica.compact(1, 2, 3, 6, commitAt(6));
    // Now a snapshot of 1 to 2, level 2 with 3 to 6, level 0 with 7; 1 and 2 of level 0 are not needed.
    for (const file of await replica.files(0)) {
      if (file.header.maxTxid <= 2) await Deno.remove(file.path);
    }
    for (const txid of [2, 6, 7]) {
      assertSameBytes(await restored(replica, `${folder}/at-${txid}.db`, txid), states[txid - 1]?.bytes);
    }
    // A merge that takes in the snapshot is one itself.
    await Deno.copyFile((await replica.files(9))[0]?.path ?? "", `${replica.folder}/ltx/2/${ltxName(1, 2)}`);
    await replica.compact(2, 9, 1, 6, commitAt(6));
    assertSameBytes(await restored(replica, `${folder}/again.db`, 6), states[5]?.bytes);
  });
});

Deno.test("litestream refuses a file of ours in which one bit of a page was flipped [needs litestream]", {
  ignore,
}, async () => {
  await withFolder(async (folder) => {
    const replica = new Replica(`${folder}/replica`, 512);
    const states = await statesOf(folder, 512);
    await writeChain(replica, states.slice(0, 1), 512);
    const [file] = await replica.files(0);
    assert.ok(file !== undefined);
    await litestreamRestore(replica.folder, `${folder}/good.db`);
    await Deno.writeFile(file.path, withFlippedPage(file.bytes));
    await assert.rejects(
      litestreamRestore(replica.folder, `${folder}/bad.db`),
      /litestream restore: exit code/,
    );
    await assert.rejects(replica.files(0), /data-damaged|read /);
  });
});

for (const pageSize of [512, 4096, 65536]) {
  Deno.test(`decoder reads what litestream replicated with pages of ${pageSize} bytes [needs litestream]`, {
    ignore,
  }, async () => {
    await withFolder(async (folder) => {
      const path = `${folder}/source.db`;
      const replica = `${folder}/replica`;
      for (const [i, step] of STEPS.entries()) {
        // Kept open while Litestream runs: else the last close would take the WAL away before it is read.
        const database = new DatabaseSync(path);
        try {
          database.exec(
            `pragma page_size = ${pageSize}; pragma journal_mode = wal; pragma wal_autocheckpoint = 0;`,
          );
          database.exec(step);
          const flags = i === 4 ? ["-force-snapshot"] : [];
          const { code, text } = await litestream("replicate", "-once", ...flags, path, `file://${replica}`);
          assert.equal(code, 0, text);
        } finally {
          database.close();
        }
      }
      const files = await filesIn(`${replica}/ltx/0`);
      const last = files.at(-1)?.header;
      assert.ok(last !== undefined && files.length >= STEPS.length);
      assert.equal(last.pageSize, pageSize);
      const pages = new Map<number, Uint8Array>();
      for await (
        const page of mergePages(files.map(({ bytes }) => readPages(chunksOf(bytes))), last.commit)
      ) {
        pages.set(page.pgno, page.data);
      }
      assertSameBytes(databaseOf(pages, pageSize, last.commit), await Deno.readFile(path));
      const snapshots = await filesIn(`${replica}/ltx/9`);
      assert.ok(snapshots.length > 0);
      for (const { header, bytes } of snapshots) assert.equal(decodeLtx(bytes).size, header.commit);
    });
  });
}
