/**
 * The log file of one process. Writes are asynchronous and joined, so a slow disk never holds the manager up; what waits
 * for it is bounded. With the policy `block` the program waits in its own write when the disk is slow, with `drop` lines
 * are dropped. A disk that refuses (full, gone) never makes a program wait: lines are dropped until it takes some again.
 * Where lines are missing the file says how many.
 */

import type { AppendFile, AppendFiles } from "../platform/append_file.ts";
import type { Clock } from "../platform/clock.ts";
import type { OutputBatch } from "./lines.ts";
import type { Compress } from "./log_compressor.ts";
import { COMPRESSED, nextToCompress, rotateAway, rotatedInodes } from "./log_rotation.ts";
import type { LogTimes } from "./log_times.ts";

export interface LogFileOptions {
  /** Absolute. */
  readonly path: string;
  readonly maxSizeBytes: number;
  readonly maxFiles: number;
  readonly policy: "block" | "drop";
  /** What is to become of files that are rotated away. */
  readonly compression: "none" | "zstd";
  readonly files: AppendFiles;
  readonly compress: Compress;
  readonly clock: Clock;
  /** Of the file; null: nobody wants them. */
  readonly times: LogTimes | null;
  /** Positions are counted from here: those before it are of another file. */
  readonly firstPosition: number;
  /** Told once when writing begins to fail, and with null when it works again. */
  readonly onTrouble: (error: Error | null) => void;
}

/** What may change while the file stays open. */
export type LogLimits = Pick<LogFileOptions, "maxSizeBytes" | "maxFiles" | "policy" | "compression">;

/**
 * What waits for the disk: half a second of a very talkative program, little enough for a hundred of them. Where a program
 * waits there is room for a read of each of its streams beyond what it may have before it is asked to.
 */
const QUEUE_LIMIT_BYTES = 9 << 18;
/** Joined into one write: a call on another thread costs as much as copying this. */
const WRITE_BYTES = 512 * 1024;
/** From here on a program that can wait is asked to: one write is under way, and another one ready. */
const WAIT_FROM_BYTES = 2 * WRITE_BYTES;
const GO_ON_BYTES = WRITE_BYTES;
/** Bytes that came in this time have one time. */
const TIMED_BLOCK_MS = 1_000;
const MOST_TIMED_BLOCKS = 16;
/** After a write that failed. */
const RETRY_AFTER_MS = 1_000;
/** Longest wait until what was said is in the file, for who reads it there. */
const SETTLE_MS = 2_000;
/** Losses remembered: readers look back over a thousand lines. */
const MOST_LOSSES = 32;
/** A line without end is cut where the file has this many times its size. */
const LONGEST_LINE_FILES = 2;
/** Readable by the group: log shippers run as other users. */
const FILE_MODE = 0o640;
const FOLDER_MODE = 0o750;

const NEWLINE = 10;

/** What is written at once, or waits for it. */
interface Block {
  readonly memory: Uint8Array<ArrayBuffer>;
  /** Bytes of it that are filled. */
  length: number;
  /** When its first bytes came. */
  readonly wallMs: number;
  /** For the record of a gap, which is by itself: the lines that it tells of. */
  readonly gap: number | null;
}

/** Bytes that were to be written and were not. */
interface Loss {
  readonly from: number;
  readonly to: number;
}

/** Where a position lies: so many bytes before the end of the file that is written, whose length is known. */
export interface PlaceInFile {
  /** The current file, whatever its name is by now; null: nothing was written by us yet, so all there is counts. */
  readonly inode: number | null;
  /** Bytes of it that count. */
  readonly sizeBytes: number;
  readonly bytesBack: number;
}

const LINE_END = Uint8Array.of(NEWLINE);
const encoder = new TextEncoder();

/** Blocks that nobody uses just now. They are filled again and again: new memory costs as much as what is copied into it. */
const free: Uint8Array<ArrayBuffer>[] = [];
const MOST_FREE = 4;

