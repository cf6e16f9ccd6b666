/**
 * The L0 files that are on this disk: what was read from a database and may not be in the bucket yet. A file has its
 * name only when it is whole and durable. If we die in between, a `.tmp` is left, which the next start removes.
 */

import { isError, StateManagerError } from "../platform/errors.ts";
import {
  createTemporary,
  ensureFolder,
  listFolder,
  localFileError,
  removeIfPresent,
  syncFolder,
} from "../platform/files.ts";
import {
  type LocalFiles,
  type ReadableFile,
  readRange,
  systemFiles,
  type WritableFile,
} from "../platform/local_files.ts";
import type { FollowerStep, LocalFile } from "./follower_types.ts";
import {
  LTX_HEADER_BYTES,
  LTX_TAIL_BYTES,
  LtxDecoder,
  LtxEncoder,
  type LtxHeader,
  type LtxHeaderInput,
  ltxName,
  type LtxPage,
  parseLtxName,
  readHeader,
  readTail,
} from "./ltx/mod.ts";

const TEMPORARY = ".tmp";
/** Put behind the name of a file that is not whole. Kept for people; the next damage replaces it. */
const DAMAGED = ".damaged";
const WRITE_BYTES = 1024 * 1024;
const READ_BYTES = 1024 * 1024;
/** A newest file up to this size is read from end to end at the start (under a second), a larger one at both ends. */
const WHOLE_CHECK_BYTES = 64 * 1024 * 1024;

export interface NewestLtx {
  readonly header: LtxHeader;
  readonly sizeBytes: number;
}

/** In ascending order. */
export type LtxPages = Iterable<LtxPage> | AsyncIterable<LtxPage>;

export interface WriteSteps {
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((step: FollowerStep) => void) | undefined;
  /** Called when all pages are in the file and it is durable under its temporary name; a throw abandons it. */
  readonly beforeRename?: () => Promise<void>;
}

export class LocalLtx {
  readonly folder: string;
  readonly #files: LocalFiles;
  /** TXID → size; changed by `#put` and `#drop` alone. */
  readonly #sizes = new Map<number, number>();
  /** Made when it is asked for: it is, several times for each commit. */
  #listed: LocalFile[] | null = null;
  #newest: NewestLtx | null = null;
  #damagedTxid: number | null = null;
  /** The newest file's name may not survive a power cut. */
  #pending = false;

  constructor(folder: string, files: LocalFiles = systemFiles) {
    this.folder = folder;
    this.#files = files;
  }

  /** Newest file that is whole. */
  get newest(): NewestLtx | null {
    return this.#newest;
  }

  /** Highest TXID that `open` found damaged, whether or not an older file is whole: it may be in the bucket as it was. */
  get damagedTxid(): number | null {
    return this.#damagedTxid;
  }

  get totalBytes(): number {
    let total = 0;
    for (const size of this.#sizes.values()) total += size;
    return total;
  }

  get count(): number {
    return this.#sizes.size;
  }

  pathOf(txid: number): string {
    return `${this.folder}/${ltxName(txid, txid)}`;
  }

  /** Those that are durable, ascending: what is sent must not be forgotten here by a power cut. */
  list(): readonly LocalFile[] {
    this.#listed ??= [...this.#sizes].sort(([a], [b]) => a - b)
      .map(([txid, sizeBytes]) => ({ txid, path: this.pathOf(txid), sizeBytes }));
    const newest = this.#newest?.header.maxTxid;
    return this.#pending ? this.#listed.filter(({ txid }) => txid !== newest) : this.#listed;
  }

  #put(txid: number, sizeBytes: number): void {
    this.#sizes.set(txid, sizeBytes);
    this.#listed = null;
  }

