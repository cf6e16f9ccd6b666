/**
 * Stages one files root: what an interrupted restore of the same left is read back, what the live folder still holds is
 * copied, and the rest is fetched. Whatever comes from this machine counts only after its hash was checked, and is
 * copied, never linked: the live tree's programs may go on with their files if the restore fails.
 */

import { assert } from "../platform/assert.ts";
import {
  AT_CWD,
  closeFd,
  isErrno,
  listNameBatches,
  OPEN,
  openAt,
  pathBytes,
} from "../platform/libc_files.ts";
import { parentOf } from "../platform/files.ts";
import {
  bytesOfMemory,
  LARGE_PAGE_BYTES,
  type MemoryBlock,
  memoryOf,
  returnMemory,
  takeLargePages,
} from "../platform/shared_memory.ts";
import { settleAll } from "../platform/settle.ts";
import { byteText } from "./byte_text.ts";
import type { ChunkTable } from "./chunk_table.ts";
import {
  type FetchedRange,
  type FetchRange,
  fetchRanges,
  type FetchShape,
  planFetch,
  withReload,
} from "./chunk_fetcher.ts";
import { disposeFormer } from "./dispose.ts";
import { FormerStage } from "./former_stage.ts";
import type { Pacer } from "./pacer.ts";
import type { ReadingOptions } from "./root_reader.ts";
import { hasSpace, requireSpace } from "./space.ts";
import { type ChunkWrites, runStageJobAtOnce, type StageJob } from "./stage_job.ts";
import type { StageRunner } from "./stage_runner.ts";
import { type StagePart, TreeStager } from "./stage.ts";
import { SyncAhead } from "./sync_ahead.ts";
import type { FileWarning, ManifestEntry } from "./types.ts";
import type { WantedTree } from "./wanted_tree.ts";

export interface StageTarget {
  readonly name: string;
  readonly stage: string;
  /** Stages of the same restore that were left unfinished, newest first: used up and deleted. */
  readonly former?: readonly string[];
  /** Folder that may hold content of the wanted tree, at the same paths; it is read, never changed. */
  readonly live?: string;
  /** Byte texts: only these paths with all below them. Left out: the whole root. */
  readonly paths?: readonly string[];
}

export interface StageSurroundings {
  readonly reading: ReadingOptions;
  readonly pacer: Pacer;
  readonly runner: StageRunner;
  /** How the store is asked. */
  readonly shape: FetchShape;
  /** The chunks that the head knows by now; null: there is no head. Throws when the checkpoint is gone. */
  readonly reload: () => Promise<ChunkTable | null>;
}

export interface RootStaged {
  readonly warnings: readonly FileWarning[];
  readonly bytesReused: number;
}

export async function stageRoot(
  target: StageTarget,
  tree: WantedTree,
  surroundings: StageSurroundings,
): Promise<RootStaged> {
  const { name, stage, former = [], live } = target;
  // With a former stage it is not known yet how much of it is there already.
  if (former.length === 0) requireSpace(parentOf(stage), name, tree.need);
  using stager = new TreeStager({ root: name, target: stage });
  const ahead = new SyncAhead(() => stager.sync());
  const stageRun = new StageRun(stager, surroundings, ahead);
  using source = live === undefined ? null : openIfPresent(live);
  let bytesReused = 0;
  try {
    // Where all comes from the store a batch begins while files of the one before it are still written.
    if (former.length === 0 && source === null) await stageRun.fetchAll(tree.batches());
    else bytesReused = await resumeAll({ stager, stageRun, source }, target, tree, surroundings);
  } catch (error) {
    await ahead.end().catch(() => {}); // it uses the stager's folder, and this error comes first
    throw error;
  }
  await ahead.end();
  return { warnings: await stager.finish(), bytesReused };
}

/** True where some of the root may be on this machine already. */
export function hasSome({ former = [], live }: StageTarget): boolean {
  if (former.length > 0) return true;
  using source = live === undefined ? null : openIfPresent(live);
  return source !== null;
}

interface Resuming {
  readonly stager: TreeStager;
  readonly stageRun: StageRun;
  readonly source: LiveFolder | null;
}

