/**
 * Uploads the commits of one database, one slot after the other: slot_rules.ts decides, this executes over the store.
 * It reads the local level-0 files and never changes them; it sends nothing while the window of the lease is closed. An error is tried again for ever, with longer and longer pauses: the lag grows, nothing is lost.
 * If we die here, then the local files are still there: the next life sends the same bytes again, and knows them.
 */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import type { Random } from "../platform/random.ts";
import type { ObjectStore, PutOptions } from "../storage/object_store.ts";
import { storeNowMs } from "../storage/store_time.ts";
import { LTX_HEADER_BYTES, LTX_TRAILER_BYTES, readHeader } from "./ltx/mod.ts";
import { COMMIT_LEVEL, replicaKey, type ReplicaPlace, slotMetadata } from "./replica_layout.ts";
import type { HolderListing } from "./replica_listing.ts";
import type { SendWindow } from "./replica_window.ts";
import {
  openSlots,
  type SlotBase,
  type SlotEffect,
  type SlotEnd,
  type SlotEvent,
  type SlotMachine,
  type SlotObject,
  type SlotUpload,
  stepSlots,
} from "./slot_rules.ts";

/** A larger object goes in pieces, so that memory stays bounded. */
export const WHOLE_PUT_LIMIT_BYTES = 32 * 1024 * 1024;
/** Pieces that a large file is read in. */
const PIECE_BYTES = 4 * 1024 * 1024;
/** Upper bound of the first pause after an error; doubled for each further one. */
const FIRST_PAUSE_MS = 100;
/** Longest pause: a store that is back is noticed within this. */
const LONGEST_PAUSE_MS = 10_000;
/** Up to this a file is read once, for what it says of itself and to be sent. Most commits are smaller. */
const KEPT_BYTES = 64 * 1024;
/** The first read of a slot asks for so much: most commits are smaller, and need one request. */
const READ_BACK_BYTES = 64 * 1024;

/** One commit in a local file. */
export interface LocalCommit {
  readonly txid: number;
  readonly sizeBytes: number;
}

/** The local file of a commit, open. It never changes. */
export interface LocalCommitFile extends AsyncDisposable {
  /** Exactly the bytes [start, end). */
  read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
}

export interface SlotWriterOptions {
  readonly store: ObjectStore;
  readonly place: ReplicaPlace;
  /** Fencing token of the term. */
  readonly token: number;
  readonly base: SlotBase;
  readonly window: SendWindow;
  readonly clock: Clock;
  readonly random: Random;
  readonly openLocal: (txid: number) => Promise<LocalCommitFile>;
  /** Told of every slot that is known to be there. */
  readonly listing: HolderListing;
}

export interface SlotWriterStatus {
  readonly durableTxid: number;
  /** Newest commit that we were told of. */
  readonly localTxid: number;
  readonly sealed: boolean;
  readonly end: SlotEnd | null;
  /** Waits for a later deadline of the lease. */
  readonly held: boolean;
  /** Monotonic time at which the oldest commit that is not durable came; null when all are. */
  readonly behindSinceMs: number | null;
  /** Since `behindSinceMs`; 0 when all are durable. */
  readonly lagMs: number;
  readonly waitingFiles: number;
  readonly waitingBytes: number;
  readonly sentBytes: number;
  readonly requests: number;
  readonly errors: number;
  readonly lastError: { readonly error: StateManagerError; readonly atMs: number } | null;
  /** Wall clock. */
  readonly lastDurableMs: number | null;
}

interface Waiting extends LocalCommit {
  readonly sinceMs: number;
}

/** An upload as the rules know it, with what is sent besides its bytes. */
interface DescribedUpload extends SlotUpload {
  readonly timestampMs: number;
}

