/**
 * The JSON objects of the repository: `repo.json`, `head.json` and root objects. Parsed and checked once, here; the
 * rest of the program trusts the types. Unknown keys are ignored, an unknown format is refused.
 */

import * as v from "valibot";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { DATA_CHUNKS } from "./chunker.ts";
import { type Cipher, plainCipher } from "./cipher.ts";
import { damaged } from "./codec.ts";
import { withOpenNotes } from "./head_notes.ts";
import {
  HEAD_KEY,
  isCheckpointId,
  isIdText,
  isIndexKey,
  isPackName,
  isRootKey,
  REPOSITORY_KEY,
} from "./ids.ts";
import { encryptionSchema } from "./key_wrap.ts";
import type {
  CheckpointRecord,
  DatabasePosition,
  FilesSummary,
  FileWarning,
  Head,
  RepositoryRecord,
} from "./types.ts";

/** Format that this program writes; it reads this one and none newer. */
export const FORMAT = 1;
/** What `min_reader` and `min_writer` of an encrypted repository say; the newest that this program knows. */
export const ENCRYPTED_VERSION = 2;

/** A few thousand checkpoints with their indexes are about 4 MiB; more would make each swap slow. */
export const HEAD_LIMIT_BYTES = 8 * 1024 * 1024;
/** Ids of a manifest of some ten million entries, and its warnings. */
export const ROOT_LIMIT_BYTES = 32 * 1024 * 1024;
/** `repo.json` has a few short fields. */
export const REPOSITORY_LIMIT_BYTES = 64 * 1024;
/** Comment and labels are kept in the head for as long as the checkpoint lives. */
export const RECORD_LIMIT_BYTES = 16 * 1024;
/** The head says how many there were; the root object names this many. */
export const ROOT_WARNINGS_LIMIT = 1000;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const hash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const name = v.pipe(v.string(), v.nonEmpty(), v.maxLength(200));
/** Of a files root; becomes a folder's name in an offline restore. */
const itemName = v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/));
const checkpointId = v.pipe(v.string(), v.check(isCheckpointId, "is a checkpoint id"));

const isDoomable = (key: string): boolean => isIndexKey(key) || isRootKey(key);

const repositorySchema = v.object({
  repo_id: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  name,
  format: v.literal(FORMAT),
  min_reader: v.picklist([FORMAT, ENCRYPTED_VERSION]),
  min_writer: v.picklist([FORMAT, ENCRYPTED_VERSION]),
  chunker: v.object({ alg: v.literal("fastcdc32"), min: count, avg: count, max: count }),
  hash: v.literal("sha256"),
  enc: v.exactOptional(encryptionSchema),
});

const summarySchema = v.object({ entries: count, bytes: count, manifest_sha256: hash });

/** A database that a pattern found is `<name>/<file>`. */
const databaseName = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}(?:\/[A-Za-z0-9][A-Za-z0-9._-]{0,199})?$/),
);
const databaseFileSchema = v.object({ uid: count, gid: count, mode: v.pipe(count, v.maxValue(0o7777)) });

const positionsSchema = v.record(
  databaseName,
  v.object({ txid: count, file: v.exactOptional(databaseFileSchema) }),
);

const recordSchema = v.object({
  id: checkpointId,
  n: v.pipe(count, v.minValue(1)),
  time: count,
  token: count,
  parent: v.nullable(checkpointId),
  kind: v.picklist(["interval", "request", "stop", "adopt", "safety", "restore"]),
  comment: v.string(),
  labels: v.record(v.string(), v.string()),
  root: v.pipe(v.string(), v.check(isRootKey, "is the key of a root object")),
  root_sha256: hash,
  files: v.record(itemName, summarySchema),
  databases: v.exactOptional(positionsSchema),
  warnings: count,
  restored_from: v.exactOptional(checkpointId),
  pinned: v.exactOptional(v.boolean()),
});

const headSchema = v.object({
  format: v.literal(FORMAT),
  repo_id: v.string(),
  epoch: count,
  seq: count,
  current: v.nullable(checkpointId),
  checkpoints: v.array(recordSchema),
  indexes: v.array(v.object({
    key: v.pipe(v.string(), v.check(isIndexKey, "is the key of an index object")),
    sha256: hash,
  })),
  intent: v.nullable(v.object({
    record: recordSchema,
    on_start: v.nullable(v.string()),
    files: v.exactOptional(v.array(itemName)),
    databases: v.exactOptional(positionsSchema),
  })),
  on_start_applied: v.nullable(v.string()),
  doomed: v.array(v.object({
    pack: v.pipe(v.string(), v.check(isPackName, "is the name of a pack")),
    since: count,
  })),
  doomed_objects: v.exactOptional(v.array(v.object({
    key: v.pipe(v.string(), v.check(isDoomable, "is the key of an index or a root object")),
    since: count,
  }))),
  database_files: v.exactOptional(v.record(databaseName, databaseFileSchema)),
  nonce: v.exactOptional(v.pipe(v.string(), v.maxLength(200))),
  notes: v.exactOptional(v.pipe(v.string(), v.base64())),
});

