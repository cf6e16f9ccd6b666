/** Large files that change between the reads of their segments: nothing is taken that was never the file. */

import assert from "node:assert/strict";
import { ChunkTable } from "../../src/checkpoint/chunk_table.ts";
import { SEGMENT_BYTES } from "../../src/checkpoint/chunker.ts";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { loadCodec } from "../../src/checkpoint/codec.ts";
import { type ContentPool, LocalPool } from "../../src/checkpoint/content_pool.ts";
import { FUZZY_READS } from "../../src/checkpoint/file_reader.ts";
import { PackSender } from "../../src/checkpoint/pack_sender.ts";
import { Pacer } from "../../src/checkpoint/pacer.ts";
import { openScanCache } from "../../src/checkpoint/scan_cache.ts";
import { TreeReader } from "../../src/checkpoint/tree_reader.ts";
import type { ContentPart, FileWarning } from "../../src/checkpoint/types.ts";
import { CheckpointRuns, filesRoot, watchedStore } from "../support/checkpoint_runs.ts";

const MIB = 1024 * 1024;
const SIZE = SEGMENT_BYTES + 2 * MIB;
/** Places of edits: one in each segment. */
const PLACES = [5 * MIB, SEGMENT_BYTES + MIB];

/** Changes both segments in place, in one step: the size stays. */
function edit(path: string, letter: string): void {
  const file = Deno.openSync(path, { write: true });
  try {
    for (const place of PLACES) {
      file.seekSync(place, Deno.SeekMode.Start);
      file.writeSync(new TextEncoder().encode(letter.repeat(1000)));
    }
    file.syncDataSync();
  } finally {
    file.close();
  }
}

/** What a checkpoint takes of the only file of `runs`; `between` is called before the second segment is read, each time. */
async function take(runs: CheckpointRuns, between: (read: number) => void) {
  const { clock, random, signal, onProgress, store, scratchFolder } = runs.environment();
  const pacer = new Pacer({ clock, signal, onProgress });
  const sender = new PackSender({
    store,
    codec: await loadCodec(),
    cipher: plainCipher,
    compression: "auto",
    clock,
    random,
    token: 1,
    table: new ChunkTable(),
    signal,
  });
  const warnings: FileWarning[] = [];
  const reader = new TreeReader({
    root: filesRoot("data", runs.files),
    cache: await openScanCache({ path: `${runs.folder}/cache`, rootPath: runs.files, clock }),
    clock,
    scratchFolder,
    signal,
    pacer,
    warn: (warning) => void warnings.push(warning),
    stored: () => false,
    expectedDevice: null,
  });
  const local = new LocalPool(sender, pacer);
  let reads = 0;
  let before: Promise<unknown> = Promise.resolve();
  const pool: ContentPool = {
    allAsked: () => {},
    read(job) {
      const answer = before.then(() => {
        if (job.range !== null && job.range.start > 0) between(++reads);
        return local.read(job);
      });
      before = answer;
      return answer;
    },
    check: (copy) => local.check(copy),
    finish: () => local.finish(),
    close: () => local.close(),
  };
  await reader.scan();
  reader.plan();
  reader.begin(pool);
  let parts: readonly ContentPart[] = [];
  await reader.each(pool, ({ entry, parts: read }) => {
    if (entry.type === "file") parts = read;
    return null;
  });
  await pool.finish();
  await sender.finish();
  return { content: JSON.stringify(parts), warnings: warnings.map(({ reason }) => reason), reads };
}

function largeFile(): CheckpointRuns {
  const runs = new CheckpointRuns(watchedStore().store);
  Deno.writeFileSync(`${runs.files}/large`, new Uint8Array(SIZE).fill(0x78));
  return runs;
}

Deno.test("a large file that is edited between two segments is read again, whole", async () => {
  await using runs = largeFile();
  const path = `${runs.files}/large`;
  const taken = await take(runs, (read) => {
    if (read === 1) edit(path, "a");
  });
  assert.deepEqual(taken.warnings, []);
  assert.equal(taken.reads, 2);
  const undisturbed = await take(runs, () => {});
  assert.ok(taken.content === undisturbed.content, "it is the file as it was after the edit");
});

Deno.test("a large file that is edited between two segments each time is told to be a mix", async () => {
  await using runs = largeFile();
  const path = `${runs.files}/large`;
  const taken = await take(runs, (read) => edit(path, String.fromCharCode(0x60 + read)));
  assert.equal(taken.reads, FUZZY_READS);
  assert.deepEqual(taken.warnings, ["changed while it was read: its content may mix states"]);
});
