/**
 * Names and ids in the repository. A chunk's id is the SHA-256 of its plain bytes; as text it is base64url (43
 * characters). Object names carry the fencing token, not a content hash: a name is never used twice, so a late
 * request of a fenced process can never hit a newer object.
 */

import { createHash } from "node:crypto";
import { assert } from "../platform/assert.ts";

/** Bytes of a chunk id. */
export const ID_BYTES = 32;
/** Characters of one as text. */
export const CHUNK_ID_TEXT = 43;

export const REPOSITORY_KEY = "repo.json";
export const HEAD_KEY = "head.json";
export const ROOTS_PREFIX = "checkpoints/roots/";
export const PACKS_PREFIX = "checkpoints/packs/";
export const INDEX_PREFIX = "checkpoints/index/";

/** In `into`, where it is given. */
export function sha256(bytes: Uint8Array, into = new Uint8Array(ID_BYTES)): Uint8Array<ArrayBuffer> {
  into.set(createHash("sha256").update(bytes).digest());
  return into;
}

export function sha256Hex(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Id of a chunk as text. */
export function chunkId(plain: Uint8Array): string {
  return createHash("sha256").update(plain).digest("base64url");
}

const ID_ALPHABET = { alphabet: "base64url", omitPadding: true } as const;

export function idToText(id: Uint8Array): string {
  return id.toBase64(ID_ALPHABET);
}

const ID_TEXT = /^[A-Za-z0-9_-]{43}$/;

export function isIdText(text: unknown): text is string {
  return typeof text === "string" && ID_TEXT.test(text);
}

/** The 32 bytes of an id that `isIdText` accepted. */
export function idFromText(text: string): Uint8Array<ArrayBuffer> {
  return idFromTextInto(text, new Uint8Array(ID_BYTES));
}

/** The same in `id`, which has its 32 bytes: where very many are asked for, memory of its own for each is half the work. */
export function idFromTextInto(text: string, id: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const { written } = id.setFromBase64(text, ID_ALPHABET);
  assert(written === ID_BYTES, "chunk id is 32 bytes");
  return id;
}

/** Fencing token as names carry it: eight or more hex digits, so that names sort by term. */
export function tokenText(token: number): string {
  assert(Number.isSafeInteger(token) && token >= 0, "token is a whole number");
  return token.toString(16).padStart(8, "0");
}

const ULID = "[0-9a-hjkmnp-tv-z]{26}";
const PACK_NAME = new RegExp(`^[0-9a-f]{8,14}/${ULID}$`);
const INDEX_KEY = new RegExp(`^${INDEX_PREFIX}[0-9a-f]{8,14}-${ULID}$`);
const ROOT_KEY = new RegExp(`^${ROOTS_PREFIX}[0-9a-f]{8,14}-${ULID}\\.json$`);
const CHECKPOINT_ID = new RegExp(`^${ULID}$`);

/** Name of a pack below `checkpoints/packs/`. */
export function packName(token: number, id: string): string {
  return `${tokenText(token)}/${id}`;
}

export function packKey(name: string): string {
  return PACKS_PREFIX + name;
}

export function indexKey(token: number, id: string): string {
  return `${INDEX_PREFIX}${tokenText(token)}-${id}`;
}

export function rootKey(token: number, id: string): string {
  return `${ROOTS_PREFIX}${tokenText(token)}-${id}.json`;
}

export const isPackName = (text: string): boolean => PACK_NAME.test(text);
export const isIndexKey = (text: string): boolean => INDEX_KEY.test(text);
export const isRootKey = (text: string): boolean => ROOT_KEY.test(text);
export const isCheckpointId = (text: string): boolean => CHECKPOINT_ID.test(text);
