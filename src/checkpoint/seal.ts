/**
 * AES-256-GCM over bytes that are at hand, and keys that are made from keys. Nothing here knows what is sealed; what
 * keeps a key and nonce from being used twice is said by whoever chooses them.
 */

import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";
import type { NativeCrypto } from "../platform/libcrypto.ts";

/** Bytes of every key. */
export const KEY_BYTES = 32;
/** Bytes by which sealed bytes are longer: the tag. */
export const SEAL_BYTES = 16;
export const NONCE_BYTES = 12;

const ALGORITHM = "aes-256-gcm";
const NOTHING = new Uint8Array();

/** One use of a key. */
export interface SealUse {
  readonly key: Uint8Array;
  /** Never the same twice with one key. */
  readonly nonce: Uint8Array;
  /** Not secret and not kept, but must be the same when it is opened. */
  readonly about: Uint8Array;
}

/** Who computes; null is the runtime. The sealed bytes are the same. */
export type SealEngine = Pick<NativeCrypto, "seal" | "unseal"> | null;

/** Ciphertext and tag go to the beginning of `target`: `SEAL_BYTES` more than `plain` has. They may not overlap. */
export function sealInto(
  target: Uint8Array,
  use: SealUse,
  plain: Uint8Array,
  engine: SealEngine = null,
): void {
  if (engine !== null) return engine.seal(use, plain, target);
  const cipher = createCipheriv(ALGORITHM, use.key, use.nonce, { authTagLength: SEAL_BYTES });
  cipher.setAAD(use.about);
  target.set(cipher.update(plain));
  cipher.final(); // in this mode nothing is left
  target.set(cipher.getAuthTag(), plain.length);
}

/** `head`, ciphertext, tag. */
export function seal(use: SealUse, plain: Uint8Array, head: Uint8Array): Uint8Array<ArrayBuffer> {
  const sealed = new Uint8Array(head.length + plain.length + SEAL_BYTES);
  sealed.set(head);
  sealInto(sealed.subarray(head.length), use, plain);
  return sealed;
}

/** The plain bytes; null unless exactly these were sealed with this use. `inPlace`: `sealed` may be overwritten. */
export function unseal(
  use: SealUse,
  sealed: Uint8Array,
  engine: SealEngine = null,
  inPlace = false,
): Uint8Array<ArrayBuffer> | null {
  if (engine !== null) return engine.unseal(use, sealed, inPlace);
  const end = sealed.length - SEAL_BYTES;
  if (end < 0) return null;
  try {
    const decipher = createDecipheriv(ALGORITHM, use.key, use.nonce, { authTagLength: SEAL_BYTES });
    decipher.setAAD(use.about);
    decipher.setAuthTag(sealed.subarray(end));
    const plain = decipher.update(sealed.subarray(0, end));
    decipher.final(); // throws unless the tag fits
    return new Uint8Array(plain.buffer as ArrayBuffer, plain.byteOffset, plain.byteLength);
  } catch {
    return null;
  }
}

/** HKDF-SHA-256: the key for `use` that `key`, which is uniformly random, gives with `salt`. */
export function derivedKey(key: Uint8Array, use: string, salt: Uint8Array = NOTHING): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", key, salt, `state-manager v1 ${use}`, KEY_BYTES));
}