/** Batch by batch: what former stages have of it, then what the live folder has, then the rest. Bytes of the first two. */
async function resumeAll(
  { stager, stageRun, source }: Resuming,
  target: StageTarget,
  tree: WantedTree,
  surroundings: StageSurroundings,
): Promise<number> {
  let reused = 0;
  let come = 0;
  for (const entries of tree.batches()) {
    stageRun.begin(entries);
    come += entries.length;
    if (target.former !== undefined && target.former.length > 0) {
      reused += await resumeFormers(stager, target, { isLast: come === tree.entries }, surroundings);
    }
    if (source !== null) reused += await stageRun.copyFrom(source, entries);
    await stageRun.fetchAll([]);
  }
  return reused;
}

/**
 * Moves over what the former stages have of a batch. When that was the last one, or the rest of the batch has no room
 * beside them, they go before anything is fetched.
 */
async function resumeFormers(
  stager: TreeStager,
  { name, stage, former = [] }: StageTarget,
  { isLast }: { readonly isLast: boolean },
  surroundings: StageSurroundings,
): Promise<number> {
  let reused = 0;
  for (const path of former) reused += await resumeFormer(stager, path, surroundings);
  const need = { bytes: stager.missingBytes(), files: 0 };
  if (isLast || !hasSpace(parentOf(stage), need)) {
    for (const path of former) await disposeFormer(path);
    requireSpace(parentOf(stage), name, need);
  }
  return reused;
}

/** Brings one verified chunk to where it belongs, in this thread. One that nobody wants, or wants no more, is ignored. */
export function deliverChunk(stager: TreeStager, id: string, bytes: Uint8Array<ArrayBuffer>): void {
  const part = stager.take([{ id, length: bytes.length }]);
  const { chunks } = part;
  const rest = stager.settle(part, runStageJobAtOnce({ ...jobPart(part), kind: "given", bytes, chunks }));
  if (rest.files.length === 0) return;
  stager.settle(rest, runStageJobAtOnce({ ...jobPart(rest), kind: "complete" }));
}

function holeBytes(entries: readonly ManifestEntry[]): number {
  let sum = 0;
  for (const { parts } of entries) for (const part of parts) if (part.kind === "hole") sum += part.length;
  return sum;
}

