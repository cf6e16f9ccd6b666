/**
 * Reading packs that may be damaged: by their footers, whole, or as far as they go. What is wrong is told, never thrown,
 * unless the store itself does not answer. Reads nothing but the store.
 */

import { isError, StateManagerError } from "../platform/errors.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { FetchPlan, FetchRange } from "./chunk_fetcher.ts";
import { readChunk, type StoredChunk } from "./chunk_reader.ts";
import type { Cipher } from "./cipher.ts";
import type { Codec } from "./codec.ts";
import { idToText, packKey } from "./ids.ts";
import type { IndexedPack } from "./index_format.ts";
import {
  ENTRY_BYTES,
  type EntryList,
  footerStart,
  readFooter,
  readPackEntries,
  TRAILER_BYTES,
} from "./pack.ts";

export interface ObjectProblem {
  readonly problem: "missing" | "damaged";
  readonly detail: string;
}

export interface PackReadOptions {
  readonly store: ObjectStore;
  readonly codec: Codec;
  readonly cipher: Cipher;
  readonly signal: AbortSignal;
  /** Awaited between chunks: the loop's turn. */
  readonly pace?: () => Promise<void> | null;
  readonly onFetched?: (bytes: number) => void;
}

/** What is wrong with an object, for a failure that says so; anything else (no answer, cancelled) is thrown on. */
export function problemOf(error: unknown): ObjectProblem {
  if (isError(error, "object-not-found")) return { problem: "missing", detail: "the object is not there" };
  if (isError(error, "data-damaged")) return { problem: "damaged", detail: error.message };
  throw error;
}

/** The same for a pack that an index of this format names: a range behind its end, another version are damage, too. */
export function packProblemOf(error: unknown): ObjectProblem {
  if (!isError(error, "format-too-new", "invalid-request")) return problemOf(error);
  return { problem: "damaged", detail: error.message };
}

/**
 * The entries that the footer of a pack of this size lists; `expected`, their likely number, saves a request. Errors:
 * `data-damaged`, `object-not-found`, those of the store.
 */
export async function fetchFooter(
  pack: IndexedPack,
  expected: number,
  { store, signal }: Pick<PackReadOptions, "store" | "signal">,
): Promise<EntryList> {
  const key = packKey(pack.name);
  const tailOf = async (length: number) => {
    const start = Math.max(0, pack.sizeBytes - length);
    const { body, sizeBytes } = await store.get(key, { signal, range: { start, end: pack.sizeBytes } });
    if (sizeBytes !== pack.sizeBytes) {
      throw new StateManagerError(
        "data-damaged",
        `read ${key}: ${sizeBytes} bytes, wanted ${pack.sizeBytes}`,
      );
    }
    return body;
  };
  let tail = await tailOf(expected * ENTRY_BYTES + TRAILER_BYTES);
  const start = footerStart(tail.subarray(-TRAILER_BYTES), pack.sizeBytes, key);
  if (start < pack.sizeBytes - tail.length) tail = await tailOf(pack.sizeBytes - start);
  return readFooter(tail.subarray(tail.length - (pack.sizeBytes - start)), start, key);
}

/**
 * Null when the footer lists every chunk that the indexes expect of the pack, where they expect it. It may list more:
 * indexes that were merged name a chunk once, whichever packs hold it.
 */
export function footerMismatch(indexed: EntryList, footer: EntryList): string | null {
  const places = new Map<number, number>();
  let next = 0;
  for (const { offset } of footer) places.set(offset, next++);
  for (const entry of indexed) {
    const listed = footer.at(places.get(entry.offset) ?? Infinity);
    const same = listed !== null && listed.storedLength === entry.storedLength &&
      listed.length === entry.length && listed.flags === entry.flags &&
      listed.id.every((byte, i) => byte === entry.id[i]);
    if (!same) return `its footer does not list chunk ${idToText(entry.id)} where the index has it`;
  }
  return null;
}

export interface PackReading {
  /** Null: magic, footer and size are right. */
  readonly problem: ObjectProblem | null;
  /** Of the indexed chunks, those that a restore would not take: of a pack of another size all, whatever is left of it. */
  readonly lost: ReadonlySet<string>;
  readonly bytes: number;
}

