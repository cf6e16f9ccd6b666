/**
 * The data key of an encrypted repository as `repo.json` keeps it: wrapped, that is sealed by a key that only the
 * operator's key file gives. Several wraps may stand side by side, each opens it alone.
 */

import { Buffer } from "node:buffer";
import { scrypt } from "node:crypto";
import * as v from "valibot";
import { StateManagerError } from "../platform/errors.ts";
import { type Random, randomHex } from "../platform/random.ts";
import { Secret } from "../platform/secret.ts";
import type { CipherKey } from "./cipher.ts";
import type { EncryptionKey } from "./encryption_key.ts";
import { derivedKey, KEY_BYTES, NONCE_BYTES, seal, SEAL_BYTES, type SealUse, unseal } from "./seal.ts";

/** A few keys during a rotation and one for a safe; each wrong one costs a scrypt at every start. */
export const WRAPS_LIMIT = 8;

const SALT_BYTES = 16;
/** OWASP's strength for scrypt (2023) in its form with 32 MiB of memory, since containers are small. About 0.3 s. */
const SCRYPT = { n: 32_768, r: 8, p: 3 };
/** What a forged or damaged record may make us spend: 256 MiB, and some seconds. */
const SCRYPT_MEMORY_LIMIT = 256 * 1024 * 1024;
const SCRYPT_P_LIMIT = 16;

/** The data key once, sealed. All bytes are base64. */
export interface KeyWrap {
  /** Random, to tell wraps apart. */
  readonly id: string;
  /** How a key file's content becomes the wrapping key: HKDF-SHA-256 of a random key, scrypt of a passphrase. */
  readonly kdf:
    | { readonly alg: "hkdf-sha256" }
    | { readonly alg: "scrypt"; readonly n: number; readonly r: number; readonly p: number };
  readonly salt: string;
  /** Nonce, ciphertext, tag. */
  readonly sealed: string;
}

/** In `repo.json`. */
export interface Encryption {
  readonly alg: "aes-256-gcm";
  readonly wraps: readonly KeyWrap[];
}

function base64Schema(byteCount: number) {
  return v.pipe(
    v.string(),
    v.maxLength(200),
    v.check((text) => {
      const bytes = Buffer.from(text, "base64");
      return bytes.length === byteCount && bytes.toString("base64") === text;
    }, `is base64 of ${byteCount} bytes`),
  );
}

const cost = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const scryptSchema = v.pipe(
  v.object({ alg: v.literal("scrypt"), n: cost, r: cost, p: v.pipe(cost, v.maxValue(SCRYPT_P_LIMIT)) }),
  v.check(({ n }) => n >= 2 && Number.isInteger(Math.log2(n)), "has a power of two as n"),
  v.check(({ n, r }) => 128 * n * r <= SCRYPT_MEMORY_LIMIT, "wants no more memory than there may be"),
);

export const encryptionSchema: v.GenericSchema<unknown, Encryption> = v.object({
  alg: v.literal("aes-256-gcm"),
  wraps: v.pipe(
    v.array(v.object({
      id: v.pipe(v.string(), v.regex(/^[0-9a-f]{8}$/)),
      kdf: v.variant("alg", [v.object({ alg: v.literal("hkdf-sha256") }), scryptSchema]),
      salt: base64Schema(SALT_BYTES),
      sealed: base64Schema(NONCE_BYTES + KEY_BYTES + SEAL_BYTES),
    })),
    v.minLength(1),
    v.maxLength(WRAPS_LIMIT),
  ),
});

/** A new data key for a new repository. */
export function newCipherKey(repoId: string, random: Random): CipherKey {
  return { repoId, dataKey: new Secret(Buffer.from(random.bytes(KEY_BYTES)).toString("base64")) };
}

/** The data key, wrapped by `key`. The salt is random, so that no wrapping key ever seals twice. */
export async function wrapKey(
  { repoId, dataKey }: CipherKey,
  key: EncryptionKey,
  random: Random,
): Promise<KeyWrap> {
  const salt = random.bytes(SALT_BYTES);
  const nonce = random.bytes(NONCE_BYTES);
  const kdf = key.kind === "passphrase"
    ? { alg: "scrypt" as const, ...SCRYPT }
    : { alg: "hkdf-sha256" as const };
  const use = wrapUse(repoId, await wrappingKey(key, kdf, salt), nonce);
  return {
    id: randomHex(random, 4),
    kdf,
    salt: Buffer.from(salt).toString("base64"),
    sealed: Buffer.from(seal(use, Buffer.from(dataKey.reveal(), "base64"), nonce)).toString("base64"),
  };
}

/** The data key, by whichever wrap `key` opens. Null: it opens none, so it is the wrong key. */
export async function unwrapKey(
  repoId: string,
  { wraps }: Encryption,
  key: EncryptionKey,
): Promise<CipherKey | null> {
  for (const wrap of wraps) {
    // A passphrase never opens a key's wrap, nor the other way round.
    if ((wrap.kdf.alg === "scrypt") !== (key.kind === "passphrase")) continue;
    const sealed = Buffer.from(wrap.sealed, "base64");
    const wrapping = await wrappingKey(key, wrap.kdf, Buffer.from(wrap.salt, "base64"));
    const use = wrapUse(repoId, wrapping, sealed.subarray(0, NONCE_BYTES));
    const dataKey = unseal(use, sealed.subarray(NONCE_BYTES));
    if (dataKey === null) continue;
    return { repoId, dataKey: new Secret(Buffer.from(dataKey).toString("base64")) };
  }
  return null;
}

function wrapUse(repoId: string, key: Uint8Array, nonce: Uint8Array): SealUse {
  return { key, nonce, about: new TextEncoder().encode(`${repoId}/repo.json`) };
}

async function wrappingKey(key: EncryptionKey, kdf: KeyWrap["kdf"], salt: Uint8Array): Promise<Uint8Array> {
  if (kdf.alg === "hkdf-sha256") {
    return derivedKey(Buffer.from(key.value.reveal(), "base64"), "wrap", salt);
  }
  const { n, r, p } = kdf;
  // Asynchronous: it runs on a thread of its own, and the manager's loop goes on.
  return await new Promise((resolve, reject) => {
    const options = { N: n, r, p, maxmem: SCRYPT_MEMORY_LIMIT + 1024 * 1024 };
    scrypt(key.value.reveal(), salt, KEY_BYTES, options, (error, derived) => {
      if (error === null) return resolve(new Uint8Array(derived));
      reject(
        new StateManagerError("internal", "derive the encryption key: scrypt failed", {
          hint: "there may be too little memory: it needs about 32 MiB for a moment",
          cause: error,
        }),
      );
    });
  });
}
