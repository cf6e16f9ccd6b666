/** From stored bytes to a chunk: unsealed, unpacked, and proven by its id. Nothing that failed here is ever used. */

import type { Cipher } from "./cipher.ts";
import { type Codec, damaged, decodeBytes } from "./codec.ts";
import { ID_BYTES, idToText, packKey } from "./ids.ts";
import { FLAG_SEALED, FLAG_ZSTD } from "./pack.ts";

export interface BlobReading {
  readonly codec: Codec;
  readonly cipher: Cipher;
  /** Where chunks are unpacked, and sealed ones before that in their own place; left out: each has memory of its own. */
  readonly scratch?: Uint8Array;
}

/** One chunk as the index describes it. */
export interface StoredChunk {
  readonly id: string;
  readonly length: number;
  readonly flags: number;
  /** Name of its pack, and where its blob begins there. */
  readonly pack: string;
  readonly offset: number;
}

/**
 * The plain bytes of the blob `stored`. Where there is a `scratch` they are good until the next one, and `stored` is used
 * up. `data-damaged` that names pack and offset and ends with `users`, for example ", needed by a, b", unless they are
 * exactly the chunk.
 */
export function readChunk(
  reading: BlobReading,
  stored: Uint8Array,
  chunk: StoredChunk,
  users: () => string,
): Uint8Array<ArrayBuffer> {
  let plain: Uint8Array;
  try {
    plain = unpackBlob(reading, stored, chunk);
  } catch (error) {
    throw damaged(placeOf(chunk), `chunk ${chunk.id} cannot be unpacked${users()}`, error);
  }
  if (isChunk(reading.cipher, plain, chunk.id)) return plain as Uint8Array<ArrayBuffer>;
  throw damaged(placeOf(chunk), `chunk ${chunk.id} has other bytes${users()}`);
}

const idAtHand = new Uint8Array(ID_BYTES);

/** True where these are the bytes that `id` names. */
export function isChunk(cipher: Cipher, plain: Uint8Array, id: string): boolean {
  return idToText(cipher.chunkId(plain, idAtHand)) === id;
}

function placeOf({ pack, offset }: StoredChunk): string {
  return `${packKey(pack)} at ${offset}`;
}

/** The plain bytes of what lies at `chunk`; whether they are the chunk's is for its id to say. */
function unpackBlob(
  { codec, cipher, scratch }: BlobReading,
  stored: Uint8Array,
  chunk: StoredChunk,
): Uint8Array {
  if (((chunk.flags & FLAG_SEALED) !== 0) !== cipher.seals) {
    throw damaged(
      placeOf(chunk),
      cipher.seals ? "is not encrypted, as all here must be" : "is encrypted, as nothing here is",
    );
  }
  const { pack, offset } = chunk;
  const bytes = cipher.openBlob({ pack, offset }, stored, scratch !== undefined);
  const compressed = (chunk.flags & FLAG_ZSTD) !== 0;
  return decodeBytes(codec, { bytes, compressed }, chunk.length, () => placeOf(chunk), scratch);
}
