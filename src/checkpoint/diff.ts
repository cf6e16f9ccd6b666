/**
 * What differs between two checkpoints. Trees with few changes share almost all pieces of their manifests: only those
 * that they do not share are read. Of hard links the first one in path order stands for their content.
 */

import { showPath } from "../platform/libc_files.ts";
import { type EntryLine, fetchPieces, goesOn, linesOf, pairs } from "./manifest_lines.ts";
import type { FilesItem } from "./records.ts";
import { openCheckpoint, type ReadEnvironment, readThrough } from "./restore.ts";
import { loadRoot, type ReadingOptions } from "./root_reader.ts";
import type { IndexRef } from "./index_store.ts";
import type { CheckpointRecord } from "./types.ts";

export interface DiffRequest {
  readonly before: CheckpointRecord;
  readonly after: CheckpointRecord;
  readonly indexes: readonly IndexRef[];
  /** Differences to leave out, and the most to tell. */
  readonly skip: number;
  readonly limit: number;
}

/** metadata: the content is the same, but not owner, mode, times or what else is kept of it. */
export type ChangeKind = "added" | "removed" | "changed" | "metadata";

export interface Difference {
  readonly root: string;
  readonly path: string;
  readonly change: ChangeKind;
  /** Null where it is not there. */
  readonly before: DiffSide | null;
  readonly after: DiffSide | null;
}

export interface DiffSide {
  readonly type: "file" | "directory" | "symlink" | "fifo";
  readonly sizeBytes: number;
}

export interface DiffResult {
  /** By files root, then path. */
  readonly differences: readonly Difference[];
  /** Give as `skip` for the next ones; null at the end. */
  readonly next: number | null;
  readonly totals: Readonly<Record<ChangeKind, number>>;
  /** Sizes of what was added, or changed, as it is after; and of what was removed, or changed, as it was before. */
  readonly bytesAfter: number;
  readonly bytesBefore: number;
  /** Replicated databases that stand elsewhere: TXIDs, null where the checkpoint does not have it. */
  readonly databases: Readonly<
    Record<string, { readonly before: number | null; readonly after: number | null }>
  >;
}

export async function diffCheckpoints(
  request: DiffRequest,
  environment: ReadEnvironment,
): Promise<DiffResult> {
  const { before, after, indexes, skip, limit } = request;
  const { store, cipher, signal } = environment;
  const opened = await openCheckpoint(after, indexes, environment, () => {});
  const former = (await loadRoot(store, before, { cipher, signal })).items.files;
  const latter = opened.root.items.files;
  const totals = { added: 0, removed: 0, changed: 0, metadata: 0 };
  const differences: Difference[] = [];
  let [seen, bytesBefore, bytesAfter] = [0, 0, 0];
  for (const root of [...new Set([...Object.keys(former), ...Object.keys(latter)])].sort()) {
    const read = () => unsharedLines(former[root], latter[root], root, opened);
    const [old, now] = await readThrough(after, opened, environment, read);
    for (const [a, b] of pairs(old, now)) {
      const change = changeOf(a, b);
      if (change === null) continue;
      totals[change]++;
      if (change !== "metadata") {
        bytesBefore += a?.entry.size ?? 0;
        bytesAfter += b?.entry.size ?? 0;
      }
      if (seen++ < skip || differences.length >= limit) continue;
      const path = showPath((b ?? a)?.entry.path ?? new Uint8Array());
      differences.push({ root, path, change, before: sideOf(a), after: sideOf(b) });
    }
  }
  return {
    differences,
    next: skip + differences.length < seen ? skip + differences.length : null,
    totals,
    bytesBefore,
    bytesAfter,
    databases: databasesThatMoved(before, after),
  };
}

/** Of both manifests the lines in pieces that the other does not have, or needs to read one of these. */
async function unsharedLines(
  before: FilesItem | undefined,
  after: FilesItem | undefined,
  name: string,
  options: ReadingOptions,
): Promise<readonly [Iterable<EntryLine>, Iterable<EntryLine>]> {
  const [old, now] = [before?.manifest ?? [], after?.manifest ?? []];
  if (before?.manifest_sha256 === after?.manifest_sha256) return [[], []];
  const [inOld, inNow] = [new Set(old), new Set(now)];
  const wanted = new Set([...old.filter((id) => !inNow.has(id)), ...now.filter((id) => !inOld.has(id))]);
  const pieces = new Map<string, Uint8Array>();
  // A file of many parts may begin in a piece that both have, and go on in one that only one has.
  for (let missing = wanted; missing.size > 0;) {
    for (const [id, piece] of await fetchPieces(missing, name, options)) pieces.set(id, piece);
    missing = new Set();
    for (const manifest of [old, now]) {
      manifest.forEach((id, i) => {
        const piece = pieces.get(id);
        const previous = manifest[i - 1];
        if (piece !== undefined && previous !== undefined && goesOn(piece) && !pieces.has(previous)) {
          missing.add(previous);
        }
      });
    }
  }
  const read = (manifest: readonly string[]) => linesOf(manifest.flatMap((id) => pieces.get(id) ?? []), name);
  return [read(old), read(now)];
}

function changeOf(a: EntryLine | null, b: EntryLine | null): ChangeKind | null {
  if (a === null) return b === null ? null : "added";
  if (b === null) return "removed";
  if (contentOf(a) !== contentOf(b)) return "changed";
  return metadataOf(a) === metadataOf(b) ? null : "metadata";
}

/** What a program that reads it would see. */
function contentOf({ entry, link, parts }: EntryLine): string {
  const content = parts.map((part) =>
    part.kind === "chunk" ? `${part.id}:${part.length}` : `:${part.length}`
  );
  const first = link === null || link.first ? "" : showPath(new Uint8Array(link.path));
  const target = entry.target === undefined ? "" : showPath(entry.target);
  return JSON.stringify([entry.type, entry.size, target, first, content]);
}

/** Everything else that is kept of it. */
function metadataOf({ entry, link }: EntryLine): string {
  const { path: _path, type: _type, size: _size, target: _target, ...rest } = entry;
  const sorted = Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([link === null, sorted], (_key, value: unknown) => {
    if (typeof value === "bigint") return String(value);
    return value instanceof Uint8Array ? [...value] : value instanceof Map ? [...value] : value;
  });
}

function sideOf(line: EntryLine | null): DiffSide | null {
  return line === null ? null : { type: line.entry.type, sizeBytes: line.entry.size };
}

function databasesThatMoved(before: CheckpointRecord, after: CheckpointRecord): DiffResult["databases"] {
  const names = Object.keys({ ...before.databases, ...after.databases }).sort();
  return Object.fromEntries(
    names.flatMap((name) => {
      const [old, now] = [before.databases?.[name]?.txid ?? null, after.databases?.[name]?.txid ?? null];
      return old === now ? [] : [[name, { before: old, after: now }]];
    }),
  );
}
