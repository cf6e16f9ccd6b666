/**
 * Fetches chunks by pack, not by file: each pack is asked once, in ranges of a few megabytes, several at a time, so that
 * little is in memory and a line with a long way is full. Reads nothing but the store; who takes a range proves each
 * chunk by its id before it is used.
 */

import { isError } from "../platform/errors.ts";
import { UNCACHED_SLACK_BYTES } from "../platform/store_files.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type BlobReading, readChunk } from "./chunk_reader.ts";
import type { ChunkLocation, ChunkTable } from "./chunk_table.ts";
import { damaged } from "./codec.ts";
import { packKey } from "./ids.ts";
import type { IndexedPack } from "./index_format.ts";

/** How a store is asked: each range is in memory until its chunks are written. */
export interface FetchShape {
  /** Most of one request, but for a chunk that is larger. */
  readonly rangeBytes: number;
  /** Requests at one time. */
  readonly inFlight: number;
}

/**
 * A request costs a few milliseconds, and more where the way is long; at this size that is little, and what fails is
 * soon fetched again. A tenth of a second away so many bring 300 MB a second; more only wait for the threads.
 */
export const FAR_STORE: FetchShape = { rangeBytes: 4 * 1024 * 1024, inFlight: 8 };
/**
 * A disk answers at once: more requests would only take memory, whose first touch costs as much as reading. One range and
 * what a read past the page cache takes beside it are a large page.
 */
export const NEAR_STORE: FetchShape = { rangeBytes: 2 * 1024 * 1024 - UNCACHED_SLACK_BYTES, inFlight: 6 };
/** From this share of a pack on, gaps in it are fetched along: more requests would cost more. */
const WHOLE_FROM_SHARE = 0.6;
/** Two wanted blobs with less than this between them are read in one range: a request costs more than the gap. */
const GAP_LIMIT_BYTES = 256 * 1024;

/** A chunk that is wanted, and where it is. */
export interface WantedChunk {
  readonly id: string;
  readonly length: number;
  readonly flags: number;
  /** In its pack. */
  readonly offset: number;
  readonly storedLength: number;
}

/** One request: bytes [start, end) of a pack and the chunks in them, by offset. */
export interface FetchRange {
  readonly pack: IndexedPack;
  readonly start: number;
  readonly end: number;
  readonly chunks: readonly WantedChunk[];
}

export interface FetchPlan {
  readonly ranges: readonly FetchRange[];
  /** What the requests bring, in all. */
  readonly bytes: number;
}

/** The requests for `ids`, packs in order of first want. `data-damaged` when no index knows a chunk. */
export function planFetch(
  table: ChunkTable,
  ids: Iterable<string>,
  { rangeBytes }: Pick<FetchShape, "rangeBytes"> = FAR_STORE,
): FetchPlan {
  const byPack = new Map<string, { pack: IndexedPack; chunks: WantedChunk[] }>();
  for (const id of ids) {
    const found = table.locate(id);
    if (found === null) throw damaged("the indexes", `none knows chunk ${id}`);
    const chunk = wantedOf(id, found);
    const group = byPack.get(found.pack.name);
    if (group === undefined) byPack.set(found.pack.name, { pack: found.pack, chunks: [chunk] });
    else group.chunks.push(chunk);
  }
  const ranges = [...byPack.values()].flatMap(({ pack, chunks }) => rangesOf(pack, chunks, rangeBytes));
  return { ranges, bytes: ranges.reduce((sum, { start, end }) => sum + end - start, 0) };
}

function wantedOf(
  id: string,
  { length, flags, offset, storedLength }: Omit<ChunkLocation, "id">,
): WantedChunk {
  return { id, length, flags, offset, storedLength };
}

function rangesOf(pack: IndexedPack, chunks: WantedChunk[], rangeBytes: number): FetchRange[] {
  chunks.sort((a, b) => a.offset - b.offset);
  const needed = chunks.reduce((sum, chunk) => sum + chunk.storedLength, 0);
  const gapLimit = needed >= pack.sizeBytes * WHOLE_FROM_SHARE ? rangeBytes : GAP_LIMIT_BYTES;
  const ranges: { pack: IndexedPack; start: number; end: number; chunks: WantedChunk[] }[] = [];
  for (const chunk of chunks) {
    const last = ranges.at(-1);
    const end = chunk.offset + chunk.storedLength;
    const apart = last === undefined || chunk.offset - last.end > gapLimit ||
      end - last.start > rangeBytes;
    if (apart) ranges.push({ pack, start: chunk.offset, end, chunks: [chunk] });
    else {
      last.end = Math.max(last.end, end);
      last.chunks.push(chunk);
    }
  }
  return ranges;
}

export interface FetchOptions {
  readonly store: ObjectStore;
  readonly signal: AbortSignal;
  /** Called after each request with the bytes it brought. */
  readonly onFetched?: (bytes: number) => void;
  /** Says for an error where chunk `id` is needed, e.g. names of files. */
  readonly usersOf?: (id: string) => string;
  /** Requests at one time; left out: those of a far store. */
  readonly inFlight?: number;
  /** Where ranges come to, and whether they are read once (`GetOptions`). */
  readonly memory?: (sizeBytes: number) => Uint8Array<ArrayBuffer>;
  readonly uncached?: boolean;
}

