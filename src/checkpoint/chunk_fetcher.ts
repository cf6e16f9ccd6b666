/**
 * Fetches chunks by pack, not by file: each pack is asked once, whole or in a few ranges, several at a time, and each
 * chunk is verified by its id before it is handed on. Reads nothing but the store.
 */

import { isError } from "../platform/errors.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { ChunkLocation, ChunkTable } from "./chunk_table.ts";
import type { Cipher } from "./cipher.ts";
import { type Codec, damaged, decodeBytes } from "./codec.ts";
import { idFromText, idToText, packKey } from "./ids.ts";
import type { IndexedPack } from "./index_format.ts";
import { FLAG_SEALED, FLAG_ZSTD } from "./pack.ts";

/** Packs read at one time; each is in memory while its chunks are written: 64 MiB at most. */
const PACKS_IN_FLIGHT = 4;
/** From this share of a pack on, it is read whole: one request instead of many. */
const WHOLE_FROM_SHARE = 0.6;
/** Two wanted blobs with less than this between them are read in one range: a request costs more than the gap. */
const GAP_LIMIT_BYTES = 256 * 1024;

/** One request: bytes [start, end) of a pack and the chunks in them, by offset. */
export interface FetchRange {
  readonly start: number;
  readonly end: number;
  readonly chunks: readonly ChunkLocation[];
}

export interface PackFetch {
  readonly pack: IndexedPack;
  readonly ranges: readonly FetchRange[];
}

export interface FetchPlan {
  readonly packs: readonly PackFetch[];
  readonly bytes: number;
}

/** The requests for `ids`, packs in order of first want. `data-damaged` when no index knows a chunk. */
export function planFetch(table: ChunkTable, ids: Iterable<string>): FetchPlan {
  const byPack = new Map<string, { pack: IndexedPack; chunks: ChunkLocation[] }>();
  for (const id of ids) {
    const chunk = table.find(idFromText(id));
    if (chunk === null) throw damaged("the indexes", `none knows chunk ${id}`);
    const group = byPack.get(chunk.pack.name);
    if (group === undefined) byPack.set(chunk.pack.name, { pack: chunk.pack, chunks: [chunk] });
    else group.chunks.push(chunk);
  }
  const packs = [...byPack.values()].map(({ pack, chunks }) => ({ pack, ranges: rangesOf(pack, chunks) }));
  const bytes = packs.reduce(
    (sum, { ranges }) => sum + ranges.reduce((all, range) => all + range.end - range.start, 0),
    0,
  );
  return { packs, bytes };
}

function rangesOf(pack: IndexedPack, unsorted: readonly ChunkLocation[]): FetchRange[] {
  const chunks = unsorted.toSorted((a, b) => a.offset - b.offset);
  const needed = chunks.reduce((sum, chunk) => sum + chunk.storedLength, 0);
  if (needed >= pack.sizeBytes * WHOLE_FROM_SHARE) return [{ start: 0, end: pack.sizeBytes, chunks }];
  const ranges: { start: number; end: number; chunks: ChunkLocation[] }[] = [];
  for (const chunk of chunks) {
    const last = ranges.at(-1);
    const end = chunk.offset + chunk.storedLength;
    if (last === undefined || chunk.offset - last.end > GAP_LIMIT_BYTES) {
      ranges.push({ start: chunk.offset, end, chunks: [chunk] });
    } else {
      last.end = Math.max(last.end, end);
      last.chunks.push(chunk);
    }
  }
  return ranges;
}

export interface FetchOptions {
  readonly store: ObjectStore;
  readonly codec: Codec;
  readonly cipher: Cipher;
  readonly signal: AbortSignal;
  /** Called with each verified chunk, packs in any order. */
  readonly deliver: (id: string, bytes: Uint8Array<ArrayBuffer>) => void;
  /** Called after each request with the bytes it brought. */
  readonly onFetched?: (bytes: number) => void;
  /** Awaited between chunks: the loop's turn. */
  readonly pace?: () => Promise<void> | null;
  /** Says for an error where chunk `id` is needed, e.g. names of files. */
  readonly usersOf?: (id: string) => string;
}

