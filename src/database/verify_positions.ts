/**
 * Whether states of a database that checkpoints name can still be restored: the files that lead to each of them are
 * there, are what their names say, decode from end to end, and make a database that SQLite finds sound. How far it is
 * looked into is the level, as of a verification of checkpoints. Nothing in the store is changed.
 */

import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import { ensureFolder, parentOf, removeIfPresent } from "../platform/files.ts";
import type { Random } from "../platform/random.ts";
import { LtxDecoder } from "./ltx/mod.ts";
import { databasePrefix, type ReplicaPlace } from "./replica_layout.ts";
import { listReplica, type ReplicaFile } from "./replica_listing.ts";
import { restoreDatabase } from "./restore_database.ts";
import { fetchFiles, PlanOutdated, readHeaders } from "./restore_fetch.ts";
import { planRestore } from "./restore_plan.ts";
import { PLAN_TRIES } from "./restore_run.ts";
import type { RestoreEnvironment } from "./restore_types.ts";

/**
 * 1: a chain of files to each state is there. 2: also each of these files has the header that its name says. 3: also so
 * many percent of them are read and decoded. 4: all are, and each state is restored to scratch and checked by SQLite.
 */
export type PositionsLevel = 1 | 2 | 3 | 4;

export interface PositionsRequest {
  readonly place: ReplicaPlace;
  readonly txids: readonly number[];
  readonly level: PositionsLevel;
  /** Of the files, by chance; counts at level 3. */
  readonly percent: number;
  /** Absolute path of a file to be made and removed, on a disk with room for the database; needed at level 4. */
  readonly scratchFile: string;
}

export interface PositionFinding {
  /** Key of the object; `<prefix of the database>TXID <n>` for a state that no files lead to. */
  readonly object: string;
  readonly problem: "missing" | "damaged";
  readonly detail: string;
  /** The states that need it. */
  readonly txids: readonly number[];
}

export interface PositionsResult {
  readonly findings: readonly PositionFinding[];
  readonly filesRead: number;
  readonly bytesRead: number;
  /** States that were restored and found sound. */
  readonly restored: number;
}

/** What speaks of the data, not of the circumstances. */
const OF_THE_DATA = ["data-damaged", "object-not-found", "not-found"] as const;

export interface PositionsEnvironment extends RestoreEnvironment {
  readonly random: Random;
}

/** Rejects only where it could not be looked (the store is out of reach, the disk is full). */
export async function verifyPositions(
  request: PositionsRequest,
  environment: PositionsEnvironment,
): Promise<PositionsResult> {
  return await new Positions(request, environment).verify();
}

/** A file, and the states that it leads to. */
interface Used {
  readonly file: ReplicaFile;
  readonly txids: readonly number[];
}

/** Each is a round trip and nothing else. */
const HEADERS_IN_FLIGHT = 32;

class Positions {
  readonly #request: PositionsRequest;
  readonly #environment: PositionsEnvironment;
  readonly #txids: readonly number[];
  readonly #findings = new Map<string, PositionFinding>();
  /** Keys of files that were looked at. */
  readonly #seen = new Set<string>();
  #filesRead = 0;
  #bytesRead = 0;
  #restored = 0;

  constructor(request: PositionsRequest, environment: PositionsEnvironment) {
    this.#request = request;
    this.#environment = environment;
    this.#txids = [...new Set(request.txids)].filter((txid) => txid > 0).sort((a, b) => a - b);
  }

