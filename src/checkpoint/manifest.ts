/**
 * The manifest of one files root: its entries as lines, sorted by raw path, cut on newlines into pieces of about 64 KiB
 * that are stored as chunks. Where a piece ends depends on the paths alone, so a tree with few changes shares almost
 * all pieces with the one before.
 */

import { Buffer } from "node:buffer";
import { assert } from "../platform/assert.ts";
import type { Cipher, RunningHash } from "./cipher.ts";
import { damaged } from "./codec.ts";
import {
  entryLines,
  LineProblem,
  type LinkRole,
  type ManifestLine,
  manifestText,
  parseLine,
  parseLineText,
} from "./manifest_line.ts";
import type { ContentPart, FilesSummary, ManifestEntry, TreeEntry } from "./types.ts";

/** No piece ends before this size, unless the manifest does. */
const PIECE_MIN_BYTES = 16 * 1024;
/** A piece ends here at the latest; one longer line still goes in whole. */
const PIECE_MAX_BYTES = 256 * 1024;
/** One line in 256 may begin a piece: with lines of 150 to 250 bytes, pieces are about 64 KiB. */
const BOUNDARY_MASK = 0xff;

/** FNV-1a, 32 bits, with a last mix so that the low bits are usable. */
function boundaryHash(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  hash ^= hash >>> 15;
  return hash >>> 0;
}

export function comparePaths(a: Uint8Array, b: Uint8Array): number {
  return Buffer.compare(a, b);
}

/** The bytes as a text of one character each: a map key for raw paths. */
function pathKey(path: Uint8Array): string {
  return Buffer.from(path.buffer, path.byteOffset, path.byteLength).toString("latin1");
}

/** Takes entries in path order and gives the pieces of their manifest to `emit`, one by one. */
export class ManifestWriter {
  readonly #emit: (piece: Uint8Array) => void;
  readonly #hash: RunningHash;
  readonly #firstOfGroup = new Map<number, Uint8Array>();
  #lines: Uint8Array[] = [];
  #lineBytes = 0;
  #previous: Uint8Array | undefined;
  #entries = 0;
  #bytes = 0;

  constructor(emit: (piece: Uint8Array) => void, cipher: Cipher) {
    this.#hash = cipher.hash();
    this.#emit = emit;
  }

  add({ entry, parts }: ManifestEntry): void {
    assert(
      this.#previous === undefined || comparePaths(this.#previous, entry.path) < 0,
      "entries come in path order",
    );
    this.#previous = entry.path;
    const link = this.#linkRole(entry);
    this.#entries++;
    if (link === null || link.first) this.#bytes += entry.size;
    entryLines(entry, link, parts).forEach((line, i) => {
      // A file of many parts may be cut between its lines, too; there the line itself decides.
      const hash = boundaryHash(i === 0 ? entry.path : line);
      const full = this.#lineBytes + line.length > PIECE_MAX_BYTES;
      if (full || (this.#lineBytes >= PIECE_MIN_BYTES && (hash & BOUNDARY_MASK) === 0)) this.#flush();
      this.#lines.push(line);
      this.#lineBytes += line.length;
    });
  }

  finish(): FilesSummary {
    this.#flush();
    return { entries: this.#entries, bytes: this.#bytes, manifest_sha256: this.#hash.digest("hex") };
  }

  #linkRole(entry: TreeEntry): LinkRole | null {
    if (entry.linkGroup === undefined) return null;
    const first = this.#firstOfGroup.get(entry.linkGroup);
    if (first !== undefined) return { first: false, path: first };
    this.#firstOfGroup.set(entry.linkGroup, entry.path);
    return { first: true };
  }

  #flush(): void {
    if (this.#lineBytes === 0) return;
    const piece = Buffer.concat(this.#lines, this.#lineBytes);
    this.#hash.update(piece);
    this.#lines = [];
    this.#lineBytes = 0;
    this.#emit(piece);
  }
}

interface OpenFile {
  readonly entry: TreeEntry;
  readonly parts: ContentPart[];
}

/** True when the entry before it lies in the same folder, which is the path up to `cut`: then that is known already. */
function isBeside(before: Uint8Array, path: Uint8Array, cut: number): boolean {
  if (before.length <= cut || before.lastIndexOf(0x2f) !== cut || cut === 0) return false;
  for (let i = 0; i < cut; i++) if (before[i] !== path[i]) return false;
  return true;
}

/** Reads a manifest piece by piece. Anything that is not one of ours is `data-damaged` that names `object`. */
export class ManifestReader {
  readonly #object: string;
  readonly #expected: FilesSummary;
  readonly #hash: RunningHash;
  /** Complete, and not taken yet. */
  readonly #entries: ManifestEntry[] = [];
  #count = 0;
  #previous: TreeEntry["path"] | null = null;
  readonly #folders = new Set<string>();
  /** First members of hard link groups: path → their group and type. */
  readonly #groups = new Map<string, { readonly number: number; readonly entry: TreeEntry }>();
  #open: OpenFile | null = null;
  #line = 0;
  #bytes = 0;

  constructor(object: string, expected: FilesSummary, cipher: Cipher) {
    this.#hash = cipher.hash();
    this.#object = object;
    this.#expected = expected;
  }

  add(piece: Uint8Array): void {
    this.#hash.update(piece);
    const text = manifestText(piece);
    if (text !== null) {
      return this.#takeLines(
        text,
        (start) => text.indexOf("\n", start),
        (start, end) => parseLineText(text.slice(start, end)),
      );
    }
    // Line by line, to say which one is no UTF-8.
    this.#takeLines(
      piece,
      (start) => piece.indexOf(0x0a, start),
      (start, end) => parseLine(piece.subarray(start, end)),
    );
  }

  #takeLines(
    { length }: { readonly length: number },
    endFrom: (start: number) => number,
    parse: (start: number, end: number) => ManifestLine,
  ): void {
    for (let start = 0; start < length;) {
      const end = endFrom(start);
      this.#line++;
      if (end < 0) throw this.#problem("line is not ended");
      try {
        this.#readLine(parse(start, end));
      } catch (error) {
        throw error instanceof LineProblem ? this.#problem(error.message) : error;
      }
      start = end + 1;
    }
  }

