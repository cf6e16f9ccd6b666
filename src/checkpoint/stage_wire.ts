/**
 * Stage jobs on their way to a Worker: columns in a few buffers, which move, instead of an object for each file and
 * chunk, whose copying would cost as much as their writing. Both sides are this program; nothing here is checked.
 */

import { bytesOfMemory, type MemoryBlock, memoryOf } from "../platform/shared_memory.ts";
import { CHUNK_ID_TEXT } from "./ids.ts";
import type { ChunkWrites, FileTarget, StageJob } from "./stage_job.ts";
import type { DefaultOwner } from "./attributes.ts";
import type { TreeEntry, Xattr } from "./types.ts";

/** Columns of a file: end of its path in `paths`, mode, uid, gid, size, flags. */
const FILE_COLUMNS = 6;
/** Columns of a chunk: length, three that depend on the kind of the job, count of the numbers of its writes. */
const CHUNK_COLUMNS = 5;

const CREATE = 1;
const COMPLETE = 2;
const FOREIGN = 4;

interface Columns {
  readonly folder: number;
  readonly owner: DefaultOwner;
  /** All paths, one after the other. */
  readonly paths: Uint8Array<ArrayBuffer>;
  readonly files: Float64Array<ArrayBuffer>;
  readonly times: BigInt64Array<ArrayBuffer>;
  /** Of the few files that have any, by the file's number. */
  readonly xattrs: readonly (readonly [number, readonly Xattr[]])[];
  /** All ids, one after the other. */
  readonly ids: string;
  /** The columns of each chunk, followed by its writes. */
  readonly chunks: Float64Array<ArrayBuffer>;
}

type Without<T, K extends string> = T extends unknown ? Omit<T, K> : never;

/** Bytes that all threads see, or that move. */
type WireBytes =
  | { readonly memory: MemoryBlock; readonly start: number; readonly end: number }
  | { readonly moved: Uint8Array<ArrayBuffer> };

/** What a job has beside its files and chunks. */
type Rest =
  | Without<Exclude<StageJob, { kind: "pack" }>, "folder" | "owner" | "files" | "chunks">
  | { readonly kind: "pack"; readonly pack: string; readonly start: number; readonly bytes: WireBytes };

export interface PackedJob {
  readonly columns: Columns;
  readonly rest: Rest;
}

/** The job to be sent, and the buffers that move with it: also those of a "pack" job's bytes, unless all threads see them. */
export function packJob(job: StageJob): { readonly packed: PackedJob; readonly transfer: ArrayBuffer[] } {
  const { folder, owner, files } = job;
  const chunks = job.kind === "complete" ? [] : job.chunks;
  const { paths, columns, times } = packFiles(files);
  const numbers = packChunks(job, chunks);
  const xattrs = files.flatMap(({ entry }, i) =>
    entry.xattrs === undefined ? [] : [[i, entry.xattrs] as const]
  );
  const ids = chunks.map(({ id }) => id).join("");
  const moving = [paths.buffer, columns.buffer, times.buffer, numbers.buffer];
  const rest = restOf(job);
  return {
    packed: {
      columns: { folder, owner, paths, files: columns, times, xattrs, ids, chunks: numbers },
      rest,
    },
    transfer: rest.kind === "pack" && "moved" in rest.bytes ? [...moving, rest.bytes.moved.buffer] : moving,
  };
}

function restOf(job: StageJob): Rest {
  switch (job.kind) {
    case "pack":
      return { kind: job.kind, pack: job.pack, start: job.start, bytes: packBytes(job.bytes) };
    case "local":
      return { kind: job.kind, source: job.source, paths: job.paths };
    case "given":
      return { kind: job.kind, bytes: job.bytes };
    case "complete":
      return { kind: job.kind };
  }
}

function packBytes(bytes: Uint8Array<ArrayBuffer>): WireBytes {
  const memory = memoryOf(bytes);
  if (memory === null) return { moved: bytes };
  return { memory, start: bytes.byteOffset, end: bytes.byteOffset + bytes.length };
}

function unpackBytes(bytes: WireBytes): Uint8Array<ArrayBuffer> {
  return "moved" in bytes ? bytes.moved : bytesOfMemory(bytes.memory).subarray(bytes.start, bytes.end);
}

interface PackedFiles {
  readonly paths: Uint8Array<ArrayBuffer>;
  readonly columns: Float64Array<ArrayBuffer>;
  readonly times: BigInt64Array<ArrayBuffer>;
}

