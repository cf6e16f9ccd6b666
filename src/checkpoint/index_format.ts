/**
 * Index objects: which chunk lies where in which pack. Binary, sorted by chunk id, one zstd frame (docs/storage_format.md);
 * the head names each live index with the SHA-256 of its bytes.
 */

import { assert } from "../platform/assert.ts";
import { type Codec, damaged, decodeBytes, encodeBytes } from "./codec.ts";
import { ID_BYTES, idToText, isPackName } from "./ids.ts";
import {
  checkMagic,
  copyRecord,
  ENTRY_BYTES,
  type EntryList,
  entryProblem,
  FLAG_ZSTD,
  type PackEntry,
} from "./pack.ts";

/** "SMIX1" */
const INDEX_MAGIC = Uint8Array.of(0x53, 0x4d, 0x49, 0x58, 0x31);
/** magic, flags u8, plain length u32. */
const HEADER_BYTES = 10;
/** id[32], pack u32, offset u32, stored length u32, plain length u24, flags u8; little-endian. */
export const RECORD_BYTES = ID_BYTES + 16;

/** Records in one index object: 48 MB plain at most, which bounds what a reader allocates. More go into a second one. */
export const INDEX_RECORD_LIMIT = 1_000_000;
/** A pack holds at least one record; its name and size take at most 64 bytes. */
const PLAIN_LIMIT_BYTES = 8 + INDEX_RECORD_LIMIT * (RECORD_BYTES + 64);

export interface IndexedPack {
  /** Name below `checkpoints/packs/`. */
  readonly name: string;
  readonly sizeBytes: number;
}

/** One chunk: what the pack says, and which pack of `packs` it is. */
export interface IndexRecord extends PackEntry {
  readonly pack: number;
}

/** The id comes first in both; an index has the number of the pack between it and the rest. */
const REST_BYTES = ENTRY_BYTES - ID_BYTES;

/** Called with each record in order of id: the same object each time, so that a million need not be made. */
export type RecordVisitor = (record: IndexRecord, pack: IndexedPack) => void;

