/**
 * One line of a manifest as JSON (docs/storage_format.md). Reading checks everything that a restore relies on: a
 * damaged or forged line must not make it write outside of its target. Written for speed by hand: a tree has
 * hundreds of thousands of lines.
 */

import { Buffer } from "node:buffer";
import { isIdText } from "./ids.ts";
import { byteText } from "./byte_text.ts";
import { CHUNK_LIMIT_BYTES } from "./pack.ts";
import type { ContentPart, TreeEntry, Xattr } from "./types.ts";
import { isKeptXattr, xattrBytes, XATTRS_LIMIT_BYTES } from "./xattrs.ts";

/** PATH_MAX: the longest symlink target the kernel takes. */
const TARGET_LIMIT_BYTES = 4096;
/** NAME_MAX of Linux file systems. */
const NAME_LIMIT_BYTES = 255;
/** Deeper trees than PATH_MAX can exist; nobody's path is longer than this. */
const PATH_LIMIT_BYTES = 64 * 1024;
/** Parts in one line; a file with more goes on in `+` lines, so that a line, and what an edit resends, stays small. */
export const PARTS_PER_LINE = 512;
/** Longest line: a long path and its parts. */
export const LINE_LIMIT_BYTES = 256 * 1024;

const TYPE_LETTERS = { file: "f", directory: "d", symlink: "l", fifo: "p" } as const;
const TYPES: Readonly<Record<string, TreeEntry["type"]>> = {
  f: "file",
  d: "directory",
  l: "symlink",
  p: "fifo",
};

/** What a line says of hard links: the first member of a group in path order, or the path of that first member. */
export type LinkRole = { readonly first: true } | { readonly first: false; readonly path: Uint8Array };

export type ManifestLine =
  | {
    readonly kind: "entry";
    readonly entry: Omit<TreeEntry, "linkGroup">;
    readonly link: LinkRole | null;
    readonly parts: ContentPart[];
  }
  | { readonly kind: "more"; readonly parts: readonly ContentPart[] };

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf8 = new TextEncoder();

/** `{ key: text }` for valid UTF-8, else `{ key64: base64 }`, since names are bytes. */
function bytesField(key: string, bytes: Uint8Array): Record<string, string> {
  try {
    return { [key]: strictUtf8.decode(bytes) };
  } catch {
    return { [`${key}64`]: Buffer.from(bytes).toString("base64") };
  }
}

function partsField(parts: readonly ContentPart[]): (readonly (string | number)[])[] {
  return parts.map((part) => part.kind === "chunk" ? [part.id, part.length] : [part.length]);
}

/** XATTR_NAME_MAX of Linux. */
const XATTR_NAME_LIMIT_BYTES = 255;
/** Other names go as base64: no escapes, so that the length of a line is bounded by that of what is in it. */
const PLAIN_NAME = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

/** `x`: names in ASCII → values in base64; `x64`: all other names, in base64. */
function xattrFields(xattrs: readonly Xattr[]): Record<string, Record<string, string>> {
  const plain: [string, string][] = [];
  const other: [string, string][] = [];
  for (const { name, value } of xattrs) {
    const text = Buffer.from(value).toString("base64");
    if (PLAIN_NAME.test(name)) plain.push([name, text]);
    else other.push([Buffer.from(name, "latin1").toString("base64"), text]);
  }
  return {
    ...(plain.length === 0 ? {} : { x: Object.fromEntries(plain) }),
    ...(other.length === 0 ? {} : { x64: Object.fromEntries(other) }),
  };
}

/** The lines of one entry, each ended by a newline: the first, then its `+` lines. */
export function entryLines(
  entry: TreeEntry,
  link: LinkRole | null,
  parts: readonly ContentPart[],
): Uint8Array[] {
  const fields: Record<string, unknown> = {
    ...bytesField("p", entry.path),
    t: TYPE_LETTERS[entry.type],
    m: entry.mode,
    u: entry.uid,
    g: entry.gid,
    ns: String(entry.mtimeNs),
  };
  if (entry.type === "file") fields["s"] = entry.size;
  if (entry.target !== undefined) Object.assign(fields, bytesField("to", entry.target));
  if (link !== null) Object.assign(fields, link.first ? { h: true } : bytesField("h", link.path));
  if (entry.sqlite === true) fields["sql"] = true;
  if (entry.xattrs !== undefined) Object.assign(fields, xattrFields(entry.xattrs));
  if (parts.length > 0) fields["c"] = partsField(parts.slice(0, PARTS_PER_LINE));
  const lines = [encodedTogether(JSON.stringify(fields) + "\n")];
  for (let i = PARTS_PER_LINE; i < parts.length; i += PARTS_PER_LINE) {
    lines.push(
      encodedTogether(JSON.stringify({ "+": partsField(parts.slice(i, i + PARTS_PER_LINE)) }) + "\n"),
    );
  }
  return lines;
}

