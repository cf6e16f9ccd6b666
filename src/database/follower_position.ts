/**
 * The note beside the local files that says how far in which log each of the newest two goes: with it a follower that
 * comes back proves that it missed nothing. It is written before a file gets its name, with the entry of the file
 * before kept: whichever of both is the newest after a crash, its entry is there. Losing the note costs a snapshot,
 * never data; so it is not made durable on its own.
 */

import { readTextIfPresent, removeIfPresent, replaceFileUnsynced } from "../platform/files.ts";
import type { FileStat } from "../platform/libc_files.ts";
import { type LocalFiles, systemFiles } from "../platform/local_files.ts";
import type { LogPosition } from "./follow_rules.ts";

export interface PositionEntry {
  readonly txid: number;
  /** Of the database's file. */
  readonly dev: string;
  readonly ino: string;
  readonly pageSize: number;
  readonly position: LogPosition;
  /** The database's file at a time when all up to `position` was in it, and nothing newer; null: not known. */
  readonly left: FileMark | null;
}

/** Changes with every write to the file. */
export interface FileMark {
  readonly size: number;
  readonly mtimeNs: string;
  readonly ctimeNs: string;
}

export function markOf(stat: FileStat): FileMark {
  return { size: stat.size, mtimeNs: String(stat.mtimeNs), ctimeNs: String(stat.ctimeNs) };
}

export function sameMark(a: FileMark, b: FileMark): boolean {
  return a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

const FORMAT = 1;

export class PositionNote {
  readonly #path: string;
  readonly #files: LocalFiles;
  #entries: readonly PositionEntry[] = [];

  constructor(path: string, files: LocalFiles = systemFiles) {
    this.#path = path;
    this.#files = files;
  }

  /** Reads the note; anything that is not one of ours counts as none. */
  async load(): Promise<void> {
    this.#entries = parseNote(await readTextIfPresent(this.#path, this.#files));
  }

  entry(txid: number): PositionEntry | null {
    return this.#entries.find((each) => each.txid === txid) ?? null;
  }

  /** Notes `entry`, and keeps the one before it. */
  async put(entry: PositionEntry): Promise<void> {
    const kept = this.#entries.filter((each) => each.txid === entry.txid - 1);
    const entries = [...kept, entry];
    await replaceFileUnsynced(this.#path, JSON.stringify({ v: FORMAT, entries }), this.#files);
    this.#entries = entries;
  }

  async clear(): Promise<void> {
    await removeIfPresent(this.#path, this.#files);
    this.#entries = [];
  }
}

function parseNote(text: string | null): PositionEntry[] {
  let value: unknown;
  try {
    value = JSON.parse(text ?? "null");
  } catch {
    return []; // torn by a power cut
  }
  if (!isRecord(value) || value["v"] !== FORMAT || !Array.isArray(value["entries"])) return [];
  return value["entries"].flatMap((each: unknown) => parseEntry(each) ?? []);
}

function parseEntry(value: unknown): PositionEntry | null {
  if (!isRecord(value)) return null;
  const { txid, dev, ino, pageSize, position, left } = value;
  if (!isCount(txid) || typeof dev !== "string" || typeof ino !== "string" || !isCount(pageSize)) return null;
  const parsedPosition = position === null ? null : parsePosition(position);
  const parsedLeft = left === null ? null : parseMark(left);
  if (parsedPosition === undefined || parsedLeft === undefined) return null;
  return { txid, dev, ino, pageSize, position: parsedPosition, left: parsedLeft };
}

function parsePosition(value: unknown): LogPosition | undefined {
  if (!isRecord(value)) return undefined;
  const { offset, sum1, sum2, salt1, salt2 } = value;
  if (!isCount(offset) || !isCount(sum1) || !isCount(sum2) || !isCount(salt1) || !isCount(salt2)) {
    return undefined;
  }
  return { offset, sum1, sum2, salt1, salt2 };
}

function parseMark(value: unknown): FileMark | undefined {
  if (!isRecord(value)) return undefined;
  const { size, mtimeNs, ctimeNs } = value;
  if (!isCount(size) || typeof mtimeNs !== "string" || typeof ctimeNs !== "string") return undefined;
  return { size, mtimeNs, ctimeNs };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}
