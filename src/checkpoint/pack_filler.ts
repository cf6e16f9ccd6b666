/**
 * Fills packs in a reading thread. A pack is begun with a name that the archiver gave: names are the credits that bound
 * memory, since a new one comes only when the store has acknowledged an earlier pack of this thread.
 */

import { assert } from "../platform/assert.ts";
import { bytesOfMemory, type MemoryBlock } from "../platform/shared_memory.ts";
import { DATA_CHUNKS } from "./chunker.ts";
import type { ClaimTable } from "./claim_table.ts";
import { type Codec, encodeBytes } from "./codec.ts";
import type { Compression } from "./compression.ts";
import { levelOf } from "./compression.ts";
import type { Cipher } from "./cipher.ts";
import { ID_BYTES, idToText } from "./ids.ts";
import { FLAG_ZSTD, PackBuilder } from "./pack.ts";

/** Less than this is synced in little time at the end, and would be many small objects before. */
const EARLY_BYTES = 4 * 1024 * 1024;

/** Leave to fill one pack. */
export interface PackCredit {
  readonly name: string;
  /** To build it in: as large as a pack may be, and nobody else's until the pack is given out. */
  readonly memory: MemoryBlock;
}

export interface FilledPack {
  readonly name: string;
  /** That of the credit, whose first `sizeBytes` are the pack. */
  readonly memory: MemoryBlock;
  readonly sizeBytes: number;
  /** Entries one after the other, as in the footer. */
  readonly entries: ArrayBuffer;
}

export interface PackFillerOptions {
  readonly codec: Codec;
  readonly cipher: Cipher;
  readonly claims: ClaimTable;
  readonly compression: Compression;
  readonly targetBytes: number;
  readonly onPack: (pack: FilledPack) => void;
}

export class PackFiller {
  readonly #options: PackFillerOptions;
  readonly #credits: PackCredit[] = [];
  #filling: PackCredit & { readonly builder: PackBuilder } | null = null;
  #level: number | null;
  #wake: (() => void) | null = null;
  readonly #id = new Uint8Array(ID_BYTES);

  constructor(options: PackFillerOptions) {
    this.#options = options;
    this.#level = levelOf(options.compression, { storeIsSlow: false });
  }

  grant(credit: PackCredit): void {
    this.#credits.push(credit);
    this.#wake?.();
    this.#wake = null;
  }

  /** Null when a chunk of any size may be stored at once, else a promise that a credit resolves. */
  room(): Promise<void> | null {
    if (this.#credits.length > 0 || this.#filling?.builder.hasRoom(DATA_CHUNKS.max)) return null;
    return this.#waitForCredit();
  }

  async #waitForCredit(): Promise<void> {
    while (this.#credits.length === 0) await new Promise<void>((resolve) => this.#wake = resolve);
    this.#level = levelOf(this.#options.compression, { storeIsSlow: true });
  }

  /** Stores the chunk unless another has or will. `room` was awaited before. */
  store(plain: Uint8Array): string {
    const { claims, codec, cipher } = this.#options;
    const id = cipher.chunkId(plain, this.#id);
    if (!claims.claim(id)) return idToText(id);
    const { bytes, compressed } = encodeBytes(codec, plain, this.#level);
    if (this.#filling !== null && !this.#filling.builder.hasRoom(bytes.length)) this.flush();
    const { builder } = this.#filling ??= this.#begin();
    builder.add(id, bytes, plain.length, compressed ? FLAG_ZSTD : 0);
    return idToText(id);
  }

  /** Gives out what is in the pack that is being filled, where that is worth an object of its own. */
  flushEarly(): void {
    if ((this.#filling?.builder.sizeBytes ?? 0) >= EARLY_BYTES) this.flush();
  }

  /** Gives out what is in the pack that is being filled. */
  flush(): void {
    const filling = this.#filling;
    if (filling === null) return;
    this.#filling = null;
    const { bytes, entries } = filling.builder.finish();
    const { name, memory } = filling;
    const records = entries.bytes.slice().buffer;
    assert(bytes.buffer === bytesOfMemory(memory).buffer, "a pack stays where it was begun");
    this.#options.onPack({ name, memory, sizeBytes: bytes.length, entries: records });
    this.#level = levelOf(this.#options.compression, { storeIsSlow: false });
  }

  #begin() {
    const credit = this.#credits.pop();
    assert(credit !== undefined, "room was waited for");
    const { cipher, targetBytes } = this.#options;
    const memory = bytesOfMemory(credit.memory);
    return { ...credit, builder: new PackBuilder({ name: credit.name, cipher, targetBytes, memory }) };
  }
}