interface Waiter {
  readonly reached: () => boolean;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class SlotWriter implements AsyncDisposable {
  readonly #options: SlotWriterOptions;
  readonly #queue: Waiting[] = [];
  readonly #waiters = new Set<Waiter>();
  readonly #stop = new AbortController();
  #machine: SlotMachine;
  #wake = Promise.withResolvers<void>();
  #running: Promise<void> | null = null;
  #localTxid: number;
  #timestampMs = 0;
  /** The file that is sent next, once. */
  #kept: { readonly txid: number; readonly body: Uint8Array<ArrayBuffer> } | null = null;
  #waitingBytes = 0;
  #sentBytes = 0;
  #requests = 0;
  #errors = 0;
  #lastError: SlotWriterStatus["lastError"] = null;
  #lastDurableMs: number | null = null;

  constructor(options: SlotWriterOptions) {
    this.#options = options;
    this.#machine = openSlots(options.token, options.base, options.window.deadlineMs);
    this.#localTxid = options.base.txid;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** A local file is durable on this disk. Commits come in order of their TXIDs, those of an earlier life too. */
  committed(commit: LocalCommit): void {
    if (commit.txid !== this.#localTxid + 1) {
      const message = `upload commit: TXID ${commit.txid} came, wanted ${this.#localTxid + 1}`;
      throw new StateManagerError("internal", message);
    }
    this.#queue.push({ ...commit, sinceMs: this.#options.clock.monotonicMs() });
    this.#localTxid = commit.txid;
    this.#waitingBytes += commit.sizeBytes;
    this.#signal();
  }

  /** When it resolves, all commits up to `txid` are in the store. Rejects with `lease-lost` when that can't be any more. */
  whenDurable(txid: number, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    return this.#when(() => this.#machine.durableTxid >= txid, options.signal);
  }

  /** When it resolves, a slot with our own token is there: no former holder can add a commit any more. */
  whenSealed(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    return this.#when(() => this.#machine.sealed, options.signal);
  }

  /** Resolves when the writer has ended by itself: absorbed or fenced. */
  async whenEnded(options: { readonly signal?: AbortSignal } = {}): Promise<SlotEnd> {
    await this.#when(() => this.#machine.end !== null, options.signal);
    const { end } = this.#machine;
    if (end === null) throw new StateManagerError("internal", "wait for the end of uploads: there is none");
    return end;
  }

  status(): SlotWriterStatus {
    const { durableTxid, sealed, end, work } = this.#machine;
    const behindSinceMs = this.#queue[0]?.sinceMs ?? null;
    return {
      durableTxid,
      localTxid: this.#localTxid,
      sealed,
      end,
      held: work?.waitingFor === "deadline",
      behindSinceMs,
      lagMs: behindSinceMs === null ? 0 : this.#options.clock.monotonicMs() - behindSinceMs,
      waitingFiles: this.#queue.length,
      waitingBytes: this.#waitingBytes,
      sentBytes: this.#sentBytes,
      requests: this.#requests,
      errors: this.#errors,
      lastError: this.#lastError,
      lastDurableMs: this.#lastDurableMs,
    };
  }

  /** Ends the uploads where they are; a put under way may still land. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new StateManagerError("cancelled", "upload commits: stopped"));
    this.#signal();
    await this.#running;
    this.#tellWaiters();
  }

  #signal(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers<void>();
  }

  #when(reached: () => boolean, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => waiter.reject(signal?.reason);
      const close = () => {
        this.#waiters.delete(waiter);
        signal?.removeEventListener("abort", onAbort);
      };
      const waiter: Waiter = {
        reached,
        resolve: () => {
          close();
          resolve();
        },
        reject: (error) => {
          close();
          reject(error);
        },
      };
      if (signal?.aborted) return reject(signal.reason);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
      this.#tellWaiters();
    });
  }

  #tellWaiters(): void {
    const { end } = this.#machine;
    for (const waiter of [...this.#waiters]) {
      if (waiter.reached()) waiter.resolve();
      else if (end !== null) waiter.reject(endError(end));
      else if (this.#stop.signal.aborted) waiter.reject(this.#stop.signal.reason);
    }
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    for (let failures = 0; !signal.aborted && this.#machine.end === null;) {
      const [next] = this.#queue;
      if (next === undefined) {
        await this.#wake.promise;
        continue;
      }
      try {
        await this.#upload(next);
        failures = 0;
      } catch (error) {
        if (signal.aborted) break;
        this.#failed(error);
        await this.#pause(++failures);
      }
    }
    this.#tellWaiters();
  }

  /** From wanted to durable or ended. Throws only when the local file cannot be read; the work is then as it was. */
  async #upload(commit: LocalCommit): Promise<void> {
    const { signal } = this.#stop;
    let effect: SlotEffect | null;
    if (this.#machine.work === null) {
      const { timestampMs, ...upload } = await this.#describe(commit);
      this.#timestampMs = timestampMs;
      const listed = this.#options.listing.get(slotKey(this.#options.place, upload.txid)) !== null;
      effect = this.#step({ type: "wanted", upload, listed });
    } else effect = this.#step({ type: "paused" });
    while (effect !== null && !signal.aborted) {
      switch (effect.type) {
        case "durable":
          return this.#durable(commit);
        case "ended":
          return;
        case "hold":
          await Promise.race([this.#options.window.whenRenewed(), this.#wake.promise]);
          effect = this.#step({ type: "renewed", deadlineMs: this.#options.window.deadlineMs });
          break;
        case "pause":
          await this.#pause(effect.failures);
          effect = this.#step({ type: "paused" });
          break;
        case "put":
          effect = this.#step(await this.#put(effect.upload));
          break;
        case "read":
          effect = this.#step(await this.#readBack(effect.upload));
      }
    }
  }

  #step(event: SlotEvent): SlotEffect | null {
    const { clock, window } = this.#options;
    const current = { ...this.#machine, deadlineMs: window.deadlineMs };
    const { machine, effects } = stepSlots(current, event, clock.monotonicMs());
    this.#machine = machine;
    return effects[0] ?? null;
  }

  async #pause(failures: number): Promise<void> {
    const { clock, random } = this.#options;
    const longestMs = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(failures - 1, 20));
    const pause = clock.sleep(longestMs * (0.5 + random.float() / 2), { signal: this.#stop.signal });
    await pause.catch(() => {}); // stopped: the loops look
  }

  #durable(commit: LocalCommit): void {
    const { listing, store, clock } = this.#options;
    this.#queue.shift();
    this.#waitingBytes -= commit.sizeBytes;
    this.#lastDurableMs = clock.wallMs();
    listing.added({
      level: COMMIT_LEVEL,
      minTxid: commit.txid,
      maxTxid: commit.txid,
      sizeBytes: commit.sizeBytes,
      timestampMs: this.#timestampMs,
      modifiedMs: storeNowMs(store, clock),
    });
    this.#tellWaiters();
  }

  #failed(error: unknown): void {
    if (isError(error, "lease-not-held", "cancelled")) return; // nobody's fault, and shown otherwise
    this.#errors++;
    this.#lastError = { error: asStateManagerError(error, "local-io"), atMs: this.#options.clock.wallMs() };
  }

  async #describe(commit: LocalCommit): Promise<DescribedUpload> {
    await using file = await this.#options.openLocal(commit.txid);
    const body = commit.sizeBytes <= KEPT_BYTES ? await file.read(0, commit.sizeBytes) : null;
    this.#kept = body === null ? null : { txid: commit.txid, body };
    const header = body?.subarray(0, LTX_HEADER_BYTES) ?? await file.read(0, LTX_HEADER_BYTES);
    const { minTxid, maxTxid, nodeId, timestampMs } = readHeader(header, `local file of TXID ${commit.txid}`);
    if (minTxid !== commit.txid || maxTxid !== commit.txid) {
      const message = `upload commit ${commit.txid}: its file holds TXIDs ${minTxid} to ${maxTxid}`;
      throw new StateManagerError("data-damaged", message);
    }
    const trailer = body?.subarray(-LTX_TRAILER_BYTES) ??
      await file.read(commit.sizeBytes - LTX_TRAILER_BYTES, commit.sizeBytes);
    return {
      txid: commit.txid,
      token: nodeId,
      sizeBytes: commit.sizeBytes,
      identity: identityOf(header, trailer),
      timestampMs,
    };
  }

