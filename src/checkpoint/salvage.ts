/**
 * Restores what can be restored of a damaged checkpoint into a folder: whole files into `<root>`, files that lost a part
 * of their bytes into `<root>~incomplete`, zeros where the bytes are lost, and a list of what is lost. Lost indexes are
 * replaced by the packs' footers. What is needed is read twice: first to learn what is left.
 */

import { ensureFolder } from "../platform/files.ts";
import { showPath } from "../platform/libc_files.ts";
import { byteText } from "./byte_text.ts";
import { planFetch } from "./chunk_fetcher.ts";
import type { ChunkTable } from "./chunk_table.ts";
import { loadCodec } from "./codec.ts";
import { idFromText } from "./ids.ts";
import {
  listPackSizes,
  readIndexes,
  readUnknownPacks,
  type RecoveryOptions,
  tableOf,
} from "./index_recovery.ts";
import { type LenientManifest, readLeniently } from "./lenient_manifest.ts";
import { comparePaths } from "./manifest.ts";
import { fetchLeniently } from "./pack_check.ts";
import { Pacer } from "./pacer.ts";
import type { FilesItem } from "./records.ts";
import type { ReadEnvironment, RestoreToRequest, StageResult } from "./restore.ts";
import { loadRoot } from "./root_reader.ts";
import { deliverChunk } from "./stage_root.ts";
import { TreeStager } from "./stage.ts";
import type { ContentPart, FileWarning, Head, ManifestEntry } from "./types.ts";

export interface SalvageRequest extends RestoreToRequest {
  readonly head: Pick<Head, "doomed" | "epoch">;
}

export interface LostFile {
  readonly root: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly lostBytes: number;
  /** Byte ranges [start, end) that are lost: the first of them. */
  readonly ranges: readonly (readonly [number, number])[];
}

export interface SalvageResult extends StageResult {
  readonly lost: readonly LostFile[];
  readonly lostTotal: number;
  /** Files roots of whose list of files a part is lost: how many entries are known, and how many there were. */
  readonly lostLists: readonly { readonly root: string; readonly known: number; readonly entries: number }[];
}

const LOST_FILES_LIMIT = 1000;
const RANGES_LIMIT = 16;
/** No files root can have this in its name. */
const INCOMPLETE = "~incomplete";

/** Error: `data-damaged` when the root object itself is lost, for then nothing is known of the checkpoint. */
export async function salvageTo(
  request: SalvageRequest,
  environment: ReadEnvironment,
): Promise<SalvageResult> {
  const { store, cipher, signal, clock, onProgress } = environment;
  const startedMs = clock.monotonicMs();
  const pacer = new Pacer({ clock, signal, onProgress });
  const reading = { store, cipher, signal, pacer, codec: await loadCodec() };
  const root = await loadRoot(store, request.record, { cipher, signal });
  pacer.begin("plan", null);
  const table = await wholeTable(request, reading);
  await ensureFolder(request.folder);
  const totals = { entries: 0, bytes: 0, bytesRead: 0, bytesTransferred: 0, bytesReused: 0 };
  const warnings: FileWarning[] = [];
  const lost: LostFile[] = [];
  const lostLists: SalvageResult["lostLists"][number][] = [];
  for (const name of request.names ?? Object.keys(root.items.files)) {
    const item = root.items.files[name];
    if (item === undefined) continue;
    const onFetched = (bytes: number) => void (totals.bytesTransferred += bytes);
    const work = { ...reading, table, onFetched, pace: () => pacer.turn() };
    pacer.begin("check", item.bytes);
    const manifest = readLeniently(item, name, await pieces(item, work), cipher);
    if (manifest.lostPieces.length > 0) {
      lostLists.push({ root: name, known: manifest.entries.length, entries: item.entries });
    }
    const isLost = await lostChunks(manifest, work);
    const { whole, incomplete, files } = divide(name, manifest, isLost);
    lost.push(...files);
    pacer.begin("fetch", item.bytes);
    for (const [entries, target] of [[whole, name], [incomplete, name + INCOMPLETE]] as const) {
      if (entries.length === 0) continue;
      warnings.push(...await stage(entries, `${request.folder}/${target}`, name, work));
      totals.entries += entries.length;
      totals.bytes += entries.reduce((sum, { entry }) => sum + entry.size, 0);
    }
  }
  return {
    totals: { ...totals, durationMs: clock.monotonicMs() - startedMs },
    warnings,
    lost: lost.slice(0, LOST_FILES_LIMIT),
    lostTotal: lost.length,
    lostLists,
  };
}

interface Work extends RecoveryOptions {
  readonly table: ChunkTable;
  readonly onFetched: (bytes: number) => void;
  readonly pace: () => Promise<void> | null;
}

async function wholeTable(request: SalvageRequest, options: RecoveryOptions): Promise<ChunkTable> {
  const read = await readIndexes(request.indexes, options);
  if (read.lost.length === 0) return tableOf(read.contents);
  const limits = {
    doomed: new Set(request.head.doomed.map(({ pack }) => pack)),
    epoch: request.head.epoch,
  };
  const { found } = await readUnknownPacks(await listPackSizes(options), read.contents, limits, options);
  return tableOf(read.contents, found);
}

