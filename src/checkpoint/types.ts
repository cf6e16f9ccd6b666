/**
 * Shapes of checkpoints: the objects in the store (docs/storage_format.md is their specification) and the requests and
 * answers between the manager and its archiver child. Times are milliseconds since the epoch unless named otherwise.
 */

import type { Encryption } from "./key_wrap.ts";

/** `repo.json`: written once with put-if-absent; afterwards only `enc` changes, by compare-and-swap. */
export interface RepositoryRecord {
  readonly repo_id: string;
  readonly name: string;
  readonly format: 1;
  /** 2 where it is encrypted: what version 1 would read, and worse, write there is not what it says. */
  readonly min_reader: 1 | 2;
  readonly min_writer: 1 | 2;
  /** Format parameters of the chunker; changing one silently would end deduplication. */
  readonly chunker: {
    readonly alg: "fastcdc32";
    readonly min: number;
    readonly avg: number;
    readonly max: number;
  };
  readonly hash: "sha256";
  /** Only of an encrypted repository: its data key, wrapped. All else here never changes. */
  readonly enc?: Encryption;
}

/** One finished checkpoint as the head lists it. */
export interface CheckpointRecord {
  /** ULID in lower case. */
  readonly id: string;
  /** Short ordinal, 1, 2, 3 … in order of commit; never reused. */
  readonly n: number;
  readonly time: number;
  /** Fencing token under which it was made. */
  readonly token: number;
  /** Id of the checkpoint that was current when this one was made; null for the first. */
  readonly parent: string | null;
  readonly kind: "interval" | "request" | "stop" | "adopt" | "safety" | "restore";
  readonly comment: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Key of the immutable root object and SHA-256 (hex) of its bytes. */
  readonly root: string;
  readonly root_sha256: string;
  /** Files roots that it holds, with their totals. */
  readonly files: Readonly<Record<string, FilesSummary>>;
  /** Replicated databases and where each stood when the checkpoint was made. Absent: there were none. */
  readonly databases?: Readonly<Record<string, DatabasePosition>>;
  /** Names of files roots where something changed while it was read, or could not be read. */
  readonly warnings: number;
  /** For kind "restore": the checkpoint whose content it brings back. */
  readonly restored_from?: string;
  /** Kept whatever the rules say, until somebody takes the pin away. Absent: no. */
  readonly pinned?: boolean;
}

/** A state of a replicated database: everything up to this TXID. Its bytes are the replica's, not the checkpoint's. */
export interface DatabasePosition {
  readonly txid: number;
  /** Of the file, for who restores it; absent where it was not looked at. */
  readonly file?: DatabaseFile;
}

