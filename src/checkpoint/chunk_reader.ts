/** From stored bytes to a chunk: unpacked, and proven by its id. Nothing that failed here is ever written anywhere. */

import { type Codec, damaged, decodeBytes } from "./codec.ts";
import { chunkId } from "./ids.ts";
import { FLAG_ZSTD } from "./pack.ts";

/** One chunk as the index describes it. */
export interface StoredChunk {
  readonly id: string;
  readonly length: number;
  readonly flags: number;
}

/**
 * The plain bytes of `stored`. `data-damaged` that names `place` (object and offset) and ends with `users`, for example
 * ", needed by a, b", unless they are exactly the chunk.
 */
export function readChunk(
  codec: Codec,
  stored: Uint8Array,
  chunk: StoredChunk,
  place: string,
  users: () => string,
): Uint8Array<ArrayBuffer> {
  let plain: Uint8Array;
  try {
    const compressed = (chunk.flags & FLAG_ZSTD) !== 0;
    plain = decodeBytes(codec, { bytes: stored, compressed }, chunk.length, place);
  } catch (error) {
    throw damaged(place, `chunk ${chunk.id} cannot be unpacked${users()}`, error);
  }
  if (chunkId(plain) !== chunk.id) throw damaged(place, `chunk ${chunk.id} has other bytes${users()}`);
  return new Uint8Array(plain.buffer as ArrayBuffer, plain.byteOffset, plain.byteLength);
}