  async #put(upload: SlotUpload): Promise<SlotEvent> {
    const { store, place } = this.#options;
    const key = slotKey(place, upload.txid);
    const options: PutOptions = {
      condition: { absent: true },
      mayComeTwice: true, // what refuses it is read back
      ...(place.layout === "bucket" ? { metadata: slotMetadata(this.#timestampMs, upload.token) } : {}),
    };
    const kept = this.#kept;
    this.#kept = null;
    if (kept?.txid === upload.txid) {
      return await this.#send(upload, (signal) => store.put(key, kept.body, { ...options, signal }));
    }
    const { sizeBytes } = upload;
    const whole = sizeBytes <= WHOLE_PUT_LIMIT_BYTES;
    await using file = await this.#options.openLocal(upload.txid);
    const body = whole ? await file.read(0, sizeBytes) : null;
    // The same bytes or none: a local file that changed is an error for people, not another commit for this slot.
    const header = body?.subarray(0, LTX_HEADER_BYTES) ?? await file.read(0, LTX_HEADER_BYTES);
    const trailer = body?.subarray(-LTX_TRAILER_BYTES) ??
      await file.read(sizeBytes - LTX_TRAILER_BYTES, sizeBytes);
    if (identityOf(header, trailer) !== upload.identity) {
      throw new StateManagerError("data-damaged", `upload commit ${upload.txid}: its local file has changed`);
    }
    return await this.#send(
      upload,
      (signal) =>
        body === null
          ? store.putLarge(key, piecesOf(file, sizeBytes), { ...options, signal, sizeBytes })
          : store.put(key, body, { ...options, signal }),
    );
  }

  async #send(upload: SlotUpload, put: (signal: AbortSignal) => Promise<unknown>): Promise<SlotEvent> {
    return await this.#request(async (signal) => {
      await put(signal);
      this.#sentBytes += upload.sizeBytes;
      return { type: "written" };
    }, (error) => {
      if (isError(error, "precondition-failed")) return { type: "refused" };
      this.#failed(error);
      return { type: isError(error, ...NOT_LANDED) ? "failed" : "unknown" };
    });
  }

  async #readBack(upload: SlotUpload): Promise<SlotEvent> {
    const { store, place } = this.#options;
    const key = slotKey(place, upload.txid);
    return await this.#request(async (signal) => {
      const first = await store.get(key, { signal, range: { start: 0, end: READ_BACK_BYTES } });
      const { sizeBytes } = first;
      let { body } = first;
      if (sizeBytes > READ_BACK_BYTES) {
        this.#requests++;
        const range = { start: sizeBytes - LTX_TRAILER_BYTES, end: sizeBytes };
        const last = await store.get(key, { signal, range });
        body = Uint8Array.of(...body.subarray(0, LTX_HEADER_BYTES), ...last.body);
      }
      return { type: "found", object: readObject(body, sizeBytes) };
    }, (error) => {
      if (isError(error, "object-not-found")) return { type: "found", object: null };
      this.#failed(error);
      return { type: "read-failed" };
    });
  }

  async #request(
    send: (signal: AbortSignal) => Promise<SlotEvent>,
    onError: (error: unknown) => SlotEvent,
  ): Promise<SlotEvent> {
    this.#requests++;
    try {
      return await this.#options.window.within(this.#stop.signal, send);
    } catch (error) {
      return onError(error);
    }
  }
}

