/**
 * What a process said before it ended unexpectedly, one file a crash, so that later output and rotation do not bury it:
 * `<folder>/<process>/<time>-<cause>.log`. The newest are kept. No secrets of ours: of the environment only the names,
 * of the command only the program. Writing is never waited for, and what fails is told and forgotten.
 */

import type { Clock } from "../platform/clock.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { ensureFolder, localFileError, readBytesIfPresent, writeFileAtomically } from "../platform/files.ts";
import { isMissing, type LocalFiles, systemFiles } from "../platform/local_files.ts";
import type { OutputLine } from "./line_ring.ts";
import { describeCause } from "./restart.ts";
import type { ExitCause } from "./types.ts";

export interface CrashReport {
  readonly name: string;
  readonly wallMs: number;
  readonly cause: ExitCause;
  readonly uptimeMs: number;
  readonly pid: number | null;
  readonly incarnation: number;
  /** Why the manager ended it (it was unwell); null: it ended by itself. */
  readonly restartFor: string | null;
  readonly program: string;
  readonly cwd: string | null;
  /** Names of variables. */
  readonly environment: readonly string[];
  /** Anything worth knowing of its limits. */
  readonly limits: Readonly<Record<string, unknown>>;
  /** Oldest first. */
  readonly lines: readonly OutputLine[];
}

export interface CrashInfo {
  /** File name without ".log". */
  readonly id: string;
  readonly time: string;
  readonly cause: string;
  readonly bytes: number;
}

/** Lines that a report has: what came before a stack trace, and the trace. */
export const CRASH_LINES = 200;
/** Crashes kept of each process. */
export const CRASHES_KEPT = 10;
/** Longest part of a file that is lines; the newest of them. */
const CRASH_LINES_BYTES = 128 * 1024;
/** Reports that wait for a slow disk; a crash loop must not fill the memory. */
const MOST_WAITING = 32;

const ID = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{3})Z-([A-Za-z0-9-]{1,40})$/;

export class CrashFiles {
  readonly #folder: string;
  readonly #files: LocalFiles;
  readonly #onTrouble: (error: StateManagerError) => void;
  #waiting = 0;
  #work: Promise<void> = Promise.resolve();

  constructor(
    folder: string,
    onTrouble: (error: StateManagerError) => void,
    files: LocalFiles = systemFiles,
  ) {
    this.#folder = folder;
    this.#onTrouble = onTrouble;
    this.#files = files;
  }

  /** Returns at once; the file comes soon after. */
  add(report: CrashReport): void {
    if (this.#waiting >= MOST_WAITING) return;
    this.#waiting++;
    this.#work = this.#work.then(() => this.#write(report)).catch((error) => {
      this.#onTrouble(isError(error) ? error : localFileError(`keep the crash of ${report.name}`, error));
    }).finally(() => this.#waiting--);
  }

  /** Resolves when all that was added is written or given up. */
  idle(): Promise<void> {
    return this.#work;
  }

  /** The same, but waits at most `limitMs`: for the way out. */
  async flush(clock: Clock, limitMs: number): Promise<void> {
    const done = new AbortController();
    await Promise.race([this.#work, clock.sleep(limitMs, { signal: done.signal }).catch(() => {})]);
    done.abort();
  }

  /** Newest first. */
  async list(name: string): Promise<CrashInfo[]> {
    const ids = await this.#ids(name);
    const found = await Promise.all(ids.map(async (id): Promise<CrashInfo | null> => {
      const facts = await this.#files.stat(this.#path(name, id)).catch(() => null);
      return facts === null ? null : { id, ...partsOf(id), bytes: facts.sizeBytes };
    }));
    return found.filter((info) => info !== null);
  }

  /** `not-found` when there is none of this id. */
  async read(name: string, id: string): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = ID.test(id) ? await readBytesIfPresent(this.#path(name, id), this.#files) : null;
    if (bytes !== null) return bytes;
    throw new StateManagerError("not-found", "read the crash: there is none of this id", {
      hint: "they may have been replaced by newer ones; GET /processes/NAME/crashes lists them",
    });
  }

  #path(name: string, id: string): string {
    return `${this.#folder}/${name}/${id}.log`;
  }

  async #write(report: CrashReport): Promise<void> {
    await ensureFolder(`${this.#folder}/${report.name}`, 0o700, this.#files);
    const path = this.#path(report.name, idOf(report));
    await writeFileAtomically(path, crashText(report), { mode: 0o600, files: this.#files });
    // If we die here, then there is one too many until the next crash.
    for (const id of (await this.#ids(report.name)).slice(CRASHES_KEPT)) {
      await this.#files.remove(this.#path(report.name, id));
    }
  }

  /** Newest first. */
  async #ids(name: string): Promise<string[]> {
    try {
      const entries = await this.#files.list(`${this.#folder}/${name}`);
      return entries.map((entry) => entry.name.replace(/\.log$/, "")).filter((id) => ID.test(id)).sort()
        .reverse();
    } catch (error) {
      if (isMissing(error)) return [];
      throw localFileError(`list the crashes of ${name}`, error);
    }
  }
}

function idOf({ wallMs, cause }: CrashReport): string {
  const time = new Date(wallMs).toISOString().replace(/[-:.]/g, "");
  const what = cause.kind === "exit"
    ? `exit-${cause.code}`
    : cause.kind === "signal"
    ? `${cause.signal}${cause.oom === true ? "-oom" : ""}`
    : "spawn-error";
  return `${time}-${what}`;
}

function partsOf(id: string): { time: string; cause: string } {
  const [, year, month, day, hour, minute, second, ms, cause = ""] = ID.exec(id) ?? [];
  return { time: `${year}-${month}-${day}T${hour}:${minute}:${second}.${ms}Z`, cause };
}

/** The file: facts, an empty line, the last lines. */
export function crashText(report: CrashReport): string {
  const { name, wallMs, cause, uptimeMs, pid, incarnation, restartFor, program, cwd, environment, limits } =
    report;
  const facts = [
    `process: ${name}`,
    `time: ${new Date(wallMs).toISOString()}`,
    `cause: ${oneLine(describeCause(cause))}`,
    ...(restartFor === null ? [] : [`restarted_for: ${restartFor}`]),
    `uptime_seconds: ${Math.round(uptimeMs) / 1000}`,
    `pid: ${pid ?? "-"}`,
    `incarnation: ${incarnation}`,
    `program: ${JSON.stringify(program)}`,
    `cwd: ${cwd === null ? "-" : JSON.stringify(cwd)}`,
    `limits: ${JSON.stringify(limits)}`,
    `environment: ${[...environment].sort().join(" ")}`,
  ];
  const lines: string[] = [];
  let length = 0;
  for (const line of report.lines.slice(-CRASH_LINES).reverse()) {
    const text = `${new Date(line.wallMs).toISOString()} ${line.stream}${
      line.partial ? "+" : ""
    } ${line.text}`;
    length += 3 * text.length; // UTF-8 takes at most three bytes of one unit
    if (length > CRASH_LINES_BYTES) break;
    lines.push(text);
  }
  return [...facts, `last_lines: ${lines.length}`, "", ...lines.reverse(), ""].join("\n");
}

function oneLine(text: string): string {
  return text.replaceAll("\n", " ").slice(0, 1000);
}
