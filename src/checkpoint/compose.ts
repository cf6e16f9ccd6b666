/**
 * A restore to the past as new history: a root object made of the wanted items of an old checkpoint and the current
 * ones of all else. No file data moves. If we die after the put, the object is garbage until the head names it.
 */

import { StateManagerError } from "../platform/errors.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { Cipher } from "./cipher.ts";
import { databasesOf, type HeadFacts, summariesOf } from "./create.ts";
import { rootKey, sha256Hex } from "./ids.ts";
import { encodeJson, FORMAT, type RootObject } from "./records.ts";
import { loadRoot } from "./root_reader.ts";
import type { CheckpointRecord, DatabasePosition } from "./types.ts";

export interface ComposeRequest {
  readonly id: string;
  readonly time: number;
  readonly token: number;
  readonly head: HeadFacts;
  readonly source: CheckpointRecord;
  /** Files roots whose content comes from `source`. */
  readonly names: readonly string[];
  /** Where the databases will stand; those of the current checkpoint that are not named stay. */
  readonly databases?: Readonly<Record<string, DatabasePosition>>;
  readonly comment: string;
  readonly labels: Readonly<Record<string, string>>;
}

export async function composeRestoreRoot(
  request: ComposeRequest,
  environment: {
    readonly store: ObjectStore;
    readonly cipher: Cipher;
    readonly madeBy: string;
    readonly signal: AbortSignal;
  },
): Promise<CheckpointRecord> {
  const { id, time, token, head, source, names, comment, labels } = request;
  const { store, cipher, signal } = environment;
  const old = await loadRoot(store, source, { cipher, signal });
  const current = head.current === null ? null : await loadRoot(store, head.current, { cipher, signal });
  const items = { ...current?.items.files };
  const databases = databasesOf({ ...head.current?.databases, ...request.databases });
  for (const name of names) {
    const item = old.items.files[name];
    if (item === undefined) {
      throw new StateManagerError(
        "invalid-request",
        `compose restore: no files root "${name}" in ${source.id}`,
        {
          hint: `it holds: ${Object.keys(old.items.files).join(", ") || "none"}`,
        },
      );
    }
    items[name] = item;
  }
  const root: RootObject = {
    format: FORMAT,
    repo_id: head.repo_id,
    id,
    time,
    made_by: environment.madeBy,
    items: { files: items, ...databases },
    warnings: [],
  };
  const key = rootKey(token, id);
  const bytes = cipher.sealObject(key, encodeJson(root));
  await store.put(key, bytes, { condition: { absent: true }, signal });
  return {
    id,
    n: head.n,
    time,
    token,
    parent: head.current?.id ?? null,
    kind: "restore",
    comment,
    labels,
    root: key,
    root_sha256: sha256Hex(bytes),
    files: summariesOf(items),
    ...databases,
    warnings: 0,
    restored_from: source.id,
  };
}
