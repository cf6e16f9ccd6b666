/**
 * One object of a folder store: which file it is now, and how the next version takes its place. Several processes do
 * this at once, any of which may be killed, or stopped for hours, at any instruction; there is no lock.
 *
 * A version is written and synced in `.tmp/` and gets its place by link(2), which never replaces a name: of all that
 * want one place one wins. A process that was stopped before its link may find its place free again because the
 * generation there was pruned meanwhile. So a winner must still be the newest after its link; the newest is never
 * pruned, and a folder this small is read by one getdents call under the kernel's lock on it, so it is always seen.
 *
 * A delete that runs while the same object is being swapped for the first time may show the swap's version for a
 * moment before it is withdrawn; no room deletes what it still swaps.
 */

import {
  isStoreFolder,
  linkStoreFile,
  readStoreFile,
  readStoreFolder,
  removeStoreEntry,
  statStoreFile,
  type StoreFileInfo,
} from "../platform/store_files.ts";
import {
  decodeHeader,
  decodeMetadata,
  type GenerationHeader,
  generationPath,
  generationsFolder,
  generationsIn,
  LONGEST_HEADER_BYTES,
  metadataPath,
  plainTag,
} from "./folder_layout.ts";
import type { ETag } from "./object_store.ts";
import type { FolderTree } from "./folder_tree.ts";

/** An object as it is now. */
export type Version =
  | {
    readonly present: false;
    /** Number of the generation that would follow; null: nothing is there, not even the mark of a delete. */
    readonly next: number | null;
  }
  | {
    readonly present: true;
    readonly next: number;
    readonly etag: ETag;
    readonly path: string;
    readonly file: StoreFileInfo;
    /** Bytes before the body: 0 in a plain file. */
    readonly offset: number;
    readonly sizeBytes: number;
    /** Of a generation; null: a plain file. */
    readonly header: GenerationHeader | null;
  };

/** won: it was the object, durably, for a moment at least. lost: it never was. unknown: whoever would know is pruned. */
export type Advance = "won" | "lost" | "unknown";

/** A file operation failed after the version may have become the object: only the object itself says whether it did. */
export class Unsettled extends Error {}

/** Runs what follows a link; whatever fails there, even for want of space, is no sign that nothing happened. */
async function afterLink<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new Unsettled(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

/** Generations kept behind the newest: readers of one of them finish, and a reader that lists always meets one. */
const KEPT_GENERATIONS = 8;
/** Rounds in which other processes may change the object under a reader before it gives up. */
const MOST_ROUNDS = 100;

/** The newest version of the object at `path`. Its file may be pruned at once: read it, and if it is gone ask again. */
export async function currentVersion(tree: FolderTree, path: string): Promise<Version> {
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const newest = await newestGeneration(tree, path);
    if (newest !== null) {
      const version = await generationVersion(tree, path, newest);
      if (version !== null) return version;
      continue; // pruned meanwhile: there is a newer one
    }
    const file = await statStoreFile(tree.files, path);
    // A plain file that appeared or vanished around the first swap: only what holds on both sides counts.
    if (await newestGeneration(tree, path) !== null) continue;
    return file === null ? { present: false, next: null } : plainVersion(path, file);
  }
  throw new Error(`${path} changed ${MOST_ROUNDS} times while it was read`);
}

/** Number of the newest generation; null when there is none. */
async function newestGeneration(tree: FolderTree, path: string): Promise<number | null> {
  return generationsIn(await readStoreFolder(tree.files, generationsFolder(path)) ?? []).at(-1) ?? null;
}

/** The version that a plain file is, where no generation hides it. */
export function plainVersion(path: string, file: StoreFileInfo): Version & { present: true } {
  // Numbers go on from the plain file's time: when an object was deleted, swept and made again, they don't repeat,
  // and a process that slept through all that can neither win nor prune with a number of the old life.
  const next = Math.max(0, file.modifiedMs) + 1;
  const { sizeBytes } = file;
  return { present: true, next, etag: plainTag(file), path, file, offset: 0, sizeBytes, header: null };
}

async function generationVersion(
  tree: FolderTree,
  path: string,
  generation: number,
): Promise<Version | null> {
  const own = generationPath(path, generation);
  const read = await readStoreFile(tree.files, own, { start: 0, end: LONGEST_HEADER_BYTES });
  if (read === null) return null;
  const decoded = decodeHeader(read.bytes);
  // Synced before it was linked: only damage to the disk, or a stranger's file, looks like this.
  if (decoded === null) throw new Error(`${own} does not begin with a generation's header`);
  const { header, lengthBytes } = decoded;
  const next = generation + 1;
  if (header.deleted) return { present: false, next };
  const sizeBytes = read.info.sizeBytes - lengthBytes;
  const { tag } = header;
  return {
    present: true,
    next,
    etag: tag,
    path: own,
    file: read.info,
    offset: lengthBytes,
    sizeBytes,
    header,
  };
}

/** Metadata of `version`, the newest of the object at `path`. */
export async function metadataOf(
  tree: FolderTree,
  path: string,
  version: Version,
): Promise<Record<string, string>> {
  if (!version.present) return {};
  if (version.header !== null) return { ...version.header.metadata };
  const read = await readStoreFile(tree.files, metadataPath(path, version.file), {
    start: 0,
    end: LONGEST_HEADER_BYTES,
  });
  return read === null ? {} : decodeMetadata(read.bytes);
}

