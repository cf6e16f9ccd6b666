/**
 * Where a follower may die, by name, and how a test makes it die there: killed as it makes a system call (by strace), or
 * as a request of its comes to the store or is done there (by the proxy). docs/replication.md says what each leaves.
 */

import { stagePathOf } from "../../src/database/database_swap.ts";
import { ltxName } from "../../src/database/ltx/mod.ts";
import type { ProxyFault } from "./fault_proxy.ts";

/** The files that a call may be about. */
export interface CrashFiles {
  readonly database: string;
  /** The manager's data folder. */
  readonly data: string;
  /** Newest local TXID when the trap is set. */
  readonly txid: number;
}

/** The first of such calls, or the n-th, of any thread; it is not made any more. */
export interface CallTrap {
  readonly by: "call";
  /** Names of system calls, with commas between. */
  readonly calls: string;
  readonly paths: (files: CrashFiles) => readonly string[];
  readonly nth?: number;
  /** Then it is only stopped there, with that call made, and dies at the first of these. */
  readonly then?: { readonly calls: string; readonly paths: (files: CrashFiles) => readonly string[] };
}

export interface RequestTrap extends Pick<ProxyFault, "operation" | "when"> {
  readonly by: "request";
  /** Of the key, below the database's own prefix. */
  readonly under: string;
  /** Before that a put is done and its answer lost, so that it is asked for. */
  readonly inDoubt?: boolean;
}

export interface CrashPoint {
  readonly name: string;
  readonly trap: CallTrap | RequestTrap;
  /**
   * running: as it follows. start: a follower that begins. start-unknown: one that finds no note of its position. The
   * others are points of a manager's life: a machine that takes over, and the end.
   */
  readonly life: "running" | "start" | "start-unknown" | "take-over" | "seal" | "end";
}

const SYNC = "fsync,fdatasync";
const RENAME = "rename,renameat,renameat2";
const UNLINK = "unlink,unlinkat";
/** TXIDs that may be next: a trap takes a moment to be set. */
const AHEAD = 60;

const folder = ({ data }: CrashFiles) => `${data}/databases/app`;
const commits = (files: CrashFiles, from: number, suffix = "") =>
  Array.from({ length: AHEAD }, (_, n) => files.txid + from + n).filter((txid) => txid > 0)
    .map((txid) => `${folder(files)}/ltx/0/${ltxName(txid, txid)}${suffix}`);
const unfinished = (files: CrashFiles) => commits(files, 1, ".tmp");
const wal = ({ database }: CrashFiles) => [`${database}-wal`];
const main = ({ database }: CrashFiles) => [database];
const stage = ({ database }: CrashFiles) => [stagePathOf(database)];
const newNote = (files: CrashFiles) => [`${folder(files)}/position.json.tmp`];

function call(
  name: string,
  life: CrashPoint["life"],
  calls: string,
  paths: CallTrap["paths"],
  more: Pick<CallTrap, "nth" | "then"> = {},
): CrashPoint {
  return { name, life, trap: { by: "call", calls, paths, ...more } };
}

function request(
  name: string,
  life: CrashPoint["life"],
  operation: NonNullable<ProxyFault["operation"]>,
  under: string,
  when: "before" | "after",
  more: Pick<RequestTrap, "inDoubt"> = {},
): CrashPoint {
  return { name, life, trap: { by: "request", operation, under, when, ...more } };
}

/** In the order of docs/replication.md. */
export const CRASH_POINTS: readonly CrashPoint[] = [
  call("file-begun", "running", "openat", unfinished),
  call("file-written", "running", SYNC, unfinished),
  call("file-synced", "running", "openat", newNote),
  call("note-written", "running", RENAME, newNote),
  call("noted", "running", RENAME, unfinished),
  call("named", "running", SYNC, (files) => [`${folder(files)}/ltx/0`]),
  call("named-durably", "running", "openat", (files) => commits(files, 1)),
  call("all-pages-written", "start-unknown", SYNC, unfinished),

  request("slot-sent", "running", "put", "0000/", "before"),
  request("slot-taken", "running", "put", "0000/", "after"),
  request("slot-in-doubt", "running", "get", "0000/", "before", { inDoubt: true }),
  call("local-freed", "start", UNLINK, (files) => commits(files, -AHEAD / 2)),

  call("checkpoint-begun", "running", SYNC, wal),
  call("checkpoint-half", "running", "pwrite64", main, { nth: 3 }),
  call("checkpoint-written", "running", SYNC, main),
  call("checkpoint-published", "running", SYNC, main, {
    nth: 2, // after the first one, writers are held off
    then: { calls: "fcntl", paths: ({ database }) => [`${database}-shm`] },
  }),

  call("start-swept", "start", "openat", wal),
  request("start-listed", "start", "list", "", "after"),

  request("merge-sent", "start", "put", "0001/", "before"),
  request("merge-taken", "start", "put", "0001/", "after"),
  request("merged-deleting", "start", "delete", "0000/", "before"),
  request("merged-deleted", "start", "delete", "0000/", "after"),
  request("snapshot-sent", "start", "put", "0009/", "before"),
  request("snapshot-taken", "start", "put", "0009/", "after"),
  request("expired-deleting", "start", "delete", "0009/", "before"),
  request("expired-deleted", "start", "delete", "0009/", "after"),

  request("restore-fetched", "take-over", "get", "", "after"),
  call("restore-staged", "take-over", SYNC, stage),
  call("swap-begun", "take-over", RENAME, stage),
  call("swap-made", "take-over", UNLINK, ({ data }) => [`${data}/swap-databases.json`]),
  request("seal-sent", "seal", "put", "0000/", "before"),
  request("seal-taken", "seal", "put", "0000/", "after"),
  call("log-removed", "end", UNLINK, wal),
];