  /** How many entries `take` would give. */
  get complete(): number {
    return this.#entries.length;
  }

  /** The next entries that are complete by now, in path order, `atMost` of them. */
  take(atMost: number): readonly ManifestEntry[] {
    return this.#entries.splice(0, atMost);
  }

  /** The entries that were not taken, in path order, once every piece was added and the whole is proven. */
  finish(): readonly ManifestEntry[] {
    this.#close();
    if (this.#count !== this.#expected.entries || this.#bytes !== this.#expected.bytes) {
      throw this.#problem(
        `${this.#count} entries with ${this.#bytes} bytes, ` +
          `wanted ${this.#expected.entries} with ${this.#expected.bytes}`,
      );
    }
    if (this.#hash.digest("hex") !== this.#expected.manifest_sha256) throw this.#problem("SHA-256 differs");
    return this.take(Infinity);
  }

  #readLine(line: ManifestLine): void {
    if (line.kind === "more") {
      if (this.#open === null || this.#open.parts.length === 0) throw new LineProblem("+ follows a file");
      this.#open.parts.push(...line.parts);
      return;
    }
    this.#close();
    if (this.#count >= this.#expected.entries) throw new LineProblem("more entries than declared");
    const { link } = line;
    this.#checkPlace(line.entry);
    if (line.entry.type === "directory") this.#folders.add(pathKey(line.entry.path));
    let entry: TreeEntry = line.entry;
    if (link !== null) {
      entry = { ...entry, linkGroup: this.#groupOf(link, line.entry) };
      if (link.first) this.#groups.set(pathKey(entry.path), { number: entry.linkGroup ?? 0, entry });
    }
    if (link !== null && !link.first && line.parts.length > 0) {
      throw new LineProblem("a hard link has no content");
    }
    this.#open = { entry, parts: line.parts };
    this.#count++;
    if (link === null || link.first) this.#bytes += entry.size;
  }

  /** Entries come in path order, below folders that were listed: nothing is ever written through a symlink. */
  #checkPlace(entry: TreeEntry): void {
    const previous = this.#previous;
    this.#previous = entry.path;
    if (previous === null) {
      if (entry.path.length > 0 || entry.type !== "directory") throw new LineProblem("the root comes first");
      return;
    }
    if (comparePaths(previous, entry.path) >= 0) throw new LineProblem("entries are sorted by path");
    const cut = Math.max(0, entry.path.lastIndexOf(0x2f));
    if (isBeside(previous, entry.path, cut)) return;
    const parent = entry.path.subarray(0, cut);
    if (!this.#folders.has(pathKey(parent))) throw new LineProblem("the parent is a folder listed before");
  }

  #groupOf(link: LinkRole, entry: TreeEntry): number {
    if (link.first) return this.#groups.size + 1;
    const group = this.#groups.get(pathKey(link.path));
    if (group === undefined) throw new LineProblem("a hard link names an earlier entry");
    if (group.entry.type !== entry.type || group.entry.size !== entry.size) {
      throw new LineProblem("a hard link is like its first");
    }
    return group.number;
  }

  #close(): void {
    const open = this.#open;
    if (open === null) return;
    this.#open = null;
    const { entry, parts } = open;
    const carries = entry.linkGroup === undefined || this.#groups.get(pathKey(entry.path)) !== undefined;
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (carries && length !== entry.size) {
      throw this.#problem(`content of ${length} bytes for a file of ${entry.size}`);
    }
    this.#entries.push({ entry, parts });
  }

  #problem(rule: string): Error {
    return damaged(`${this.#object} line ${this.#line}`, rule);
  }
}
