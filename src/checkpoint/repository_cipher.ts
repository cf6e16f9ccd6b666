/**
 * From a repository's record and an operator's key to the cipher of all its content; and another key for the same
 * content (rotation). Everything that can be wrong with a key is said here, before anything else is read or written.
 */

import { isError, StateManagerError } from "../platform/errors.ts";
import type { Random } from "../platform/random.ts";
import type { ObjectStore, RequestOptions } from "../storage/object_store.ts";
import { type Cipher, type CipherKey, plainCipher, sealingCipher } from "./cipher.ts";
import type { EncryptionKey } from "./encryption_key.ts";
import { REPOSITORY_KEY } from "./ids.ts";
import { type Encryption, unwrapKey, wrapKey, WRAPS_LIMIT } from "./key_wrap.ts";
import { encodeJson, parseRepository } from "./records.ts";
import type { RepositoryRecord } from "./types.ts";

/** Times that a rotation reads and swaps again: others that rotate at the same time are few. */
const REKEY_ATTEMPTS = 5;

/**
 * The cipher of the repository, its key proven by the seal of the wrapped data key. Errors: `encryption-key-missing`,
 * `encryption-key-wrong`, `repository-not-encrypted` for a key that has nothing to open.
 */
export async function repositoryCipher(
  record: RepositoryRecord,
  key: EncryptionKey | null,
  random: Random,
): Promise<Cipher> {
  const { enc, name, repo_id } = record;
  if (enc === undefined) {
    if (key === null) return plainCipher;
    throw notEncrypted(name);
  }
  return sealingCipher(await openedKey(repo_id, enc, key, name), random);
}

function notEncrypted(name: string): StateManagerError {
  return new StateManagerError(
    "repository-not-encrypted",
    `open repository "${name}": an encryption key is given, and the repository is not encrypted`,
    {
      hint:
        "encryption is decided when a repository is made: give a storage.key_prefix where there is none yet, or " +
        "leave checkpoint.encryption_key_file out",
    },
  );
}

async function openedKey(
  repoId: string,
  enc: Encryption,
  key: EncryptionKey | null,
  name: string,
): Promise<CipherKey> {
  if (key === null) {
    throw new StateManagerError(
      "encryption-key-missing",
      `open repository "${name}": it is encrypted, and no key is given`,
      { hint: "name its key file by checkpoint.encryption_key_file or --encryption-key-file" },
    );
  }
  const found = await unwrapKey(repoId, enc, key);
  if (found !== null) return found;
  const what = key.kind === "key" ? "a random key" : "a passphrase";
  throw new StateManagerError(
    "encryption-key-wrong",
    `open repository "${name}": the encryption key does not open the repository (the file holds ${what})`,
    {
      hint:
        "give the key that it was made with or was changed to last; without it nobody can read the content",
    },
  );
}

export interface RekeyOptions extends RequestOptions {
  /** One that opens the repository now. */
  readonly key: EncryptionKey;
  readonly newKey: EncryptionKey;
  /** false: from then on the new key alone opens it. true: so do all that do now. */
  readonly keepOthers: boolean;
  readonly random: Random;
}

/**
 * Wraps the data key anew: content stays as it is. One compare-and-swap of `repo.json`, which nothing else ever changes,
 * so it needs no lease and may run beside a manager, whose data key is the same before and after. If we die before the
 * swap lands, the old key opens the repository; after it, the new one does. Returns the number of keys that open it.
 * Errors as `repositoryCipher`; `invalid-request` when there are too many keys.
 */
export async function rekeyRepository(store: ObjectStore, options: RekeyOptions): Promise<number> {
  const { key, newKey, keepOthers, random, ...requests } = options;
  const ours = new Set<string>();
  for (let attempt = 1;; attempt++) {
    const object = await store.get(REPOSITORY_KEY, requests);
    const record = parseRepository(object.body);
    const { repo_id, name, enc } = record;
    if (enc === undefined) throw notEncrypted(name);
    // A swap of ours whose answer was lost: ids are random, so nobody else can have written it.
    if (enc.wraps.some(({ id }) => ours.has(id))) return enc.wraps.length;
    const wrap = await wrapKey(await openedKey(repo_id, enc, key, name), newKey, random);
    ours.add(wrap.id);
    const wraps = keepOthers ? [...enc.wraps, wrap] : [wrap];
    if (wraps.length > WRAPS_LIMIT) {
      throw new StateManagerError(
        "invalid-request",
        `change the key: ${enc.wraps.length} keys open the repository`,
        {
          hint: `there may be ${WRAPS_LIMIT}: give the newest one again without keeping the others`,
        },
      );
    }
    const body = withEncryption(object.body, { ...enc, wraps });
    try {
      await store.put(REPOSITORY_KEY, body, { ...requests, condition: { etag: object.etag } });
      return wraps.length;
    } catch (error) {
      // Somebody else's rotation, or our own put twice: the next reading tells, and with it whether our key is still one.
      if (!isError(error, "precondition-failed", "outcome-unknown") || attempt === REKEY_ATTEMPTS) {
        throw error;
      }
    }
  }
}

/** The record with another `enc`, what this version does not know in it kept. */
function withEncryption(body: Uint8Array, enc: Encryption): Uint8Array<ArrayBuffer> {
  const record: Record<string, unknown> = JSON.parse(new TextDecoder().decode(body));
  return encodeJson({ ...record, enc });
}
