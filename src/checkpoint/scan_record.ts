/**
 * Records of the scan cache: entries in path order as they were seen, files with their parts. Binary, and read in place:
 * a tree that did not change has each record compared once and no object made of it.
 */

import { Buffer } from "node:buffer";
import { assert } from "../platform/assert.ts";
import type { PathBytes } from "../platform/libc_files.ts";
import type { ScannedEntry, WalFacts } from "./scan.ts";
import type { CachedContent } from "./scan_cache.ts";
import type { ContentPart, ScanFacts, TreeEntry } from "./types.ts";

/** Flags of a record. */
const SQLITE = 1;
const WAL = 2;
export const CONTENT = 4;
const XATTRS = 8;
/** What a scan knows of a file before it is read. */
const SCANNED = SQLITE | WAL;

/**
 * Little-endian: mtime, ctime i64; inode, device u64; size f64; mode, uid, gid u32; type, flags u8; 2 unused; record
 * length, path length, parts u32. Then, with WAL, its size f64, mtime, ctime i64, inode u64; the path; the parts: length
 * f64, length of the id u8 (0: a hole), id; with XATTRS its extended attributes, [name, base64], as JSON to the record's end.
 */
const FIXED_BYTES = 68;
const WAL_BYTES = 32;
const TYPES: Readonly<Record<TreeEntry["type"], number>> = { file: 0, directory: 1, symlink: 2, fifo: 3 };

const AT = {
  mtime: 0,
  ctime: 8,
  ino: 16,
  dev: 24,
  size: 32,
  mode: 40,
  uid: 44,
  gid: 48,
  type: 52,
  flags: 53,
};
const AT_LENGTH = 56;
const AT_PATH = 60;
const AT_PARTS = 64;

type XattrPair = readonly [name: string, base64: string];

const NO_BYTES = Buffer.alloc(0);

function xattrBytesOf({ xattrs }: TreeEntry): Buffer {
  if (xattrs === undefined) return NO_BYTES;
  const pairs = xattrs.map(({ name, value }): XattrPair => [name, Buffer.from(value).toString("base64")]);
  return Buffer.from(JSON.stringify(pairs));
}

function flagsOf({ entry, wal }: ScannedEntry): number {
  return (entry.sqlite === true ? SQLITE : 0) | (wal === null ? 0 : WAL);
}

/** Records of a cache file that was checked whole, as views into it. A record is named by where it begins. */
export class RecordList {
  readonly #bytes: Buffer;
  readonly #view: DataView;
  readonly #starts: Uint32Array;
  /** The record after the one found last: a scan asks in the order of the records. */
  #next = 0;

