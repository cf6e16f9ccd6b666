/**
 * Brings the files of a checkpoint from the store into stages: folders beside the live ones (or anywhere, offline).
 * Nothing live is touched here; if we die, only the stages are left, and the next stage of the same checkpoint takes
 * over what is right in them. Every chunk is verified before it is written, or where it is found.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { ensureFolder } from "../platform/files.ts";
import { showPath } from "../platform/libc_files.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { fetchChunks, planFetch } from "./chunk_fetcher.ts";
import type { Cipher } from "./cipher.ts";
import { type Codec, loadCodec } from "./codec.ts";
import { disposeFormer } from "./dispose.ts";
import { FormerStage } from "./former_stage.ts";
import { type IndexRef, loadIndexes } from "./index_store.ts";
import { Pacer } from "./pacer.ts";
import type { FilesItem, RootObject } from "./records.ts";
import { loadRoot, type ReadingOptions, readManifest } from "./root_reader.ts";
import { TreeStager } from "./stage.ts";
import type {
  ArchiveProgress,
  ArchiveTotals,
  CheckpointRecord,
  FileWarning,
  ManifestEntry,
  TreeEntry,
} from "./types.ts";

export interface StageRequest {
  readonly record: CheckpointRecord;
  /** The head's live indexes. */
  readonly indexes: readonly IndexRef[];
  /** Files roots to bring back, each into a folder that does not exist yet. */
  readonly roots: readonly StageTarget[];
}

export interface StageTarget {
  readonly name: string;
  readonly stage: string;
  /** Stages of the same restore that were left unfinished, newest first: used up and deleted. */
  readonly former?: readonly string[];
}

export interface StageResult {
  readonly totals: ArchiveTotals;
  readonly warnings: readonly FileWarning[];
}

/** Surroundings of a run, given by the archiver or the command line. */
export interface ReadEnvironment {
  readonly store: ObjectStore;
  readonly cipher: Cipher;
  readonly clock: Clock;
  /** Folder for copies of indexes; null: none. */
  readonly cacheFolder: string | null;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ArchiveProgress) => void;
}

interface Opened extends ReadingOptions {
  readonly root: RootObject;
  readonly codec: Codec;
}

/** Root object and indexes of a checkpoint. */
export async function openCheckpoint(
  record: CheckpointRecord,
  indexes: readonly IndexRef[],
  environment: ReadEnvironment,
  onFetched: (bytes: number) => void,
): Promise<Opened> {
  const { store, cipher, signal, cacheFolder } = environment;
  const codec = await loadCodec();
  const root = await loadRoot(store, record, { cipher, signal });
  const { table } = await loadIndexes(store, indexes, { codec, cacheFolder, signal });
  return { store, codec, cipher, table, signal, root, onFetched };
}

function itemOf(root: RootObject, name: string): FilesItem {
  const item = root.items.files[name];
  if (item !== undefined) return item;
  throw new StateManagerError(
    "invalid-request",
    `restore: no files root "${name}" in checkpoint ${root.id}`,
    {
      hint: `it holds: ${Object.keys(root.items.files).join(", ") || "none"}`,
    },
  );
}

/** Names of files that need a chunk, for errors; looked for only when something is wrong. */
function usersOf(entries: readonly ManifestEntry[]): (id: string) => string {
  return (id) =>
    entries.filter(({ parts }) => parts.some((part) => part.kind === "chunk" && part.id === id))
      .slice(0, 3).map(({ entry }) => showPath(entry.path)).join(", ");
}

function wantedIds(entries: readonly ManifestEntry[]): Set<string> {
  const ids = new Set<string>();
  for (const { parts } of entries) {
    for (const part of parts) if (part.kind === "chunk") ids.add(part.id);
  }
  return ids;
}

/** Stages all of `request.roots`. On any error the stages are incomplete and must be deleted by the caller. */
export async function stageCheckpoint(
  request: StageRequest,
  environment: ReadEnvironment,
): Promise<StageResult> {
  const { clock, signal, onProgress } = environment;
  const startedMs = clock.monotonicMs();
  const pacer = new Pacer({ clock, signal, onProgress });
  const totals = { entries: 0, bytes: 0, bytesRead: 0, bytesTransferred: 0, bytesReused: 0 };
  pacer.begin("plan", null);
  const opened = await openCheckpoint(request.record, request.indexes, environment, (bytes) => {
    totals.bytesTransferred += bytes;
  });
  const items = request.roots.map((root) => ({ ...root, item: itemOf(opened.root, root.name) }));
  pacer.begin("fetch", items.reduce((sum, { item }) => sum + item.bytes, 0));
  const warnings: FileWarning[] = [];
  for (const { item, ...target } of items) {
    const staged = await stageRoot(target, item, opened, pacer);
    warnings.push(...staged.warnings);
    totals.bytesReused += staged.bytesReused;
    totals.entries += item.entries;
    totals.bytes += item.bytes;
  }
  return { totals: { ...totals, durationMs: clock.monotonicMs() - startedMs }, warnings };
}

