/**
 * Owner and mode of the database files, kept in the head so that another machine makes them alike, also where no
 * checkpoint has told yet. The newest word counts, whatever content is restored: they are for the programs of now.
 * If we die before the head is swapped, the word before counts; without any, who owns the folder.
 */

import type { HeadSession } from "../checkpoint/mod.ts";
import type { DatabaseFile, Head } from "../checkpoint/types.ts";
import type { Clock } from "../platform/clock.ts";
import { AT_CWD, pathBytes, statIfPresent } from "../platform/libc_files.ts";
import { log } from "../platform/log.ts";
import { changeHead } from "./head_changes.ts";

const logger = log("databases");

/** A file is looked at as soon as it is in the bucket; whether somebody changed its mode since, so often. */
const LOOK_INTERVAL_MS = 60_000;

export function databaseFileAt(path: string): DatabaseFile | null {
  const stat = statIfPresent(AT_CWD, pathBytes(path));
  return stat === null ? null : { uid: stat.uid, gid: stat.gid, mode: stat.mode };
}

/** The newest checkpoint that says it speaks for a head of before it said so itself. */
export function recordedFile(head: Head, name: string): DatabaseFile | null {
  const told = head.database_files?.[name];
  if (told !== undefined) return told;
  const record = head.checkpoints.findLast(({ databases }) => databases?.[name]?.file !== undefined);
  return record?.databases?.[name]?.file ?? null;
}

export interface DatabaseFilesOptions {
  readonly head: Pick<HeadSession, "head" | "commit">;
  readonly clock: Clock;
}

export class DatabaseFiles {
  readonly #options: DatabaseFilesOptions;
  readonly #seen = new Set<string>();
  #lookedMs = -Infinity;
  #isRecording = false;

  constructor(options: DatabaseFilesOptions) {
    this.#options = options;
  }

  recorded(name: string): DatabaseFile | null {
    return recordedFile(this.#options.head.head, name);
  }

  /** Databases that are in the bucket. Cheap to call often: nothing is waited for, and nothing written where all is known. */
  look(databases: readonly { readonly name: string; readonly path: string }[]): void {
    const { clock, head } = this.#options;
    const nowMs = clock.monotonicMs();
    const isDue = nowMs - this.#lookedMs >= LOOK_INTERVAL_MS ||
      databases.some(({ name }) => !this.#seen.has(name));
    if (!isDue || this.#isRecording) return;
    this.#lookedMs = nowMs;
    const files: Record<string, DatabaseFile> = {};
    for (const { name, path } of databases) {
      this.#seen.add(name);
      const file = databaseFileAt(path);
      if (file !== null && !isSame(file, this.recorded(name))) files[name] = file;
    }
    if (Object.keys(files).length === 0) return;
    this.#isRecording = true;
    head.commit((before) => changeHead(before, { kind: "database-files", files }))
      .catch((error) => logger.warn("owner and mode of databases not recorded, tried again later", { error }))
      .finally(() => this.#isRecording = false);
  }
}

function isSame(a: DatabaseFile, b: DatabaseFile | null): boolean {
  return a.uid === b?.uid && a.gid === b.gid && a.mode === b.mode;
}