export class LogFile {
  #options: LogFileOptions;
  #queue: Block[] = [];
  #queuedBytes = 0;
  /** Stream of the line that is under way in the queue's end; null: none is. */
  #openLine: OutputBatch["stream"] | null = null;
  /** Lines that were dropped since the last one that was kept, and why. */
  #dropped = 0;
  #why = "";
  #file: AppendFile | null = null;
  #sizeBytes: number | null = null;
  /** False while the file ends in the middle of a line. */
  #atLineStart = true;
  #failedAtMs = -Infinity;
  #failing = false;
  #rotationFailedAtMs = -Infinity;
  #mustReopen = false;
  #rotations = 0;
  /** Renamings, one after the other. */
  #renaming: Promise<void> = Promise.resolve();
  /** Null: nothing is compressed just now. */
  #compressing: Promise<void> | null = null;
  #working = false;
  #closed = false;
  #waiters: (() => void)[] = [];
  #idle: (() => void)[] = [];
  /** Bytes that were taken so far, those that were lost among them: what a position counts. */
  #taken: number;
  /** Of these, how many are written or lost. */
  #passed: number;
  #losses: Loss[] = [];
  /** Positions before it cannot be found: the file that they are in was moved away, nobody knows where. */
  #findableFrom: number;
  #inode: number | null = null;
  /** Since the last opening. */
  #hasRotated = false;
  /** Waiting for something to be written or lost. */
  #readers: (() => void)[] = [];

  constructor(options: LogFileOptions) {
    this.#options = options;
    this.#taken = options.firstPosition;
    this.#passed = options.firstPosition;
    this.#findableFrom = options.firstPosition;
  }

  /** The place behind all that was taken. */
  get position(): number {
    return this.#taken;
  }

