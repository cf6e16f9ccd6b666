/**
 * How objects lie in a folder store (docs/storage_format.md). Names with "~" are ours: no key has one.
 *
 *   <key>                        an object as put-if-absent made it: exactly its body
 *   <key>~/<20 digits>           generation of an object that was overwritten or swapped: a header line, then its body
 *   <key>~meta.<tag>-<inode>     metadata of a plain object, valid only for the file with this tag and number
 *   .tmp/<random>                what a put writes before it links it into place; hidden, removed when old
 *
 * The newest generation is the object, or the mark of its delete; a plain file counts only where there is none.
 */

import type { FolderEntry, StoreFileInfo } from "../platform/store_files.ts";

export const TEMPORARY_FOLDER = ".tmp";
const GENERATION = /^[0-9]{20}$/;

/** First line of a generation file, as JSON. */
export interface GenerationHeader {
  /** Random per write, so that tags never repeat. */
  readonly tag: string;
  /** Tag of the version that it follows; null after the mark of a delete. A writer sees by it that it was followed. */
  readonly after: string | null;
  readonly deleted: boolean;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Metadata is at most 2 KiB, in JSON at most twice that (quotes): a header is found in the first 8 KiB. */
export const LONGEST_HEADER_BYTES = 8192;

export function generationsFolder(objectPath: string): string {
  return `${objectPath}~`;
}

export function generationPath(objectPath: string, generation: number): string {
  return `${objectPath}~/${String(generation).padStart(20, "0")}`;
}

export function metadataPath(objectPath: string, info: StoreFileInfo): string {
  return `${objectPath}~meta.${plainTag(info)}-${info.inode}`;
}

/**
 * Tag of a plain file. Such a file never changes; another one under the same key has another time, since a write that
 * is made durable takes longer than the millisecond in which two of equal size would have equal tags.
 */
export function plainTag(info: StoreFileInfo): string {
  return `${info.sizeBytes}-${info.modifiedMs}`;
}

/** Numbers of the generations in a folder, oldest first. */
export function generationsIn(entries: readonly FolderEntry[]): number[] {
  return entries.filter(({ name }) => GENERATION.test(name)).map(({ name }) => Number(name)).sort((a, b) =>
    a - b
  );
}

export function encodeHeader(header: GenerationHeader): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${JSON.stringify(header)}\n`);
}

function isMetadata(value: unknown): value is Record<string, string> {
  return typeof value === "object" && value !== null &&
    Object.values(value).every((text) => typeof text === "string");
}

/** The header at the beginning of `bytes` and its length; null when it is not one of ours. */
export function decodeHeader(
  bytes: Uint8Array,
): { readonly header: GenerationHeader; readonly lengthBytes: number } | null {
  const end = bytes.indexOf(10);
  if (end < 0) return null;
  const value = parseJson(bytes.subarray(0, end));
  if (typeof value !== "object" || value === null) return null;
  if (!("tag" in value && "after" in value && "deleted" in value && "metadata" in value)) return null;
  const { tag, after, deleted, metadata } = value;
  if (typeof tag !== "string" || (typeof after !== "string" && after !== null)) return null;
  if (typeof deleted !== "boolean" || !isMetadata(metadata)) return null;
  return { header: { tag, after, deleted, metadata }, lengthBytes: end + 1 };
}

/** Metadata as its sidecar holds it; empty when unreadable: an object never fails for its metadata. */
export function decodeMetadata(bytes: Uint8Array): Record<string, string> {
  const value = parseJson(bytes);
  return isMetadata(value) ? value : {};
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

/** Whether a listing with this prefix and start can hold keys below the folder `path` ("" or ending with "/"). */
export function mayHoldListed(path: string, prefix: string, startAfter: string | undefined): boolean {
  const overlaps = path.startsWith(prefix) || prefix.startsWith(path);
  // Every key below begins with `path`: when `startAfter` does not, all of them are on the same side of it.
  return overlaps && (startAfter === undefined || startAfter.startsWith(path) || path > startAfter);
}
