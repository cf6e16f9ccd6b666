/**
 * The key that an operator holds: a file with 32 random bytes (as they are, in hex or in base64) or with a passphrase.
 * It never encrypts content; it wraps the repository's data key (key_wrap.ts), so that it can be changed.
 */

import { Buffer } from "node:buffer";
import { isError, StateManagerError } from "../platform/errors.ts";
import { readBytesIfPresent } from "../platform/files.ts";
import { Secret } from "../platform/secret.ts";
import { KEY_BYTES } from "./seal.ts";

/** A random key is used as it is; a passphrase is stretched. The value is base64 of the key, or the passphrase. */
export interface EncryptionKey {
  readonly kind: "key" | "passphrase";
  readonly value: Secret;
}

/** Fewer characters are guessed offline by whoever has the bucket, however slow each guess is. */
export const SHORTEST_PASSPHRASE = 12;
/** No key and no passphrase is longer; a wrong file (a disk image) must not be read into memory as one. */
const LONGEST_FILE_BYTES = 4096;

/**
 * The key in the file. Error: `encryption-key-missing` when it is not there, cannot be read or holds neither a key nor
 * a passphrase. The error never shows what it holds.
 */
export async function readEncryptionKey(path: string): Promise<EncryptionKey> {
  const refuse = (what: string, cause?: unknown) =>
    new StateManagerError("encryption-key-missing", `read the encryption key ${path}: ${what}`, {
      hint: "name the file that holds the key of this repository, and let the manager's user read it",
      ...(cause === undefined ? {} : { cause }),
    });
  let bytes: Uint8Array | null;
  try {
    bytes = await readBytesIfPresent(path);
  } catch (error) {
    throw refuse(isError(error) ? error.message : "it cannot be read", error);
  }
  if (bytes === null) throw refuse("there is no such file");
  const parsed = parseEncryptionKey(bytes);
  if (typeof parsed === "string") throw refuse(parsed);
  return parsed;
}

/** The key where one is configured. Errors as `readEncryptionKey`. */
export async function configuredKey(path: string | null): Promise<EncryptionKey | null> {
  return path === null ? null : await readEncryptionKey(path);
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });

/** The key in a file's bytes, or why there is none. */
export function parseEncryptionKey(bytes: Uint8Array): EncryptionKey | string {
  if (bytes.length > LONGEST_FILE_BYTES) {
    return `it has ${bytes.length} bytes, a key or passphrase has at most ${LONGEST_FILE_BYTES}`;
  }
  const text = textOf(bytes);
  if (text === null) {
    // 32 random bytes are text with a chance of less than 1 in 10^12.
    if (bytes.length === KEY_BYTES) return keyOf(bytes);
    return `it has ${bytes.length} bytes that are no text; a raw key has exactly ${KEY_BYTES}`;
  }
  if (/^[0-9a-fA-F]{64}$/.test(text)) return keyOf(Buffer.from(text, "hex"));
  if (/^[A-Za-z0-9+/_-]{43}=$/.test(text)) return keyOf(Buffer.from(text, "base64"));
  const length = [...text].length;
  if (length < SHORTEST_PASSPHRASE) {
    return `it holds ${length} characters, wanted a passphrase of at least ${SHORTEST_PASSPHRASE}, ` +
      "or 32 random bytes, raw, in hex or in base64";
  }
  return { kind: "passphrase", value: new Secret(text) };
}

function keyOf(bytes: Uint8Array): EncryptionKey {
  return { kind: "key", value: new Secret(Buffer.from(bytes).toString("base64")) };
}

/** One line of text in one normal form (keyboards differ), less one line break at its end; null: it is none. */
function textOf(bytes: Uint8Array): string | null {
  let text: string;
  try {
    text = strictUtf8.decode(bytes).replace(/\r?\n$/, "");
  } catch {
    return null;
  }
  // deno-lint-ignore no-control-regex -- control characters are what tells bytes from text
  return /[\x00-\x1f\x7f-\x9f]/.test(text) ? null : text.normalize("NFC");
}
