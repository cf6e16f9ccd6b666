/**
 * Brings the files of a checkpoint from the store into stages: folders beside the live ones (or anywhere, offline).
 * Nothing live is touched here; if we die, only the stages are left, and the next stage of the same checkpoint takes
 * over what is right in them. Every chunk is verified before it is written, or where it is found.
 */

import type { Clock } from "../platform/clock.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { ensureFolder, parentOf } from "../platform/files.ts";
import { memoryLimitBytes } from "../platform/machine.ts";
import { settleAll } from "../platform/settle.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { byteText } from "./byte_text.ts";
import { FAR_STORE, type FetchShape, NEAR_STORE, planFetch, withReload } from "./chunk_fetcher.ts";
import type { ChunkTable } from "./chunk_table.ts";
import type { Cipher } from "./cipher.ts";
import { type Codec, loadCodec } from "./codec.ts";
import { differencesOf, type TreeDifferences } from "./differences.ts";
import { readHead } from "./head.ts";
import { type IndexRef, loadIndexes } from "./index_store.ts";
import { Pacer } from "./pacer.ts";
import { isBelow } from "./path_filter.ts";
import type { FilesItem, RootObject } from "./records.ts";
import { fetchManifest, loadRoot, type ReadingOptions } from "./root_reader.ts";
import { scanTree } from "./scan.ts";
import { freeSpaceAt, hasSpace, requireSpaceForAll, type SpaceClaim } from "./space.ts";
import { hasSome, stageRoot, type StageTarget } from "./stage_root.ts";
import { openStageRunner } from "./stage_runner.ts";
import { declaredTree, entriesOf, type WantedPart, type WantedTree, wantedTree } from "./wanted_tree.ts";
import type {
  ArchiveProgress,
  ArchiveTotals,
  CheckpointRecord,
  FilesRoot,
  FilesSummary,
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
  /** Entries of a root that are in memory at one time; left out: as many as never trouble the heap. */
  readonly batchEntries?: number;
}

export interface StageResult {
  readonly totals: ArchiveTotals;
  readonly warnings: readonly FileWarning[];
}

/** Surroundings of a run, given by the archiver or the command line. */
export interface ReadEnvironment {
  readonly store: ObjectStore;
  /** True where the store is a disk: it answers at once. */
  readonly isNear?: boolean;
  readonly cipher: Cipher;
  readonly clock: Clock;
  /** Folder for copies of indexes; null: none. */
  readonly cacheFolder: string | null;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ArchiveProgress) => void;
}

export interface Opened extends ReadingOptions {
  readonly root: RootObject;
  readonly codec: Codec;
  /** By the newest head that was looked at. */
  table: ChunkTable;
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
  // At one time: on a line with a long way each wait counts.
  const [root, { table }] = await settleAll([
    loadRoot(store, record, { cipher, signal }),
    withReload(
      indexes,
      () => currentIndexes(record, environment),
      (refs) => loadIndexes(store, refs, { codec, cacheFolder, signal }),
    ),
  ]);
  return { store, codec, cipher, table, signal, root, onFetched };
}