  async verify(): Promise<PositionsResult> {
    await this.#checkFiles();
    if (this.#request.level === 4) { for (const txid of this.#txids) await this.#restore(txid); }
    return {
      findings: [...this.#findings.values()],
      filesRead: this.#filesRead,
      bytesRead: this.#bytesRead,
      restored: this.#restored,
    };
  }

  /** What a compaction or a retention does meanwhile looks like damage for a moment: only what stays counts. */
  async #checkFiles(): Promise<void> {
    for (let tries = 1;; tries++) {
      const { users, unreachable, cut } = await this.#plan();
      const gone = await this.#look(users);
      if (tries < PLAN_TRIES && (gone.length > 0 || (tries === 1 && unreachable.size > 0))) continue;
      for (const [txid, detail] of unreachable) {
        const object = `${databasePrefix(this.#request.place)}TXID ${txid}`;
        this.#find({ object, problem: "missing", detail, txids: [txid] });
      }
      const txids = [...unreachable.keys()];
      for (const { key, detail } of cut) this.#find({ object: key, problem: "damaged", detail, txids });
      for (const { key } of gone) {
        const detail = "the object is listed and not there";
        this.#find({ object: key, problem: "missing", detail, txids: users.get(key)?.txids ?? [] });
      }
      return;
    }
  }

  /** The files that lead to the states, each with those that need it; and the states that none lead to, with why. */
  async #plan() {
    const { store, signal } = this.#environment;
    const { files, defects } = await listReplica(store, this.#request.place, { signal });
    const users = new Map<string, Used & { readonly txids: number[] }>();
    const unreachable = new Map<number, string>();
    for (const txid of this.#txids) {
      try {
        for (const file of planRestore(files, { kind: "txid", txid })) {
          const known = users.get(file.key);
          if (known === undefined) users.set(file.key, { file, txids: [txid] });
          else known.txids.push(txid);
        }
      } catch (error) {
        if (!isError(error, ...OF_THE_DATA)) throw error;
        unreachable.set(txid, error.message);
      }
    }
    const cut = unreachable.size === 0 ? [] : defects.filter(({ kind }) => kind === "too-small");
    return { users, unreachable, cut };
  }

  /** Looks at files that were not looked at yet; gives those that are gone meanwhile. */
  async #look(users: ReadonlyMap<string, Used>): Promise<readonly ReplicaFile[]> {
    const { level } = this.#request;
    const gone: ReplicaFile[] = [];
    if (level === 1) return gone;
    const look = async ({ file, txids }: Used, read: (file: ReplicaFile) => Promise<void>) => {
      this.#environment.signal.throwIfAborted();
      try {
        await read(file);
      } catch (error) {
        const cause = error instanceof PlanOutdated ? error.cause : error;
        if (!isError(cause, ...OF_THE_DATA)) throw error;
        if (cause.code === "object-not-found") return void gone.push(file);
        this.#find({ object: file.key, problem: "damaged", detail: cause.message, txids });
      }
      this.#seen.add(file.key);
    };
    const unseen = [...users.values()].filter(({ file }) => !this.#seen.has(file.key));
    const { whole = [], header = [] } = Object.groupBy(unseen, () => this.#isRead() ? "whole" : "header");
    for (let at = 0; at < header.length; at += HEADERS_IN_FLIGHT) {
      const group = header.slice(at, at + HEADERS_IN_FLIGHT);
      await Promise.all(group.map((used) => look(used, (file) => this.#readHeader(file))));
    }
    for (const used of whole) await look(used, (file) => this.#read(file));
    return gone;
  }

  #isRead(): boolean {
    const { level, percent } = this.#request;
    return level === 4 || (level === 3 && this.#environment.random.float() * 100 < percent);
  }

  async #readHeader(file: ReplicaFile): Promise<void> {
    const [header] = await readHeaders([file], this.#environment);
    checkRange(file, header ?? null);
  }

  async #read(file: ReplicaFile): Promise<void> {
    const decoder = new LtxDecoder(file.key);
    for await (const { bytes } of fetchFiles([file], this.#environment)) {
      this.#bytesRead += bytes.length;
      decoder.feed(bytes);
      while (decoder.next() !== null);
      this.#tell();
    }
    decoder.end();
    checkRange(file, decoder.header);
    this.#filesRead++;
    this.#tell();
  }

  #tell(): void {
    const [files, bytes] = [this.#filesRead, this.#bytesRead];
    this.#environment.onProgress?.({ phase: "check", files, bytes, totalBytes: bytes });
  }

  /** A state that is hurt already is not tried. */
  async #restore(txid: number): Promise<void> {
    const { place, scratchFile: file } = this.#request;
    if ([...this.#findings.values()].some(({ txids }) => txids.includes(txid))) return;
    const target = { kind: "txid", txid } as const;
    const { onProgress: _, ...environment } = this.#environment;
    await ensureFolder(parentOf(file), 0o700);
    try {
      await restoreDatabase({ place, target, file, owner: null, mode: 0o600, check: "full" }, environment);
      this.#restored++;
    } catch (error) {
      this.#environment.signal.throwIfAborted();
      if (!isError(error, ...OF_THE_DATA)) throw error;
      const object = `${databasePrefix(place)}TXID ${txid}`;
      const detail = asStateManagerError(error).message;
      this.#find({ object, problem: "damaged", detail, txids: [txid] });
    } finally {
      for (const suffix of ["", "-wal", "-shm", "-journal"]) {
        await removeIfPresent(file + suffix).catch(() => {});
      }
    }
    this.#tell();
  }

  #find(finding: PositionFinding): void {
    if (!this.#findings.has(finding.object)) this.#findings.set(finding.object, finding);
  }
}

function checkRange(
  file: ReplicaFile,
  header: { readonly minTxid: number; readonly maxTxid: number } | null,
): void {
  if (header?.minTxid === file.minTxid && header.maxTxid === file.maxTxid) return;
  throw new StateManagerError(
    "data-damaged",
    `verify database: ${file.key} holds TXIDs ${header?.minTxid} to ${header?.maxTxid}`,
    { hint: "the object is not what its name says" },
  );
}
