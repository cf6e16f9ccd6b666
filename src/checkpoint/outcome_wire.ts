/**
 * Outcomes of a read job as one buffer that changes threads: fifty thousand small files are fifty thousand of them, and
 * copying them as objects would take longer than reading the files. Both ends are this build; it is never stored.
 */

import { Buffer } from "node:buffer";
import { assert } from "../platform/assert.ts";
import type { FileOutcome, ReadFacts } from "./content_job.ts";
import type { ContentPart } from "./types.ts";

const FAILED = 0;
const SETTLED = 1;
const UNSETTLED = 2;
const SAME = 3;
/** Status, 4 × u32, 2 × f64, 4 × i64, count of parts. */
const READ_BYTES = 1 + 16 + 16 + 32 + 4;
const ID_CHARACTERS = 43;
/** Rarely there: extended attributes as [name, base64], and problems. As JSON behind the parts, after its length as u32. */
type Extras = readonly [xattrs: readonly (readonly [string, string])[], problems: readonly string[]];
/** Length, and whether an id follows. */
const PART_BYTES = 8 + 1 + ID_CHARACTERS;

export function encodeOutcomes(outcomes: readonly FileOutcome[]): ArrayBuffer {
  const extras = outcomes.map(extrasOf);
  const most = outcomes.reduce(
    (sum, outcome, i) =>
      sum +
      (outcome.kind !== "failed"
        ? READ_BYTES + outcome.parts.length * PART_BYTES + EXTRAS_BYTES + (extras[i]?.length ?? 0)
        : 2 + outcome.errno.length),
    4,
  );
  const bytes = Buffer.alloc(most);
  const view = new DataView(bytes.buffer, bytes.byteOffset, most);
  view.setUint32(0, outcomes.length, true);
  let at = 4;
  for (const [i, outcome] of outcomes.entries()) {
    if (outcome.kind === "failed") at = encodeFailure(bytes, at, outcome.errno);
    else {
      const end = outcome.kind === "same"
        ? encodeSame(bytes, view, at, outcome.parts)
        : encodeRead(bytes, view, at, outcome);
      at = encodeExtras(bytes, view, end, extras[i] ?? NO_EXTRAS);
    }
  }
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + at) as ArrayBuffer;
}

const NO_EXTRAS = Buffer.alloc(0);
const EXTRAS_BYTES = 4;

function extrasOf(outcome: FileOutcome): Buffer {
  if (outcome.kind === "failed") return NO_EXTRAS;
  const { problems } = outcome;
  const { xattrs = [] } = outcome.kind === "read" ? outcome.facts : outcome;
  if (xattrs.length === 0 && problems.length === 0) return NO_EXTRAS;
  const pairs = xattrs.map(({ name, value }) => [name, Buffer.from(value).toString("base64")] as const);
  const extras: Extras = [pairs, problems];
  return Buffer.from(JSON.stringify(extras));
}

function encodeExtras(bytes: Buffer, view: DataView, at: number, extras: Buffer): number {
  view.setUint32(at, extras.length, true);
  bytes.set(extras, at + EXTRAS_BYTES);
  return at + EXTRAS_BYTES + extras.length;
}

function decodeExtras(bytes: Buffer, view: DataView, at: number) {
  const length = view.getUint32(at, true);
  const end = at + EXTRAS_BYTES + length;
  if (length === 0) return { xattrs: {}, problems: [], end };
  const [pairs, problems]: Extras = JSON.parse(bytes.toString("utf8", at + EXTRAS_BYTES, end));
  const xattrs = pairs.map(([name, value]) => ({
    name,
    value: new Uint8Array(Buffer.from(value, "base64")),
  }));
  return { xattrs: xattrs.length === 0 ? {} : { xattrs }, problems, end };
}

function encodeFailure(bytes: Buffer, at: number, errno: string): number {
  bytes[at] = FAILED;
  bytes[at + 1] = errno.length;
  return at + 2 + bytes.write(errno, at + 2, "latin1");
}