/** Reads a whole pack and proves every chunk that the indexes expect of it. */
export async function readWholePack(
  pack: IndexedPack,
  indexed: EntryList,
  options: PackReadOptions,
): Promise<PackReading> {
  const key = packKey(pack.name);
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = (await options.store.get(key, { signal: options.signal })).body;
  } catch (error) {
    return { problem: packProblemOf(error), lost: new Set(idsOf(indexed)), bytes: 0 };
  }
  options.onFetched?.(bytes.length);
  if (bytes.length !== pack.sizeBytes) {
    const detail = `${bytes.length} bytes, the index says ${pack.sizeBytes}`;
    return {
      problem: { problem: "damaged", detail },
      lost: new Set(idsOf(indexed)),
      bytes: bytes.length,
    };
  }
  let problem: ObjectProblem | null = null;
  try {
    const wrong = footerMismatch(indexed, readPackEntries(bytes, key));
    if (wrong !== null) problem = { problem: "damaged", detail: wrong };
  } catch (error) {
    problem = packProblemOf(error);
  }
  const lost = await lostIn(pack.name, { bytes, start: 0, chunks: chunksOf(indexed) }, options, () => {});
  const first = lost.entries().next();
  if (problem === null && !first.done) problem = { problem: "damaged", detail: first.value[1].detail };
  return { problem, lost: new Set(lost.keys()), bytes: bytes.length };
}

export function* idsOf(entries: EntryList): Generator<string> {
  for (const { id } of entries) yield idToText(id);
}

/** One at a time: of a pack of small chunks all of them would take more memory than its bytes do. */
function* chunksOf(entries: EntryList): Generator<PieceChunk> {
  for (const entry of entries) yield { ...entry, id: idToText(entry.id) };
}

export interface LostChunk extends ObjectProblem {
  /** Name of the pack that should hold it. */
  readonly pack: string;
}

export type Deliver = (id: string, bytes: Uint8Array<ArrayBuffer>) => void;

/** Requests at one time: a few megabytes each. */
const RANGES_IN_FLIGHT = 8;

/** Carries out a plan as far as the packs allow: what is right is delivered, what is not is in the answer. */
export async function fetchLeniently(
  plan: FetchPlan,
  options: PackReadOptions & { readonly deliver: Deliver },
): Promise<ReadonlyMap<string, LostChunk>> {
  const lost = new Map<string, LostChunk>();
  await eachInParallel(plan.ranges, RANGES_IN_FLIGHT, options.signal, async (range, signal) => {
    for (const [id, reason] of await fetchRange(range, { ...options, signal })) lost.set(id, reason);
  });
  return lost;
}

async function fetchRange(
  { pack, start, end, chunks }: FetchRange,
  options: PackReadOptions & { readonly deliver: Deliver },
): Promise<ReadonlyMap<string, LostChunk>> {
  let body: Uint8Array<ArrayBuffer>;
  try {
    const request = { signal: options.signal, range: { start, end } };
    ({ body } = await options.store.get(packKey(pack.name), request));
  } catch (error) {
    const problem = packProblemOf(error);
    return new Map(chunks.map(({ id }) => [id, { ...problem, pack: pack.name }]));
  }
  options.onFetched?.(body.length);
  return await lostIn(pack.name, { bytes: body, start, chunks }, options, options.deliver);
}

type PieceChunk = Omit<StoredChunk, "pack"> & { readonly storedLength: number };

/** Bytes that begin at offset `start` of their pack, and the chunks that are in them. */
interface PackPiece {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly start: number;
  readonly chunks: Iterable<PieceChunk>;
}

/** Proves the chunks of a piece of pack `name`. */
async function lostIn(
  name: string,
  { bytes, start, chunks }: PackPiece,
  options: PackReadOptions,
  deliver: Deliver,
): Promise<Map<string, LostChunk>> {
  const lost = new Map<string, LostChunk>();
  const key = packKey(name);
  for (const chunk of chunks) {
    const at = chunk.offset - start;
    const stored = bytes.subarray(at, at + chunk.storedLength);
    try {
      if (stored.length < chunk.storedLength) {
        throw new StateManagerError("data-damaged", `read ${key}: it ends before chunk ${chunk.id}`);
      }
      deliver(chunk.id, readChunk(options, stored, { ...chunk, pack: name }, () => ""));
    } catch (error) {
      lost.set(chunk.id, { ...packProblemOf(error), pack: name });
    }
    const pause = options.pace?.() ?? null;
    if (pause !== null) await pause;
  }
  return lost;
}

/** `work` on each item, so many at one time. The first error ends the others and is thrown. */
export async function eachInParallel<T>(
  items: Iterable<T>,
  inFlight: number,
  signal: AbortSignal,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failure = new AbortController();
  const both = AbortSignal.any([signal, failure.signal]);
  const queue = items[Symbol.iterator]();
  const worker = async () => {
    for (let next = queue.next(); next.done !== true; next = queue.next()) {
      both.throwIfAborted();
      await work(next.value, both);
    }
  };
  const workers = Array.from({ length: inFlight }, () =>
    worker().catch((error) => {
      failure.abort(error);
      throw error;
    }));
  const ended = await Promise.allSettled(workers);
  if (ended.some(({ status }) => status === "rejected")) throw both.reason;
}