/** What is wrong with a line; the caller adds which object and line it is. */
export class LineProblem extends Error {
  override readonly name = "LineProblem";
}

function wanted(condition: boolean, rule: string): asserts condition {
  if (!condition) throw new LineProblem(rule);
}

type Fields = Readonly<Record<string, unknown>>;

const BLOCK_BYTES = 64 * 1024;
let block = new Uint8Array(BLOCK_BYTES);
let used = 0;

/** UTF-8 in a block that many share: memory of its own for each path or line is what a large manifest would spend most on. */
function encodedTogether(text: string): Uint8Array<ArrayBuffer> {
  const { length } = text;
  if (length > BLOCK_BYTES / 16) return utf8.encode(text);
  if (used + length > BLOCK_BYTES) {
    block = new Uint8Array(BLOCK_BYTES);
    used = 0;
  }
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0x7f) return utf8.encode(text);
    block[used + i] = code;
  }
  return block.subarray(used, used += length);
}

function readBytes(fields: Fields, key: string): Uint8Array<ArrayBuffer> | null {
  const text = fields[key];
  if (typeof text === "string") return encodedTogether(text);
  const base64 = fields[`${key}64`];
  if (base64 === undefined) return null;
  wanted(typeof base64 === "string", `${key}64 is base64`);
  return new Uint8Array(Buffer.from(base64, "base64"));
}

function readInteger(fields: Fields, key: string, most: number): number {
  const value = fields[key];
  wanted(
    typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= most,
    `${key} is a whole number up to ${most}`,
  );
  return value;
}

const I64_LIMIT = 2n ** 63n;

function readNanoseconds(fields: Fields): bigint {
  const text = fields["ns"];
  wanted(typeof text === "string" && /^-?\d{1,19}$/.test(text), "ns is a decimal number of nanoseconds");
  const value = BigInt(text);
  wanted(value < I64_LIMIT && value >= -I64_LIMIT, "ns fits 64 bits");
  return value;
}

/** A path inside the root: no empty, `.` or `..` name, no NUL, no leading or trailing slash. Empty is the root itself. */
export function checkPath(path: Uint8Array): void {
  wanted(path.length <= PATH_LIMIT_BYTES, "path is not too long");
  let start = 0;
  for (let i = 0; i <= path.length; i++) {
    const byte = path[i];
    wanted(byte !== 0, "path has no NUL");
    if (byte !== 0x2f && byte !== undefined) continue;
    const length = i - start;
    if (path.length === 0) return;
    wanted(length > 0 && length <= NAME_LIMIT_BYTES, "names in the path have 1 to 255 bytes");
    const dots = path[start] === 0x2e && (length === 1 || (length === 2 && path[start + 1] === 0x2e));
    wanted(!dots, "path has no . or ..");
    start = i + 1;
  }
}

function readParts(value: unknown): ContentPart[] {
  wanted(
    Array.isArray(value) && value.length > 0 && value.length <= PARTS_PER_LINE,
    "parts are a bounded list",
  );
  return value.map((item: unknown): ContentPart => {
    wanted(Array.isArray(item), "a part is a list");
    const [first, second] = item;
    if (item.length === 1) {
      wanted(Number.isSafeInteger(first) && first > 0, "a hole has a length");
      return { kind: "hole", length: first };
    }
    wanted(item.length === 2 && isIdText(first), "a chunk has an id");
    wanted(Number.isInteger(second) && second > 0 && second <= CHUNK_LIMIT_BYTES, "a chunk has a length");
    return { kind: "chunk", id: first, length: second };
  });
}

