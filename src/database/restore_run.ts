/**
 * One restore on its way: plans, applies file after file, and plans anew when a planned file expired meanwhile. It goes
 * on from what the target holds already where that is sound, else it begins again; it never mixes the two.
 */

import { isError, StateManagerError } from "../platform/errors.ts";
import { parentOf } from "../platform/files.ts";
import { freeSpace, pathBytes } from "../platform/libc_files.ts";
import type { KeptPieces } from "./kept_pieces.ts";
import { LtxDecoder, type LtxHeader } from "./ltx/mod.ts";
import { listReplica, type ReplicaFile } from "./replica_listing.ts";
import type { CheckResult } from "./restore_check.ts";
import {
  fetchFiles,
  type Piece,
  PIECE_BYTES,
  PlanOutdated,
  readHeaders,
  withTimes,
} from "./restore_fetch.ts";
import type { RestoredFile } from "./restore_file.ts";
import { newestTxid, planRestore } from "./restore_plan.ts";
import type {
  RestoreEnvironment,
  RestoreProgress,
  RestoreRequest,
  RestoreResult,
  RestoreSource,
} from "./restore_types.ts";

/** Plans that may go out of date, by retention or compaction, before it is given up. Litestream's number. */
export const PLAN_TRIES = 4;
const PROGRESS_INTERVAL_MS = 200;

/**
 * Lists the replica and plans. Errors: `not-found`, those of the store, `PlanOutdated` for a hole in the files: one may
 * show where a file was merged and deleted while its level was listed, and then it is gone in the next listing.
 */
export async function planFiles(
  { place, target }: RestoreSource,
  environment: RestoreEnvironment,
): Promise<{ readonly files: readonly ReplicaFile[]; readonly plan: readonly ReplicaFile[] }> {
  const { files } = await listReplica(environment.store, place, { signal: environment.signal });
  const known = target.kind === "before" ? await withTimes(files, environment) : files;
  try {
    return { files: known, plan: planRestore(known, target) };
  } catch (error) {
    throw isError(error, "data-damaged") ? new PlanOutdated(error) : error;
  }
}

export interface Sizes {
  readonly last: LtxHeader;
  readonly databaseBytes: number;
  /** Most that the file takes on its way: it may shrink at the end. */
  readonly peakBytes: number;
}

export async function sizesOf(
  files: readonly ReplicaFile[],
  environment: RestoreEnvironment,
): Promise<Sizes> {
  const ends = files.filter((_, index) => index === 0 || index === files.length - 1);
  const headers = await readHeaders(ends, environment);
  const last = headers.at(-1);
  if (last === undefined) throw new StateManagerError("internal", "plan restore: an empty plan");
  const sizes = headers.map(({ commit, pageSize }) => commit * pageSize);
  return { last, databaseBytes: last.commit * last.pageSize, peakBytes: Math.max(...sizes) };
}

/** The target holds exactly TXID `#reached`, or is dirty. */
export class RestoreRun {
  readonly #request: RestoreRequest;
  readonly #environment: RestoreEnvironment;
  readonly #target: RestoredFile;
  readonly #pieces: KeptPieces | null;
  #reached = 0;
  /** Pages of a file that is not finished are in the target: it holds no TXID. */
  #dirty = false;
  #isWithoutKept = false;
  #last: LtxHeader | null = null;
  #files = 0;
  #bytes = 0;
  #totalBytes = 0;
  #replans = 0;
  #toldMs = -Infinity;

  constructor(
    request: RestoreRequest,
    environment: RestoreEnvironment,
    { target, pieces }: { readonly target: RestoredFile; readonly pieces: KeptPieces | null },
  ) {
    this.#request = request;
    this.#environment = environment;
    this.#target = target;
    this.#pieces = pieces;
  }

