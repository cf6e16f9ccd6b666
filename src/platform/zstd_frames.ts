/**
 * A file of zstd frames (RFC 8878), read from any place: each frame is found by the sizes in the headers, and decompressed
 * by itself. Frames of more than a few mebibytes are refused: one is decompressed in a turn of its own.
 */

import zlib from "node:zlib";
import { type ReadableFile, readRange } from "./local_files.ts";

/** Ours have one mebibyte; to decompress this much takes some 20 ms. */
const LARGEST_CONTENT_BYTES = 8 << 20;

const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
/** Magic, descriptor, window, dictionary id and content size. */
const LONGEST_HEADER_BYTES = 18;
const BLOCK_HEADER_BYTES = 3;

interface Frame {
  readonly from: number;
  readonly length: number;
  readonly contentFrom: number;
  readonly contentBytes: number;
}

interface FrameHeader {
  readonly length: number;
  readonly contentBytes: number | null;
  readonly hasChecksum: boolean;
}

export class ZstdFrames {
  readonly #file: ReadableFile;
  readonly #frames: readonly Frame[];
  /** The frame that was decompressed last: reading goes on in it as a rule. */
  #last: { readonly frame: Frame; readonly content: Uint8Array<ArrayBuffer> } | null = null;

  constructor(file: ReadableFile, frames: readonly Frame[]) {
    this.#file = file;
    this.#frames = frames;
  }

  /** Of what is in all frames. */
  get contentBytes(): number {
    const last = this.#frames.at(-1);
    return last === undefined ? 0 : last.contentFrom + last.contentBytes;
  }

  /** What is in it from `at` on: at least one byte, at most `length`; none at its end. */
  async read(at: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const frame = this.#frames.find(({ contentFrom, contentBytes }) => at < contentFrom + contentBytes);
    if (frame === undefined) return new Uint8Array(0);
    if (this.#last?.frame !== frame) {
      this.#last = { frame, content: decompress(await readRange(this.#file, frame.from, frame.length)) };
    }
    const { content } = this.#last;
    if (content.length !== frame.contentBytes) throw damaged("a frame has not what its header says");
    const start = at - frame.contentFrom;
    return content.subarray(start, start + length);
  }
}

/** Throws where the file is no zstd, is damaged, or has too large frames. */
export async function openZstdFrames(file: ReadableFile, sizeBytes: number): Promise<ZstdFrames> {
  const frames: Frame[] = [];
  let contentFrom = 0;
  for (let from = 0; from < sizeBytes;) {
    const head = await readRange(file, from, LONGEST_HEADER_BYTES);
    const magic = viewOf(head, 4).getUint32(0, true);
    if ((magic & ~0xf) >>> 0 === SKIPPABLE_MAGIC) {
      from += 8 + viewOf(head, 8).getUint32(4, true);
      continue;
    }
    if (magic !== MAGIC) throw damaged("no zstd frame begins there");
    const header = parseHeader(head);
    const length = await frameLength(file, from, header, sizeBytes);
    const contentBytes = header.contentBytes ??
      decompress(await readRange(file, from, length)).length;
    if (contentBytes > LARGEST_CONTENT_BYTES) {
      throw damaged("its frames are too large to read from the middle");
    }
    frames.push({ from, length, contentFrom, contentBytes });
    contentFrom += contentBytes;
    from += length;
  }
  return new ZstdFrames(file, frames);
}

function parseHeader(head: Uint8Array): FrameHeader {
  const descriptor = viewOf(head, 5).getUint8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >> 6;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const sizeBytes = sizeFlag === 0 ? Number(isSingleSegment) : 1 << sizeFlag;
  const at = 5 + Number(!isSingleSegment) + dictionaryBytes;
  return {
    length: at + sizeBytes,
    contentBytes: contentBytesAt(viewOf(head, at + sizeBytes), at, sizeBytes),
    hasChecksum: (descriptor & 4) !== 0,
  };
}

function contentBytesAt(view: DataView, at: number, sizeBytes: number): number | null {
  if (sizeBytes === 0) return null;
  if (sizeBytes === 1) return view.getUint8(at);
  if (sizeBytes === 2) return view.getUint16(at, true) + 256;
  return sizeBytes === 4 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
}

async function frameLength(
  file: ReadableFile,
  from: number,
  header: FrameHeader,
  sizeBytes: number,
): Promise<number> {
  let at = from + header.length;
  for (let isLast = false; !isLast;) {
    const bytes = await readRange(file, at, BLOCK_HEADER_BYTES);
    if (bytes.length < BLOCK_HEADER_BYTES) throw damaged("it ends in the middle of a frame");
    const block = (bytes[0] ?? 0) | (bytes[1] ?? 0) << 8 | (bytes[2] ?? 0) << 16;
    isLast = (block & 1) === 1;
    const isRepeatedByte = (block >> 1 & 3) === 1;
    at += BLOCK_HEADER_BYTES + (isRepeatedByte ? 1 : block >> 3);
  }
  if (header.hasChecksum) at += 4;
  if (at > sizeBytes) throw damaged("it ends in the middle of a frame");
  return at - from;
}

function decompress(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(zlib.zstdDecompressSync(frame, { maxOutputLength: LARGEST_CONTENT_BYTES }));
}

function viewOf(bytes: Uint8Array, least: number): DataView {
  if (bytes.length < least) throw damaged("it ends in the middle of a frame");
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function damaged(what: string): Error {
  return new Error(`read a compressed file: ${what}`);
}
