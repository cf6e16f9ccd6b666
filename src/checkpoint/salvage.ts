/**
 * Restores what can be restored of a damaged checkpoint into a folder: whole files into `<root>`, files that lost a part
 * of their bytes into `<root>~incomplete`, zeros where the bytes are lost, and a list of what is lost. Lost indexes are
 * replaced by the packs' footers. What is needed is read twice: first to learn what is left. A tree is never whole in memory:
 * its entries come in batches, as those of a restore do.
 */

import { ensureFolder } from "../platform/files.ts";
import { showPath } from "../platform/libc_files.ts";
import { byteText } from "./byte_text.ts";
import { planFetch } from "./chunk_fetcher.ts";
import { ChunkMarks } from "./chunk_marks.ts";
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
import { type LenientEntry, openLeniently } from "./lenient_manifest.ts";
import { fetchLeniently } from "./pack_check.ts";
import { Pacer } from "./pacer.ts";
import type { FilesItem } from "./records.ts";
import type { ReadEnvironment, RestoreToRequest, StageResult } from "./restore.ts";
import { BATCH_ENTRIES, loadRoot } from "./root_reader.ts";
import { deliverChunk } from "./stage_root.ts";
import { TreeStager } from "./stage.ts";
import type { ContentPart, FileWarning, Head, ManifestEntry } from "./types.ts";

export interface SalvageRequest extends RestoreToRequest {
  readonly head: Pick<Head, "doomed" | "epoch">;
  /** Entries of a root that are in memory at one time; left out: as many as a restore takes. */
  readonly batchEntries?: number;
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
  const lost = new LostFiles();
  const lostLists: SalvageResult["lostLists"][number][] = [];
  for (const name of request.names ?? Object.keys(root.items.files)) {
    const item = root.items.files[name];
    if (item === undefined) continue;
    const onFetched = (bytes: number) => void (totals.bytesTransferred += bytes);
    const work = { ...reading, table, onFetched, pace: () => pacer.turn() };
    pacer.begin("check", item.bytes);
    const manifest = openLeniently(item, name, await pieces(item, work), cipher);
    const batches = () => manifest.batches(request.batchEntries ?? BATCH_ENTRIES);
    const seen = await lookThrough(name, batches(), lost, work);
    if (manifest.lostPieces.length > 0) {
      lostLists.push({ root: name, known: seen.entries, entries: item.entries });
    }
    if (seen.entries === 0) continue;
    pacer.begin("fetch", item.bytes);
    const staged = await stage(`${request.folder}/${name}`, name, { batches: batches(), seen }, work);
    warnings.push(...staged.warnings);
    totals.entries += staged.entries;
    totals.bytes += staged.bytes;
  }
  return {
    totals: { ...totals, durationMs: clock.monotonicMs() - startedMs },
    warnings,
    lost: lost.first,
    lostTotal: lost.total,
    lostLists,
  };
}

class LostFiles {
  readonly first: LostFile[] = [];
  total = 0;