  /** Plans and applies until a plan was carried out to its end. */
  async applyAll(): Promise<void> {
    for (let tries = 1;; tries++) {
      try {
        const plan = await this.#plan();
        if (this.#reached === 0) await this.#checkSpace(plan);
        await this.#apply(plan);
        return;
      } catch (error) {
        const wasKept = (this.#pieces?.reusedBytes ?? 0) > 0;
        if (isError(error, "data-damaged") && wasKept && !this.#isWithoutKept) {
          this.#isWithoutKept = true;
          await this.#pieces?.end(); // what was kept may be what is wrong: all of it comes from the store now
          continue;
        }
        if (!(error instanceof PlanOutdated)) throw error;
        if (tries === PLAN_TRIES) throw error;
        this.#replans++;
      }
    }
  }

  /** Goes on from what is there already where that leads to the same end, else begins again. */
  async #plan(): Promise<readonly ReplicaFile[]> {
    const { files, plan } = await planFiles(this.#request, this.#environment);
    if (this.#reached > 0 && !this.#dirty) {
      const rest = this.#planOn(files);
      if (rest !== null && Math.max(this.#reached, newestTxid(rest)) === newestTxid(plan)) return rest;
    }
    this.#reached = 0;
    this.#dirty = false;
    this.#target.reset();
    return plan;
  }

  #planOn(files: readonly ReplicaFile[]): readonly ReplicaFile[] | null {
    try {
      return planRestore(files, this.#request.target, this.#reached);
    } catch (error) {
      if (isError(error, "data-damaged", "not-found")) return null;
      throw error;
    }
  }

  async #checkSpace(plan: readonly ReplicaFile[]): Promise<void> {
    const { file } = this.#request;
    const { peakBytes } = await sizesOf(plan, this.#environment);
    const folder = parentOf(file);
    const free = freeSpace(pathBytes(folder)).bytes;
    if (free === null) return;
    // Small ones are not kept, nor what is there already: this is on the safe side.
    const keptBytes = plan.reduce((sum, { sizeBytes }) => sum + (sizeBytes > PIECE_BYTES ? sizeBytes : 0), 0);
    if (free < peakBytes + keptBytes) await this.#pieces?.end();
    if (free >= peakBytes) return;
    throw new StateManagerError(
      "disk-full",
      `restore database: it needs ${peakBytes} bytes, ${free} are free on the disk of ${folder}`,
      { hint: "free space on that disk, or restore to another one" },
    );
  }

  async #apply(plan: readonly ReplicaFile[]): Promise<void> {
    this.#totalBytes = this.#bytes + plan.reduce((sum, file) => sum + file.sizeBytes, 0);
    let decoder: LtxDecoder | null = null;
    for await (const piece of fetchFiles(plan, { ...this.#environment, pieces: this.#pieces })) {
      decoder ??= new LtxDecoder(piece.file.key);
      this.#take(piece, decoder);
      if (piece.last) {
        this.#end(piece.file, decoder);
        decoder = null;
      }
      this.#bytes += piece.bytes.length;
      this.tellProgress("fetch");
      this.#environment.signal.throwIfAborted();
    }
  }

  #take({ bytes }: Piece, decoder: LtxDecoder): void {
    this.#dirty = true;
    decoder.feed(bytes);
    for (let page = decoder.next(); page !== null; page = decoder.next()) {
      if (decoder.header !== null) this.#target.begin(decoder.header.pageSize);
      this.#target.page(page.pgno, page.data);
    }
  }

  /** The file was whole and is the one that its name says: only then it counts. */
  #end(file: ReplicaFile, decoder: LtxDecoder): void {
    decoder.end();
    const header = decoder.header;
    if (header === null || header.minTxid !== file.minTxid || header.maxTxid !== file.maxTxid) {
      throw misfit(file, `it holds TXIDs ${header?.minTxid} to ${header?.maxTxid}`);
    }
    this.#target.end(header.commit);
    this.#dirty = false;
    this.#reached = file.maxTxid;
    this.#last = header;
    this.#files++;
  }

  /** Thousands of small files each bring progress: told is what somebody could see, and each phase and end. */
  tellProgress(phase: RestoreProgress["phase"]): void {
    const { onProgress, clock } = this.#environment;
    const nowMs = clock.monotonicMs();
    const ended = this.#bytes === this.#totalBytes;
    if (onProgress === undefined || (!ended && nowMs - this.#toldMs < PROGRESS_INTERVAL_MS)) return;
    this.#toldMs = nowMs;
    onProgress({ phase, files: this.#files, bytes: this.#bytes, totalBytes: this.#totalBytes });
  }

  result(check: CheckResult["outcome"], warnings: readonly string[]): RestoreResult {
    const { pageSize, commit } = this.#target;
    return {
      txid: this.#reached,
      timestampMs: this.#last?.timestampMs ?? 0,
      token: this.#last?.nodeId ?? 0,
      pageSize,
      databaseBytes: commit * pageSize,
      fetchBytes: this.#bytes,
      fileCount: this.#files,
      reusedBytes: this.#pieces?.reusedBytes ?? 0,
      replans: this.#replans,
      check,
      warnings,
    };
  }
}

function misfit(file: ReplicaFile, what: string): StateManagerError {
  return new StateManagerError("data-damaged", `restore database: ${file.key}: ${what}`, {
    hint: "the object is not what its name says: restore to an earlier point",
  });
}
