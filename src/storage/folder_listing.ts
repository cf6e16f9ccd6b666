/** Listing a folder store: names in byte order of keys, what is ours hidden, whole subtrees skipped where possible. */

import { type FolderEntry, readStoreFolder } from "../platform/store_files.ts";
import { mayHoldListed, TEMPORARY_FOLDER } from "./folder_layout.ts";
import { currentVersion } from "./folder_object.ts";
import { isListed } from "./listing.ts";
import type { ListOptions, ObjectInfo } from "./object_store.ts";

interface Name {
  readonly name: string;
  /** "name" for an object, "name/" for a folder: what the key goes on with, so that order is that of keys. */
  readonly order: string;
}

function namesOf(entries: readonly FolderEntry[], atRoot: boolean): Name[] {
  const orders = new Set<string>();
  for (const { name, kind } of entries) {
    if (atRoot && name === TEMPORARY_FOLDER) continue;
    const mark = name.indexOf("~");
    if (mark < 0) orders.add(kind === "file" ? name : `${name}/`);
    else if (kind === "folder" && mark === name.length - 1) orders.add(name.slice(0, -1));
  }
  return [...orders].sort().map((order) => ({
    order,
    name: order.endsWith("/") ? order.slice(0, -1) : order,
  }));
}

/** Objects that `options` asks for, in order of keys; the caller stops when it has enough. */
export async function* walkObjects(
  root: string,
  options: ListOptions,
  folder = "",
): AsyncGenerator<ObjectInfo> {
  const entries = await readStoreFolder(`${root}/${folder}`) ?? []; // removed meanwhile: nothing in it
  for (const { name, order } of namesOf(entries, folder === "")) {
    const key = folder + name;
    if (order.endsWith("/")) {
      if (mayHoldListed(`${key}/`, options.prefix, options.startAfter)) {
        yield* walkObjects(root, options, `${key}/`);
      }
    } else if (isListed(key, options)) {
      const version = await currentVersion(`${root}/${key}`);
      if (!version.present) continue;
      const { sizeBytes, etag, file } = version;
      yield { key, sizeBytes, etag, modifiedMs: file.modifiedMs, metadata: {} };
    }
  }
}
