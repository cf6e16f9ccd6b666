/**
 * Packs: many chunks in one immutable object. Layout (docs/storage_format.md): magic, blobs, footer of binary
 * entries, footer length, CRC-32 and SHA-256 of the footer. The index says where a chunk is; the footer says it again,
 * so that a lost index can be built anew from the packs.
 */

import { crc32 } from "node:zlib";
import { assert } from "../platform/assert.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { Cipher } from "./cipher.ts";
import { damaged } from "./codec.ts";
import { ID_BYTES, idToText, sha256 } from "./ids.ts";
import { SEAL_BYTES } from "./seal.ts";

/** Restores read by pack, and a put is repeated whole: large enough for throughput, small enough to repeat. */
export const PACK_TARGET_BYTES = 16 * 1024 * 1024;

/** "SMPK1" */
export const PACK_MAGIC = Uint8Array.of(0x53, 0x4d, 0x50, 0x4b, 0x31);
/** id[32], offset u32, stored length u32, plain length u24, flags u8; little-endian. */
export const ENTRY_BYTES = ID_BYTES + 12;
/** footer length u32, CRC-32 u32, SHA-256[32]. */
export const TRAILER_BYTES = 40;

/** The blob is a zstd frame; without it the blob is the plain bytes. */
export const FLAG_ZSTD = 1;
/** The chunk is a piece of a manifest. */
export const FLAG_META = 2;
/** The blob is sealed by the repository's cipher, and longer by its tag. */
export const FLAG_SEALED = 4;
const KNOWN_FLAGS = FLAG_ZSTD | FLAG_META | FLAG_SEALED;

/** Bound of one chunk's plain bytes (a u24 holds 16 MiB): what a decoder may allocate for one entry. */
export const CHUNK_LIMIT_BYTES = 2 * 1024 * 1024;

/** Where a chunk lies inside its pack. */
export interface PackEntry {
  readonly id: Uint8Array;
  readonly offset: number;
  readonly storedLength: number;
  readonly length: number;
  readonly flags: number;
}

export interface FinishedPack {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly entries: EntryList;
}

/** What an entry says besides its id. */
export type EntryNumbers = Omit<PackEntry, "id">;

/** To `at` of `bytes`, which `view` is of as well: who writes very many keeps both. */
export function writeEntry(bytes: Uint8Array, view: DataView, at: number, entry: PackEntry): void {
  bytes.set(entry.id, at);
  view.setUint32(at + ID_BYTES, entry.offset, true);
  view.setUint32(at + ID_BYTES + 4, entry.storedLength, true);
  view.setUint32(at + ID_BYTES + 8, entry.length | (entry.flags << 24), true);
}

/** A few bytes from one array into another: here `set` would need a view of each record, which takes several times as long. */
export function copyRecord(from: Uint8Array, at: number, length: number, to: Uint8Array, toAt: number): void {
  for (let i = 0; i < length; i++) to[toAt + i] = from[at + i] ?? 0;
}

/** Of the entry that begins at `at`. */
export function readNumbers(view: DataView, at: number): EntryNumbers {
  const packed = view.getUint32(at + ID_BYTES + 8, true);
  return {
    offset: view.getUint32(at + ID_BYTES, true),
    storedLength: view.getUint32(at + ID_BYTES + 4, true),
    length: packed & 0xffffff,
    flags: packed >>> 24,
  };
}

export function readEntry(view: DataView, at: number): PackEntry {
  const id = new Uint8Array(view.buffer, view.byteOffset + at, ID_BYTES);
  return { id, ...readNumbers(view, at) };
}

/** Entries as a footer has them, 44 bytes each: of a pack of small chunks there may be a hundred thousand. */
export class EntryList {
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #length = 0;

