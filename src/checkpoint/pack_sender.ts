/**
 * Sends packs while more is read: those that reading threads filled, and its own for chunks that are added here. Memory
 * is bounded: who adds waits on `room` before each chunk, threads have credits, and no more than `PUTS_IN_FLIGHT` packs
 * are on their way at one time. If we die here, the packs that were sent are garbage: nothing names them.
 */

import type { Clock } from "../platform/clock.ts";
import { type Random, ulid } from "../platform/random.ts";
import { bytesOfMemory } from "../platform/shared_memory.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { ChunkTable } from "./chunk_table.ts";
import type { Cipher } from "./cipher.ts";
import { type Codec, encodeBytes, FAST_LEVEL } from "./codec.ts";
import { type Compression, levelOf } from "./compression.ts";
import { idToText, packKey, packName } from "./ids.ts";
import type { IndexedPack } from "./index_format.ts";
import { EntryList, FLAG_META, FLAG_ZSTD, PackBuilder } from "./pack.ts";
import type { FilledPack } from "./pack_filler.ts";

/** Puts at one time: enough to fill a line with 16 MiB objects, and 64 MiB of memory at most. */
export const PUTS_IN_FLIGHT = 4;

export interface SentPack {
  readonly pack: IndexedPack;
  readonly entries: EntryList;
}

export interface PackSenderOptions {
  readonly store: ObjectStore;
  readonly codec: Codec;
  readonly compression: Compression;
  readonly cipher: Cipher;
  readonly clock: Clock;
  readonly random: Random;
  readonly token: number;
  /** Chunks that are stored already; new ones are added. */
  readonly table: ChunkTable;
  readonly signal: AbortSignal;
}

interface Filling {
  readonly builder: PackBuilder;
  readonly name: string;
  readonly number: number;
}

type Kind = "data" | "meta";

export class PackSender {
  readonly #options: PackSenderOptions;
  readonly #signal: AbortSignal;
  readonly #failure = new AbortController();
  readonly #inFlight = new Set<Promise<void>>();
  /** Packs of threads that wait for their turn. */
  #submitted: Promise<void> = Promise.resolve();
  #submitting = 0;
  readonly #sent: SentPack[] = [];
  /** Data and manifest pieces go into packs of their own: a restore reads the manifests first. */
  readonly #filling: Record<Kind, Filling | null> = { data: null, meta: null };
  #packBytes: number | undefined;
  #bytesSent = 0;

  constructor(options: PackSenderOptions) {
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#failure.signal]);
  }

  /** Bytes of packs that the store has acknowledged. */
  get bytesSent(): number {
    return this.#bytesSent;
  }

  /** True when nothing is on its way. */
  get isIdle(): boolean {
    return this.#inFlight.size === 0 && this.#submitting === 0;
  }

  /** Size of the packs that are begun from now on. */
  set packBytes(bytes: number) {
    this.#packBytes = bytes;
  }

  /** Null when another chunk may be added at once; else a promise, which rejects when a put failed or the work was cancelled. */
  room(): Promise<void> | null {
    return this.#inFlight.size < PUTS_IN_FLIGHT && !this.#signal.aborted ? null : this.#ready();
  }

  async #ready(): Promise<void> {
    this.#signal.throwIfAborted();
    while (this.#inFlight.size >= PUTS_IN_FLIGHT) {
      await Promise.race(this.#inFlight);
      this.#signal.throwIfAborted();
    }
  }

  /** A name for a pack of a reading thread. */
  newName(): string {
    const { clock, random, token } = this.#options;
    return packName(token, ulid(clock.wallMs(), random));
  }

  /** Sends a pack that a reading thread filled, in turn; resolves when the store has it. */
  submit(pack: FilledPack): Promise<void> {
    this.#submitting++;
    const turn = this.#submitted.then(() => this.#ready()).then(() => this.#sendFilled(pack));
    this.#submitted = turn.then(() => {}, () => {});
    return turn.then(({ put }) => put).finally(() => this.#submitting--).then(() =>
      this.#signal.throwIfAborted()
    );
  }

