/**
 * Takes new chunks, packs them and sends full packs while more are read. Memory is bounded: the caller waits on
 * `room` before each chunk, and no more than `PUTS_IN_FLIGHT` packs are unacknowledged. If we die here, the packs that
 * were sent are garbage: nothing names them.
 */

import type { Clock } from "../platform/clock.ts";
import { type Random, ulid } from "../platform/random.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { ChunkTable } from "./chunk_table.ts";
import { type Codec, encodeBytes } from "./codec.ts";
import { packKey, packName } from "./ids.ts";
import type { IndexedPack } from "./index_format.ts";
import { FLAG_META, FLAG_ZSTD, PackBuilder, type PackEntry } from "./pack.ts";

/** Puts at one time: enough to fill a line with 16 MiB objects, and 64 MiB of memory at most. */
export const PUTS_IN_FLIGHT = 4;

export interface SentPack {
  readonly pack: IndexedPack;
  readonly entries: readonly PackEntry[];
}

export interface PackSenderOptions {
  readonly store: ObjectStore;
  readonly codec: Codec;
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
  readonly #sent: SentPack[] = [];
  /** Data and manifest pieces go into packs of their own: a restore reads the manifests first. */
  readonly #filling: Record<Kind, Filling | null> = { data: null, meta: null };
  #bytesSent = 0;

  constructor(options: PackSenderOptions) {
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#failure.signal]);
  }

  /** Bytes of packs that the store has acknowledged. */
  get bytesSent(): number {
    return this.#bytesSent;
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

  /** Stores the chunk unless it is stored already. */
  add(id: Uint8Array, plain: Uint8Array, kind: Kind): void {
    const { codec, table } = this.#options;
    if (table.has(id)) return;
    const { bytes, compressed } = encodeBytes(codec, plain);
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

  /** Sends what is left and waits for every acknowledgement. All packs of this run, for the index. */
  async finish(): Promise<readonly SentPack[]> {
    for (const kind of ["data", "meta"] as const) {
      const filling = this.#filling[kind];
      this.#filling[kind] = null;
      if (filling === null) continue;
      await this.#ready(); // the last packs keep the bound, too
      this.#send(filling);
    }
    await Promise.all(this.#inFlight);
    this.#signal.throwIfAborted();
    return this.#sent;
  }

  /** Waits for what is under way after a failure, so that nothing goes on behind the caller's back. */
  async abandon(reason: unknown): Promise<void> {
    this.#failure.abort(reason);
    await Promise.allSettled(this.#inFlight);
  }

  #begin(): Filling {
    const { clock, random, table, token } = this.#options;
    const name = packName(token, ulid(clock.wallMs(), random));
    return { builder: new PackBuilder(), name, number: table.addPack({ name, sizeBytes: 0 }) };
  }

  #send({ builder, name, number }: Filling): void {
    const { store, table } = this.#options;
    const { bytes, entries } = builder.finish();
    table.setPackSize(number, bytes.length);
    this.#sent.push({ pack: { name, sizeBytes: bytes.length }, entries });
    const put = store.put(packKey(name), bytes, { condition: { absent: true }, signal: this.#signal })
      .then(() => {
        this.#bytesSent += bytes.length;
      }, (error) => this.#failure.abort(error))
      .finally(() => this.#inFlight.delete(put));
    this.#inFlight.add(put);
  }
}