/** Of those that begin at `a` and at `b`. */
function compareIds(bytes: Uint8Array, a: number, b: number): number {
  for (let i = 0; i < ID_BYTES; i++) {
    const difference = (bytes[a + i] ?? 0) - (bytes[b + i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** What an index is made of. */
export interface PackToIndex {
  readonly pack: IndexedPack;
  readonly entries: EntryList;
}

/** Index objects for these packs: one, or several when there are more records than one may hold. */
export function encodeIndexes(
  codec: Codec,
  packs: readonly PackToIndex[],
): Uint8Array<ArrayBuffer>[] {
  const objects: Uint8Array<ArrayBuffer>[] = [];
  let group: typeof packs[number][] = [];
  let count = 0;
  const flush = () => {
    if (group.length > 0) objects.push(encodeIndex(codec, group));
    group = [];
    count = 0;
  };
  for (const item of packs) {
    if (count + item.entries.length > INDEX_RECORD_LIMIT) flush();
    group.push(item);
    count += item.entries.length;
  }
  flush();
  return objects;
}

function encodeIndex(
  codec: Codec,
  items: readonly PackToIndex[],
): Uint8Array<ArrayBuffer> {
  const packBytes = items.reduce((sum, { pack }) => sum + 1 + pack.name.length + 4, 0);
  const count = items.reduce((sum, { entries }) => sum + entries.length, 0);
  const plain = new Uint8Array(8 + packBytes + count * RECORD_BYTES);
  assert(plain.length <= PLAIN_LIMIT_BYTES, "an index is bounded");
  const view = new DataView(plain.buffer);
  view.setUint32(0, items.length, true);
  view.setUint32(4, count, true);
  let at = 8;
  for (const { pack } of items) at = writePack(plain, at, pack);
  const unsorted = new Uint8Array(count * RECORD_BYTES);
  writeRecords(unsorted, items);
  sortRecords(unsorted, plain.subarray(at));
  return wrap(codec, plain);
}

function writeRecords(records: Uint8Array<ArrayBuffer>, items: readonly PackToIndex[]): void {
  const view = new DataView(records.buffer);
  let at = 0;
  for (const [pack, { entries }] of items.entries()) {
    const { bytes } = entries;
    for (let from = 0; from < bytes.length; from += ENTRY_BYTES) {
      copyRecord(bytes, from, ID_BYTES, records, at);
      view.setUint32(at + ID_BYTES, pack, true);
      copyRecord(bytes, from + ID_BYTES, REST_BYTES, records, at + ID_BYTES + 4);
      at += RECORD_BYTES;
    }
  }
}

/**
 * Copies the records in order of id: they are dealt by the first two bytes, which are uniform, and the few with the same
 * ones are sorted. No record becomes an object.
 */
function sortRecords(from: Uint8Array<ArrayBuffer>, to: Uint8Array<ArrayBuffer>): void {
  const count = from.length / RECORD_BYTES;
  const first = (i: number) => ((from[i * RECORD_BYTES] ?? 0) << 8) | (from[i * RECORD_BYTES + 1] ?? 0);
  const ends = new Uint32Array(0x10001);
  for (let i = 0; i < count; i++) ends[first(i) + 1] = (ends[first(i) + 1] ?? 0) + 1;
  for (let value = 0; value < 0x10000; value++) ends[value + 1] = (ends[value + 1] ?? 0) + (ends[value] ?? 0);
  const starts = ends.slice();
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    const value = first(i);
    order[starts[value] ?? 0] = i;
    starts[value] = (starts[value] ?? 0) + 1;
  }
  for (let value = 0; value < 0x10000; value++) {
    const [start = 0, end = 0] = [ends[value], ends[value + 1]];
    if (end - start > 1) sortFew(order, start, end, from);
  }
  for (let place = 0; place < count; place++) {
    copyRecord(from, (order[place] ?? 0) * RECORD_BYTES, RECORD_BYTES, to, place * RECORD_BYTES);
  }
}

/** Up to so many are sorted by insertion: mostly there are two or three, and a call of `sort` takes longer than that. */
const FEW = 32;

/** Sorts the numbers from `start` to `end` of `order` by the ids of their records. */
function sortFew(order: Uint32Array, start: number, end: number, records: Uint8Array): void {
  const compare = (a: number, b: number) => compareIds(records, a * RECORD_BYTES, b * RECORD_BYTES);
  if (end - start > FEW) return void order.subarray(start, end).sort(compare);
  for (let i = start + 1; i < end; i++) {
    const moved = order[i] ?? 0;
    let place = i;
    for (; place > start && compare(order[place - 1] ?? 0, moved) > 0; place--) {
      order[place] = order[place - 1] ?? 0;
    }
    order[place] = moved;
  }
}

function wrap(codec: Codec, plain: Uint8Array): Uint8Array<ArrayBuffer> {
  const stored = encodeBytes(codec, plain);
  const object = new Uint8Array(HEADER_BYTES + stored.bytes.length);
  object.set(INDEX_MAGIC);
  object[5] = stored.compressed ? FLAG_ZSTD : 0;
  new DataView(object.buffer).setUint32(6, plain.length, true);
  object.set(stored.bytes, HEADER_BYTES);
  return object;
}

/** What is in the index in `bytes`, unpacked; its frame is checked, its records are not. */
function unwrap(codec: Codec, bytes: Uint8Array, object: string): Uint8Array {
  checkMagic(bytes, INDEX_MAGIC, object);
  if (bytes.length < HEADER_BYTES) {
    throw damaged(object, `${bytes.length} bytes, wanted ${HEADER_BYTES} and more`);
  }
  const flags = bytes[5] ?? 0;
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(6, true);
  if (flags > FLAG_ZSTD) throw damaged(object, `unknown flags ${flags}`);
  if (length < 8 || length > PLAIN_LIMIT_BYTES) throw damaged(object, `${length} plain bytes declared`);
  const stored = { bytes: bytes.subarray(HEADER_BYTES), compressed: flags === FLAG_ZSTD };
  return decodeBytes(codec, stored, length, object);
}

/**
 * Reads the index in `bytes`, every field checked; `data-damaged` that names `object` for anything else. What was
 * visited before such an error must be dropped. `begin` hears how many records come, before the first.
 */
export function decodeIndex(
  codec: Codec,
  bytes: Uint8Array,
  object: string,
  visit: RecordVisitor,
  begin: (records: number) => void = () => {},
): readonly IndexedPack[] {
  const plain = unwrap(codec, bytes, object);
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const packCount = view.getUint32(0, true);
  const recordCount = view.getUint32(4, true);
  const { packs, end } = readPacks(plain, view, packCount, object);
  if (end + recordCount * RECORD_BYTES !== plain.length) {
    throw damaged(object, `${recordCount} records do not fill it`);
  }
  begin(recordCount);
  readRecords(view, { start: end, count: recordCount, packs, object }, visit);
  return packs;
}

/**
 * The index in `bytes`, which was read and checked before, without the packs that `isGone` names and their records. The
 * rest keeps its order, and no record becomes an object of its own: memory is twice the index. Null: nothing is left.
 */
export function withoutPacks(
  codec: Codec,
  bytes: Uint8Array,
  object: string,
  isGone: (name: string) => boolean,
): Uint8Array<ArrayBuffer> | null {
  const plain = unwrap(codec, bytes, object);
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const { packs, end } = readPacks(plain, view, view.getUint32(0, true), object);
  const numbers = new Map<number, number>();
  packs.forEach(({ name }, i) => isGone(name) || numbers.set(i, numbers.size));
  const kept = new Uint8Array(plain.length);
  const keptView = new DataView(kept.buffer);
  let at = 8;
  for (const i of numbers.keys()) {
    const pack = packs[i];
    assert(pack !== undefined, "the pack is listed");
    at = writePack(kept, at, pack);
  }
  let records = 0;
  for (let from = end; from < plain.length; from += RECORD_BYTES) {
    const number = numbers.get(view.getUint32(from + ID_BYTES, true));
    if (number === undefined) continue;
    kept.set(plain.subarray(from, from + RECORD_BYTES), at);
    keptView.setUint32(at + ID_BYTES, number, true);
    at += RECORD_BYTES;
    records++;
  }
  if (records === 0) return null;
  keptView.setUint32(0, numbers.size, true);
  keptView.setUint32(4, records, true);
  return wrap(codec, kept.subarray(0, at));
}

/** Returns where the next one goes. */
function writePack(plain: Uint8Array<ArrayBuffer>, at: number, { name, sizeBytes }: IndexedPack): number {
  const { written } = new TextEncoder().encodeInto(name, plain.subarray(at + 1));
  plain[at] = written;
  new DataView(plain.buffer).setUint32(at + 1 + written, sizeBytes, true);
  return at + 1 + written + 4;
}

function readPacks(plain: Uint8Array, view: DataView, count: number, object: string) {
  const packs: IndexedPack[] = [];
  let at = 8;
  for (let i = 0; i < count; i++) {
    const nameLength = plain[at] ?? 0;
    const nameEnd = at + 1 + nameLength;
    if (nameLength === 0 || nameEnd + 4 > plain.length) throw damaged(object, `pack ${i} is cut off`);
    const name = String.fromCharCode(...plain.subarray(at + 1, nameEnd));
    if (!isPackName(name)) throw damaged(object, `pack ${i} has no pack's name`);
    packs.push({ name, sizeBytes: view.getUint32(nameEnd, true) });
    at = nameEnd + 4;
  }
  return { packs, end: at };
}

function readRecords(
  view: DataView,
  from: {
    readonly start: number;
    readonly count: number;
    readonly packs: readonly IndexedPack[];
    readonly object: string;
  },
  visit: RecordVisitor,
): void {
  const { packs, object } = from;
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const record = { id: new Uint8Array(ID_BYTES), pack: 0, offset: 0, storedLength: 0, length: 0, flags: 0 };
  for (let i = 0, at = from.start; i < from.count; i++, at += RECORD_BYTES) {
    const packed = view.getUint32(at + ID_BYTES + 12, true);
    copyRecord(bytes, at, ID_BYTES, record.id, 0);
    record.pack = view.getUint32(at + ID_BYTES, true);
    record.offset = view.getUint32(at + ID_BYTES + 4, true);
    record.storedLength = view.getUint32(at + ID_BYTES + 8, true);
    record.length = packed & 0xffffff;
    record.flags = packed >>> 24;
    const pack = packs[record.pack];
    if (pack === undefined) throw damaged(object, `record ${i} names pack ${record.pack} of ${packs.length}`);
    const problem = entryProblem(record, pack.sizeBytes);
    if (problem !== null) throw damaged(object, `record ${idToText(record.id)}: ${problem}`);
    if (i > 0 && compareIds(bytes, at - RECORD_BYTES, at) >= 0) {
      throw damaged(object, `record ${i} is out of order`);
    }
    visit(record, pack);
  }
}