  /** The put is wrapped: as the value of a promise it would be waited for. */
  #sendFilled({ name, memory, sizeBytes, entries }: FilledPack): { readonly put: Promise<void> } {
    const { table } = this.#options;
    const pack = { name, sizeBytes };
    const number = table.addPack(pack);
    const added = table.addAll(new EntryList(new Uint8Array(entries)), number); // an index names each chunk once
    if (added.length > 0) this.#sent.push({ pack, entries: added });
    return { put: this.#put(name, bytesOfMemory(memory).subarray(0, sizeBytes)) };
  }

  /** Stores a chunk of a file unless it is stored already; its id. */
  storeData(plain: Uint8Array): string {
    const id = this.#options.cipher.chunkId(plain);
    this.add(id, plain, "data");
    return idToText(id);
  }

  /** Stores the chunk unless it is stored already. */
  add(id: Uint8Array, plain: Uint8Array, kind: Kind): void {
    const { codec, compression, table } = this.#options;
    if (table.has(id)) return;
    const storeIsSlow = this.#inFlight.size >= PUTS_IN_FLIGHT - 1;
    const level = kind === "meta" ? FAST_LEVEL : levelOf(compression, { storeIsSlow });
    const { bytes, compressed } = encodeBytes(codec, plain, level);
    let filling = this.#filling[kind];
    if (filling !== null && !filling.builder.hasRoom(bytes.length)) {
      this.#send(filling);
      filling = null;
    }
    filling ??= this.#begin();
    this.#filling[kind] = filling;
    const flags = (compressed ? FLAG_ZSTD : 0) | (kind === "meta" ? FLAG_META : 0);
    table.add(filling.builder.add(id, bytes, plain.length, flags), filling.number);
  }

  /** Sends what is left. All packs of this run, for the index: no more may be added, and not all are acknowledged. */
  async sendRest(): Promise<readonly SentPack[]> {
    await this.#submitted;
    for (const kind of ["data", "meta"] as const) {
      const filling = this.#filling[kind];
      this.#filling[kind] = null;
      if (filling === null) continue;
      await this.#ready(); // the last packs keep the bound, too
      this.#send(filling);
    }
    return this.#sent;
  }

  /** Sends what is left and waits for every acknowledgement. */
  async finish(): Promise<readonly SentPack[]> {
    const sent = await this.sendRest();
    await Promise.all(this.#inFlight);
    this.#signal.throwIfAborted();
    return sent;
  }

  /** Waits for what is under way after a failure, so that nothing goes on behind the caller's back. */
  async abandon(reason: unknown): Promise<void> {
    this.#failure.abort(reason);
    await this.#submitted;
    await Promise.allSettled(this.#inFlight);
  }

  #begin(): Filling {
    const name = this.newName();
    const targetBytes = this.#packBytes;
    const { cipher, table } = this.#options;
    const builder = new PackBuilder({ name, cipher, ...(targetBytes === undefined ? {} : { targetBytes }) });
    return { builder, name, number: table.addPack({ name, sizeBytes: 0 }) };
  }

  #send({ builder, name, number }: Filling): void {
    const { bytes, entries } = builder.finish();
    this.#options.table.setPackSize(number, bytes.length);
    this.#sent.push({ pack: { name, sizeBytes: bytes.length }, entries });
    void this.#put(name, bytes);
  }

  /** Never rejects: a failure ends the operation by `#failure`. */
  #put(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const { store } = this.#options;
    const put = store.put(packKey(name), bytes, {
      condition: { absent: true },
      uncached: true, // to make room for it in memory would cost as much as a tenth of a first checkpoint, and others their pages
      signal: this.#signal,
    })
      .then(() => {
        this.#bytesSent += bytes.length;
      }, (error) => this.#failure.abort(error))
      .finally(() => this.#inFlight.delete(put));
    this.#inFlight.add(put);
    return put;
  }
}
