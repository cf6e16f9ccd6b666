/**
 * A restore to the past as new history: a root object made of the wanted items of an old checkpoint and the current
 * ones of all else. No file data moves. Of single paths a manifest is written that has them as they were, and all else
 * as it is now. If we die here, what was put is garbage until the head names it.
 */

import { StateManagerError } from "../platform/errors.ts";
import { type Random, ulid } from "../platform/random.ts";
import { databasesOf, type HeadFacts, summariesOf } from "./create.ts";
import { graftPaths } from "./graft.ts";
import { idToText, indexKey, rootKey, sha256Hex } from "./ids.ts";
import { encodeIndexes } from "./index_format.ts";
import { type IndexRef, loadIndexes } from "./index_store.ts";
import { ManifestWriter } from "./manifest.ts";
import { PackSender } from "./pack_sender.ts";
import { encodeJson, type FilesItem, FORMAT, type RootObject } from "./records.ts";
import { openCheckpoint, type Opened, type ReadEnvironment, readThrough } from "./restore.ts";
import { BATCH_ENTRIES, fetchManifest, loadRoot } from "./root_reader.ts";
import type { CheckpointRecord, DatabasePosition, ManifestEntry } from "./types.ts";
import type { BatchedTree } from "./wanted_tree.ts";

export interface ComposeRequest {
  readonly id: string;
  readonly time: number;
  readonly token: number;
  readonly head: HeadFacts;
  readonly source: CheckpointRecord;
  /** Files roots whose content comes from `source`. */
  readonly names: readonly string[];
  /** Byte texts, by name: of these roots nothing but the paths, the rest of the tree is the current checkpoint's. */
  readonly paths?: Readonly<Record<string, readonly string[]>>;
  /** Where the databases will stand; those of the current checkpoint that are not named stay. */
  readonly databases?: Readonly<Record<string, DatabasePosition>>;
  readonly comment: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface ComposeResult {
  readonly record: CheckpointRecord;
  /** All live indexes of the head that names the record. */
  readonly indexes: readonly IndexRef[];
}

export interface ComposeEnvironment extends ReadEnvironment {
  readonly random: Random;
  readonly madeBy: string;
}

export async function composeRestoreRoot(
  request: ComposeRequest,
  environment: ComposeEnvironment,
): Promise<ComposeResult> {
  const { id, time, token, head, source, names, paths = {}, comment, labels } = request;
  const { store, cipher, signal } = environment;
  const old = await loadRoot(store, source, { cipher, signal });
  const current = head.current === null ? null : await loadRoot(store, head.current, { cipher, signal });
  const items = { ...current?.items.files };
  const databases = databasesOf({ ...head.current?.databases, ...request.databases });
  let { indexes } = head;
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
    const wanted = paths[name];
    if (wanted === undefined) items[name] = item;
    else {
      const grafted = await graft(name, wanted, { ...request, head: { ...head, indexes } }, environment);
      items[name] = grafted.item;
      indexes = grafted.indexes;
    }
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
  const record: CheckpointRecord = {
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
  return { record, indexes };
}

interface Grafted {
  readonly item: FilesItem;
  readonly indexes: readonly IndexRef[];
}

/** The current tree of one root with `paths` as they were. */
async function graft(
  name: string,
  paths: readonly string[],
  { head, source, token }: ComposeRequest,
  environment: ComposeEnvironment,
): Promise<Grafted> {
  if (head.current === null) {
    throw new StateManagerError(
      "wrong-state",
      `restore paths of files "${name}": there is no checkpoint yet`,
      {
        hint: "what stays is taken out of the newest checkpoint: make one, then ask again",
      },
    );
  }
  const then = await openCheckpoint(source, head.indexes, environment, () => {});
  const now = await openCheckpoint(head.current, head.indexes, environment, () => {});
  const entries = graftPaths(
    await treeOf(name, head.current, now, environment),
    await treeOf(name, source, then, environment),
    paths,
    name,
  );
  return await writeManifest(entries, { head, token }, now, environment);
}

async function treeOf(
  name: string,
  record: CheckpointRecord,
  opened: Opened,
  environment: ReadEnvironment,
): Promise<BatchedTree> {
  const item = opened.root.items.files[name];
  if (item === undefined) {
    throw new StateManagerError(
      "wrong-state",
      `restore paths: files "${name}" are not in checkpoint ${record.id}`,
      {
        hint: "bring back all of it: leave the paths out",
      },
    );
  }
  const manifest = await readThrough(record, opened, environment, () => fetchManifest(item, name, opened));
  return { batches: () => manifest.batches(BATCH_ENTRIES) };
}

/** Mostly pieces that are stored already; the others go into a pack and an index of their own. */
async function writeManifest(
  entries: Iterable<ManifestEntry>,
  { head, token }: Pick<ComposeRequest, "head" | "token">,
  { codec }: Opened,
  environment: ComposeEnvironment,
): Promise<Grafted> {
  const { store, cipher, clock, random, cacheFolder, signal } = environment;
  const doomed = new Set(head.doomed);
  const { table } = await loadIndexes(store, head.indexes, { codec, cacheFolder, signal, doomed });
  const sender = new PackSender({ ...environment, codec, compression: "auto", token, table });
  try {
    const manifest: string[] = [];
    const writer = new ManifestWriter((piece) => {
      const id = cipher.chunkId(piece);
      sender.add(id, piece, "meta");
      manifest.push(idToText(id));
    }, cipher);
    for (const entry of entries) {
      writer.add(entry);
      await sender.room();
    }
    const item = { ...writer.finish(), manifest };
    const written: IndexRef[] = [];
    for (const bytes of encodeIndexes(codec, await sender.finish())) {
      const ref = { key: indexKey(token, ulid(clock.wallMs(), random)), sha256: sha256Hex(bytes) };
      await store.put(ref.key, bytes, { condition: { absent: true }, signal });
      written.push(ref);
    }
    return { item, indexes: [...head.indexes, ...written] };
  } catch (error) {
    await sender.abandon(error);
    throw error;
  }
}
