/** Shapes of a verification: what is asked, and what is told of each damaged or missing object. */

import type { IndexRef } from "./index_store.ts";
import type { CheckpointRecord, Head } from "./types.ts";

/**
 * 1: head, root objects and indexes are there and right, packs are there with the right size. 2: also their footers.
 * 3: also so many percent of the packs are read, every chunk proven, and every file's chunks known. 4: all packs are
 * read, everything is restored to scratch, and SQLite checks the databases in it.
 */
export type VerifyLevel = 1 | 2 | 3 | 4;

export interface VerifyRequest {
  /** Id of one checkpoint; null: all, and every pack that the indexes name. */
  readonly checkpoint: string | null;
  readonly level: VerifyLevel;
  /** Of the packs, 0 to 100; counts at level 3. */
  readonly percent: number;
  /** What a running manager knows of the head, when the store's cannot be read or is an older one. */
  readonly known: KnownHead | null;
}

export type KnownHead = Pick<Head, "repo_id" | "seq" | "current" | "checkpoints"> & {
  readonly indexes: readonly IndexRef[];
};

export interface HurtFile {
  /** Name of the files root. */
  readonly root: string;
  /** Raw bytes that are not UTF-8 shown as \xNN. Null: names that are not known, their list is lost. */
  readonly path: string | null;
}

export interface Finding {
  /** Key of the object; for a chunk that no index knows, `chunk <id>`. */
  readonly object: string;
  readonly problem: "missing" | "damaged";
  readonly detail: string;
  /** Checkpoints that need it, oldest first; none: garbage, or what the next checkpoint would build on. */
  readonly checkpoints: readonly { readonly id: string; readonly n: number }[];
  /** The first of them; the number of all is `files_total`. */
  readonly files: readonly HurtFile[];
  readonly filesTotal: number;
}

export interface VerifyResult {
  readonly level: VerifyLevel;
  readonly percent: number;
  readonly checkpoints: number;
  readonly packs: number;
  /** Packs that were read as a whole. */
  readonly packsRead: number;
  readonly bytesRead: number;
  /** Wall time since which every pack in question was read at least once; null: some never were, or it is not kept. */
  readonly allReadSinceMs: number | null;
  /** Databases that SQLite found sound after a restore to scratch. */
  readonly databasesChecked: number;
  /** Positions of replicated databases whose files were looked at; by whoever knows the replicas. */
  readonly positionsChecked: number;
  /** At most `FINDINGS_LIMIT`. */
  readonly findings: readonly Finding[];
  readonly findingsTotal: number;
  readonly durationMs: number;
}

/** Findings and files told one by one; of the rest only the number. */
export const FINDINGS_LIMIT = 1000;
export const FILES_PER_FINDING_LIMIT = 100;

/** The chosen records of a head. */
export type RecordsInQuestion = readonly CheckpointRecord[];
