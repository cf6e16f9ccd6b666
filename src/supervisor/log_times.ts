/**
 * When which part of a log file was written. The log file itself holds what the program wrote and no more; its times are
 * beside it, in the data folder, in a file named after its inode: so renaming changes nothing. A line each second at most,
 * `<offset> <wall time in ms>`: what is there from the offset on came then or later. Nothing depends on it but the times
 * that `logs` shows and counts from: what fails is forgotten, and what is missing makes them less exact.
 */

import { type AppendFile, type AppendFiles } from "../platform/append_file.ts";
import { readTextIfPresent } from "../platform/files.ts";
import { type LocalFiles, systemFiles } from "../platform/local_files.ts";

export interface TimeMark {
  readonly offset: number;
  readonly wallMs: number;
}

const STEP_MS = 1_000;
/** After so many marks of a file their distance doubles: one that is never rotated must not cost as much again. */
const MARKS_BEFORE_DOUBLING = 4096;
const LONGEST_MARK_BYTES = 40;

const encoder = new TextEncoder();

export class LogTimes {
  readonly #folder: string;
  readonly #files: AppendFiles;
  #file: AppendFile | null = null;
  #marks = 0;
  #lastMs: number | null = null;
  #work: Promise<void> = Promise.resolve();

  /** `folder` is for one process alone. */
  constructor(folder: string, files: AppendFiles) {
    this.#folder = folder;
    this.#files = files;
  }

  /** From now on marks are of this file. */
  opened(inode: number, sizeBytes: number): void {
    this.#marks = 0;
    this.#lastMs = null;
    this.#do(async () => {
      this.#shut();
      await this.#files.makeFolder(this.#folder, 0o700);
      const path = `${this.#folder}/${inode}`;
      // A number that was given again: its times are of another file.
      if (sizeBytes === 0 && await this.#files.exists(path)) await this.#files.remove(path);
      this.#file = await this.#files.open(path, 0o600);
      this.#marks += Math.floor((this.#file.sizeBytes ?? 0) / LONGEST_MARK_BYTES);
    });
  }

  /** `bytes` of this time are in the file from `offset` on. */
  wrote(offset: number, wallMs: number): void {
    const stepMs = STEP_MS * 2 ** Math.floor(this.#marks / MARKS_BEFORE_DOUBLING);
    const last = this.#lastMs;
    if (last !== null && wallMs >= last && wallMs < last + stepMs) return;
    this.#lastMs = wallMs;
    this.#marks++;
    this.#do(async () => {
      await this.#file?.write(encoder.encode(`${offset} ${wallMs}\n`));
    });
  }

  /** What is the file `from` will be `to`. Never rejects. */
  async replace(from: number, to: number): Promise<void> {
    await this.#files.rename(`${this.#folder}/${from}`, `${this.#folder}/${to}`).catch(() => {});
  }

  /** The times of all but these files go. Never rejects. */
  async keepOnly(inodes: readonly number[]): Promise<void> {
    const kept = new Set(inodes.map(String));
    try {
      for (const name of await this.#files.list(this.#folder)) {
        if (!kept.has(name)) await this.#files.remove(`${this.#folder}/${name}`);
      }
    } catch {
      // There are none yet, or they stay until the next time.
    }
  }

  /** Resolves when nothing is written any more. Never rejects. */
  close(): Promise<void> {
    return this.#do(() => Promise.resolve(this.#shut()));
  }

  #do(work: () => Promise<void>): Promise<void> {
    return this.#work = this.#work.then(work).catch(() => {});
  }

  #shut(): void {
    const file = this.#file;
    this.#file = null;
    file?.[Symbol.dispose]();
  }
}

/** In order of the offset; none where nothing is known. */
export async function readTimes(
  folder: string,
  inode: number,
  files: LocalFiles = systemFiles,
): Promise<TimeMark[]> {
  const text = await readTextIfPresent(`${folder}/${inode}`, files).catch(() => null);
  const marks: TimeMark[] = [];
  for (const line of (text ?? "").split("\n")) {
    const [, offset, wallMs] = /^(\d{1,15}) (\d{1,15})$/.exec(line) ?? [];
    if (offset === undefined || Number(offset) < (marks.at(-1)?.offset ?? 0)) continue; // torn
    marks.push({ offset: Number(offset), wallMs: Number(wallMs) });
  }
  return marks;
}

/**
 * Where to begin so that nothing since then is missed; null: all of it is older. `endMs` is when the file was written
 * last. The clock may have been set back meanwhile, so times need not grow.
 */
export function offsetSince(marks: readonly TimeMark[], sinceMs: number, endMs: number): number | null {
  if (endMs < sinceMs && marks.every(({ wallMs }) => wallMs < sinceMs)) return null;
  // Before the first mark: written in an earlier time than it, or nobody knows.
  const [first] = marks;
  if (first === undefined || (first.offset > 0 && first.wallMs > sinceMs)) return 0;
  for (const [index, { offset }] of marks.entries()) {
    const next = marks[index + 1];
    if (next === undefined || next.wallMs >= sinceMs) return offset;
  }
  return 0;
}