  add(file: LostFile): void {
    if (this.total++ < LOST_FILES_LIMIT) this.first.push(file);
  }
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

type Batches = Iterable<readonly LenientEntry[]>;

/** What a first reading of a root has found. */
interface Seen {
  readonly entries: number;
  readonly isLost: (id: string) => boolean;
  /** Byte texts of the folders that files with losses are in, the root among them; none: every file is whole. */
  readonly folders: ReadonlySet<string>;
}

/** Reads all content once, to learn which of it is left. */
async function lookThrough(root: string, batches: Batches, lost: LostFiles, work: Work): Promise<Seen> {
  const { table } = work;
  const [asked, gone] = [new ChunkMarks(table), new ChunkMarks(table)];
  const isLost = (id: string) => {
    const number = table.numberOf(idFromText(id));
    return number === null || gone.has(number);
  };
  const sorter = new LossSorter(isLost);
  const folders = new Set<string>();
  let entries = 0;
  for (const batch of batches) {
    entries += batch.length;
    for (const id of await lostOf(batch, asked, work)) {
      const number = table.numberOf(idFromText(id));
      if (number !== null) gone.add(number);
    }
    for (const member of batch) {
      const loss = sorter.lossOf(member);
      if (loss === null) continue;
      const { path, size } = member.entry;
      lost.add({
        root,
        path: showPath(path),
        sizeBytes: size,
        lostBytes: loss.ranges.reduce((sum, [start, end]) => sum + end - start, 0),
        ranges: loss.ranges.slice(0, RANGES_LIMIT),
      });
      for (const folder of parentsOf(path)) folders.add(folder);
    }
    work.pacer.count(batch.length, 0);
    await work.pace();
  }
  return { entries, isLost, folders };
}

/** Of the chunks of a batch that the indexes know and nobody has asked for yet: those that cannot be read. */
async function lostOf(
  batch: readonly LenientEntry[],
  asked: ChunkMarks,
  work: Work,
): Promise<Iterable<string>> {
  const wanted: string[] = [];
  for (const { parts } of batch) {
    for (const part of parts) {
      if (part.kind !== "chunk") continue;
      const number = work.table.numberOf(idFromText(part.id));
      if (number !== null && asked.add(number)) wanted.push(part.id);
    }
  }
  const lost = await fetchLeniently(planFetch(work.table, wanted), {
    ...work,
    deliver: (_id, bytes) => work.pacer.count(0, bytes.length),
  });
  return lost.keys();
}

interface Loss {
  /** Content with holes for what is lost. */
  readonly left: readonly ContentPart[];
  readonly ranges: readonly (readonly [number, number])[];
}

/** Tells entries that lost something from whole ones, in path order; one for each reading of a root. */
class LossSorter {
  readonly #isLost: (id: string) => boolean;
  /** Hard link groups with losses: whose first lost something, all have. */
  readonly #groups = new Set<number>();

  constructor(isLost: (id: string) => boolean) {
    this.#isLost = isLost;
  }

  /** Null: it is whole. */
  lossOf({ entry, parts, isCut }: LenientEntry): Loss | null {
    const { linkGroup } = entry;
    const isFollower = linkGroup !== undefined && this.#groups.has(linkGroup);
    const isHurt = isFollower || isCut ||
      parts.some((part) => part.kind === "chunk" && this.#isLost(part.id));
    if (!isHurt) return null;
    if (linkGroup !== undefined) this.#groups.add(linkGroup);
    return isFollower ? { left: [], ranges: [] } : leftOf(parts, entry.size, this.#isLost);
  }
}

/** Content with holes for what is lost, up to the size of the file. */
function leftOf(parts: readonly ContentPart[], size: number, isLost: (id: string) => boolean): Loss {
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

interface Staged {
  readonly warnings: readonly FileWarning[];
  readonly entries: number;
  readonly bytes: number;
}

/** Whole files into `target`; those with losses, in their folders, beside it. */
async function stage(
  target: string,
  root: string,
  { batches, seen }: { readonly batches: Batches; readonly seen: Seen },
  work: Work,
): Promise<Staged> {
  using whole = new TreeStager({ root, target });
  using incomplete = seen.folders.size === 0 ? null : new TreeStager({ root, target: target + INCOMPLETE });
  const sorter = new LossSorter(seen.isLost);
  let [entries, bytes] = [0, 0];
  const fillWith = async (stager: TreeStager, batch: readonly ManifestEntry[]) => {
    await fill(stager, batch, work);
    entries += batch.length;
    for (const { entry } of batch) bytes += entry.size;
  };
  for (const batch of batches) {
    const [intact, hurt]: [ManifestEntry[], ManifestEntry[]] = [[], []];
    for (const member of batch) {
      const { entry } = member;
      const loss = sorter.lossOf(member);
      if (loss === null) intact.push(member);
      if (loss !== null) hurt.push({ entry, parts: loss.left });
      else if (entry.type === "directory" && seen.folders.has(byteText(entry.path))) hurt.push(member);
    }
    await fillWith(whole, intact);
    if (incomplete !== null) await fillWith(incomplete, hurt);
    work.pacer.count(batch.length, 0);
    await work.pace();
  }
  const warnings = [...await whole.finish(), ...await incomplete?.finish() ?? []];
  return { warnings, entries, bytes };
}

async function fill(stager: TreeStager, batch: readonly ManifestEntry[], work: Work): Promise<void> {
  const wanted = stager.begin(batch);
  // A pack that is cut still has its first chunks. What was there a moment ago and is not now fails the next step.
  await fetchLeniently(planFetch(work.table, wanted.keys()), {
    ...work,
    deliver(id, bytes) {
      work.pacer.count(0, bytes.length * (wanted.get(id)?.places.length ?? 0) / 2);
      deliverChunk(stager, id, bytes);
    },
  });
}