/** Puts a plain file in place of nothing. `temporary` is synced. */
export async function advanceFromNothing(
  tree: FolderTree,
  path: string,
  temporary: string,
  info: StoreFileInfo,
): Promise<Advance> {
  const outcome = await linkStoreFile(tree.files, temporary, path);
  if (outcome === "missing") throw new Error(`${temporary} was removed before it had its place`);
  return await afterLink(async () => {
    // Also when we lose: who hears "it exists" may build on it, so it must not vanish in a power cut.
    await tree.syncParent(path);
    if (outcome === "exists") return "lost";
    if (await newestGeneration(tree, path) === null) return "won";
    // Either it was swapped already, or we were stopped for long and our file is hidden behind generations.
    const { next, etag } = plainVersion(path, info);
    return await followed(tree, path, next, etag);
  });
}

/** What the version with number `successor` says about the one with tag `tag` before it. */
async function followed(tree: FolderTree, path: string, successor: number, tag: ETag): Promise<Advance> {
  const read = await readStoreFile(tree.files, generationPath(path, successor), {
    start: 0,
    end: LONGEST_HEADER_BYTES,
  });
  const decoded = read === null ? null : decodeHeader(read.bytes);
  if (decoded === null) return "unknown";
  return decoded.header.after === tag ? "won" : "lost";
}

/** Puts generation `next` in place, after `from`. `temporary` is synced and begins with a header with this tag. */
export async function advance(
  tree: FolderTree,
  path: string,
  from: Version,
  next: number,
  tag: ETag,
  temporary: string,
): Promise<Advance> {
  const folder = generationsFolder(path);
  const first = from.present && from.header === null;
  // Where there were generations and the folder is gone, the object was deleted and swept: not made anew.
  if (first) await tree.ensureFolder(folder);
  const outcome = await linkStoreFile(tree.files, temporary, generationPath(path, next));
  if (outcome === "missing") {
    if (await isStoreFolder(tree.files, folder)) {
      throw new Error(`${temporary} was removed before it had its place`);
    }
    return "lost";
  }
  return await afterLink(async () => {
    await tree.syncFolder(folder);
    if (outcome === "exists") return "lost";
    return await won(tree, path, from, next, tag);
  });
}

/** Whether the generation `next`, linked and durable, was the object. */
async function won(
  tree: FolderTree,
  path: string,
  from: Version,
  next: number,
  tag: ETag,
): Promise<Advance> {
  if (await newestGeneration(tree, path) !== next) return await followed(tree, path, next + 1, tag);
  if (from.present && !await isStillThere(tree, from)) {
    if (await newestGeneration(tree, path) !== next) return await followed(tree, path, next + 1, tag);
    // Deleted, or deleted and made anew, while we were on our way. Ours was never the truth: away with it.
    await removeStoreEntry(tree.files, generationPath(path, next));
    await tree.syncFolder(generationsFolder(path));
    return "lost";
  }
  await prune(tree, path).catch(() => {}); // tried again by the next one: no reason to fail what was done
  return "won";
}

/** Nobody but a delete removes the version before the newest: several older ones are kept. */
async function isStillThere(tree: FolderTree, from: Version & { present: true }): Promise<boolean> {
  const now = await statStoreFile(tree.files, from.path);
  return now !== null && (from.header !== null || plainTag(now) === from.etag);
}

/** Removes what no reader can need any more. The newest stays, whatever happens. */
async function prune(tree: FolderTree, path: string): Promise<void> {
  const generations = generationsIn(await readStoreFolder(tree.files, generationsFolder(path)) ?? []);
  for (const old of generations.slice(0, -KEPT_GENERATIONS)) {
    await removeStoreEntry(tree.files, generationPath(path, old));
  }
  await removePlain(tree, path); // hidden by the generations from the first on
}

/** Removes a plain file and its metadata; what is not there is fine. */
export async function removePlain(tree: FolderTree, path: string): Promise<void> {
  const file = await statStoreFile(tree.files, path);
  if (file === null) return;
  await removeStoreEntry(tree.files, path);
  const metadata = metadataPath(path, file);
  if (await statStoreFile(tree.files, metadata) === null) return;
  await tree.syncParent(path); // the object's name is gone for good before what belongs to it
  await removeStoreEntry(tree.files, metadata);
}

/**
 * Removes the generations of an object whose newest one says "deleted"; anything else stays untouched. If we die on the
 * way, or the power fails, the mark is still there: it goes only after all that it hides is gone for good.
 */
export async function sweepDeleted(tree: FolderTree, path: string): Promise<void> {
  const version = await currentVersion(tree, path);
  if (version.present || version.next === null) return;
  const mark = version.next - 1;
  const folder = generationsFolder(path);
  await removePlain(tree, path);
  for (const generation of generationsIn(await readStoreFolder(tree.files, folder) ?? [])) {
    if (generation < mark) await removeStoreEntry(tree.files, generationPath(path, generation));
  }
  await tree.syncParent(path);
  await tree.syncFolder(folder);
  await removeStoreEntry(tree.files, generationPath(path, mark));
  await removeStoreEntry(tree.files, folder); // stays where a version was made meanwhile: that one is newer than the mark
}
