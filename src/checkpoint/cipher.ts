/**
 * What stands between the codec and the store: how chunks are named and how stored bytes are sealed. Without encryption
 * names are SHA-256 and nothing is sealed. With it (docs/storage_format.md, "Encryption") names are keyed and everything
 * that holds content or names of files is AES-256-GCM. Synchronous, cheap to make, and made anew in a Worker or child
 * from what `forWorker` says, which travels in a message or over stdin only.
 */

import { Buffer } from "node:buffer";
import { createHash, createHmac } from "node:crypto";
import { assert } from "../platform/assert.ts";
import { type NativeCrypto, nativeCrypto } from "../platform/libcrypto.ts";
import type { Random } from "../platform/random.ts";
import { Secret } from "../platform/secret.ts";
import { damaged } from "./codec.ts";
import { ID_BYTES, packKey, sha256 } from "./ids.ts";
import {
  derivedKey,
  KEY_BYTES,
  NONCE_BYTES,
  seal,
  SEAL_BYTES,
  sealInto,
  type SealUse,
  unseal,
} from "./seal.ts";

/** "SMEN1": a sealed object. nonce[12], ciphertext, tag[16] follow. */
const OBJECT_MAGIC = Uint8Array.of(0x53, 0x4d, 0x45, 0x4e, 0x31);
/** Packs whose keys are at hand: a few are filled or read at one time, and making one is cheap. */
const PACKS_AT_HAND = 16;
/** Digits of the largest offset. */
const OFFSET_DIGITS = 10;

const utf8 = new TextEncoder();

/** Where a blob lies: never twice in the life of a repository, so its key and nonce are used once. */
export interface BlobPlace {
  /** Name of the pack, as `packName` gives it. */
  readonly pack: string;
  /** Where the blob begins in it. */
  readonly offset: number;
}

/** A hash under way. */
export interface RunningHash {
  update(bytes: Uint8Array): RunningHash;
  digest(): Uint8Array;
  digest(encoding: "hex"): string;
}