function packFiles(files: readonly FileTarget[]): PackedFiles {
  let pathBytes = 0;
  for (const { entry } of files) pathBytes += entry.path.length;
  const paths = new Uint8Array(pathBytes);
  const columns = new Float64Array(files.length * FILE_COLUMNS);
  const times = new BigInt64Array(files.length);
  let end = 0;
  files.forEach(({ entry, create, complete, foreign }, i) => {
    paths.set(entry.path, end);
    end += entry.path.length;
    times[i] = entry.mtimeNs;
    const flags = (create ? CREATE : 0) | (complete ? COMPLETE : 0) | (foreign ? FOREIGN : 0);
    const at = i * FILE_COLUMNS;
    columns[at] = end;
    columns[at + 1] = entry.mode;
    columns[at + 2] = entry.uid;
    columns[at + 3] = entry.gid;
    columns[at + 4] = entry.size;
    columns[at + 5] = flags;
  });
  return { paths, columns, times };
}

function packChunks(job: StageJob, chunks: readonly ChunkWrites[]): Float64Array<ArrayBuffer> {
  let size = 0;
  for (const { writes } of chunks) size += CHUNK_COLUMNS + writes.length;
  const numbers = new Float64Array(size);
  let at = 0;
  chunks.forEach(({ length, writes }, i) => {
    numbers[at] = length;
    packPlace(job, i, numbers, at + 1);
    numbers[at + 4] = writes.length;
    numbers.set(writes, at + CHUNK_COLUMNS);
    at += CHUNK_COLUMNS + writes.length;
  });
  return numbers;
}

/** The columns that depend on the kind of the job, of its chunk `i`. */
function packPlace(job: StageJob, i: number, numbers: Float64Array, at: number): void {
  if (job.kind === "pack") {
    const chunk = job.chunks[i];
    numbers[at] = chunk?.flags ?? 0;
    numbers[at + 1] = chunk?.at ?? 0;
    numbers[at + 2] = chunk?.stored ?? 0;
  } else if (job.kind === "local") {
    const chunk = job.chunks[i];
    numbers[at] = chunk?.path ?? 0;
    numbers[at + 1] = chunk?.at ?? 0;
  }
}

/** The other side of `packJob`. Paths are views of one buffer. */
export function unpackJob({ columns, rest }: PackedJob): StageJob {
  const { folder, owner } = columns;
  const common = { folder, owner, files: unpackFiles(columns) };
  switch (rest.kind) {
    case "pack":
      return {
        ...common,
        ...rest,
        bytes: unpackBytes(rest.bytes),
        chunks: unpackChunks(
          columns,
          ({ id, length, writes }, flags, at, stored) => ({ id, length, writes, flags, at, stored }),
        ),
      };
    case "local":
      return {
        ...common,
        ...rest,
        chunks: unpackChunks(
          columns,
          ({ id, length, writes }, path, at) => ({ id, length, writes, path, at }),
        ),
      };
    case "given":
      return { ...common, ...rest, chunks: unpackChunks(columns, (chunk) => chunk) };
    case "complete":
      return { ...common, ...rest };
  }
}

function unpackFiles({ paths, files, times, xattrs }: Columns): FileTarget[] {
  const targets: FileTarget[] = [];
  const xattrsOf = new Map(xattrs);
  let start = 0;
  for (let i = 0; i < times.length; i++) {
    const column = (number: number) => files[i * FILE_COLUMNS + number] ?? 0;
    const end = column(0);
    const flags = column(5);
    const plain: TreeEntry = {
      path: paths.subarray(start, end),
      type: "file",
      mode: column(1),
      uid: column(2),
      gid: column(3),
      mtimeNs: times[i] ?? 0n,
      size: column(4),
    };
    const own = xattrsOf.get(i);
    targets.push({
      entry: own === undefined ? plain : { ...plain, xattrs: own },
      create: (flags & CREATE) !== 0,
      complete: (flags & COMPLETE) !== 0,
      foreign: (flags & FOREIGN) !== 0,
    });
    start = end;
  }
  return targets;
}

function unpackChunks<T>(
  { ids, chunks }: Columns,
  make: (chunk: ChunkWrites, a: number, b: number, c: number) => T,
): T[] {
  const made: T[] = [];
  for (let at = 0; at < chunks.length;) {
    const column = (number: number) => chunks[at + number] ?? 0;
    const from = made.length * CHUNK_ID_TEXT;
    const end = at + CHUNK_COLUMNS + column(4);
    const writes = new Array<number>(end - at - CHUNK_COLUMNS); // one that grows makes room for seventeen
    for (let i = 0; i < writes.length; i++) writes[i] = chunks[at + CHUNK_COLUMNS + i] ?? 0;
    const chunk = { id: ids.slice(from, from + CHUNK_ID_TEXT), length: column(0), writes };
    made.push(make(chunk, column(1), column(2), column(3)));
    at = end;
  }
  return made;
}