  /** Takes a copy of a batch; a promise where the program should wait. Never throws, the promise never rejects. */
  push(batch: OutputBatch): Promise<void> | null {
    const { clock, policy } = this.#options;
    if (this.#closed) return null;
    if (this.#failing && clock.monotonicMs() < this.#failedAtMs + RETRY_AFTER_MS) {
      this.#drop(batch.count, this.#why);
      return null;
    }
    if (this.#queuedBytes + batch.bytes.length > QUEUE_LIMIT_BYTES) {
      this.#drop(batch.count, "the disk is slow");
      return null;
    }
    if (this.#dropped > 0) this.#enqueueGap();
    // Another stream's line, or the first of a new incarnation, does not go on with what another left open.
    if (this.#openLine !== null && (this.#openLine !== batch.stream || batch.firstPart === 0)) {
      this.#enqueue(LINE_END, batch.wallMs);
    }
    this.#enqueue(batch.bytes, batch.wallMs);
    this.#openLine = batch.bytes.at(-1) === NEWLINE ? null : batch.stream;
    if (!this.#working) void this.#work();
    if (policy === "drop" || this.#queuedBytes <= WAIT_FROM_BYTES) return null;
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /**
   * What `look` makes of the files while none is renamed or opened, and where `position` lies then. Null: that cannot be
   * told, or the disk is too slow.
   */
  async at<T extends Disposable>(
    position: number,
    look: () => Promise<T | null>,
  ): Promise<{ found: T; place: PlaceInFile } | null> {
    const { clock } = this.#options;
    const deadlineMs = clock.monotonicMs() + SETTLE_MS;
    while (this.#passed < position) {
      if (clock.monotonicMs() >= deadlineMs || this.#closed) return null;
      await this.#until(deadlineMs, new Promise<void>((resolve) => this.#readers.push(resolve)));
    }
    let late = false;
    const looked = this.#alone(async () => {
      const found = late ? null : await look();
      const place = this.#placeOf(position);
      if (found !== null && place !== null) return { found, place };
      found?.[Symbol.dispose]();
      return null;
    });
    const result = await this.#until(deadlineMs, looked);
    if (result !== undefined) return result;
    late = true;
    looked.then((tooLate) => tooLate?.found[Symbol.dispose](), () => {});
    return null;
  }

  #placeOf(position: number): PlaceInFile | null {
    const from = Math.max(position, this.#options.firstPosition);
    if (from < this.#findableFrom) return null;
    let bytesBack = this.#passed - from;
    for (const loss of this.#losses) bytesBack -= Math.max(0, loss.to - Math.max(from, loss.from));
    return { inode: this.#inode, sizeBytes: this.#sizeBytes ?? 0, bytesBack };
  }

  /** Undefined when the time has come first. */
  async #until<T>(deadlineMs: number, what: Promise<T>): Promise<T | void> {
    const { clock } = this.#options;
    const done = new AbortController();
    const waited = clock.sleep(Math.max(0, deadlineMs - clock.monotonicMs()), { signal: done.signal });
    try {
      return await Promise.race([what, waited.catch(() => {})]);
    } finally {
      done.abort();
    }
  }

  /** Other limits or another policy for the same file, from now on. */
  adjust(change: LogLimits): void {
    const { maxSizeBytes, maxFiles, policy, compression } = change;
    this.#options = { ...this.#options, maxSizeBytes, maxFiles, policy, compression };
  }

  /** Opens the file anew by its name with the next write: somebody moved it away. */
  reopen(): void {
    this.#mustReopen = true;
    this.#failedAtMs = -Infinity;
  }

  /** Writes what waits and ends what is done to rotated files, at most `limitMs`, and closes. */
  async close(limitMs: number): Promise<void> {
    const { clock } = this.#options;
    this.#closed = true;
    if (this.#dropped > 0) this.#enqueueGap();
    if (this.#queuedBytes > 0 && !this.#working) void this.#work();
    await this.#until(clock.monotonicMs() + limitMs, this.#allDone());
    if (!this.#working) this.#shut(); // else the write that hangs still needs it; the process ends soon
  }

  async #allDone(): Promise<void> {
    if (this.#working) await new Promise<void>((resolve) => this.#idle.push(resolve));
    await this.#compressing;
    await this.#renaming;
    await this.#options.times?.close();
  }

  /** Joins what is waiting anyway; what is alone gets memory of its own size. */
  #enqueue(bytes: Uint8Array<ArrayBuffer>, wallMs: number): void {
    this.#queuedBytes += bytes.length;
    this.#taken += bytes.length;
    for (let rest = bytes; rest.length > 0;) {
      let block = this.#queue.at(-1);
      const isFull = block === undefined || block.gap !== null || block.length === block.memory.length;
      if (block === undefined || isFull || this.#isOld(block, wallMs)) {
        const isBusy = this.#working || rest.length > WRITE_BYTES / 2;
        const memory = isBusy ? free.pop() ?? new Uint8Array(WRITE_BYTES) : new Uint8Array(rest.length);
        this.#queue.push(block = { memory, length: 0, wallMs, gap: null });
      }
      const fits = rest.subarray(0, block.memory.length - block.length);
      block.memory.set(fits, block.length);
      block.length += fits.length;
      rest = rest.subarray(fits.length);
    }
  }

  /** So that times are told well on a slow disk, too; one that hangs is not worth memory. */
  #isOld(block: Block, wallMs: number): boolean {
    return Math.abs(wallMs - block.wallMs) >= TIMED_BLOCK_MS && this.#queue.length < MOST_TIMED_BLOCKS;
  }

  #drop(lines: number, why: string): void {
    this.#dropped += lines;
    this.#why = why;
  }

  #enqueueGap(): void {
    const lineEnd = this.#openLine === null ? "" : "\n";
    this.#openLine = null;
    const bytes = encoder.encode(`${lineEnd}state-manager: ${this.#dropped} lines dropped: ${this.#why}\n`);
    const wallMs = this.#options.clock.wallMs();
    this.#queue.push({ memory: bytes, length: bytes.length, wallMs, gap: this.#dropped });
    this.#queuedBytes += bytes.length;
    this.#taken += bytes.length;
    this.#dropped = 0;
  }

  async #work(): Promise<void> {
    this.#working = true;
    for (let block = this.#queue.shift(); block !== undefined; block = this.#queue.shift()) {
      const bytes = block.memory.subarray(0, block.length);
      let written = 0;
      try {
        while (written < bytes.length) {
          written += await this.#writeSome(bytes.subarray(written), block.wallMs);
        }
        this.#recovered();
      } catch (error) {
        this.#failed(error, block.gap ?? linesIn(bytes.subarray(written)), bytes.length - written);
      }
      this.#queuedBytes -= bytes.length;
      giveBack(block.memory);
      for (const wake of this.#readers.splice(0)) wake();
      if (this.#queuedBytes <= GO_ON_BYTES) {
        for (const wake of this.#waiters.splice(0)) wake();
      }
    }
    this.#working = false;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  async #writeSome(bytes: Uint8Array, wallMs: number): Promise<number> {
    const { clock, times } = this.#options;
    if (this.#mustReopen) this.#shut();
    if (this.#file === null) await this.#alone(() => this.#open());
    let room = this.#roomFor(bytes);
    if (room === 0) {
      if (clock.monotonicMs() >= this.#rotationFailedAtMs + RETRY_AFTER_MS) await this.#rotate();
      room = this.#roomFor(bytes) || bytes.length;
    }
    const count = await this.#file?.write(bytes.subarray(0, room)) ?? 0;
    if (count === 0) throw new Error("the write took nothing");
    this.#passed += count;
    if (this.#sizeBytes !== null) {
      times?.wrote(this.#sizeBytes, wallMs);
      this.#sizeBytes += count;
    }
    this.#atLineStart = bytes[count - 1] === NEWLINE;
    return count;
  }

  /** How many of the bytes go into this file: whole lines where that can be; 0: rotate first. */
  #roomFor(bytes: Uint8Array): number {
    const size = this.#sizeBytes;
    const { maxSizeBytes } = this.#options;
    if (size === null || size + bytes.length <= maxSizeBytes) return bytes.length;
    const room = maxSizeBytes - size;
    const cut = room > 0 ? bytes.lastIndexOf(NEWLINE, room - 1) + 1 : 0;
    if (cut > 0) return cut;
    const most = LONGEST_LINE_FILES * maxSizeBytes - size;
    if (size > 0 && (this.#atLineStart || most <= 0)) return 0;
    const end = bytes.indexOf(NEWLINE) + 1;
    return Math.min(end > 0 ? end : bytes.length, most);
  }

  /** Only under `#alone`: who looks at the files finds those that `#inode` and `#sizeBytes` tell of. */
  async #open(): Promise<void> {
    const { files, path } = this.#options;
    await files.makeFolder(path.slice(0, path.lastIndexOf("/")) || "/", FOLDER_MODE);
    const file = await files.open(path, FILE_MODE);
    // The one before is where a rotation puts it, or nobody knows where.
    const isKnown = this.#inode === null || this.#hasRotated || this.#inode === file.inode ||
      await files.inode(`${path}.1`).catch(() => null) === this.#inode;
    const isOther = this.#inode !== file.inode;
    this.#file = file;
    this.#sizeBytes = file.sizeBytes;
    this.#inode = file.inode;
    this.#hasRotated = false;
    if (!isKnown) this.#findableFrom = this.#passed;
    if (file.sizeBytes === null) return;
    if (isOther && file.inode !== null) this.#keepTimes(file.inode, file.sizeBytes);
    this.#compressing ??= this.#compressRotated().finally(() => this.#compressing = null);
  }

  #keepTimes(inode: number, sizeBytes: number): void {
    const { files, path, times } = this.#options;
    if (times === null) return;
    times.opened(inode, sizeBytes);
    void this.#alone(async () => {
      const known = await rotatedInodes(path, this.#options, files);
      await times.keepOnly([inode, ...known]);
    }).catch(() => {});
  }

  /** Until all are compressed. What fails is left as it is until the next rotation. */
  async #compressRotated(): Promise<void> {
    try {
      while (!this.#closed && this.#options.compression === "zstd") {
        if (!await this.#compressNext()) break;
      }
    } catch {
      // A full disk, most likely: the file stays as it is, and what was made of it makes room.
      await this.#options.files.remove(this.#partPath).catch(() => {});
    }
  }

  get #partPath(): string {
    return `${this.#options.path}.part${COMPRESSED}`;
  }

  async #compressNext(): Promise<boolean> {
    const { path, files, compress } = this.#options;
    const found = await this.#alone(async () => {
      const number = await nextToCompress(path, this.#options, files);
      return number === null ? null : { number, rotations: this.#rotations };
    });
    if (found === null) return false;
    const part = this.#partPath;
    const inode = await compress({ from: `${path}.${found.number}`, to: part, mode: FILE_MODE });
    await this.#alone(async () => {
      const number = found.number + this.#rotations - found.rotations;
      const plain = `${path}.${number}`;
      // Its name may have gone to another file before the Worker opened it, and it may be gone.
      const isThere = number < this.#options.maxFiles && inode !== null && await files.inode(plain) === inode;
      if (!isThere) return await files.remove(part);
      const compressedInode = await files.inode(part);
      if (compressedInode !== null) await this.#options.times?.replace(inode, compressedInode);
      await files.rename(part, `${plain}${COMPRESSED}`);
      // If we die here, then it is there in both forms, and is compressed once more.
      await files.remove(plain);
    });
    return true;
  }

  /** No other renaming goes on meanwhile. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#renaming.then(work);
    this.#renaming = done.then(() => {}, () => {});
    return done;
  }

  /** If it fails the same file is written on: lines are worth more than its size. */
  async #rotate(): Promise<void> {
    const { path, files, clock, onTrouble } = this.#options;
    this.#shut();
    await this.#alone(async () => {
      try {
        await rotateAway(path, this.#options, files);
        this.#rotations++;
        this.#hasRotated = true;
      } catch (error) {
        this.#rotationFailedAtMs = clock.monotonicMs();
        onTrouble(error instanceof Error ? error : new Error(String(error)));
      }
      await this.#open();
    });
  }

  #shut(): void {
    this.#mustReopen = false;
    this.#file?.[Symbol.dispose]();
    this.#file = null;
  }

  #recovered(): void {
    if (!this.#failing) return;
    this.#failing = false;
    this.#options.onTrouble(null);
  }

  #failed(error: unknown, lostLines: number, lostBytes: number): void {
    const from = this.#passed;
    this.#passed += lostBytes;
    const { clock, onTrouble } = this.#options;
    const trouble = error instanceof Error ? error : new Error(String(error));
    this.#drop(lostLines, reasonOf(trouble));
    for (const { memory, length, gap } of this.#queue.splice(0)) {
      this.#dropped += gap ?? linesIn(memory.subarray(0, length));
      this.#queuedBytes -= length;
      this.#passed += length;
      giveBack(memory);
    }
    this.#losses.push({ from, to: this.#passed });
    if (this.#losses.length > MOST_LOSSES) this.#findableFrom = this.#losses.shift()?.to ?? this.#passed;
    if (!this.#failing) onTrouble(trouble);
    this.#failing = true;
    this.#failedAtMs = clock.monotonicMs();
    this.#openLine = this.#atLineStart ? null : "note";
    try {
      this.#shut(); // opened anew next time: its disk may have been replaced
    } catch {
      this.#file = null;
    }
  }
}

function giveBack(memory: Uint8Array<ArrayBuffer>): void {
  if (memory.length === WRITE_BYTES && free.length < MOST_FREE) free.push(memory);
}

function linesIn(bytes: Uint8Array): number {
  let lines = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) lines++;
  return Math.max(1, lines);
}

/** "No space left on device", without the number. */
function reasonOf(error: Error): string {
  return error.message.replace(/ ?\(os error \d+\).*$/s, "").replaceAll("\n", " ");
}