/** A range that came. Nobody else has its bytes: they may be unpacked in their place, or moved to another thread. */
export interface FetchedRange extends FetchRange {
  /** Key of the pack. */
  readonly key: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Fetches ranges: `take` gets them in any order, several at a time. The first error ends all requests. Ranges may be made
 * while others are fetched: one is asked for whenever there is room for a request.
 */
export async function fetchRanges(
  ranges: Iterable<FetchRange> | AsyncGenerator<FetchRange>,
  options: FetchOptions,
  take: (range: FetchedRange) => Promise<void>,
): Promise<void> {
  const failure = new AbortController();
  const signal = AbortSignal.any([options.signal, failure.signal]);
  const queue = Symbol.asyncIterator in ranges ? ranges : ranges[Symbol.iterator]();
  const line = async () => {
    for (let next = await queue.next(); next.done !== true; next = await queue.next()) {
      signal.throwIfAborted();
      const range = next.value;
      const key = packKey(range.pack.name);
      const bytes = await fetchRange(key, range, { ...options, signal });
      options.onFetched?.(bytes.length);
      await take({ ...range, key, bytes });
    }
  };
  const lines = Array.from(
    { length: options.inFlight ?? FAR_STORE.inFlight },
    () =>
      line().catch((error) => {
        failure.abort(error);
        throw error;
      }),
  );
  const results = await Promise.allSettled(lines);
  if (results.every((result) => result.status === "fulfilled")) return;
  throw signal.reason;
}

/** What is stored of `chunk`, where it lies in the range. */
export function storedIn(
  { start, bytes }: Pick<FetchedRange, "start" | "bytes">,
  { offset, storedLength }: WantedChunk,
): Uint8Array<ArrayBuffer> {
  return bytes.subarray(offset - start, offset - start + storedLength);
}

/** Fetches chunks and hands each one on, verified. For few and small ones: it all happens in this thread. */
export async function fetchChunks(
  plan: FetchPlan,
  options: FetchOptions & BlobReading & {
    readonly deliver: (id: string, bytes: Uint8Array<ArrayBuffer>) => void;
    /** Awaited between chunks: the loop's turn. */
    readonly pace?: () => Promise<void> | null;
  },
): Promise<void> {
  await fetchRanges(plan.ranges, options, async ({ pack, start, bytes, chunks }) => {
    for (const chunk of chunks) {
      const stored = storedIn({ start, bytes }, chunk);
      const users = () => affected([chunk], options);
      options.deliver(chunk.id, readChunk(options, stored, { ...chunk, pack: pack.name }, users));
      const pause = options.pace?.() ?? null;
      if (pause !== null) await pause;
    }
  });
}

/**
 * Uses what the head said, and where an object is not there by now, once more what it says then: a garbage collection
 * deletes packs and indexes whose live chunks it has moved elsewhere. Names are never used twice, so what is missing
 * under the newest head is lost. `reload` gives null where nothing else is known.
 */
export async function withReload<T, R>(
  known: T,
  reload: () => Promise<T | null>,
  use: (known: T) => Promise<R>,
): Promise<R> {
  try {
    return await use(known);
  } catch (error) {
    if (!isError(error, "data-damaged") || !isError(error.cause, "object-not-found")) throw error;
    const reloaded = await reload();
    if (reloaded === null) throw error;
    return await use(reloaded);
  }
}

async function fetchRange(
  key: string,
  { pack, start, end, chunks }: FetchRange,
  options: FetchOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const { signal, memory, uncached = false } = options;
  try {
    const range = { start, end };
    const object = await options.store.get(key, {
      signal,
      range,
      uncached,
      immutable: true,
      ...(memory === undefined ? {} : { memory }),
    });
    const { body, sizeBytes } = object;
    if (sizeBytes === pack.sizeBytes && body.length === end - start) return body;
    const what = sizeBytes === pack.sizeBytes
      ? `${body.length} bytes from ${start} on, wanted ${end - start}`
      : `${sizeBytes} bytes, the index says ${pack.sizeBytes}`;
    throw damaged(key, `${what}${affected(chunks, options)}`);
  } catch (error) {
    // A pack that is too short for the range, or not there, is damage, not a wrong request.
    if (!isError(error, "object-not-found", "invalid-request")) throw error;
    throw damaged(key, `${error.message}${affected(chunks, options)}`, error);
  }
}

/** The first few users of the chunks, for a message: what an operator loses. */
function affected(chunks: readonly WantedChunk[], options: FetchOptions): string {
  if (options.usersOf === undefined) return "";
  const named = new Set(chunks.slice(0, 20).map((chunk) => options.usersOf?.(chunk.id) ?? ""));
  return `, needed by ${[...named].filter((text) => text !== "").slice(0, 5).join(", ")}`;
}