async function resumeFormer(
  stager: TreeStager,
  path: string,
  { pacer, reading }: StageSurroundings,
): Promise<number> {
  using former = FormerStage.open(path, reading.cipher);
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

type Wanted = ReadonlyMap<string, unknown>;

/** One Worker's job from local files: a few megabytes, or so many small files. */
const LOCAL_JOB_BYTES = 4 * 1024 * 1024;
const LOCAL_JOB_FILES = 256;
/** Chunks that ranges are planned for at one time: some megabytes of small files, and as many as a pack holds. */
const FIRST_PLAN_CHUNKS = 512;
const PLAN_CHUNKS = 16 * 1024;
/** Turns of the loop that the next batches wait for the first range, at most: some 25 ms. */
const FIRST_TURNS = 20;
/** Jobs from local files at one time: they hold nothing but names. */
const LOCAL_JOBS = 8;

/** One job's share of a range of many small chunks: some 20 ms of work. */
const JOB_CHUNKS = 512;
const PIECE_BYTES = 512 * 1024;

/** Ranges in memory that threads share are those of all requests at one time, and some that are lost. */
const SPARE_BLOCKS = 8;

/** Bytes of a pack from `start` on, and chunks in them. */
type RangePiece = Pick<FetchedRange, "start" | "bytes" | "chunks">;

/** Chunks that may be in files of the live folder, as one job asks for them. */
interface LocalBatch {
  readonly paths: string[];
  readonly chunks: {
    readonly id: string;
    readonly length: number;
    readonly path: number;
    readonly at: number;
  }[];
  bytes: number;
}

class StageRun {
  readonly #stager: TreeStager;
  readonly #surroundings: StageSurroundings;
  readonly #ahead: SyncAhead;
  #blocks = 0;
  #hasCome = false;

  constructor(stager: TreeStager, surroundings: StageSurroundings, ahead: SyncAhead) {
    this.#stager = stager;
    this.#surroundings = surroundings;
    this.#ahead = ahead;
  }

  begin(entries: readonly ManifestEntry[]): void {
    this.#stager.begin(entries);
    this.#surroundings.pacer.count(entries.length, holeBytes(entries));
  }

  /** Bytes that the live folder had. */
  async copyFrom({ fd }: LiveFolder, entries: readonly ManifestEntry[]): Promise<number> {
    let reused = 0;
    const batches = localBatches(entries, this.#stager.wanted);
    const line = async () => {
      for (const batch of batches) {
        const bytes = await this.#copy(fd, batch);
        reused += bytes;
      }
    };
    await settleAll(Array.from({ length: LOCAL_JOBS }, line));
    return reused;
  }

  async #copy(source: number, { paths, chunks }: LocalBatch): Promise<number> {
    const part = this.#stager.take(chunks);
    const local = withPlaces(part, chunks, (chunk, { path, at }) => ({ ...chunk, path, at }));
    if (local.length === 0) return 0;
    return await this.#run(part, { ...jobPart(part), kind: "local", source, paths, chunks: local });
  }

  async #run(part: StagePart, job: StageJob): Promise<number> {
    const { runner, pacer } = this.#surroundings;
    const result = await runner.run(job);
    pacer.count(0, result.bytes);
    this.#ahead.wrote(result.bytes - result.passed, part.files.length);
    const rest = this.#stager.settle(part, result);
    if (rest.files.length > 0) {
      this.#stager.settle(rest, await runner.run({ ...jobPart(rest), kind: "complete" }));
    }
    const pause = pacer.turn();
    if (pause !== null) await pause;
    return result.bytes;
  }

  /** What is wanted by now, then batch by batch all of `more`. */
  fetchAll(more: Iterable<readonly ManifestEntry[]>): Promise<void> {
    const { reading, reload } = this.#surroundings;
    const batches = more[Symbol.iterator](); // goes on where it was, should the head be asked once more
    return withReload(reading.table, reload, (table) => this.#fetch(table, batches));
  }

  /**
   * Batches begin one by one, between turns of the loop in which requests go on: Workers have jobs soon after the first.
   * Few chunks are planned for at first, then so many that a pack is not asked much oftener than if all were known.
   */
  async *#ranges(
    table: ChunkTable,
    batches: Iterator<readonly ManifestEntry[]>,
  ): AsyncGenerator<FetchRange> {
    const { shape, pacer } = this.#surroundings;
    yield* planFetch(table, this.#stager.wanted.keys(), shape).ranges;
    let ids: string[] = [];
    let planFrom = FIRST_PLAN_CHUNKS;
    let turns = FIRST_TURNS;
    for (let next = batches.next(); next.done !== true; next = batches.next()) {
      this.begin(next.value);
      for (const id of this.#stager.added) ids.push(id);
      if (ids.length >= planFrom) {
        yield* planFetch(table, ids, shape).ranges;
        ids = [];
        planFrom = Math.min(planFrom * 2, PLAN_CHUNKS);
      }
      await pacer.pause();
      // What comes first goes to the Workers at once, not behind the batches that there is time for meanwhile.
      while (turns-- > 0 && !this.#hasCome) await pacer.pause();
    }
    yield* planFetch(table, ids, shape).ranges;
  }

  async #fetch(table: ChunkTable, batches: Iterator<readonly ManifestEntry[]>): Promise<void> {
    const { reading, shape } = this.#surroundings;
    const options = {
      ...reading,
      inFlight: shape.inFlight,
      uncached: true,
      usersOf: (id: string) => this.#stager.usersOf(id),
      memory: (sizeBytes: number) => this.#rangeMemory(sizeBytes),
    };
    await fetchRanges(this.#ranges(table, batches), options, async (range) => {
      this.#hasCome = true;
      const memory = memoryOf(range.bytes);
      await settleAll(piecesOf(range, memory).map((piece) => this.#unpack(range.pack.name, piece)));
      if (memory === null) return;
      returnMemory(memory); // not after a failure: a Worker may be reading it
      this.#blocks--;
    });
  }

  /**
   * Where a range comes to, and stays for the Workers that unpack it. What a request that failed had is not used again,
   * since it may still be read into: after some of these the runtime's own memory does.
   */
  #rangeMemory(sizeBytes: number): Uint8Array<ArrayBuffer> {
    const { rangeBytes, inFlight } = this.#surroundings.shape;
    const blockBytes = Math.ceil(rangeBytes / LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES;
    if (sizeBytes > blockBytes || this.#blocks >= inFlight + SPARE_BLOCKS) return new Uint8Array(sizeBytes);
    this.#blocks++;
    return bytesOfMemory(takeLargePages(blockBytes));
  }

  async #unpack(pack: string, { start, bytes, chunks: wanted }: RangePiece): Promise<void> {
    const part = this.#stager.take(wanted);
    const chunks = withPlaces(part, wanted, ({ id, length, writes }, { flags, offset, storedLength }) => (
      { id, length, writes, flags, at: offset, stored: storedLength }
    ));
    await this.#run(part, { ...jobPart(part), kind: "pack", pack, start, bytes, chunks });
  }
}

/**
 * A range of small files is too much for one job: who is done last would leave the other cores idle. Bytes in a `memory`
 * stay where they are, any others go to a Worker by moving: then each piece has its own.
 */
function piecesOf(range: FetchedRange, memory: MemoryBlock | null): readonly RangePiece[] {
  const { chunks, start, bytes } = range;
  if (chunks.length <= JOB_CHUNKS) return [range];
  const pieces: RangePiece[] = [];
  for (let from = 0; from < chunks.length;) {
    const first = chunks[from]?.offset ?? 0;
    let [to, end] = [from, first];
    for (let next = chunks[to]; next !== undefined; next = chunks[++to]) {
      const nextEnd = next.offset + next.storedLength;
      if (to > from && (to - from >= JOB_CHUNKS || nextEnd - first > PIECE_BYTES)) break;
      end = nextEnd;
    }
    const piece = bytes.subarray(first - start, end - start);
    pieces.push({
      start: first,
      bytes: memory === null ? piece.slice() : piece,
      chunks: chunks.slice(from, to),
    });
    from = to;
  }
  return pieces;
}

/** The part's chunks, each with where it was `asked` for: the stager keeps the order, and leaves out what nobody wants. */
function withPlaces<Asked extends { readonly id: string }, Joined>(
  { chunks }: StagePart,
  asked: readonly Asked[],
  join: (chunk: ChunkWrites, place: Asked) => Joined,
): Joined[] {
  let next = 0;
  return chunks.map((chunk) => {
    while (next < asked.length && asked[next]?.id !== chunk.id) next++;
    const place = asked[next];
    assert(place !== undefined, "the stager gives chunks in the order in which they were asked for");
    return join(chunk, place);
  });
}

function jobPart({ folder, owner, files }: StagePart): Pick<StagePart, "folder" | "owner" | "files"> {
  return { folder, owner, files };
}

/** A folder that is there, open until the root is staged. */
interface LiveFolder extends Disposable {
  readonly fd: number;
}

function openIfPresent(folder: string): LiveFolder | null {
  try {
    const fd = openAt(AT_CWD, pathBytes(folder), OPEN.read | OPEN.directory);
    using opened = new DisposableStack();
    opened.defer(() => closeFd(fd));
    if (listNameBatches(fd).next().done === true) return null; // empty, as on a new machine
    const kept = opened.move();
    return { fd, [Symbol.dispose]: () => kept.dispose() };
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR", "EACCES")) return null;
    throw error;
  }
}

/** Each wanted chunk once, where the manifest says that the same path had it. */
function* localBatches(entries: readonly ManifestEntry[], wanted: Wanted): Generator<LocalBatch> {
  const asked = new Set<string>();
  let batch: LocalBatch = { paths: [], chunks: [], bytes: 0 };
  for (const { entry, parts } of entries) {
    let at = 0;
    let number = -1;
    for (const part of parts) {
      if (part.kind === "chunk" && wanted.has(part.id) && !asked.has(part.id)) {
        asked.add(part.id);
        if (number < 0) number = batch.paths.push(byteText(entry.path)) - 1;
        batch.chunks.push({ id: part.id, length: part.length, path: number, at });
        batch.bytes += part.length;
      }
      at += part.length;
      if (batch.bytes < LOCAL_JOB_BYTES) continue;
      yield batch;
      batch = { paths: [], chunks: [], bytes: 0 };
      number = -1;
    }
    if (batch.paths.length < LOCAL_JOB_FILES) continue;
    yield batch;
    batch = { paths: [], chunks: [], bytes: 0 };
  }
  if (batch.chunks.length > 0) yield batch;
}