  constructor(bytes: Uint8Array<ArrayBuffer>, count: number) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#starts = new Uint32Array(count);
    let at = 0;
    for (let i = 0; i < count; i++) {
      this.#starts[i] = at;
      at += this.#view.getUint32(at + AT_LENGTH, true);
    }
    assert(at === bytes.length, "records fill the cache");
  }

  static none(): RecordList {
    return new RecordList(new Uint8Array(0), 0);
  }

  get count(): number {
    return this.#starts.length;
  }

  at(index: number): number {
    return this.#starts[index] ?? 0;
  }

  /** The record of `path`, or -1. */
  find(path: PathBytes): number {
    if (this.#next < this.count && this.#comparePath(this.at(this.#next), path) === 0) {
      return this.at(this.#next++);
    }
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#comparePath(this.at(middle), path) < 0) low = middle + 1;
      else high = middle;
    }
    this.#next = low;
    if (low === this.count || this.#comparePath(this.at(low), path) !== 0) return -1;
    return this.at(this.#next++);
  }

  isDatabase(at: number): boolean {
    return (this.#flags(at) & SQLITE) !== 0;
  }

  hasContent(at: number): boolean {
    return (this.#flags(at) & CONTENT) !== 0;
  }

  isInode(at: number, { ino, dev, ctimeNs }: ScanFacts): boolean {
    return this.#view.getBigInt64(at + AT.ctime, true) === ctimeNs &&
      this.#view.getBigUint64(at + AT.ino, true) === ino &&
      this.#view.getBigUint64(at + AT.dev, true) === dev;
  }

  /** A database's content is its file and its log together; what was not read as a database does not count as one. */
  isSameContent(at: number, scanned: ScannedEntry): boolean {
    const { entry, facts, wal } = scanned;
    return this.#view.getBigInt64(at + AT.mtime, true) === entry.mtimeNs && this.isInode(at, facts) &&
      this.#view.getFloat64(at + AT.size, true) === entry.size &&
      (this.#flags(at) & SCANNED) === flagsOf(scanned) &&
      (wal === null || this.#isSameWal(at + FIXED_BYTES, wal));
  }

  /** Nothing that a manifest tells may be another: what is not compared here cannot change without its ctime. */
  isSameEntry(at: number, scanned: ScannedEntry): boolean {
    const { entry } = scanned;
    return this.#bytes[at + AT.type] === TYPES[entry.type] && this.isSameContent(at, scanned) &&
      this.#view.getUint32(at + AT.mode, true) === entry.mode &&
      this.#view.getUint32(at + AT.uid, true) === entry.uid &&
      this.#view.getUint32(at + AT.gid, true) === entry.gid && this.#comparePath(at, entry.path) === 0;
  }

  /** The younger of all times in it. */
  newestNs(at: number): bigint {
    let newest = this.#view.getBigInt64(at + AT.mtime, true);
    const isWal = (this.#flags(at) & WAL) !== 0;
    for (const place of isWal ? [AT.ctime, FIXED_BYTES + 8, FIXED_BYTES + 16] : [AT.ctime]) {
      const time = this.#view.getBigInt64(at + place, true);
      if (time > newest) newest = time;
    }
    return newest;
  }

  content(start: number): CachedContent {
    const parts: ContentPart[] = [];
    let at = this.#pathStart(start) + this.#view.getUint32(start + AT_PATH, true);
    for (let count = this.#view.getUint32(start + AT_PARTS, true); count > 0; count--) {
      const length = this.#view.getFloat64(at, true);
      const idLength = this.#bytes[at + 8] ?? 0;
      at += 9;
      if (idLength === 0) parts.push({ kind: "hole", length });
      else parts.push({ kind: "chunk", id: this.#bytes.toString("latin1", at, at + idLength), length });
      at += idLength;
    }
    if ((this.#flags(start) & XATTRS) === 0) return { parts, xattrs: {} };
    const end = start + this.#view.getUint32(start + AT_LENGTH, true);
    const pairs: readonly XattrPair[] = JSON.parse(this.#bytes.toString("utf8", at, end));
    const xattrs = pairs.map(([name, value]) => ({
      name,
      value: new Uint8Array(Buffer.from(value, "base64")),
    }));
    return { parts, xattrs: { xattrs } };
  }

  #flags(at: number): number {
    return this.#bytes[at + AT.flags] ?? 0;
  }

  #pathStart(at: number): number {
    return at + FIXED_BYTES + ((this.#flags(at) & WAL) === 0 ? 0 : WAL_BYTES);
  }

  #isSameWal(at: number, wal: WalFacts): boolean {
    return this.#view.getFloat64(at, true) === wal.size &&
      this.#view.getBigInt64(at + 8, true) === wal.mtimeNs &&
      this.#view.getBigInt64(at + 16, true) === wal.ctimeNs &&
      this.#view.getBigUint64(at + 24, true) === wal.ino;
  }

  #comparePath(at: number, path: PathBytes): number {
    const start = this.#pathStart(at);
    const length = this.#view.getUint32(at + AT_PATH, true);
    const common = Math.min(length, path.length);
    for (let i = 0; i < common; i++) {
      const difference = (this.#bytes[start + i] ?? 0) - (path[i] ?? 0);
      if (difference !== 0) return difference;
    }
    return length - path.length;
  }
}

const BLOCK_BYTES = 1024 * 1024;

/** Collects records for a cache file. */
export class RecordWriter {
  readonly #full: Buffer[] = [];
  #block = Buffer.allocUnsafe(BLOCK_BYTES);
  #view = new DataView(this.#block.buffer, this.#block.byteOffset, BLOCK_BYTES);
  #used = 0;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  bytes(): readonly Buffer[] {
    return [...this.#full, this.#block.subarray(0, this.#used)];
  }

  add(scanned: ScannedEntry, flags: number, parts: readonly ContentPart[]): void {
    const { entry, facts, wal } = scanned;
    const partBytes = parts.reduce((sum, part) => sum + 9 + (part.kind === "chunk" ? part.id.length : 0), 0);
    // A file's were read with its content; those of all else are read by each scan.
    const xattrs = (flags & CONTENT) === 0 ? NO_BYTES : xattrBytesOf(entry);
    const length = FIXED_BYTES + (wal === null ? 0 : WAL_BYTES) + entry.path.length + partBytes +
      xattrs.length;
    this.#reserve(length);
    const start = this.#used;
    const [block, view] = [this.#block, this.#view];
    view.setBigInt64(start + AT.mtime, entry.mtimeNs, true);
    view.setBigInt64(start + AT.ctime, facts.ctimeNs, true);
    view.setBigUint64(start + AT.ino, facts.ino, true);
    view.setBigUint64(start + AT.dev, facts.dev, true);
    view.setFloat64(start + AT.size, entry.size, true);
    view.setUint32(start + AT.mode, entry.mode, true);
    view.setUint32(start + AT.uid, entry.uid, true);
    view.setUint32(start + AT.gid, entry.gid, true);
    block[start + AT.type] = TYPES[entry.type];
    block[start + AT.flags] = flags | flagsOf(scanned) | (xattrs.length > 0 ? XATTRS : 0);
    view.setUint32(start + AT_LENGTH, length, true);
    view.setUint32(start + AT_PATH, entry.path.length, true);
    view.setUint32(start + AT_PARTS, parts.length, true);
    let at = start + FIXED_BYTES;
    if (wal !== null) {
      view.setFloat64(at, wal.size, true);
      view.setBigInt64(at + 8, wal.mtimeNs, true);
      view.setBigInt64(at + 16, wal.ctimeNs, true);
      view.setBigUint64(at + 24, wal.ino, true);
      at += WAL_BYTES;
    }
    block.set(entry.path, at);
    at += entry.path.length;
    for (const part of parts) at = this.#addPart(part, at);
    block.set(xattrs, at);
    this.#used = at + xattrs.length;
    this.#count++;
  }

  #addPart(part: ContentPart, at: number): number {
    this.#view.setFloat64(at, part.length, true);
    const id = part.kind === "chunk" ? part.id : "";
    this.#block[at + 8] = id.length;
    for (let i = 0; i < id.length; i++) this.#block[at + 9 + i] = id.charCodeAt(i);
    return at + 9 + id.length;
  }

  #reserve(length: number): void {
    if (this.#used + length <= this.#block.length) return;
    this.#full.push(this.#block.subarray(0, this.#used));
    const size = Math.max(BLOCK_BYTES, length);
    this.#block = Buffer.allocUnsafe(size);
    this.#view = new DataView(this.#block.buffer, this.#block.byteOffset, size);
    this.#used = 0;
  }
}