function encodeRead(
  bytes: Buffer,
  view: DataView,
  start: number,
  { facts, settled, parts }: Extract<FileOutcome, { kind: "read" }>,
): number {
  let at = start;
  bytes[at++] = settled ? SETTLED : UNSETTLED;
  for (const number of [facts.mode, facts.uid, facts.gid, facts.linkCount]) {
    view.setUint32(at, number, true);
    at += 4;
  }
  for (const number of [facts.size, facts.blocks]) {
    view.setFloat64(at, number, true);
    at += 8;
  }
  for (const number of [facts.mtimeNs, facts.ctimeNs, facts.dev, facts.ino]) {
    view.setBigInt64(at, BigInt.asIntN(64, number), true);
    at += 8;
  }
  return encodeParts(bytes, view, at, parts);
}

function encodeSame(bytes: Buffer, view: DataView, start: number, parts: readonly ContentPart[]): number {
  bytes[start] = SAME;
  return encodeParts(bytes, view, start + 1, parts);
}

function encodeParts(bytes: Buffer, view: DataView, start: number, parts: readonly ContentPart[]): number {
  view.setUint32(start, parts.length, true);
  let at = start + 4;
  for (const part of parts) {
    view.setFloat64(at, part.length, true);
    at += 8;
    bytes[at++] = part.kind === "chunk" ? 1 : 0;
    if (part.kind === "chunk") {
      for (let i = 0; i < ID_CHARACTERS; i++) bytes[at++] = part.id.charCodeAt(i);
    }
  }
  return at;
}

export function decodeOutcomes(buffer: ArrayBuffer): FileOutcome[] {
  const bytes = Buffer.from(buffer);
  const view = new DataView(buffer);
  const outcomes: FileOutcome[] = [];
  let at = 4;
  for (let count = view.getUint32(0, true); count > 0; count--) {
    const status = bytes[at++];
    if (status === FAILED) {
      const length = bytes[at++] ?? 0;
      outcomes.push({ kind: "failed", errno: bytes.toString("latin1", at, at + length) });
      at += length;
    } else if (status === SAME) {
      const { parts, end } = decodeParts(bytes, view, at + 4);
      const { problems, xattrs, end: next } = decodeExtras(bytes, view, end);
      outcomes.push({ kind: "same", parts, problems, ...xattrs });
      at = next;
    } else {
      const facts = decodeFacts(view, at);
      const { parts, end } = decodeParts(bytes, view, at + READ_BYTES - 1);
      const extras = decodeExtras(bytes, view, end);
      const { problems } = extras;
      outcomes.push({
        kind: "read",
        facts: extras.xattrs.xattrs === undefined ? facts : { ...facts, ...extras.xattrs },
        settled: status === SETTLED,
        parts,
        problems,
      });
      at = extras.end;
    }
  }
  assert(at === buffer.byteLength, "an answer is read to its end");
  return outcomes;
}

function decodeFacts(view: DataView, at: number): ReadFacts {
  return {
    mode: view.getUint32(at, true),
    uid: view.getUint32(at + 4, true),
    gid: view.getUint32(at + 8, true),
    linkCount: view.getUint32(at + 12, true),
    size: view.getFloat64(at + 16, true),
    blocks: view.getFloat64(at + 24, true),
    mtimeNs: view.getBigInt64(at + 32, true),
    ctimeNs: view.getBigInt64(at + 40, true),
    dev: view.getBigUint64(at + 48, true),
    ino: view.getBigUint64(at + 56, true),
  };
}

function decodeParts(bytes: Buffer, view: DataView, end: number): { parts: ContentPart[]; end: number } {
  const parts: ContentPart[] = [];
  let at = end;
  for (let count = view.getUint32(end - 4, true); count > 0; count--) {
    const length = view.getFloat64(at, true);
    const isChunk = bytes[at + 8] === 1;
    at += 9;
    if (isChunk) {
      parts.push({ kind: "chunk", id: bytes.toString("latin1", at, at + ID_CHARACTERS), length });
      at += ID_CHARACTERS;
    } else parts.push({ kind: "hole", length });
  }
  return { parts, end: at };
}