function readPairs(fields: Fields, key: string): [string, string][] {
  const value = fields[key];
  if (value === undefined) return [];
  wanted(typeof value === "object" && value !== null && !Array.isArray(value), `${key} is an object`);
  return Object.entries(value).map(([name, text]: [string, unknown]) => {
    wanted(typeof text === "string", `values of ${key} are base64`);
    return [name, text];
  });
}

/** Names of namespaces that this version does not set are dropped: a later one may keep more. */
function readXattrs(fields: Fields): readonly Xattr[] {
  const pairs = [
    ...readPairs(fields, "x").map(([name, text]) => [byteText(utf8.encode(name)), text] as const),
    ...readPairs(fields, "x64").map(([name, text]) =>
      [Buffer.from(name, "base64").toString("latin1"), text] as const
    ),
  ].filter(([name]) => isKeptXattr(name));
  let bytes = 0;
  const xattrs = pairs.map(([name, text]): Xattr => {
    wanted(name.length <= XATTR_NAME_LIMIT_BYTES && !name.includes("\0"), "name of an attribute is one");
    const xattr = { name, value: new Uint8Array(Buffer.from(text, "base64")) };
    bytes += xattrBytes(xattr);
    return xattr;
  });
  wanted(bytes <= XATTRS_LIMIT_BYTES, `attributes have at most ${XATTRS_LIMIT_BYTES} bytes`);
  wanted(new Set(xattrs.map(({ name }) => name)).size === xattrs.length, "an attribute comes once");
  return xattrs.sort((a, b) => a.name < b.name ? -1 : 1);
}

/** Text of a piece or line; null unless it is UTF-8. */
export function manifestText(bytes: Uint8Array): string | null {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return null;
  }
}

/** Parses one line without its newline; throws `LineProblem`. Keys it does not know are ignored. */
export function parseLine(line: Uint8Array): ManifestLine {
  wanted(line.length <= LINE_LIMIT_BYTES, "line is not too long");
  const text = manifestText(line);
  wanted(text !== null, "line is JSON in UTF-8");
  return parseLineText(text);
}

/** The same of its text, which many lines may have been decoded to at once. */
export function parseLineText(line: string): ManifestLine {
  wanted(line.length <= LINE_LIMIT_BYTES, "line is not too long");
  let fields: Fields;
  try {
    fields = JSON.parse(line);
  } catch {
    throw new LineProblem("line is JSON in UTF-8");
  }
  wanted(typeof fields === "object" && fields !== null && !Array.isArray(fields), "line is an object");
  if (fields["+"] !== undefined) return { kind: "more", parts: readParts(fields["+"]) };
  const path = readBytes(fields, "p");
  wanted(path !== null, "entry has a path");
  checkPath(path);
  const type = TYPES[String(fields["t"])];
  wanted(type !== undefined, "t is f, d, l or p");
  const target = readBytes(fields, "to");
  wanted((target !== null) === (type === "symlink"), "a symlink, and only it, has a target");
  if (target !== null) {
    wanted(
      target.length > 0 && target.length < TARGET_LIMIT_BYTES && !target.includes(0),
      "target is a path",
    );
  }
  const parts = fields["c"] === undefined ? [] : readParts(fields["c"]);
  wanted(parts.length === 0 || type === "file", "only a file has content");
  let entry: Omit<TreeEntry, "linkGroup"> = {
    path,
    type,
    mode: readInteger(fields, "m", 0o7777),
    uid: readInteger(fields, "u", 0xffffffff),
    gid: readInteger(fields, "g", 0xffffffff),
    mtimeNs: readNanoseconds(fields),
    size: type === "file" ? readInteger(fields, "s", Number.MAX_SAFE_INTEGER) : 0,
  };
  // Few have any of these, and copies for all would be a good part of the parsing.
  if (target !== null) entry = { ...entry, target };
  if (fields["sql"] === true) entry = { ...entry, sqlite: true };
  if (fields["x"] !== undefined || fields["x64"] !== undefined) {
    const xattrs = readXattrs(fields);
    if (xattrs.length > 0) entry = { ...entry, xattrs };
  }
  return { kind: "entry", entry, link: readLink(fields, type), parts };
}

function readLink(fields: Fields, type: TreeEntry["type"]): LinkRole | null {
  if (fields["h"] === true) return { first: true };
  const path = readBytes(fields, "h");
  wanted(path === null || type !== "directory", "a directory is no hard link");
  return path === null ? null : { first: false, path };
}
