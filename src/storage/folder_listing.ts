/** Listing a folder store: names in byte order of keys, what is ours hidden, whole subtrees skipped where possible. */

import { type FolderEntry, readStoreFolder, statStoreFile } from "../platform/store_files.ts";
import { mayHoldListed, TEMPORARY_FOLDER } from "./folder_layout.ts";
import { currentVersion, plainVersion, type Version } from "./folder_object.ts";
import type { FolderTree } from "./folder_tree.ts";
import { isListed } from "./listing.ts";
import type { ListOptions, ObjectInfo } from "./object_store.ts";

/** What a disk of its own has at its root (e2fsck(8)): nobody's object, and root's alone to look into. No key has a "+". */
const FOUND_AGAIN = "lost+found";

interface Name {
  readonly name: string;
  /** "name" for an object, "name/" for a folder: what the key goes on with, so that order is that of keys. */
  readonly order: string;
  /** Nothing but a plain file stands for the object. */
  readonly plain: boolean;
}

function namesOf(entries: readonly FolderEntry[], atRoot: boolean): Name[] {
  const names = new Map<string, Name>();
  for (const { name, kind } of entries) {
    if (atRoot && (name === TEMPORARY_FOLDER || name === FOUND_AGAIN)) continue;
    const mark = name.indexOf("~");
    if (mark < 0) {
      const order = kind === "file" ? name : `${name}/`;
      if (!names.has(order)) names.set(order, { name, order, plain: true });
    } else if (kind === "folder" && mark === name.length - 1) {
      const object = name.slice(0, -1);
      names.set(object, { name: object, order: object, plain: false });
    }
  }
  return [...names.values()].sort((a, b) => a.order < b.order ? -1 : 1);
}

/** The object as it is now; of a plain file one look is enough, since a swap that had ended was in the folder. */
async function listedVersion(tree: FolderTree, path: string, plain: boolean): Promise<Version> {
  const file = plain ? await statStoreFile(tree.files, path) : null;
  return file === null ? await currentVersion(tree, path) : plainVersion(path, file);
}

/** Objects that `options` asks for, in order of keys; the caller stops when it has enough. */
export async function* walkObjects(
  tree: FolderTree,
  options: ListOptions,
  folder = "",
): AsyncGenerator<ObjectInfo> {
  const entries = await readStoreFolder(tree.files, `${tree.root}/${folder}`) ?? []; // removed meanwhile: nothing in it
  for (const { name, order, plain } of namesOf(entries, folder === "")) {
    const key = folder + name;
    if (order.endsWith("/")) {
      if (mayHoldListed(`${key}/`, options.prefix, options.startAfter)) {
        yield* walkObjects(tree, options, `${key}/`);
      }
    } else if (isListed(key, options)) {
      const version = await listedVersion(tree, `${tree.root}/${key}`, plain);
      if (!version.present) continue;
      const { sizeBytes, etag, file } = version;
      yield { key, sizeBytes, etag, modifiedMs: file.modifiedMs, metadata: {} };
    }
  }
}
