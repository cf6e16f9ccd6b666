/**
 * Pieces of large objects as a restore has fetched them, beside what it builds: one that was interrupted fetches only the
 * rest. They are bytes and nothing more: what they make is decoded and verified as if it came from the store. The last
 * piece of an object, which holds its checksum over all the others, is never kept; so a piece of another object of the
 * same name and size, or one that a power cut damaged, cannot go unnoticed, and is then fetched anew.
 * If we die, a piece has its name or it does not count.
 */

import { removeIfPresent } from "../platform/files.ts";
import { type LocalFiles, promptFiles, readRange } from "../platform/local_files.ts";
import type { ReplicaFile } from "./replica_listing.ts";
import { txidText } from "./replica_layout.ts";

/** A part of a file in the store: the bytes [start, end). */
export interface PieceRange {
  readonly file: ReplicaFile;
  readonly start: number;
  readonly end: number;
}

export function isLastPiece({ file, end }: PieceRange): boolean {
  return end === file.sizeBytes;
}

export class KeptPieces {
  readonly #folder: string;
  readonly #files: LocalFiles;
  #isOn = true;
  #isMade = false;
  #reusedBytes = 0;

  constructor(folder: string, files: LocalFiles = promptFiles) {
    this.#folder = folder;
    this.#files = files;
  }

  /** Bytes that need not be fetched. */
  get reusedBytes(): number {
    return this.#reusedBytes;
  }

  /** Null: it is not there as a whole. */
  async read(range: PieceRange): Promise<Uint8Array<ArrayBuffer> | null> {
    if (!this.#isOn || isLastPiece(range)) return null;
    const length = range.end - range.start;
    try {
      using file = await this.#files.open(this.#pathOf(range));
      if ((await file.facts()).sizeBytes !== length) return null;
      const bytes = await readRange(file, 0, length);
      if (bytes.length !== length) return null;
      this.#reusedBytes += length;
      return bytes;
    } catch {
      return null; // whatever the reason: it is fetched
    }
  }

  /** A disk that has no room for it is no reason to fail: nothing is kept from then on. */
  async write(range: PieceRange, bytes: Uint8Array): Promise<void> {
    if (!this.#isOn || isLastPiece(range)) return;
    const path = this.#pathOf(range);
    try {
      if (!this.#isMade) await this.#files.makeFolder(this.#folder, 0o700).catch(() => {}); // it may be there
      this.#isMade = true;
      await removeIfPresent(`${path}.tmp`, this.#files);
      using file = await this.#files.create(`${path}.tmp`, 0o600);
      for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
      await this.#files.rename(`${path}.tmp`, path);
    } catch {
      await this.end().catch(() => {});
    }
  }

  /** Removes all, and keeps no more. */
  async end(): Promise<void> {
    this.#isOn = false;
    await removeIfPresent(this.#folder, this.#files);
  }

  #pathOf({ file, start }: PieceRange): string {
    const { level, minTxid, maxTxid, sizeBytes } = file;
    return `${this.#folder}/${level}-${txidText(minTxid)}-${txidText(maxTxid)}-${sizeBytes}-${start}`;
  }
}
