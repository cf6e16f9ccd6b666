/**
 * What a restore reads from the store: the times of files, and their content in pieces that are asked for ahead of
 * their use, several at a time, within a bound of memory. Nothing is written and nothing decoded here.
 */

import { isError, StateManagerError } from "../platform/errors.ts";
import { settleAll } from "../platform/settle.ts";
import { getIfPresent, type ObjectStore, type StoredObject } from "../storage/object_store.ts";
import type { KeptPieces, PieceRange } from "./kept_pieces.ts";
import { LTX_HEADER_BYTES, type LtxHeader, readHeader } from "./ltx/mod.ts";
import { timestampOf } from "./replica_layout.ts";
import type { ReplicaFile } from "./replica_listing.ts";

/** Small requests at a time: each is a round trip and nothing else. */
const HEADERS_IN_FLIGHT = 32;
/** One request's share of a file: large ones come in several requests side by side. */
export const PIECE_BYTES = 8 * 1024 * 1024;
/** Pieces that are asked for or wait for their use: enough to fill a line, and all the memory that content takes. */
const PIECES_IN_FLIGHT = 16;
const BUFFER_LIMIT_BYTES = 64 * 1024 * 1024;

export interface FetchEnvironment {
  readonly store: ObjectStore;
  readonly signal: AbortSignal;
  /** Of an interrupted restore, and for the next. */
  readonly pieces?: KeptPieces | null;
}

/** A planned object is gone, or is another one than was listed: the plan is out of date, which proves no damage yet. */
export class PlanOutdated extends Error {
  override readonly cause: StateManagerError;

  constructor(cause: StateManagerError) {
    super(cause.message);
    this.cause = cause;
  }
}

/** A file whose time is known. */
export type TimedFile = ReplicaFile & { readonly timestampMs: number };

/**
 * The same files with their commit times: Litestream's metadata, else the header's, else the store's own. Those that
 * were deleted meanwhile are left out: whatever held them is in a file of a higher level, or expired.
 */
export async function withTimes(
  files: readonly ReplicaFile[],
  environment: FetchEnvironment,
): Promise<readonly TimedFile[]> {
  const timed = await mapBounded(files, async (file) => await withTime(file, environment));
  return timed.filter((file) => file !== null);
}

async function withTime(file: ReplicaFile, environment: FetchEnvironment): Promise<TimedFile | null> {
  if (file.timestampMs !== null) return { ...file, timestampMs: file.timestampMs };
  const object = await getStart(file, environment);
  if (object === null) return null;
  const timestampMs = timestampOf(object.metadata) ?? headerTime(object.body, file) ?? object.modifiedMs;
  return { ...file, timestampMs };
}

function headerTime(bytes: Uint8Array, file: ReplicaFile): number | null {
  try {
    return readHeader(bytes, file.key).timestampMs;
  } catch {
    return null; // damaged: whoever wants its content is told
  }
}

async function getStart(
  file: ReplicaFile,
  { store, signal }: FetchEnvironment,
): Promise<StoredObject | null> {
  return await getIfPresent(store, file.key, { range: { start: 0, end: LTX_HEADER_BYTES }, signal });
}

/** The headers of a few files, to know sizes before anything is written. */
export async function readHeaders(
  files: readonly ReplicaFile[],
  environment: FetchEnvironment,
): Promise<readonly LtxHeader[]> {
  return await mapBounded(files, async (file) => {
    const object = await getStart(file, environment);
    if (object === null) throw gone(file);
    return readHeader(object.body, file.key);
  });
}

async function mapBounded<T, R>(items: readonly T[], use: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async () => {
    for (let at = next++; at < items.length; at = next++) {
      const item = items[at];
      if (item !== undefined) results[at] = await use(item);
    }
  };
  const workers = Array.from({ length: HEADERS_IN_FLIGHT }, () =>
    worker().catch((error) => {
      next = items.length; // no further requests after the first error
      throw error;
    }));
  await settleAll(workers);
  return results;
}