  #drop(txid: number): void {
    this.#sizes.delete(txid);
    this.#listed = null;
  }

  /** Sweeps what a crash left, and reads the newest file from end to end; one that is damaged is set aside. */
  async open(): Promise<void> {
    await ensureFolder(this.folder, 0o700, this.#files);
    this.#sizes.clear();
    this.#listed = null;
    this.#newest = null;
    this.#damagedTxid = null;
    for (const name of await listFolder(this.folder, this.#files)) {
      const path = `${this.folder}/${name}`;
      if (name.endsWith(TEMPORARY)) await removeIfPresent(path, this.#files);
      const txid = txidOf(name);
      if (txid !== null) this.#put(txid, await this.#sizeOf(path));
    }
    for (const txid of [...this.#sizes.keys()].sort((a, b) => b - a)) {
      this.#newest = await this.#check(txid);
      if (this.#newest !== null) {
        this.#pending = true; // whoever wrote it may have died before its name was durable
        return await this.makeDurable();
      }
      this.#damagedTxid ??= txid;
      await this.#setAside(txid);
    }
  }

  async #sizeOf(path: string): Promise<number> {
    try {
      return (await this.#files.stat(path)).sizeBytes;
    } catch (error) {
      throw localFileError(`look at ${path}`, error);
    }
  }

  async #setAside(txid: number): Promise<void> {
    const path = this.pathOf(txid);
    try {
      await this.#files.rename(path, path + DAMAGED);
      await this.#files.syncFolder(this.folder);
    } catch (error) {
      throw localFileError(`set aside ${path}`, error);
    }
    this.#drop(txid);
  }

  /** Null for a file that is not whole. */
  async #check(txid: number): Promise<NewestLtx | null> {
    const path = this.pathOf(txid);
    const sizeBytes = this.#sizes.get(txid) ?? 0;
    try {
      using file = await this.#files.open(path);
      const header = sizeBytes > WHOLE_CHECK_BYTES
        ? await checkEnds(file, sizeBytes, path)
        : await checkWhole(file, path);
      return header.maxTxid === txid && header.minTxid === txid ? { header, sizeBytes } : null;
    } catch (error) {
      if (isError(error, "data-damaged")) return null;
      throw localFileError(`read ${path}`, error);
    }
  }

  /**
   * Writes one file, durable under its name when this returns. On any error it is as if it had not been begun, but for
   * one: when making the name durable fails, the file is there and is the newest; `makeDurable` is to be tried again.
   */
  async write(header: LtxHeaderInput, pages: LtxPages, steps: WriteSteps = {}): Promise<NewestLtx> {
    const path = this.pathOf(header.maxTxid);
    const temporary = path + TEMPORARY;
    let written: NewestLtx;
    try {
      written = await this.#writeTemporary(temporary, header, pages, steps);
      await steps.beforeRename?.();
      await this.#files.rename(temporary, path);
    } catch (error) {
      await this.#files.remove(temporary).catch(() => {}); // else the next write of this TXID does it
      throw localFileError(`write ${path}`, error);
    }
    this.#put(header.maxTxid, written.sizeBytes);
    this.#newest = written;
    this.#pending = true;
    steps.onStep?.("renamed");
    // If the power fails here, the file may be gone: nobody has seen it in `list` yet.
    await this.makeDurable();
    steps.onStep?.("folder-synced");
    return written;
  }

  /** Makes the newest file's name durable, if it is not yet. */
  async makeDurable(): Promise<void> {
    if (!this.#pending) return;
    await syncFolder(this.folder, this.#files);
    this.#pending = false;
  }

  async #writeTemporary(
    temporary: string,
    headerInput: LtxHeaderInput,
    pages: LtxPages,
    steps: WriteSteps,
  ): Promise<NewestLtx> {
    using file = await createTemporary(temporary, 0o600, this.#files);
    const encoder = new LtxEncoder(headerInput);
    const out = new WriteBuffer(file);
    out.add(encoder.start());
    const add = ({ pgno, data }: LtxPage): Promise<void> | null => {
      out.add(encoder.page(pgno, data));
      if (!out.full) return null;
      if (steps.signal?.aborted) throw cancelled(temporary);
      return out.flush();
    };
    if (Symbol.iterator in pages) {
      // As a rule a few pages that are at hand: without a turn of the loop for each.
      for (const page of pages) {
        const flushed = add(page);
        if (flushed !== null) await flushed;
      }
    } else for await (const page of pages) await add(page);
    const { bytes, sizeBytes } = encoder.finish();
    out.add(bytes);
    await out.flush();
    steps.onStep?.("encoded");
    await file.sync();
    steps.onStep?.("file-synced");
    return { header: encoder.header, sizeBytes };
  }

  /** Removes the files up to and with `txid`, but never the newest: it says how far we are. */
  async deleteUpTo(txid: number): Promise<void> {
    const newest = this.#newest?.header.maxTxid ?? 0;
    for (const file of this.list()) {
      if (file.txid > txid || file.txid === newest) continue;
      await removeIfPresent(file.path, this.#files);
      this.#drop(file.txid);
    }
  }

  /** Removes all of them: of another history. */
  async clear(): Promise<void> {
    for (const txid of [...this.#sizes.keys()]) {
      await removeIfPresent(this.pathOf(txid), this.#files);
      this.#drop(txid);
    }
    this.#newest = null;
    this.#pending = false;
    await syncFolder(this.folder, this.#files);
  }
}

/**
 * Removes the files in `folder` after `txid`, while nobody follows the database. The newest goes first: whatever a crash
 * leaves is a chain without a gap.
 */
export async function dropFilesAfter(folder: string, txid: number, files: LocalFiles): Promise<void> {
  const txids = (await listFolder(folder, files)).flatMap((name) => txidOf(name) ?? []);
  for (const each of txids.filter((each) => each > txid).sort((a, b) => b - a)) {
    await removeIfPresent(`${folder}/${ltxName(each, each)}`, files);
  }
  await syncFolder(folder, files);
}

async function checkWhole(file: ReadableFile, path: string): Promise<LtxHeader> {
  const decoder = new LtxDecoder(path);
  const chunk = new Uint8Array(READ_BYTES);
  for (let at = 0;;) {
    const count = await file.read(chunk, at);
    if (count === null) break;
    decoder.push(chunk.subarray(0, count));
    at += count;
  }
  decoder.end();
  return decoder.header ?? readHeader(new Uint8Array(0), path);
}

/** A file gets its name after its content is durable, so one whose ends hold was written whole. */
async function checkEnds(file: ReadableFile, sizeBytes: number, path: string): Promise<LtxHeader> {
  readTail(await readRange(file, sizeBytes - LTX_TAIL_BYTES, LTX_TAIL_BYTES), sizeBytes, path);
  return readHeader(await readRange(file, 0, LTX_HEADER_BYTES), path);
}

function cancelled(path: string): StateManagerError {
  return new StateManagerError("cancelled", `write ${path}: told to stop`);
}

function txidOf(name: string): number | null {
  try {
    const range = parseLtxName(name);
    return range !== null && range.minTxid === range.maxTxid ? range.maxTxid : null;
  } catch (error) {
    if (error instanceof StateManagerError) return null;
    throw error;
  }
}

/** Collects small pieces for one write. */
class WriteBuffer {
  readonly #file: WritableFile;
  #pieces: Uint8Array[] = [];
  #bytes = 0;

  constructor(file: WritableFile) {
    this.#file = file;
  }

  get full(): boolean {
    return this.#bytes >= WRITE_BYTES;
  }

  add(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
  }

  async flush(): Promise<void> {
    const all = new Uint8Array(this.#bytes);
    let at = 0;
    for (const piece of this.#pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    this.#pieces = [];
    this.#bytes = 0;
    for (let written = 0; written < all.length;) written += await this.#file.write(all.subarray(written));
  }
}