/** One files root inside a root object. */
export interface FilesItem extends FilesSummary {
  /** Ids of the manifest's pieces, in order. */
  readonly manifest: readonly string[];
}

/** `checkpoints/roots/…`: immutable; the head names it with the SHA-256 of its bytes. */
export interface RootObject {
  readonly format: 1;
  readonly repo_id: string;
  readonly id: string;
  readonly time: number;
  /** Program that wrote it, for people. */
  readonly made_by: string;
  readonly items: {
    readonly files: Readonly<Record<string, FilesItem>>;
    readonly databases?: Readonly<Record<string, DatabasePosition>>;
  };
  /** The first `ROOT_WARNINGS_LIMIT` of them. */
  readonly warnings: readonly FileWarning[];
}

const rootSchema = v.object({
  format: v.literal(FORMAT),
  repo_id: v.string(),
  id: checkpointId,
  time: count,
  made_by: v.string(),
  items: v.object({
    files: v.record(
      itemName,
      v.object({
        ...summarySchema.entries,
        manifest: v.array(v.pipe(v.string(), v.check((text) => isIdText(text), "is a chunk id"))),
      }),
    ),
    databases: v.exactOptional(positionsSchema),
  }),
  warnings: v.array(v.object({ root: v.string(), path: v.string(), reason: v.string() })),
});

/** Refuses what a newer version wrote, by its own words, before the rest is looked at. */
function refuseNewer(value: unknown, object: string): void {
  if (typeof value !== "object" || value === null) return;
  for (const key of ["format", "min_reader", "min_writer"]) {
    const version: unknown = Reflect.get(value, key);
    const known = key === "format" ? FORMAT : ENCRYPTED_VERSION;
    if (typeof version === "number" && version > known) {
      throw new StateManagerError(
        "format-too-new",
        `read ${object}: ${key} is ${version}, known up to ${known}`,
        {
          hint: "use the version of state-manager that wrote it, or a newer one; nothing was changed",
        },
      );
    }
  }
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true });

function parseObject<T>(
  schema: v.GenericSchema<unknown, T>,
  bytes: Uint8Array,
  object: string,
  limitBytes: number,
): T {
  if (bytes.length > limitBytes) {
    throw damaged(object, `${bytes.length} bytes, at most ${limitBytes} are possible`);
  }
  let value: unknown;
  try {
    value = JSON.parse(strictUtf8.decode(bytes));
  } catch (error) {
    throw damaged(object, "is not JSON", error);
  }
  refuseNewer(value, object);
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  const at = issue.path?.map((step) => String(step.key)).join(".") ?? "";
  throw damaged(
    object,
    `${at || "it"} is not as the format says (${issue.expected ?? issue.message} wanted)`,
  );
}

export function parseRepository(bytes: Uint8Array): RepositoryRecord {
  const record = parseObject(repositorySchema, bytes, REPOSITORY_KEY, REPOSITORY_LIMIT_BYTES);
  const { min, avg, max } = record.chunker;
  if (min !== DATA_CHUNKS.min || avg !== DATA_CHUNKS.avg || max !== DATA_CHUNKS.max) {
    throw new StateManagerError(
      "format-too-new",
      `read ${REPOSITORY_KEY}: other chunk sizes than this program has`,
      {
        hint: "use the version of state-manager that made the repository",
      },
    );
  }
  if (record.enc !== undefined && record.min_reader < ENCRYPTED_VERSION) {
    throw damaged(REPOSITORY_KEY, "is encrypted and asks for no reader that knows of it");
  }
  return record;
}

/** `cipher` as `readHead` takes it. */
export function parseHead(bytes: Uint8Array, cipher: Cipher | null = plainCipher): Head {
  const head = withOpenNotes(parseObject(headSchema, bytes, HEAD_KEY, HEAD_LIMIT_BYTES), cipher);
  const ids = new Set(head.checkpoints.map((record) => record.id));
  if (ids.size !== head.checkpoints.length) throw damaged(HEAD_KEY, "lists a checkpoint twice");
  if (head.current !== null && !ids.has(head.current)) {
    throw damaged(HEAD_KEY, "its current checkpoint is not listed");
  }
  return head;
}

/** The root object of `record`, its hash checked before it is opened and parsed. */
export function parseRoot(
  bytes: Uint8Array<ArrayBuffer>,
  record: Pick<CheckpointRecord, "id" | "root" | "root_sha256">,
  { sha256, cipher }: { readonly sha256: string; readonly cipher: Cipher },
): RootObject {
  if (sha256 !== record.root_sha256) throw damaged(record.root, "SHA-256 is not the one that the head names");
  const root = parseObject(rootSchema, cipher.openObject(record.root, bytes), record.root, ROOT_LIMIT_BYTES);
  if (root.id !== record.id) {
    throw damaged(record.root, `is the root of checkpoint ${root.id}, not ${record.id}`);
  }
  return root;
}

export function encodeJson(value: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(value) + "\n");
}

/** A store's "not there" in the words of who wanted it. */
export function missingObject(error: unknown, message: string, hint: string): StateManagerError {
  return new StateManagerError("object-not-found", message, { hint, cause: asStateManagerError(error) });
}