async function stageRoot(
  { name, stage, former = [] }: StageTarget,
  item: FilesItem,
  opened: Opened,
  pacer: Pacer,
): Promise<{ readonly warnings: readonly FileWarning[]; readonly bytesReused: number }> {
  const entries = await readManifest(item, name, opened);
  using stager = new TreeStager({ root: name, target: stage });
  const wanted = stager.begin(entries);
  pacer.count(entries.length, 0);
  let bytesReused = 0;
  for (const path of former) bytesReused += await resumeFormer(stager, path, opened.cipher, pacer);
  // What can be used has moved; the rest goes before anything is fetched, so that the disk holds the tree once.
  for (const path of former) await disposeFormer(path);
  await fetchChunks(planFetch(opened.table, [...wanted.keys()]), {
    ...opened,
    deliver(id, bytes) {
      const positions = wanted.get(id)?.length ?? 0;
      stager.deliver(id, bytes);
      pacer.count(0, bytes.length * positions);
    },
    pace: () => pacer.turn(),
    usersOf: usersOf(entries),
  });
  return { warnings: stager.finish(), bytesReused };
}

async function resumeFormer(
  stager: TreeStager,
  path: string,
  cipher: Cipher,
  pacer: Pacer,
): Promise<number> {
  using former = FormerStage.open(path, cipher);
  if (former === null) return 0;
  let reused = 0;
  for (const bytes of stager.resume(former)) {
    reused += bytes;
    pacer.count(0, bytes);
    const pause = pacer.turn();
    if (pause !== null) await pause;
  }
  return reused;
}

/** What a restore would fetch, without doing it: totals with the bytes of the requests as `bytesTransferred`. */
export async function planRestore(
  request: {
    readonly record: CheckpointRecord;
    readonly indexes: readonly IndexRef[];
    readonly names: readonly string[];
  },
  environment: ReadEnvironment,
): Promise<ArchiveTotals> {
  const startedMs = environment.clock.monotonicMs();
  const opened = await openCheckpoint(request.record, request.indexes, environment, () => {});
  const totals = { entries: 0, bytes: 0, bytesRead: 0, bytesTransferred: 0, bytesReused: 0 };
  for (const name of request.names) {
    const item = itemOf(opened.root, name);
    const entries = await readManifest(item, name, opened);
    totals.entries += item.entries;
    totals.bytes += item.bytes;
    totals.bytesTransferred += planFetch(opened.table, wantedIds(entries)).bytes;
  }
  return { ...totals, durationMs: environment.clock.monotonicMs() - startedMs };
}

export interface RestoreToRequest {
  readonly record: CheckpointRecord;
  readonly indexes: readonly IndexRef[];
  /** Made when missing; each files root goes into a folder of its own name in it, which must not exist. */
  readonly folder: string;
  /** Names of files roots; null: all. */
  readonly names: readonly string[] | null;
}

/** Restores into a folder with no manager and no lease; nothing in the bucket changes. */
export async function restoreTo(
  request: RestoreToRequest,
  environment: ReadEnvironment,
): Promise<StageResult> {
  const names = request.names ?? Object.keys(request.record.files);
  await ensureFolder(request.folder);
  const roots = names.map((name) => ({ name, stage: `${request.folder}/${name}` }));
  return await stageCheckpoint({ ...request, roots }, environment);
}

/** The entries of one files root, in path order. */
export async function listFiles(
  request: {
    readonly record: CheckpointRecord;
    readonly indexes: readonly IndexRef[];
    readonly name: string;
  },
  environment: ReadEnvironment,
): Promise<readonly TreeEntry[]> {
  const opened = await openCheckpoint(request.record, request.indexes, environment, () => {});
  const entries = await readManifest(itemOf(opened.root, request.name), request.name, opened);
  return entries.map(({ entry }) => entry);
}
