/**
 * `repo.json`: which repository lives under the prefix. One prefix is one repository: a prefix that holds anything
 * else, or that lies inside of another repository or around one, is refused before a byte is written.
 */

import { isError, StateManagerError } from "../platform/errors.ts";
import { type Random, randomHex } from "../platform/random.ts";
import { getIfPresent, listAll, type ObjectStore, type RequestOptions } from "../storage/object_store.ts";
import { DATA_CHUNKS } from "./chunker.ts";
import type { EncryptionKey } from "./encryption_key.ts";
import { REPOSITORY_KEY } from "./ids.ts";
import { newCipherKey, wrapKey } from "./key_wrap.ts";
import { encodeJson, ENCRYPTED_VERSION, FORMAT, parseRepository } from "./records.ts";
import type { RepositoryRecord } from "./types.ts";

export interface OpenRepositoryOptions extends RequestOptions {
  readonly name: string;
  readonly random: Random;
  /**
   * Encrypts the repository if it is made here. One that is there is as it is, whatever is given: `repositoryCipher`
   * tells whether the key is its own.
   */
  readonly key?: EncryptionKey | null;
  /** Stores at the prefixes above ours, e.g. for "a/b" those at "" and "a": none of them may be a repository. */
  readonly parents?: readonly ObjectStore[];
}

/** True for what may be there before `repo.json`: the lease, a request for it, and what a store probe left. */
export function mayPrecede(key: string): boolean {
  return /^(lease\.json|hand-over\.json|\.?probe[-/.].*)$/.test(key);
}

/** Null when there is none. */
async function readIfPresent(store: ObjectStore, options: RequestOptions): Promise<RepositoryRecord | null> {
  const object = await getIfPresent(store, REPOSITORY_KEY, options);
  return object === null ? null : parseRepository(object.body);
}

/**
 * The repository under the store's prefix; made when the prefix is empty. Errors: `repository-mismatch` for another
 * name, foreign objects or nesting; `format-too-new`; `data-damaged`. Nothing is written in any of these cases.
 */
export async function openRepository(
  store: ObjectStore,
  options: OpenRepositoryOptions,
): Promise<RepositoryRecord> {
  const { name, random, key = null, parents = [], ...request } = options;
  const existing = await readIfPresent(store, request);
  if (existing !== null) return withName(existing, name, store);
  await refuseForeign(store, request);
  for (const parent of parents) await refuseParent(parent, request);
  const record = await newRecord(name, key, random);
  try {
    await store.put(REPOSITORY_KEY, encodeJson(record), { ...request, condition: { absent: true } });
    return record;
  } catch (error) {
    if (!isError(error, "precondition-failed")) throw error;
  }
  // Somebody made it between our look and our put: theirs counts.
  const theirs = await readIfPresent(store, request);
  if (theirs === null) {
    throw new StateManagerError("repository-mismatch", "make repository: repo.json came and went", {
      hint: "somebody deletes objects under this prefix: choose another one, or stop that",
    });
  }
  return withName(theirs, name, store);
}

async function newRecord(name: string, key: EncryptionKey | null, random: Random): Promise<RepositoryRecord> {
  const plain: RepositoryRecord = {
    repo_id: randomHex(random, 16),
    name,
    format: FORMAT,
    min_reader: FORMAT,
    min_writer: FORMAT,
    chunker: { alg: "fastcdc32", ...DATA_CHUNKS },
    hash: "sha256",
  };
  if (key === null) return plain;
  const wrap = await wrapKey(newCipherKey(plain.repo_id, random), key, random);
  return {
    ...plain,
    min_reader: ENCRYPTED_VERSION,
    min_writer: ENCRYPTED_VERSION,
    enc: { alg: "aes-256-gcm", wraps: [wrap] },
  };
}

function withName(record: RepositoryRecord, name: string, store: ObjectStore): RepositoryRecord {
  if (record.name === name) return record;
  throw new StateManagerError(
    "repository-mismatch",
    `open repository in ${store.description}: its name is "${record.name}", the configuration says "${name}"`,
    { hint: `set name to "${record.name}" if it is meant, else choose another storage.key_prefix` },
  );
}

async function refuseForeign(store: ObjectStore, options: RequestOptions): Promise<void> {
  // One foreign object is enough, but a repository deeper down is worth naming; the first page tells in most cases.
  let foreign: string | undefined;
  let seen = 0;
  for await (const object of listAll(store, "", options)) {
    if (mayPrecede(object.key)) continue;
    if (object.key.endsWith(`/${REPOSITORY_KEY}`)) {
      throw new StateManagerError(
        "repository-mismatch",
        `make repository in ${store.description}: there is another one inside, at ${object.key}`,
        { hint: "choose a storage.key_prefix that is neither inside of another repository nor around one" },
      );
    }
    foreign ??= object.key;
    if (++seen >= LISTED_LIMIT) break;
  }
  if (foreign === undefined) return;
  throw new StateManagerError(
    "repository-mismatch",
    `make repository in ${store.description}: not empty (${foreign}) and no repo.json`,
    { hint: "choose an empty storage.key_prefix; if repo.json was deleted by mistake, bring it back" },
  );
}

/** Objects looked at for a nested repository before the first foreign one is reason enough. */
const LISTED_LIMIT = 5000;

async function refuseParent(parent: ObjectStore, options: RequestOptions): Promise<void> {
  const record = await readIfPresent(parent, options).catch((error) => {
    // A repo.json of something else, or of a newer version, is one as well.
    if (isError(error, "data-damaged", "format-too-new")) return undefined;
    throw error;
  });
  if (record === null) return;
  throw new StateManagerError(
    "repository-mismatch",
    `make repository: ${parent.description} is a repository${
      record === undefined ? "" : ` ("${record.name}")`
    }, and ours would lie inside`,
    { hint: "choose a storage.key_prefix beside it" },
  );
}

/** For readers: the repository under the prefix, nothing is written. Error: `object-not-found` when there is none. */
export async function readRepository(
  store: ObjectStore,
  options: RequestOptions = {},
): Promise<RepositoryRecord> {
  const record = await readIfPresent(store, options);
  if (record !== null) return record;
  throw new StateManagerError(
    "object-not-found",
    `open repository in ${store.description}: no repo.json there`,
    {
      hint: "check bucket, endpoint and key prefix: there is no repository at that place",
    },
  );
}