/** Carries out a plan. The first error ends all requests. */
export async function fetchChunks(plan: FetchPlan, options: FetchOptions): Promise<void> {
  const failure = new AbortController();
  const signal = AbortSignal.any([options.signal, failure.signal]);
  const queue = [...plan.packs];
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      signal.throwIfAborted();
      await fetchPack(next, { ...options, signal });
    }
  };
  const workers = Array.from({ length: PACKS_IN_FLIGHT }, () =>
    worker().catch((error) => {
      failure.abort(error);
      throw error;
    }));
  const results = await Promise.allSettled(workers);
  if (results.every((result) => result.status === "fulfilled")) return;
  throw signal.reason;
}

async function fetchPack({ pack, ranges }: PackFetch, options: FetchOptions): Promise<void> {
  const key = packKey(pack.name);
  for (const range of ranges) {
    const bytes = await fetchRange(key, pack, range, options);
    options.onFetched?.(bytes.length);
    for (const chunk of range.chunks) {
      const id = idToText(chunk.id);
      const at = chunk.offset - range.start;
      const stored = bytes.subarray(at, at + chunk.storedLength);
      options.deliver(id, readChunk(stored, chunk, id, key, options));
      const pause = options.pace?.() ?? null;
      if (pause !== null) await pause;
    }
  }
}

async function fetchRange(
  key: string,
  pack: IndexedPack,
  range: FetchRange,
  options: FetchOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const whole = range.start === 0 && range.end === pack.sizeBytes;
  const { signal } = options;
  try {
    const object = await options.store.get(
      key,
      whole ? { signal } : { signal, range: { start: range.start, end: range.end } },
    );
    if (object.body.length === range.end - range.start && object.sizeBytes === pack.sizeBytes) {
      return object.body;
    }
    throw damaged(
      key,
      `${object.sizeBytes} bytes, the index says ${pack.sizeBytes}${affected(range.chunks, options)}`,
    );
  } catch (error) {
    // A pack that is too short for the range, or not there, is damage, not a wrong request.
    if (!isError(error, "object-not-found", "invalid-request")) throw error;
    throw damaged(key, `${error.message}${affected(range.chunks, options)}`, error);
  }
}

/** The plain bytes of one blob of the pack at `key`, proven by the chunk's id. */
export function readChunk(
  stored: Uint8Array,
  chunk: ChunkLocation,
  id: string,
  key: string,
  options: Pick<FetchOptions, "codec" | "cipher" | "usersOf">,
): Uint8Array<ArrayBuffer> {
  const place = `${key} at ${chunk.offset}`;
  let plain: Uint8Array;
  try {
    plain = unpackBlob(stored, chunk, options, place);
  } catch (error) {
    throw damaged(place, `chunk ${id} cannot be unpacked${affected([chunk], options)}`, error);
  }
  if (idToText(options.cipher.chunkId(plain)) !== id) {
    throw damaged(place, `chunk ${id} has other bytes${affected([chunk], options)}`);
  }
  return new Uint8Array(plain.buffer as ArrayBuffer, plain.byteOffset, plain.byteLength);
}

/** The plain bytes of what lies at `chunk`; whether they are the chunk's is for its id to say. */
function unpackBlob(
  stored: Uint8Array,
  chunk: ChunkLocation,
  { codec, cipher }: Pick<FetchOptions, "codec" | "cipher">,
  place: string,
): Uint8Array {
  if (((chunk.flags & FLAG_SEALED) !== 0) !== cipher.seals) {
    throw damaged(
      place,
      cipher.seals ? "is not encrypted, as all here must be" : "is encrypted, as nothing here is",
    );
  }
  const bytes = cipher.openBlob({ pack: chunk.pack.name, offset: chunk.offset }, stored);
  return decodeBytes(codec, { bytes, compressed: (chunk.flags & FLAG_ZSTD) !== 0 }, chunk.length, place);
}

/** The first few users of the chunks, for a message: what an operator loses. */
function affected(chunks: readonly ChunkLocation[], options: Pick<FetchOptions, "usersOf">): string {
  if (options.usersOf === undefined) return "";
  const named = new Set(chunks.slice(0, 20).map((chunk) => options.usersOf?.(idToText(chunk.id)) ?? ""));
  return `, needed by ${[...named].filter((text) => text !== "").slice(0, 5).join(", ")}`;
}
