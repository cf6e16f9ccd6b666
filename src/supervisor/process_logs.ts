/**
 * The output of all processes, in one place that outlives restarts, restores and supervisors: the last lines in memory,
 * the log files, those who follow, and what is passed on. Whoever takes lines slowly costs a bounded queue of his own and
 * makes nobody wait; only a process's own log file and the manager's output may ask a program to pause, for a while.
 */

import { type AppendFiles, systemAppendFiles } from "../platform/append_file.ts";
import type { Clock } from "../platform/clock.ts";
import { LineRing, type NumberedBatch, type OutputLine } from "./line_ring.ts";
import { copyOf, firstOf, noteOf, type OutputBatch } from "./lines.ts";
import { type Compress, logCompressor } from "./log_compressor.ts";
import { LogFile } from "./log_file.ts";
import { LogFollower } from "./log_follower.ts";
import { type LogHistory, openLogFiles } from "./log_history.ts";
import { LogTimes } from "./log_times.ts";
import type { LogFormat } from "./log_format.ts";
import { type Random, randomHex } from "../platform/random.ts";
import { LineBudget, type RateLimit } from "./rate_limit.ts";

/** What is to become of the output of one process. */
export interface LogSpec {
  /** Absolute; null: no file. */
  readonly path: string | null;
  readonly maxSizeBytes: number;
  /** In all, the one that is written among them. */
  readonly maxFiles: number;
  /** block: the program waits while the disk or the reader of our output is slow. drop: lines are dropped. */
  readonly policy: "block" | "drop";
  /** Of files that are rotated away. */
  readonly compression: "none" | "zstd";
  readonly rateLimit: RateLimit | null;
  /** Also to the manager's own output. */
  readonly passThrough: boolean;
  readonly format: LogFormat;
}

/**
 * Takes what goes to the manager's own output, of which it keeps copies; a promise while that is full. Must neither block
 * nor throw. Whoever `waits` for that promise with what comes next loses nothing to a reader that is merely slow.
 */
export type PassOn = (
  name: string,
  numbered: NumberedBatch,
  format: LogFormat,
  waits: boolean,
) => Promise<void> | null;

export interface ProcessLogsOptions {
  readonly clock: Clock;
  readonly passOn: PassOn;
  readonly random: Random;
  readonly files?: AppendFiles;
  /** Where times of log files are kept, a folder for each process; null: nowhere. */
  readonly timesFolder: string | null;
  /** Told when the log file of a process cannot be written, and with null when it can again. */
  readonly onTrouble: (name: string, path: string, error: Error | null) => void;
}

interface Entry {
  spec: LogSpec;
  readonly ring: LineRing;
  readonly followers: Set<LogFollower>;
  file: LogFile | null;
  /** How much former files took: positions in the file go on from there. */
  position: number;
  budget: LineBudget | null;
  suppressed: number;
  /** When the last summary of suppressed lines was written. */
  toldAtMs: number;
}

/** Names that somebody may follow before their first line; a configuration has fewer. */
const MOST_NAMES = 1024;
/** A program far above its limit gets a summary this often. */
const SUMMARY_EVERY_MS = 1_000;
/** A file may be moved by others while one looks: then it is looked again. */
const MOST_LOOKS = 5;
/** Longest wait for the file that a changed configuration no longer names. */
const CLOSE_MS = 2_000;

export class ProcessLogs {
  readonly #options: ProcessLogsOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #compress: Compress;
  /** The numbers of lines begin anew with each manager: this says which one counted. */
  readonly runId: string;

  constructor(options: ProcessLogsOptions) {
    this.#options = options;
    this.#compress = logCompressor(options.clock);
    this.runId = randomHex(options.random, 4);
  }

  /** Says what becomes of the output of `name` from now on; a file that stays the same stays open. */
  configure(name: string, spec: LogSpec): void {
    const entry = this.#entry(name);
    const before = entry.spec;
    entry.spec = spec;
    const { clock } = this.#options;
    entry.budget = spec.rateLimit === null ? null : new LineBudget(spec.rateLimit, clock.monotonicMs());
    // A second writer of the same file would rotate it under the first.
    if (entry.file !== null && before.path === spec.path) return entry.file.adjust(spec);
    entry.position = entry.file?.position ?? entry.position;
    void entry.file?.close(CLOSE_MS);
    const files = this.#options.files ?? systemAppendFiles;
    const timesFolder = this.#timesFolder(name);
    entry.file = spec.path === null ? null : new LogFile({
      ...spec,
      path: spec.path,
      clock,
      files,
      times: timesFolder === null ? null : new LogTimes(timesFolder, files),
      firstPosition: entry.position,
      compress: this.#compress,
      onTrouble: (error) => this.#options.onTrouble(name, spec.path ?? "", error),
    });
  }