/**
 * By these codes a store says that the put did not land. Were it wrong, nothing would be lost, for sending again is as
 * safe as reading back; that is done for the rest, since it saves sending a body that is there.
 */
const NOT_LANDED = [
  "store-unreachable",
  "store-access-denied",
  "store-not-found",
  "store-full",
  "store-refused",
  "key-invalid",
  "body-too-large",
] as const;

function slotKey(place: ReplicaPlace, txid: number): string {
  return replicaKey(place, { level: COMMIT_LEVEL, minTxid: txid, maxTxid: txid });
}

function identityOf(header: Uint8Array, trailer: Uint8Array): string {
  return header.toHex() + trailer.toHex();
}

/** `bytes`: the whole object, or its header and trailer. */
function readObject(bytes: Uint8Array, sizeBytes: number): SlotObject | "unreadable" {
  if (bytes.length < LTX_HEADER_BYTES + LTX_TRAILER_BYTES) return "unreadable";
  const header = bytes.subarray(0, LTX_HEADER_BYTES);
  try {
    const { nodeId } = readHeader(header, "object in the slot");
    return { token: nodeId, sizeBytes, identity: identityOf(header, bytes.subarray(-LTX_TRAILER_BYTES)) };
  } catch {
    return "unreadable";
  }
}

async function* piecesOf(
  file: LocalCommitFile,
  sizeBytes: number,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for (let at = 0; at < sizeBytes; at += PIECE_BYTES) {
    yield await file.read(at, Math.min(at + PIECE_BYTES, sizeBytes));
  }
}

function endError(end: SlotEnd): StateManagerError {
  if (end.kind === "absorbed") {
    return new StateManagerError(
      "lease-lost",
      `upload commit ${end.txid}: a former holder's commit is there, it counts`,
      { hint: "restore the database to that TXID and go on from it" },
    );
  }
  const why = {
    "larger-token": "a later holder has written it",
    "foreign-object": "somebody else has written it in our term",
    "vanished": "somebody else wrote and removed it",
    "unreadable": "what is there is not an LTX file",
  }[end.reason];
  return new StateManagerError("lease-lost", `upload commit ${end.txid}: ${why}`, {
    hint: end.reason === "unreadable"
      ? "remove the object, which neither State Manager nor Litestream wrote"
      : "another manager or Litestream writes to this prefix; what it committed stands",
  });
}