async function pieces(item: FilesItem, work: Work): Promise<ReadonlyMap<string, Uint8Array>> {
  const pieces = new Map<string, Uint8Array>();
  const known = item.manifest.filter((id) => work.table.has(idFromText(id)));
  await fetchLeniently(planFetch(work.table, new Set(known)), {
    ...work,
    deliver: (id, bytes) => void pieces.set(id, bytes.slice()),
  });
  return pieces;
}

/** Reads all content once, to learn which of it is left. */
async function lostChunks(manifest: LenientManifest, work: Work): Promise<(id: string) => boolean> {
  const known = new Set<string>();
  const unknown = new Set<string>();
  for (const { parts } of manifest.entries) {
    for (const part of parts) {
      if (part.kind === "chunk") (work.table.has(idFromText(part.id)) ? known : unknown).add(part.id);
    }
  }
  const lost = await fetchLeniently(planFetch(work.table, known), {
    ...work,
    deliver: (_id, bytes) => work.pacer.count(0, bytes.length),
  });
  return (id) => unknown.has(id) || lost.has(id);
}

interface Divided {
  readonly whole: readonly ManifestEntry[];
  /** With holes for what is lost, and the folders that they are in; empty when every file is whole. */
  readonly incomplete: readonly ManifestEntry[];
  readonly files: readonly LostFile[];
}

function divide(root: string, manifest: LenientManifest, isLost: (id: string) => boolean): Divided {
  const files: LostFile[] = [];
  const cutGroups = new Set<number>();
  const whole: ManifestEntry[] = [];
  const incomplete: ManifestEntry[] = [];
  const needed = new Set<string>();
  for (const { entry, parts } of manifest.entries) {
    const isCut = manifest.cut.has(entry) ||
      (entry.linkGroup !== undefined && cutGroups.has(entry.linkGroup));
    const isHurt = isCut || parts.some((part) => part.kind === "chunk" && isLost(part.id));
    if (!isHurt) {
      whole.push({ entry, parts });
      continue;
    }
    const isFollower = entry.linkGroup !== undefined && cutGroups.has(entry.linkGroup);
    if (entry.linkGroup !== undefined) cutGroups.add(entry.linkGroup);
    const { left, ranges } = isFollower ? { left: [], ranges: [] } : leftOf(parts, entry.size, isLost);
    files.push({
      root,
      path: showPath(entry.path),
      sizeBytes: entry.size,
      lostBytes: ranges.reduce((sum, [start, end]) => sum + end - start, 0),
      ranges: ranges.slice(0, RANGES_LIMIT),
    });
    incomplete.push({ entry, parts: left });
    for (const folder of parentsOf(entry.path)) needed.add(folder);
  }
  if (incomplete.length === 0) return { whole, incomplete, files };
  const folders = manifest.entries.filter(({ entry }) =>
    entry.type === "directory" && needed.has(byteText(entry.path))
  );
  const inOrder = [...folders, ...incomplete].sort((a, b) => comparePaths(a.entry.path, b.entry.path));
  return { whole, incomplete: inOrder, files };
}

/** Content with holes for what is lost, up to the size of the file. */
function leftOf(
  parts: readonly ContentPart[],
  size: number,
  isLost: (id: string) => boolean,
): { readonly left: readonly ContentPart[]; readonly ranges: readonly [number, number][] } {
  const left: ContentPart[] = [];
  const ranges: [number, number][] = [];
  let at = 0;
  const lose = (length: number) => {
    left.push({ kind: "hole", length });
    const last = ranges.at(-1);
    if (last !== undefined && last[1] === at) last[1] = at + length;
    else ranges.push([at, at + length]);
  };
  for (const part of parts) {
    if (part.kind === "chunk" && isLost(part.id)) lose(part.length);
    else left.push(part);
    at += part.length;
  }
  if (at < size) lose(size - at);
  return { left, ranges };
}

/** As byte texts, the root (the empty path) among them. */
function parentsOf(path: Uint8Array<ArrayBuffer>): string[] {
  const parents: string[] = [];
  for (let at = path; at.length > 0;) {
    at = at.slice(0, Math.max(0, at.lastIndexOf(0x2f)));
    parents.push(byteText(at));
  }
  return parents;
}

async function stage(
  entries: readonly ManifestEntry[],
  target: string,
  root: string,
  work: Work,
): Promise<readonly FileWarning[]> {
  using stager = new TreeStager({ root, target });
  const wanted = stager.begin(entries);
  // A pack that is cut still has its first chunks. What was there a moment ago and is not now fails the end.
  await fetchLeniently(planFetch(work.table, wanted.keys()), {
    ...work,
    deliver(id, bytes) {
      work.pacer.count(0, bytes.length * (wanted.get(id)?.length ?? 0));
      deliverChunk(stager, id, bytes, work);
    },
  });
  return await stager.finish();
}