export interface Cipher {
  /** True when blobs are longer in the store by `SEAL_BYTES`, and marked by a flag. */
  readonly seals: boolean;
  /** A hash that may be read in the store: SHA-256, or keyed so that nobody can try contents against it. */
  hash(): RunningHash;
  /** Id of a chunk by its plain bytes: `hash` over them. In `into` where it is given, which has room for just an id. */
  chunkId(plain: Uint8Array, into?: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>;
  /** Writes what is stored for the blob to the beginning of `target`; its length, at most `SEAL_BYTES` more. */
  sealBlob(place: BlobPlace, blob: Uint8Array, target: Uint8Array): number;
  /**
   * The blob again. Anything that was not sealed for this very place is `data-damaged`. `inPlace`: nobody needs `sealed`
   * afterwards, and the blob may take its place.
   */
  openBlob(place: BlobPlace, sealed: Uint8Array, inPlace?: boolean): Uint8Array;
  /** What is written under `key` for `bytes`; may be `bytes` itself. Another one with each call. */
  sealObject(key: string, bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>;
  /** The bytes again. Anything that was not sealed for `key` is `data-damaged`. */
  openObject(key: string, sealed: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>;
  /** What `openCipher` makes the same cipher from, in clear text. Never log it, put it into argv or an environment. */
  forWorker(): WireCipher;
}

/** A cipher for a message or a child's stdin: it holds a secret in clear text. Null: nothing is encrypted. */
export type WireCipher = { readonly repoId: string; readonly dataKey: string } | null;

/** The secret of an encrypted repository and what it belongs to. */
export interface CipherKey {
  readonly repoId: string;
  /** 32 random bytes as base64. */
  readonly dataKey: Secret;
}

/** Of a repository that is not encrypted. */
export const plainCipher: Cipher = {
  seals: false,
  hash: () => createHash("sha256"),
  chunkId: sha256,
  sealBlob(_place, blob, target) {
    target.set(blob);
    return blob.length;
  },
  openBlob: (_place, stored) => stored,
  sealObject: (_key, bytes) => bytes,
  openObject: (_key, bytes) => bytes,
  forWorker: () => null,
};

/** Opens the system's library at the first chunk: to load it takes 5 ms, and an unchanged tree has none. */
type OpenNative = () => NativeCrypto | null;

/**
 * The cipher of `wire`, in the archiver or a Worker, which name and seal very many chunks: by the system's libcrypto where
 * there is one. `random` makes nonces of objects.
 */
export function openCipher(
  wire: WireCipher,
  random: Random,
  native: OpenNative | null = nativeCrypto,
): Cipher {
  if (wire !== null) {
    return sealingCipher({ repoId: wire.repoId, dataKey: new Secret(wire.dataKey) }, random, native);
  }
  if (native === null) return plainCipher;
  return { ...plainCipher, chunkId: (plain, into) => native()?.sha256(plain, into) ?? sha256(plain, into) };
}

/** The cipher of an encrypted repository. */
export function sealingCipher(
  { repoId, dataKey }: CipherKey,
  random: Random,
  native: OpenNative | null = null,
): Cipher {
  const root = new Uint8Array(Buffer.from(dataKey.reveal(), "base64"));
  assert(root.length === KEY_BYTES, "a data key has 32 bytes");
  const idKey = derivedKey(root, "id");
  const blobUses = new BlobUses(root, repoId);
  let chunkId: Cipher["chunkId"] | undefined;
  const objectUse = (key: string, nonce: Uint8Array): SealUse => ({
    key: derivedKey(root, `object ${key}`),
    nonce,
    about: utf8.encode(`${repoId}/${key}`),
  });
  return {
    seals: true,
    hash: () => createHmac("sha256", idKey),
    chunkId: (plain, into) => (chunkId ??= keyedId(idKey, native?.() ?? null))(plain, into),
    sealBlob(place, blob, target) {
      sealInto(target, blobUses.of(place), blob, native?.() ?? null);
      return blob.length + SEAL_BYTES;
    },
    openBlob: (place, sealed, inPlace = false) =>
      unseal(blobUses.of(place), sealed, native?.() ?? null, inPlace) ??
        broken(`${packKey(place.pack)} at ${place.offset}`),
    sealObject(key, bytes) {
      const nonce = random.bytes(NONCE_BYTES);
      return seal(objectUse(key, nonce), bytes, Buffer.concat([OBJECT_MAGIC, nonce]));
    },
    openObject(key, sealed) {
      const start = OBJECT_MAGIC.length + NONCE_BYTES;
      if (!OBJECT_MAGIC.every((byte, i) => sealed[i] === byte)) {
        throw damaged(key, "does not begin with SMEN1, as every encrypted object does");
      }
      const use = objectUse(key, sealed.subarray(OBJECT_MAGIC.length, start));
      return unseal(use, sealed.subarray(start)) ?? broken(key);
    },
    forWorker: () => ({ repoId, dataKey: dataKey.reveal() }),
  };
}

function keyedId(key: Uint8Array, native: NativeCrypto | null): Cipher["chunkId"] {
  return native?.hmacSha256(key) ??
    ((plain, into = new Uint8Array(ID_BYTES)) => {
      into.set(createHmac("sha256", key).update(plain).digest());
      return into;
    });
}

function broken(object: string): never {
  throw damaged(object, "its seal is broken: these are not the bytes that were encrypted for this place");
}

interface PackUse {
  readonly pack: string;
  readonly key: Uint8Array;
  /** What is proven along with each blob, with room for the offset at its end. */
  readonly about: Uint8Array<ArrayBuffer>;
}

/** How blobs are sealed, the last few packs kept. Each use is good until the next one: a buffer for each costs as much as the sealing. */
class BlobUses {
  readonly #root: Uint8Array;
  readonly #repoId: string;
  readonly #packs = new Map<string, PackUse>();
  readonly #nonce = new Uint8Array(NONCE_BYTES);
  #last: PackUse | undefined;

  constructor(root: Uint8Array, repoId: string) {
    this.#root = root;
    this.#repoId = repoId;
  }

  of({ pack, offset }: BlobPlace): SealUse {
    const use = this.#last?.pack === pack ? this.#last : this.#useOf(pack);
    this.#last = use;
    writeOffset(this.#nonce, offset);
    const end = writeDigits(use.about, use.about.length - OFFSET_DIGITS, offset);
    return { key: use.key, nonce: this.#nonce, about: use.about.subarray(0, end) };
  }

  #useOf(pack: string): PackUse {
    const known = this.#packs.get(pack);
    if (known !== undefined) return known;
    const prefix = utf8.encode(`${this.#repoId}/${packKey(pack)}/`);
    const about = new Uint8Array(prefix.length + OFFSET_DIGITS);
    about.set(prefix);
    const use = { pack, key: derivedKey(this.#root, `pack ${pack}`), about };
    const [oldest] = this.#packs.keys();
    if (this.#packs.size >= PACKS_AT_HAND && oldest !== undefined) this.#packs.delete(oldest);
    this.#packs.set(pack, use);
    return use;
  }
}

/** A blob has at least one byte, so no two of a pack begin at one offset. Big-endian, in the nonce's last four bytes. */
function writeOffset(nonce: Uint8Array, offset: number): void {
  for (let i = 1; i <= 4; i++) nonce[NONCE_BYTES - i] = offset >>> (8 * (i - 1));
}

/** Writes `value` in decimal from `at` on; returns where it ends. */
function writeDigits(bytes: Uint8Array, at: number, value: number): number {
  let end = at + 1;
  for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) end++;
  let rest = value;
  for (let place = end - 1; place >= at; place--) {
    bytes[place] = 0x30 + rest % 10;
    rest = Math.floor(rest / 10);
  }
  return end;
}
