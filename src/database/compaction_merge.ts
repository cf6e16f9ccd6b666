/** One merge: files of the store become one verified file in the spool. What becomes of it is compactor.ts's. */

import { StateManagerError } from "../platform/errors.ts";
import type { LocalFiles } from "../platform/local_files.ts";
import type { Turns } from "../platform/turns.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { Merge } from "./compaction_rules.ts";
import { CompactionSource, type Send, type SourceOptions } from "./compaction_source.ts";
import { CompactionSpool } from "./compaction_spool.ts";
import { LtxDecoder, LtxEncoder, type LtxHeader, mergePages } from "./ltx/mod.ts";
import { SNAPSHOT_LEVEL } from "./replica_layout.ts";

/** Memory for the pieces of all inputs together. */
const READ_BUDGET_BYTES = 16 * 1024 * 1024;
/** Of one input: from here on larger pieces do not make a request worth more. */
const LARGEST_PIECE_BYTES = 4 * 1024 * 1024;
/** First pieces that are fetched at a time. */
const OPENS_AT_ONCE = 4;
/** Compressed bytes that the verification decodes between two looks at the clock. */
const FEED_BYTES = 16 * 1024;

export interface MergeOptions {
  readonly store: ObjectStore;
  readonly send: Send;
  /** Goes into the header. */
  readonly token: number;
  readonly files: LocalFiles;
  readonly scratchPath: string;
  readonly pace: Turns;
  readonly signal: AbortSignal;
}

/** The whole, verified file. */
export interface MergeOutput extends AsyncDisposable {
  readonly header: LtxHeader;
  readonly sizeBytes: number;
  /** Compressed bytes of the inputs. */
  readonly readBytes: number;
  whole(): Promise<Uint8Array<ArrayBuffer>>;
  pieces(): AsyncIterable<Uint8Array<ArrayBuffer>>;
}

/**
 * Merges `merge.inputs`. A database that changed its page size begins anew there: a level's file then ends before the
 * change (`header.maxTxid` is smaller than asked for), a snapshot is made of the files after it.
 */
export async function mergeFiles(merge: Merge, options: MergeOptions): Promise<MergeOutput> {
  const { pace, signal, token } = options;
  const opened = await openAll(merge, options);
  const sources = samePageSize(opened, merge.level === SNAPSHOT_LEVEL);
  const newest = sources.at(-1);
  if (newest === undefined) throw new StateManagerError("internal", "merge files: there are none");
  const { pageSize, commit, maxTxid } = newest.header;
  const encoder = new LtxEncoder({
    pageSize,
    commit,
    minTxid: merge.minTxid,
    maxTxid,
    timestampMs: sources.reduce((latest, { header }) => Math.max(latest, header.timestampMs), 0),
    nodeId: token,
  });
  await using stack = new AsyncDisposableStack();
  const spool = stack.use(new CompactionSpool(options.files, options.scratchPath));
  const append = async (bytes: Uint8Array<ArrayBuffer>) => {
    const flushed = spool.append(bytes);
    if (flushed !== null) await flushed;
  };
  await append(encoder.start());
  let pages = 0;
  for await (const page of mergePages(sources.map((source) => source.pages()), commit)) {
    pages++;
    await append(encoder.page(page.pgno, page.data, page.frame)); // verified below, whoever compressed it
    const pause = pace.next();
    if (pause === null) continue;
    await pause;
    signal.throwIfAborted();
  }
  const finished = encoder.finish();
  await append(finished.bytes);
  await verify(spool, { sizeBytes: finished.sizeBytes, checksum: finished.checksum, pages }, pace);
  const kept = stack.move();
  return {
    header: encoder.header,
    sizeBytes: finished.sizeBytes,
    readBytes: sources.reduce((sum, { file }) => sum + file.sizeBytes, 0),
    whole: () => spool.whole(),
    pieces: () => spool.pieces(),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** The first piece of each input, a few at a time. */
async function openAll(merge: Merge, options: SourceOptions | MergeOptions): Promise<CompactionSource[]> {
  const { store, send, pace } = options;
  const share = Math.floor(READ_BUDGET_BYTES / merge.inputs.length);
  const pieceBytes = Math.min(LARGEST_PIECE_BYTES, share);
  const sources: CompactionSource[] = [];
  let next = 0;
  const open = async () => {
    for (let at = next++; at < merge.inputs.length; at = next++) {
      const file = merge.inputs[at];
      if (file !== undefined) {
        sources[at] = await CompactionSource.open(file, { store, send, pace, pieceBytes });
      }
    }
  };
  await Promise.all(Array.from({ length: OPENS_AT_ONCE }, open));
  return sources;
}

/** The first ones with one page size, or, for a snapshot, the last ones. */
function samePageSize(sources: readonly CompactionSource[], fromEnd: boolean): readonly CompactionSource[] {
  const pageSize = sources.at(fromEnd ? -1 : 0)?.header.pageSize;
  const isOther = (source: CompactionSource) => source.header.pageSize !== pageSize;
  if (fromEnd) return sources.slice(sources.findLastIndex(isOther) + 1);
  const end = sources.findIndex(isOther);
  return end < 0 ? sources : sources.slice(0, end);
}

interface Wanted {
  readonly sizeBytes: number;
  readonly checksum: bigint;
  readonly pages: number;
}

/** Reads the output as whoever restores it will: memory or a disk that loses bits must not reach the bucket. */
async function verify(spool: CompactionSpool, wanted: Wanted, pace: Turns): Promise<void> {
  const decoder = new LtxDecoder("output of a merge");
  let pages = 0;
  for await (const piece of spool.pieces()) {
    for (let at = 0; at < piece.length; at += FEED_BYTES) {
      decoder.feed(piece.subarray(at, at + FEED_BYTES));
      while (decoder.next() !== null) {
        pages++;
        const pause = pace.next();
        if (pause !== null) await pause;
      }
    }
  }
  const { sizeBytes, checksum } = decoder.end();
  if (sizeBytes === wanted.sizeBytes && checksum === wanted.checksum && pages === wanted.pages) return;
  const found = `${pages} pages in ${sizeBytes} bytes`;
  throw new StateManagerError(
    "data-damaged",
    `verify merged file: ${found}, wanted ${wanted.pages} in ${wanted.sizeBytes}`,
    { hint: "check the memory and the disk of this machine" },
  );
}