  /** Of the records in `bytes`, which nobody may change; left out: none. */
  constructor(bytes: Uint8Array<ArrayBuffer> = new Uint8Array(0)) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#length = bytes.length / ENTRY_BYTES;
  }

  get length(): number {
    return this.#length;
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length * ENTRY_BYTES);
  }

  push(entry: PackEntry): void {
    const at = this.#length * ENTRY_BYTES;
    if (at + ENTRY_BYTES > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(64 * ENTRY_BYTES, 2 * this.#bytes.length));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    writeEntry(this.#bytes, this.#view, at, entry);
    this.#length++;
  }

  /** Null when there are not so many. */
  at(place: number): PackEntry | null {
    return place < this.#length ? readEntry(this.#view, place * ENTRY_BYTES) : null;
  }

  *[Symbol.iterator](): Generator<PackEntry> {
    for (let i = 0; i < this.#length; i++) yield readEntry(this.#view, i * ENTRY_BYTES);
  }
}

/** Why an entry cannot be one of ours; null when it can. `blobsEnd` is where the blobs of the pack end. */
export function entryProblem(entry: PackEntry, blobsEnd: number): string | null {
  if ((entry.flags & ~KNOWN_FLAGS) !== 0) return `unknown flags ${entry.flags}`;
  if (entry.length === 0 || entry.length > CHUNK_LIMIT_BYTES) return `chunk of ${entry.length} bytes`;
  const encodedLength = entry.storedLength - ((entry.flags & FLAG_SEALED) === 0 ? 0 : SEAL_BYTES);
  if (encodedLength <= 0 || encodedLength > entry.length) return "blob longer than its chunk";
  if ((entry.flags & FLAG_ZSTD) === 0 && encodedLength !== entry.length) {
    return "raw blob of another length";
  }
  if (entry.offset < PACK_MAGIC.length || entry.offset + entry.storedLength > blobsEnd) {
    return "blob outside of its pack";
  }
  return null;
}

export interface PackBuilderOptions {
  /** That of the object, never used again: it is part of what blobs are sealed with. */
  readonly name: string;
  readonly cipher: Cipher;
  /** Whole size that it keeps below; the default is `PACK_TARGET_BYTES`. */
  readonly targetBytes?: number;
  /** To build it in; left out: its own, which grows. */
  readonly memory?: Uint8Array<ArrayBuffer>;
}

/** Collects blobs until the target is reached, and seals them. Memory: at most about twice what is in it. */
export class PackBuilder {
  readonly name: string;
  readonly #cipher: Cipher;
  readonly #targetBytes: number;
  #buffer: Uint8Array<ArrayBuffer>;
  #used = 0;
  readonly #entries = new EntryList();

  constructor({ name, cipher, targetBytes = PACK_TARGET_BYTES, memory }: PackBuilderOptions) {
    this.name = name;
    this.#cipher = cipher;
    this.#targetBytes = targetBytes;
    this.#buffer = memory ?? new Uint8Array(256 * 1024);
    this.#buffer.set(PACK_MAGIC);
    this.#used = PACK_MAGIC.length;
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0;
  }

  /** Of what is in it so far. */
  get sizeBytes(): number {
    return this.#used;
  }

  /** True when `encodedLength` more bytes keep it within the target. An empty pack takes any chunk. */
  hasRoom(encodedLength: number): boolean {
    const footer = (this.#entries.length + 1) * ENTRY_BYTES + TRAILER_BYTES;
    const storedLength = encodedLength + (this.#cipher.seals ? SEAL_BYTES : 0);
    return this.isEmpty || this.#used + storedLength + footer <= this.#targetBytes;
  }

  /** `encoded` as the codec gave it; `flags` say how. The entry says what was written. */
  add(id: Uint8Array, encoded: Uint8Array, length: number, flags: number): PackEntry {
    assert(encoded.length > 0 && length <= CHUNK_LIMIT_BYTES, "a chunk has 1 byte to 2 MiB");
    const offset = this.#used;
    this.#reserve(encoded.length + SEAL_BYTES);
    const storedLength = this.#cipher.sealBlob(
      { pack: this.name, offset },
      encoded,
      this.#buffer.subarray(offset),
    );
    const sealed = this.#cipher.seals ? FLAG_SEALED : 0;
    const entry = { id, offset, storedLength, length, flags: flags | sealed };
    this.#used += storedLength;
    this.#entries.push(entry);
    return entry;
  }

  finish(): FinishedPack {
    const footerStart = this.#used;
    const footerLength = this.#entries.length * ENTRY_BYTES;
    this.#reserve(footerLength + TRAILER_BYTES);
    const view = new DataView(this.#buffer.buffer, this.#buffer.byteOffset);
    this.#buffer.set(this.#entries.bytes, footerStart);
    const footer = this.#buffer.subarray(footerStart, footerStart + footerLength);
    const trailer = footerStart + footerLength;
    view.setUint32(trailer, footerLength, true);
    view.setUint32(trailer + 4, crc32(footer), true);
    this.#buffer.set(sha256(footer), trailer + 8);
    return { bytes: this.#buffer.subarray(0, trailer + TRAILER_BYTES), entries: this.#entries };
  }

  #reserve(more: number): void {
    if (this.#used + more <= this.#buffer.length) return;
    const grown = new Uint8Array(Math.max(this.#used + more, this.#buffer.length * 2));
    grown.set(this.#buffer.subarray(0, this.#used));
    this.#buffer = grown;
  }
}

/** The entries of a whole pack, checked; `data-damaged` that names `object` for anything that is not one of ours. */
export function readPackEntries(pack: Uint8Array<ArrayBuffer>, object: string): EntryList {
  if (pack.length < SMALLEST_PACK_BYTES) throw tooSmall(pack.length, object);
  checkMagic(pack, PACK_MAGIC, object);
  const start = footerStart(pack.subarray(pack.length - TRAILER_BYTES), pack.length, object);
  return readFooter(pack.subarray(start), start, object);
}

const SMALLEST_PACK_BYTES = PACK_MAGIC.length + ENTRY_BYTES + TRAILER_BYTES;

function tooSmall(sizeBytes: number, object: string): StateManagerError {
  return damaged(object, `${sizeBytes} bytes, a pack has at least ${SMALLEST_PACK_BYTES}`);
}

/**
 * Throws unless `bytes` begin with `magic`, whose last character is the version: `format-too-new` for a higher digit,
 * `data-damaged` for all else.
 */
export function checkMagic(bytes: Uint8Array, magic: Uint8Array, object: string): void {
  if (bytes.length >= magic.length && magic.every((byte, i) => bytes[i] === byte)) return;
  const name = String.fromCharCode(...magic.subarray(0, -1));
  const known = magic[magic.length - 1] ?? 0;
  const version = bytes[magic.length - 1] ?? 0;
  const isOurs = magic.subarray(0, -1).every((byte, i) => bytes[i] === byte);
  if (isOurs && version > known && version <= DIGIT_NINE) {
    throw new StateManagerError(
      "format-too-new",
      `read ${object}: its format is ${name}${String.fromCharCode(version)}, known up to ${name}${
        String.fromCharCode(known)
      }`,
      { hint: "use the version of state-manager that wrote it, or a newer one; nothing was changed" },
    );
  }
  throw damaged(object, `does not begin with ${name}${String.fromCharCode(known)}`);
}

const DIGIT_NINE = 0x39;

/** Where the footer begins in a pack of `sizeBytes` that ends with `trailer` (`TRAILER_BYTES`). */
export function footerStart(trailer: Uint8Array, sizeBytes: number, object: string): number {
  if (sizeBytes < SMALLEST_PACK_BYTES || trailer.length < TRAILER_BYTES) throw tooSmall(sizeBytes, object);
  const length = new DataView(trailer.buffer, trailer.byteOffset).getUint32(0, true);
  const start = sizeBytes - TRAILER_BYTES - length;
  if (length % ENTRY_BYTES !== 0 || length === 0 || start < PACK_MAGIC.length) {
    throw damaged(object, `footer of ${length} bytes`);
  }
  return start;
}

/** The entries in `tail`, the end of a pack from `start` (as `footerStart` gives it) on. */
export function readFooter(tail: Uint8Array<ArrayBuffer>, start: number, object: string): EntryList {
  const trailer = tail.length - TRAILER_BYTES;
  const footer = tail.subarray(0, trailer);
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  const digest = sha256(footer);
  if (
    crc32(footer) !== view.getUint32(trailer + 4, true) ||
    !digest.every((byte, i) => tail[trailer + 8 + i] === byte)
  ) {
    throw damaged(object, "checksum of the footer differs");
  }
  const entries = new EntryList(footer);
  for (const entry of entries) {
    const problem = entryProblem(entry, start);
    if (problem !== null) throw damaged(object, `entry ${idToText(entry.id)}: ${problem}`);
  }
  return entries;
}