function gone(file: ReplicaFile, cause?: unknown): PlanOutdated {
  return new PlanOutdated(
    new StateManagerError("object-not-found", `restore database: ${file.key} is listed and not there`, {
      hint: "it may have expired while it was read: try again; else restore to an earlier point",
      ...(cause === undefined ? {} : { cause }),
    }),
  );
}

function changed(file: ReplicaFile, sizeBytes: number): PlanOutdated {
  return new PlanOutdated(
    new StateManagerError(
      "data-damaged",
      `restore database: ${file.key} has ${sizeBytes} bytes, the listing says ${file.sizeBytes}`,
      { hint: "the object was cut or replaced: restore to an earlier point, or bring it back" },
    ),
  );
}

/** Bytes of `file`, in order; `last` ends it. */
export interface Piece {
  readonly file: ReplicaFile;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly last: boolean;
}

function piecesOf(files: readonly ReplicaFile[]): PieceRange[] {
  return files.flatMap((file) => {
    const pieces: PieceRange[] = [];
    for (let start = 0; start < file.sizeBytes; start += PIECE_BYTES) {
      pieces.push({ file, start, end: Math.min(start + PIECE_BYTES, file.sizeBytes) });
    }
    return pieces;
  });
}

/** All bytes of all files, one file after the other. Errors: `PlanOutdated`, and what the store throws. */
export async function* fetchFiles(
  files: readonly ReplicaFile[],
  environment: FetchEnvironment,
): AsyncGenerator<Piece> {
  const ended = new AbortController();
  const signal = AbortSignal.any([environment.signal, ended.signal]);
  const wanted = piecesOf(files);
  const asked: { readonly range: PieceRange; readonly bytes: Promise<Uint8Array<ArrayBuffer>> }[] = [];
  let buffered = 0;
  let next = 0;
  const askAhead = () => {
    for (let range = wanted[next]; range !== undefined; range = wanted[++next]) {
      const size = range.end - range.start;
      const full = asked.length >= PIECES_IN_FLIGHT || buffered + size > BUFFER_LIMIT_BYTES;
      if (full && asked.length > 0) return;
      const bytes = getPiece(range, { ...environment, signal });
      bytes.catch(() => {}); // told when its turn comes
      asked.push({ range, bytes });
      buffered += size;
    }
  };
  try {
    for (askAhead(); asked.length > 0; askAhead()) {
      const first = asked.shift();
      if (first === undefined) return;
      const { file, end, start } = first.range;
      yield { file, bytes: await first.bytes, last: end === file.sizeBytes };
      buffered -= end - start;
    }
  } finally {
    ended.abort(new StateManagerError("cancelled", "restore database: the rest is not wanted"));
    await Promise.allSettled(asked.map(({ bytes }) => bytes));
  }
}

async function getPiece(range: PieceRange, environment: FetchEnvironment): Promise<Uint8Array<ArrayBuffer>> {
  const { pieces = null, signal } = environment;
  const kept = await pieces?.read(range) ?? null;
  if (kept !== null) return kept;
  const fetched = await fetchPiece(range, environment);
  if (!signal.aborted) await pieces?.write(range, fetched);
  return fetched;
}

async function fetchPiece(
  { file, start, end }: PieceRange,
  { store, signal }: FetchEnvironment,
): Promise<Uint8Array<ArrayBuffer>> {
  const whole = start === 0 && end === file.sizeBytes;
  try {
    const object = await store.get(file.key, whole ? { signal } : { signal, range: { start, end } });
    if (object.sizeBytes !== file.sizeBytes || object.body.length !== end - start) {
      throw changed(file, object.sizeBytes);
    }
    return object.body;
  } catch (error) {
    if (isError(error, "object-not-found")) throw gone(file, error);
    if (isError(error, "invalid-request")) throw changed(file, start); // it ends before the range
    throw error;
  }
}
