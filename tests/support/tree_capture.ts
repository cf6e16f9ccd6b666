/** A tree as manifest and chunks in memory: the files side alone, with the simplest chunker there can be. */

import { closeFd } from "../../src/platform/libc_files.ts";
import { openForReading, openRootFolder } from "../../src/checkpoint/file_reader.ts";
import { chunkId } from "../../src/checkpoint/ids.ts";
import { scanTree } from "../../src/checkpoint/scan.ts";
import { TreeStager } from "../../src/checkpoint/stage.ts";
import { deliverChunk } from "../../src/checkpoint/stage_root.ts";
import type {
  ContentPart,
  FilesRoot,
  FileWarning,
  ManifestEntry,
  TreeEntry,
} from "../../src/checkpoint/types.ts";
import { XattrReader } from "../../src/checkpoint/xattrs.ts";
import { seededRandom } from "./tree_model.ts";

export interface CapturedTree {
  readonly entries: ManifestEntry[];
  readonly chunks: Map<string, Uint8Array<ArrayBuffer>>;
  readonly warnings: FileWarning[];
}

const CHUNK_BYTES = 64 * 1024;

export function filesRoot(
  path: string,
  options: Partial<FilesRoot> = {},
): FilesRoot {
  return {
    name: "data",
    path,
    exclude: [],
    excludePaths: [],
    includeDatabases: true,
    ...options,
  };
}

export function captureTree(root: FilesRoot): CapturedTree {
  const chunks = new Map<string, Uint8Array<ArrayBuffer>>();
  const warnings: FileWarning[] = [];
  const seen = new Set<number>();
  const folder = openRootFolder(root.path);
  const xattrs = new XattrReader((_path, reason) => {
    throw new Error(reason);
  });
  try {
    const entries = [
      ...scanTree(root, { onWarning: (warning) => warnings.push(warning) }),
    ].map(({ entry: scanned }) => {
      const entry = scanned.type === "file" ? withXattrs(folder, scanned, xattrs) : scanned;
      const follower = entry.linkGroup !== undefined &&
        seen.has(entry.linkGroup);
      if (entry.linkGroup !== undefined) seen.add(entry.linkGroup);
      return {
        entry,
        parts: entry.type === "file" && !follower ? contentOf(folder, entry, chunks) : [],
      };
    });
    return { entries, chunks, warnings };
  } finally {
    closeFd(folder);
  }
}

function withXattrs(folder: number, entry: TreeEntry, xattrs: XattrReader): TreeEntry {
  const file = openForReading(folder, entry.path, xattrs);
  file.close();
  return { ...entry, ...(file.entry.xattrs === undefined ? {} : { xattrs: file.entry.xattrs }) };
}

function contentOf(
  folder: number,
  entry: TreeEntry,
  chunks: Map<string, Uint8Array<ArrayBuffer>>,
): ContentPart[] {
  const file = openForReading(folder, entry.path);
  try {
    const parts: ContentPart[] = [];
    for (const extent of file.extents()) {
      if (extent.kind === "hole") {
        parts.push({ kind: "hole", length: extent.length });
        continue;
      }
      for (
        let at = extent.offset;
        at < extent.offset + extent.length;
        at += CHUNK_BYTES
      ) {
        const bytes = new Uint8Array(
          Math.min(CHUNK_BYTES, extent.offset + extent.length - at),
        );
        file.read(at, bytes);
        const id = chunkId(bytes);
        chunks.set(id, bytes);
        parts.push({ kind: "chunk", id, length: bytes.length });
      }
    }
    return parts;
  } finally {
    file.close();
  }
}

/** Brings one chunk to where it belongs, as a job of its own. */
export function deliver(stager: TreeStager, id: string, bytes: Uint8Array<ArrayBuffer>): void {
  deliverChunk(stager, id, bytes);
}

/** Stages a captured tree, with the chunks in an order of their own. */
export async function stageCaptured(
  tree: CapturedTree,
  target: string,
  seed = 1,
): Promise<FileWarning[]> {
  using stager = new TreeStager({ root: "data", target });
  const wanted = stager.begin(tree.entries);
  const random = seededRandom(seed);
  const shuffled = [...wanted.keys()].map((id) => ({ id, at: random() })).sort((
    a,
    b,
  ) => a.at - b.at);
  for (const { id } of shuffled) {
    const bytes = tree.chunks.get(id);
    if (bytes === undefined) throw new Error(`no chunk ${id}`);
    deliver(stager, id, bytes);
  }
  return await stager.finish();
}
