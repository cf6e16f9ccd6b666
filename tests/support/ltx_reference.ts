/**
 * A second, plain writer of LTX files that keeps no rule: whole files in memory, LZ4 blocks of literals only, the
 * checksum bit by bit in BigInt. Tests compare the codec with it and make with it files that break one rule each.
 */

import { xxhash32 } from "../../src/database/ltx/xxhash32.ts";

export interface ReferencePage {
  readonly pgno: number;
  readonly data: Uint8Array;
}

export interface ReferenceFile {
  readonly pageSize: number;
  readonly commit: number;
  readonly minTxid: number;
  readonly maxTxid: number;
  readonly pages: readonly ReferencePage[];
  readonly flags?: number;
  /** "block" unless it says otherwise. */
  readonly frames?: "block" | "legacy" | "raw";
  readonly postApply?: bigint;
  readonly changeHeader?: (header: DataView) => void;
  /** The index entries, as numbers, before they are written. */
  readonly changeIndex?: (entries: number[][]) => void;
  /** What stands after the index, instead of its length. */
  readonly indexBytes?: bigint;
  /** One frame with its prefix, before it is written; what the checksum covers stays. */
  readonly changeFrame?: (frame: Uint8Array, pgno: number) => Uint8Array;
}

const ALL_ONES = (1n << 64n) - 1n;

/** CRC-64/GO-ISO by its definition. */
export function slowCrc64(bytes: Uint8Array): bigint {
  let crc = ALL_ONES;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ 0xd800000000000000n : crc >> 1n;
  }
  return crc ^ ALL_ONES;
}

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function bigEndian(value: bigint, bytes: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: bytes }, (_, i) => Number((value >> BigInt(8 * (bytes - 1 - i))) & 0xffn));
}

function littleEndian(value: number): Uint8Array<ArrayBuffer> {
  return bigEndian(BigInt(value), 4).reverse();
}

function varint(value: number): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  let rest = BigInt(value);
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  return Uint8Array.from([...bytes, Number(rest)]);
}

/** A block of one sequence, without a match. */
export function literalBlock(plain: Uint8Array): Uint8Array<ArrayBuffer> {
  if (plain.length < 15) return join([Uint8Array.of(plain.length << 4), plain]);
  const length = [0xf0];
  let rest = plain.length - 15;
  for (; rest >= 255; rest -= 255) length.push(255);
  return join([Uint8Array.from([...length, rest]), plain]);
}

/** Frame and the part of it that the checksum covers beside the page. */
function frameOf(
  page: ReferencePage,
  kind: "block" | "legacy" | "raw",
): { frame: Uint8Array; prefix: Uint8Array } {
  const pgno = bigEndian(BigInt(page.pgno), 4);
  const block = literalBlock(page.data);
  if (kind === "block") {
    const prefix = join([pgno, Uint8Array.of(0, 1), bigEndian(BigInt(block.length), 4)]);
    return { frame: join([prefix, block]), prefix };
  }
  const prefix = join([pgno, Uint8Array.of(0, 0)]);
  const header = Uint8Array.of(0x04, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7);
  const body = kind === "raw"
    ? [littleEndian(page.data.length + 0x80000000), page.data]
    : [littleEndian(block.length), block];
  const tail = [littleEndian(0), littleEndian(xxhash32(page.data))];
  return { frame: join([prefix, header, ...body, ...tail]), prefix };
}

function headerOf(file: ReferenceFile): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(100);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("LTX1"));
  view.setUint32(4, file.flags ?? 2);
  view.setUint32(8, file.pageSize);
  view.setUint32(12, file.commit);
  view.setBigUint64(16, BigInt(file.minTxid));
  view.setBigUint64(24, BigInt(file.maxTxid));
  view.setBigUint64(32, 1_700_000_000_000n);
  file.changeHeader?.(view);
  return bytes;
}

export function referenceLtx(file: ReferenceFile): Uint8Array<ArrayBuffer> {
  const header = headerOf(file);
  const written: Uint8Array[] = [header];
  const covered: Uint8Array[] = [header];
  const entries: number[][] = [];
  let offset = header.length;
  for (const page of file.pages) {
    const { frame: plainFrame, prefix } = frameOf(page, file.frames ?? "block");
    const frame = file.changeFrame?.(plainFrame, page.pgno) ?? plainFrame;
    written.push(frame);
    covered.push(prefix, page.data);
    entries.push([page.pgno, offset, frame.length]);
    offset += frame.length;
  }
  file.changeIndex?.(entries);
  const index = join([...entries.flat().map(varint), Uint8Array.of(0)]);
  const rest = join([
    new Uint8Array(6),
    index,
    bigEndian(file.indexBytes ?? BigInt(index.length), 8),
    bigEndian(file.postApply ?? 0n, 8),
  ]);
  const checksum = (1n << 63n) | slowCrc64(join([...covered, rest]));
  return join([...written, rest, bigEndian(checksum, 8)]);
}
