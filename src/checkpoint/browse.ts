/** A look into a checkpoint: what is in a folder of it, and the bytes of one file, both proven and nothing restored. */

import { StateManagerError } from "../platform/errors.ts";
import { showPath } from "../platform/libc_files.ts";
import { fetchChunks, planFetch } from "./chunk_fetcher.ts";
import type { IndexRef } from "./index_store.ts";
import { type EntryLine, fetchPieces, linesOf } from "./manifest_lines.ts";
import { openCheckpoint, type Opened, type ReadEnvironment, readThrough } from "./restore.ts";
import type { ReadingOptions } from "./root_reader.ts";
import type { CheckpointRecord, ContentPart, TreeEntry } from "./types.ts";

export interface FolderRequest {
  readonly record: CheckpointRecord;
  readonly indexes: readonly IndexRef[];
  /** `<files root>/<path in it>` as `showPath` gives it; empty: the files roots themselves. */
  readonly path: string;
  /** Also what is in the folders below. */
  readonly recursive: boolean;
  readonly skip: number;
  readonly limit: number;
}

export interface ListedEntry {
  /** With the name of the files root. */
  readonly path: string;
  readonly type: TreeEntry["type"];
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Decimal nanoseconds since the epoch. */
  readonly mtimeNs: string;
  readonly sizeBytes: number;
  readonly target: string | null;
  /** A SQLite database, taken by a consistent copy. */
  readonly sqlite: boolean;
}

export interface FolderListing {
  readonly entries: readonly ListedEntry[];
  /** Give as `skip` for the next ones; null at the end. */
  readonly next: number | null;
}

/** The file itself where the path is one. Error: `not-found`. */
export async function listFolder(
  request: FolderRequest,
  environment: ReadEnvironment,
): Promise<FolderListing> {
  const { record, indexes, recursive, skip, limit } = request;
  const opened = await openCheckpoint(record, indexes, environment, () => {});
  const { root, inside } = split(request.path);
  const names = root === "" ? Object.keys(opened.root.items.files).sort() : [root];
  const entries: ListedEntry[] = [];
  let seen = 0;
  let isThere = root === "";
  for (const name of names) {
    for (const line of await linesIn(name, record, opened, environment)) {
      const path = showPath(line.entry.path);
      const isIt = path === inside;
      isThere ||= isIt;
      // A folder itself is not in its listing, a file is all of it; of no folder at all each root is.
      const isWanted = isIt
        ? line.entry.type !== "directory" || root === ""
        : isBelow(path, inside) && (recursive || (root !== "" && parentOf(path) === inside));
      if (!isWanted) continue;
      if (seen++ < skip || entries.length >= limit) continue;
      entries.push(listed(name, path, line.entry));
    }
  }
  if (!isThere) throw notThere(record);
  return { entries, next: skip + entries.length < seen ? skip + entries.length : null };
}

export interface FileRequest {
  readonly record: CheckpointRecord;
  readonly indexes: readonly IndexRef[];
  readonly path: string;
}

/** What is fetched before it is given on: bounds the memory. */
const WINDOW_BYTES = 32 * 1024 * 1024;
const ZEROS_BYTES = 64 * 1024;

/** The bytes of one file in order, holes as zeros. Errors: `not-found`, `invalid-request` for what is no file. */
export async function* readFile(
  request: FileRequest,
  environment: ReadEnvironment,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const { record, indexes } = request;
  const opened = await openCheckpoint(record, indexes, environment, () => {});
  const { root, inside } = split(request.path);
  let found: EntryLine | undefined;
  const lines = [...await linesIn(root, record, opened, environment)];
  found = lines.find(({ entry }) => showPath(entry.path) === inside);
  if (found === undefined) throw notThere(record);
  if (found.link !== null && !found.link.first) {
    const first = showPath(new Uint8Array(found.link.path));
    found = lines.find(({ entry }) => showPath(entry.path) === first) ?? found;
  }
  if (found.entry.type !== "file") {
    throw new StateManagerError(
      "invalid-request",
      `read out of checkpoint ${record.n}: a ${found.entry.type} is there, not a file`,
      {
        hint: "list what is in it with checkpoint files",
      },
    );
  }
  for (const window of windows(found.parts)) {
    const chunks = await readThrough(record, opened, environment, () => fetchWindow(window, opened));
    for (const part of window) {
      if (part.kind === "hole") yield* zeros(part.length);
      else yield chunks.get(part.id) ?? new Uint8Array();
    }
  }
}

function* windows(parts: readonly ContentPart[]): Generator<readonly ContentPart[]> {
  let window: ContentPart[] = [];
  let bytes = 0;
  for (const part of parts) {
    window.push(part);
    if (part.kind === "chunk") bytes += part.length;
    if (bytes < WINDOW_BYTES) continue;
    yield window;
    [window, bytes] = [[], 0];
  }
  if (window.length > 0) yield window;
}

async function fetchWindow(
  window: readonly ContentPart[],
  options: ReadingOptions,
): Promise<ReadonlyMap<string, Uint8Array<ArrayBuffer>>> {
  const chunks = new Map<string, Uint8Array<ArrayBuffer>>();
  const ids = new Set(window.flatMap((part) => part.kind === "chunk" ? [part.id] : []));
  await fetchChunks(planFetch(options.table, ids), {
    ...options,
    deliver: (id, bytes) => void chunks.set(id, bytes.slice()),
  });
  return chunks;
}

function* zeros(length: number): Generator<Uint8Array<ArrayBuffer>> {
  const piece = new Uint8Array(Math.min(length, ZEROS_BYTES));
  for (let left = length; left > 0; left -= piece.length) {
    yield left < piece.length ? piece.subarray(0, left) : piece;
  }
}

async function linesIn(
  name: string,
  record: CheckpointRecord,
  opened: Opened,
  environment: ReadEnvironment,
): Promise<Iterable<EntryLine>> {
  const item = opened.root.items.files[name];
  if (item === undefined) throw notThere(record);
  const fetch = () => fetchPieces(item.manifest, name, opened);
  const pieces = await readThrough(record, opened, environment, fetch);
  return linesOf(item.manifest.flatMap((id) => pieces.get(id) ?? []), name);
}

function split(path: string): { readonly root: string; readonly inside: string } {
  const clean = path.replace(/^\/+|\/+$/g, "");
  const cut = clean.indexOf("/");
  return cut < 0 ? { root: clean, inside: "" } : { root: clean.slice(0, cut), inside: clean.slice(cut + 1) };
}

function isBelow(path: string, folder: string): boolean {
  return folder === "" ? path !== "" : path.startsWith(`${folder}/`);
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

function listed(root: string, path: string, entry: TreeEntry): ListedEntry {
  return {
    path: path === "" ? root : `${root}/${path}`,
    type: entry.type,
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    mtimeNs: String(entry.mtimeNs),
    sizeBytes: entry.size,
    target: entry.target === undefined ? null : showPath(entry.target),
    sqlite: entry.sqlite === true,
  };
}

function notThere(record: CheckpointRecord): StateManagerError {
  return new StateManagerError("not-found", `look into checkpoint ${record.n}: nothing is at this path`, {
    hint: `paths begin with the name of the files: ${
      Object.keys(record.files).join(", ") || "there are none"
    }`,
  });
}