/** Reads by what is known of the chunks, and once more by what the head says then (`withReload`). */
export function readThrough<R>(
  record: CheckpointRecord,
  opened: Opened,
  environment: ReadEnvironment,
  read: (opened: Opened) => Promise<R>,
): Promise<R> {
  return withReload(opened.table, () => reloadTable(record, opened, environment), () => read(opened));
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
  const codec = await loadCodec();
  const sum = (of: (summary: FilesSummary) => number) =>
    request.roots.reduce((all, { name }) => all + of(request.record.files[name] ?? NO_FILES), 0);
  // The store has something to do while this thread waits for the Workers to run, and these load their code meanwhile.
  const opening = openCheckpoint(request.record, request.indexes, environment, (bytes) => {
    totals.bytesTransferred += bytes;
  });
  opening.catch(() => {}); // thrown below
  using runner = openStageRunner({
    codec,
    cipher: environment.cipher,
    clock,
    signal,
    bytes: sum(({ bytes }) => bytes),
    entries: sum(({ entries }) => entries),
  });
  const opened = await opening;
  const roots = request.roots.map((root) => ({ ...root, item: itemOf(opened.root, root.name) }));
  const batches = request.batchEntries === undefined ? {} : { batchEntries: request.batchEntries };
  await requireSpaceForAll(claimsOf(roots, (root) =>
    readThrough(
      request.record,
      opened,
      environment,
      () => readWanted(root.item, { ...root, ...batches }, opened),
    )));
  let planned = false;
  const warnings: FileWarning[] = [];
  for (const root of roots) {
    const { item: _, ...target } = root;
    const reload = () => reloadTable(request.record, opened, environment);
    const tree = await readThrough(
      request.record,
      opened,
      environment,
      () => treeToStage(root, batches, opened),
    );
    if (!planned) {
      const others = roots.slice(1).reduce((all, { item }) => all + item.bytes, 0);
      pacer.begin("fetch", tree.bytes + others);
    }
    planned = true;
    const staged = await stageRoot(target, tree, {
      reading: opened,
      pacer,
      runner,
      shape: shapeFor(environment),
      reload,
    });
    warnings.push(...staged.warnings);
    totals.bytesReused += staged.bytesReused;
    totals.entries += tree.entries;
    totals.bytes += tree.bytes;
  }
  return { totals: { ...totals, durationMs: clock.monotonicMs() - startedMs }, warnings };
}

const NO_FILES: FilesSummary = { entries: 0, bytes: 0, manifest_sha256: "" };

type RootToStage = StageTarget & { readonly item: FilesItem };

/** Of roots that begin anew: how much of a former stage can be used is not known yet. */
function claimsOf(
  roots: readonly RootToStage[],
  treeOf: (root: RootToStage) => Promise<WantedTree>,
): SpaceClaim[] {
  return roots.filter(({ former = [] }) => former.length === 0).map((root) => ({
    name: root.name,
    folder: parentOf(root.stage),
    atMost: { bytes: root.item.bytes, files: root.item.entries },
    exact: async () => (await treeOf(root)).need,
  }));
}

/** The entries of one root that are asked for. */
async function readWanted(
  item: FilesItem,
  target: WantedPart,
  opened: Opened,
): Promise<WantedTree> {
  return wantedTree(await fetchManifest(item, target.name, opened), target);
}

/** The whole root as its checkpoint declares it, where that is all to be fetched and surely fits; else as it was read. */
async function treeToStage(
  { item, ...target }: RootToStage,
  batches: Pick<WantedPart, "batchEntries">,
  opened: Opened,
): Promise<WantedTree> {
  const atMost = { bytes: item.bytes, files: item.entries };
  if (target.paths !== undefined || hasSome(target) || !hasSpace(parentOf(target.stage), atMost)) {
    return await readWanted(item, { ...target, ...batches }, opened);
  }
  return declaredTree(await fetchManifest(item, target.name, opened), item, batches.batchEntries);
}

/** Each range is in memory twice for a moment: all of them an eighth of what the container may use. */
function shapeFor({ isNear = false }: ReadEnvironment): FetchShape {
  const { rangeBytes, inFlight } = isNear ? NEAR_STORE : FAR_STORE;
  const most = Math.floor(memoryLimitBytes() / 8 / (2 * rangeBytes));
  return { rangeBytes, inFlight: Math.max(2, Math.min(inFlight, most)) };
}

/** What the head names now; null: there is none. `checkpoint-not-found` when this one is not among its checkpoints. */
async function currentIndexes(
  record: CheckpointRecord,
  { store, cipher, signal }: ReadEnvironment,
): Promise<readonly IndexRef[] | null> {
  const state = await readHead(store, { cipher, signal });
  if (state === null) return null;
  const { checkpoints, intent, indexes } = state.head;
  if (intent?.record.id === record.id || checkpoints.some(({ id }) => id === record.id)) return indexes;
  throw new StateManagerError(
    "checkpoint-not-found",
    `restore: checkpoint ${record.id} was deleted meanwhile`,
    { hint: "list the checkpoints for those that exist, and restore one of them" },
  );
}

