/**
 * The entries of a scan, packed: a million of them as objects would fill the heap, here each takes 72 bytes and its path.
 * What is rare (links, databases, extended attributes) is kept as it came.
 */

import type { PathBytes } from "../platform/libc_files.ts";
import type { ScannedEntry } from "./scan.ts";
import type { TreeEntry } from "./types.ts";

/** Little-endian: mtime, ctime i64; inode, device u64; size, blocks f64; place of the path, uid, gid, link count u32; mode
 * u16; type u8; 1 unused; length of the path u32. Four gigabytes of paths: more entries than a machine can list. */
const RECORD_BYTES = 72;
const BLOCK_RECORDS = 4096;
const AT = {
  mtime: 0,
  ctime: 8,
  ino: 16,
  dev: 24,
  size: 32,
  blocks: 40,
  path: 48,
  uid: 52,
  gid: 56,
  links: 60,
  mode: 64,
  type: 66,
  pathLength: 68,
};
const TYPES = ["file", "directory", "symlink", "fifo"] as const;
/** A path lies in one block whole: its length is bounded by PATH_MAX. */
const PATH_BLOCK_BYTES = 1024 * 1024;

type Rare = Pick<TreeEntry, "target" | "linkGroup" | "sqlite" | "xattrs">;

export class ScannedList {
  readonly #blocks: DataView[] = [];
  readonly #paths: PathBytes[] = [];
  #pathsUsed = PATH_BLOCK_BYTES;
  readonly #rare = new Map<number, { readonly fields: Rare; readonly wal: ScannedEntry["wal"] }>();
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push({ entry, facts, wal }: ScannedEntry): void {
    const index = this.#length++;
    if (index % BLOCK_RECORDS === 0) {
      this.#blocks.push(new DataView(new ArrayBuffer(BLOCK_RECORDS * RECORD_BYTES)));
    }
    const view = this.#view(index);
    const at = (index % BLOCK_RECORDS) * RECORD_BYTES;
    view.setBigInt64(at + AT.mtime, entry.mtimeNs, true);
    view.setBigInt64(at + AT.ctime, facts.ctimeNs, true);
    view.setBigUint64(at + AT.ino, facts.ino, true);
    view.setBigUint64(at + AT.dev, facts.dev, true);
    view.setFloat64(at + AT.size, entry.size, true);
    view.setFloat64(at + AT.blocks, facts.blocks, true);
    view.setUint32(at + AT.uid, entry.uid, true);
    view.setUint32(at + AT.gid, entry.gid, true);
    view.setUint32(at + AT.links, facts.linkCount, true);
    view.setUint16(at + AT.mode, entry.mode, true);
    view.setUint8(at + AT.type, TYPES.indexOf(entry.type));
    view.setUint32(at + AT.path, this.#keepPath(entry.path), true);
    view.setUint32(at + AT.pathLength, entry.path.length, true);
    const { target, linkGroup, sqlite, xattrs } = entry;
    const isCommon = target === undefined && linkGroup === undefined && sqlite === undefined && wal === null;
    if (isCommon && xattrs === undefined) return;
    const fields = {
      ...(target === undefined ? {} : { target }),
      ...(linkGroup === undefined ? {} : { linkGroup }),
      ...(sqlite === undefined ? {} : { sqlite }),
      ...(xattrs === undefined ? {} : { xattrs }),
    };
    this.#rare.set(index, { fields, wal });
  }

  /** An entry as it was pushed. Its path is a view into the list: never give its buffer to another thread. */
  at(index: number): ScannedEntry {
    const view = this.#view(index);
    const at = (index % BLOCK_RECORDS) * RECORD_BYTES;
    const rare = this.#rare.get(index);
    const entry: TreeEntry = {
      path: this.#path(view.getUint32(at + AT.path, true), view.getUint32(at + AT.pathLength, true)),
      type: TYPES[view.getUint8(at + AT.type)] ?? "file",
      mode: view.getUint16(at + AT.mode, true),
      uid: view.getUint32(at + AT.uid, true),
      gid: view.getUint32(at + AT.gid, true),
      mtimeNs: view.getBigInt64(at + AT.mtime, true),
      size: view.getFloat64(at + AT.size, true),
    };
    return {
      entry: rare === undefined ? entry : { ...entry, ...rare.fields },
      facts: {
        dev: view.getBigUint64(at + AT.dev, true),
        ino: view.getBigUint64(at + AT.ino, true),
        ctimeNs: view.getBigInt64(at + AT.ctime, true),
        linkCount: view.getUint32(at + AT.links, true),
        blocks: view.getFloat64(at + AT.blocks, true),
      },
      wal: rare?.wal ?? null,
    };
  }

  *[Symbol.iterator](): Generator<ScannedEntry> {
    for (let i = 0; i < this.#length; i++) yield this.at(i);
  }

  #view(index: number): DataView {
    const view = this.#blocks[Math.floor(index / BLOCK_RECORDS)];
    if (view === undefined || index >= this.#length) {
      throw new RangeError(`entry ${index} of ${this.#length}`);
    }
    return view;
  }

  /** Its place: all blocks counted as one. */
  #keepPath(path: PathBytes): number {
    if (this.#pathsUsed + path.length > PATH_BLOCK_BYTES) {
      this.#paths.push(new Uint8Array(PATH_BLOCK_BYTES));
      this.#pathsUsed = 0;
    }
    this.#paths.at(-1)?.set(path, this.#pathsUsed);
    const place = (this.#paths.length - 1) * PATH_BLOCK_BYTES + this.#pathsUsed;
    this.#pathsUsed += path.length;
    return place;
  }

  #path(place: number, length: number): PathBytes {
    const block = this.#paths[Math.floor(place / PATH_BLOCK_BYTES)] ?? new Uint8Array(0);
    const start = place % PATH_BLOCK_BYTES;
    return block.subarray(start, start + length);
  }
}