/** Owner and mode of a database's file. */
export interface DatabaseFile {
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

export interface FilesSummary {
  readonly entries: number;
  /** Sum of file sizes, holes included. */
  readonly bytes: number;
  /** SHA-256 (hex) over the manifest lines: equal means equal trees. */
  readonly manifest_sha256: string;
}

/** A restore that has begun: written into the head before anything local changes; whoever holds the lease next finishes it. */
export interface RestoreIntent {
  /** The whole new record; finishing = making it current and clearing the intent. */
  readonly record: CheckpointRecord;
  /** Value of `restore.on_start` that asked for it, null when the API did. */
  readonly on_start: string | null;
  /** Files roots whose content is brought back. Absent: an older version wrote it, and any root may be one. */
  readonly files?: readonly string[];
  /** Databases that are brought back to these positions, by writing the old content as their next TXID. */
  readonly databases?: Readonly<Record<string, DatabasePosition>>;
}

/** `head.json`: the only mutable object besides the lease; every change is a swap that carries a token >= the last one. */
export interface Head {
  readonly format: 1;
  readonly repo_id: string;
  /** Fencing token of the last writer; never falls. */
  readonly epoch: number;
  /** Grows by one with each swap. */
  readonly seq: number;
  /** Id of the current state; null while there is none. */
  readonly current: string | null;
  /** Oldest first. */
  readonly checkpoints: readonly CheckpointRecord[];
  /** Keys of all live index objects, oldest first, with the SHA-256 of their bytes. */
  readonly indexes: readonly { readonly key: string; readonly sha256: string }[];
  readonly intent: RestoreIntent | null;
  /** Last value of `restore.on_start` that was applied; it is applied once. */
  readonly on_start_applied: string | null;
  /** Names of packs that garbage collection may delete (checkpoint.md rules A to C); a name here is never used again. */
  readonly doomed: readonly { readonly pack: string; readonly since: number }[];
  /** Keys of index and root objects, likewise. Absent: none, or an older version wrote the head and forgot them. */
  readonly doomed_objects?: readonly { readonly key: string; readonly since: number }[];
  /** Of each replicated database, as last seen. Absent: an older version wrote the head, and checkpoints may tell. */
  readonly database_files?: Readonly<Record<string, DatabaseFile>>;
  /** New with each swap: its writer knows it again. Absent in a head that an older version wrote. */
  readonly nonce?: string;
}

/** One files root as the archiver needs it. */
export interface FilesRoot {
  readonly name: string;
  readonly path: string;
  /** Absolute paths inside `path` that are never read nor deleted (data dir, folder store), and nested excludes. */
  readonly excludePaths: readonly string[];
  /** Patterns of gitignore's form, relative to `path`. */
  readonly exclude: readonly string[];
  /** Of each folder below `path` with a CACHEDIR.TAG keep nothing but itself and the tag. */
  readonly excludeCaches?: boolean;
  readonly includeDatabases: boolean;
}

/** What goes wrong with single files without failing the whole. */
export interface FileWarning {
  readonly root: string;
  /** Path relative to the root; non-UTF-8 bytes shown as \xNN. */
  readonly path: string;
  readonly reason: string;
}

/** Totals of one archiver run, for people and metrics. */
export interface ArchiveTotals {
  readonly entries: number;
  readonly bytes: number;
  /** Bytes of files that had to be read. */
  readonly bytesRead: number;
  /** Bytes sent to, or fetched from, the store. */
  readonly bytesTransferred: number;
  /** Bytes of files that this machine had already, in its live folder or from an interrupted restore: verified, not fetched. */
  readonly bytesReused: number;
  readonly durationMs: number;
}

/** Told while a create or restore runs, at most ten a second. */
export interface ArchiveProgress {
  readonly phase: "scan" | "read" | "upload" | "plan" | "fetch" | "check" | "finish";
  readonly entries: number;
  readonly bytes: number;
  readonly totalBytes: number | null;
}

/**
 * One entry of a tree, as scanned and as restored. Paths are raw bytes, since names need not be UTF-8, relative to
 * the root, without leading slash; the root itself is the empty path and comes first. Nanoseconds are bigint.
 */
export interface TreeEntry {
  readonly path: Uint8Array<ArrayBuffer>;
  readonly type: "file" | "directory" | "symlink" | "fifo";
  /** Permission bits with setuid, setgid and sticky: 12 bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  /** Bytes of a file, holes included; 0 for all else. */
  readonly size: number;
  /** Raw target of a symlink. */
  readonly target?: Uint8Array<ArrayBuffer>;
  /**
   * Set on every member of a group of hard links inside the root: an arbitrary number, equal in the group. The first
   * member in path order carries the content, the others none.
   */
  readonly linkGroup?: number;
  /** True for a SQLite database whose content was taken from a consistent copy. */
  readonly sqlite?: boolean;
  /** Extended attributes that are kept (ACLs and file capabilities, too), sorted by name. Absent: none. */
  readonly xattrs?: readonly Xattr[];
}

/** One extended attribute. */
export interface Xattr {
  /** With its namespace ("user.comment"), as byte text: names need not be UTF-8. */
  readonly name: string;
  readonly value: Uint8Array<ArrayBuffer>;
}

/** What the scan knows besides, to decide whether a file must be read again. Never leaves this machine. */
export interface ScanFacts {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly ctimeNs: bigint;
  readonly linkCount: number;
  /** Blocks of 512 bytes in use: fewer than size / 512 means holes. */
  readonly blocks: number;
}

/** One piece of a file's content: a stored chunk by its id, or a run of zeros that is never stored. */
export type ContentPart =
  | { readonly kind: "chunk"; readonly id: string; readonly length: number }
  | { readonly kind: "hole"; readonly length: number };

/** One line of a manifest: the entry and, for a file that carries content, its parts in order. */
export interface ManifestEntry {
  readonly entry: TreeEntry;
  readonly parts: readonly ContentPart[];
}