async function reloadTable(
  record: CheckpointRecord,
  opened: Opened,
  environment: ReadEnvironment,
): Promise<ChunkTable | null> {
  const { store, signal, cacheFolder } = environment;
  const refs = await currentIndexes(record, environment);
  if (refs === null) return null;
  opened.table = (await loadIndexes(store, refs, { codec: opened.codec, cacheFolder, signal })).table;
  return opened.table;
}

/** One files root of a plan. */
export interface PlanTarget {
  readonly name: string;
  /** What is there now and would be replaced; left out: nothing. */
  readonly live?: FilesRoot;
  /** Folder that the tree would be built in or beside; it need not exist. */
  readonly into: string;
  readonly paths?: readonly string[];
}

export interface PlanRequest {
  readonly record: CheckpointRecord;
  readonly indexes: readonly IndexRef[];
  readonly roots: readonly PlanTarget[];
  /** Differences to name one by one, per root. */
  readonly paths: number;
}

export interface PlannedRoot {
  readonly name: string;
  readonly differences: TreeDifferences;
  /** Bytes that the tree takes while the old one is still there, and what its disk has; null: it does not say. */
  readonly neededBytes: number;
  readonly freeBytes: number | null;
}

export interface RestorePlan {
  /** As of a restore, with the bytes of its requests as `bytesTransferred`; what is there already is not looked at. */
  readonly totals: ArchiveTotals;
  readonly roots: readonly PlannedRoot[];
}

/** What a restore would do, without doing it. */
export async function planRestore(request: PlanRequest, environment: ReadEnvironment): Promise<RestorePlan> {
  const startedMs = environment.clock.monotonicMs();
  const opened = await openCheckpoint(request.record, request.indexes, environment, () => {});
  const shape = shapeFor(environment); // as the restore asks: gaps that it fetches along count
  const totals = { entries: 0, bytes: 0, bytesRead: 0, bytesTransferred: 0, bytesReused: 0 };
  const roots: PlannedRoot[] = [];
  for (const target of request.roots) {
    const item = itemOf(opened.root, target.name);
    const tree = await readThrough(
      request.record,
      opened,
      environment,
      () => readWanted(item, target, opened),
    );
    totals.entries += tree.entries;
    totals.bytes += tree.bytes;
    for (const entries of tree.batches()) {
      totals.bytesTransferred += planFetch(opened.table, wantedIds(entries), shape).bytes;
    }
    const { live, paths } = target;
    roots.push({
      name: target.name,
      differences: differencesOf(
        entriesOf(tree).map(({ entry }) => entry),
        live === undefined ? [] : thereNow(live),
        {
          paths: request.paths,
          isInScope: paths === undefined ? () => true : (path) => isBelow(byteText(path), paths),
        },
      ),
      neededBytes: tree.need.bytes,
      freeBytes: freeSpaceAt(target.into).bytes,
    });
  }
  return { totals: { ...totals, durationMs: environment.clock.monotonicMs() - startedMs }, roots };
}

function* thereNow(live: FilesRoot): Generator<TreeEntry> {
  try {
    for (const { entry } of scanTree(live)) yield entry;
  } catch (error) {
    if (!isError(error, "source-missing")) throw error; // nothing there: all of it is new
  }
}

export interface RestoreToRequest {
  readonly record: CheckpointRecord;
  readonly indexes: readonly IndexRef[];
  /** Made when missing; each files root goes into a folder of its own name in it, which must not exist. */
  readonly folder: string;
  /** Names of files roots; null: all. */
  readonly names: readonly string[] | null;
  /** Byte texts, as `parseInnerPath` gives them: only these paths of each root. Left out: all. */
  readonly paths?: readonly string[];
}

/** Restores into a folder with no manager and no lease; nothing in the bucket changes. */
export async function restoreTo(
  request: RestoreToRequest,
  environment: ReadEnvironment,
): Promise<StageResult> {
  const names = request.names ?? Object.keys(request.record.files);
  await ensureFolder(request.folder);
  const paths = request.paths === undefined ? {} : { paths: request.paths };
  const roots = names.map((name) => ({ name, stage: `${request.folder}/${name}`, ...paths }));
  return await stageCheckpoint({ ...request, roots }, environment);
}