  /** As the supervisor's `OutputHandler`. */
  readonly take = (name: string, batch: OutputBatch): Promise<void> | null => {
    const entry = this.#entry(name);
    if (entry.budget === null) return this.#spread(name, entry, batch);
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs >= entry.toldAtMs + SUMMARY_EVERY_MS) this.#tellSuppressed(name, entry);
    const count = entry.budget.take(batch.count, nowMs);
    entry.suppressed += batch.count - count;
    return count === 0 ? null : this.#spread(name, entry, firstOf(batch, count));
  };

  /** The last lines of a process, oldest first; empty for one that never said anything. */
  last(name: string, limit?: number): OutputLine[] {
    return this.#entries.get(name)?.ring.last(limit) ?? [];
  }

  /**
   * What the log file and those rotated away hold of what was said before the lines that are kept in memory when this is
   * called. Null: there is no such file, or it cannot be told where in it they begin. The caller disposes of it.
   */
  async history(name: string): Promise<LogHistory | null> {
    const entry = this.#entries.get(name);
    const { file, spec } = entry ?? {};
    if (entry === undefined || !file || !spec || spec.path === null) return null;
    const { path, maxFiles } = spec;
    const position = entry.ring.filePosition ?? file.position;
    for (let tries = 0; tries < MOST_LOOKS; tries++) {
      const at = await file.at(position, () => openLogFiles(path, this.#timesFolder(name), maxFiles));
      if (at === null) return null;
      if (at.found.endAt(at.place)) return at.found;
      at.found[Symbol.dispose]();
    }
    return null;
  }

  /** Numbers of the oldest and the newest line that are kept; the oldest is one more than the newest where none is. */
  numbers(name: string): { readonly first: number; readonly last: number } {
    const { ring } = this.#entry(name);
    return { first: ring.firstSequence, last: ring.sequence };
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** Everything of `name` that is kept after the number `after`, and then what comes. The caller closes it. */
  follow(name: string, after: number): LogFollower {
    const { ring, followers } = this.#entry(name);
    const follower = new LogFollower(ring.after(after), () => followers.delete(follower));
    followers.add(follower);
    return follower;
  }

  /** Log files are opened anew by their names: somebody moved them away. */
  reopen(): void {
    for (const { file } of this.#entries.values()) file?.reopen();
  }

  /** Writes what waits, at most `limitMs`; nothing is taken into files afterwards. */
  async close(limitMs: number): Promise<void> {
    await Promise.all([...this.#entries].map(async ([name, entry]) => {
      this.#tellSuppressed(name, entry);
      await entry.file?.close(limitMs);
      for (const follower of [...entry.followers]) follower.close();
    }));
  }

  #entry(name: string): Entry {
    const known = this.#entries.get(name);
    if (known !== undefined) return known;
    const entry: Entry = {
      spec: {
        path: null,
        maxSizeBytes: 0,
        maxFiles: 1,
        policy: "drop",
        compression: "none",
        rateLimit: null,
        passThrough: true,
        format: "prefix",
      },
      ring: new LineRing(),
      followers: new Set(),
      file: null,
      position: 0,
      budget: null,
      suppressed: 0,
      toldAtMs: -Infinity,
    };
    if (this.#entries.size < MOST_NAMES) this.#entries.set(name, entry);
    return entry;
  }

  #timesFolder(name: string): string | null {
    const { timesFolder } = this.#options;
    return timesFolder === null ? null : `${timesFolder}/${name}`;
  }

  #tellSuppressed(name: string, entry: Entry): void {
    if (entry.suppressed === 0) return;
    const text = `${entry.suppressed} lines of ${name} suppressed by logs.rate_limit`;
    entry.suppressed = 0;
    entry.toldAtMs = this.#options.clock.monotonicMs();
    this.#spread(name, entry, noteOf(text, this.#options.clock.wallMs()));
  }

  #spread(name: string, entry: Entry, batch: OutputBatch): Promise<void> | null {
    const { spec, file } = entry;
    const before = file?.position ?? entry.position;
    const disk = file?.push(batch) ?? null;
    const end = file?.position ?? entry.position;
    const numbered = entry.ring.push(batch, { end, isTaken: end > before });
    if (entry.followers.size > 0) {
      const kept = { ...numbered, batch: copyOf(batch) };
      for (const follower of entry.followers) follower.push(kept);
    }
    const waits = spec.policy === "block";
    const reader = spec.passThrough ? this.#options.passOn(name, numbered, spec.format, waits) : null;
    if (!waits) return null;
    if (disk === null || reader === null) return disk ?? reader;
    return Promise.all([disk, reader]).then(() => {});
  }
}
