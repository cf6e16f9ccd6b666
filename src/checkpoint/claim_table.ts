/**
 * Which chunks are stored or about to be, shared by all threads that read: a hash table in shared memory, 36 bytes a
 * slot. Who claims a chunk first stores it; everybody else only names it. Ids are compared whole. A claim is a promise:
 * the checkpoint is committed only when the packs of every claimer are acknowledged.
 */

import { assert } from "../platform/assert.ts";
import { ID_BYTES } from "./ids.ts";

/** What a thread needs to open the same table. */
export interface SharedClaims {
  readonly states: SharedArrayBuffer;
  readonly ids: SharedArrayBuffer;
}

const FREE = 0;
const WRITING = 1;
const TAKEN = 2;
const ID_WORDS = ID_BYTES / 4;

/** Slots for each chunk that is expected: short searches. */
const SLOTS_PER_CHUNK = 1.5;
const LEAST_SLOTS = 4096;
/** 36 bytes each: 300 MB of address space for four million chunks, of which only what is written takes memory. */
const MOST_SLOTS = 2 ** 23;
/** A writer needs nanoseconds; one that is gone after this many looks has died, and so has the operation. */
const MOST_LOOKS = 100_000_000;
/** A search that meets this many others finds a table that is full: more came than was expected. */
const MOST_STEPS = 1024;

export class ClaimTable {
  readonly shared: SharedClaims;
  readonly #states: Int32Array;
  readonly #ids: Int32Array;
  readonly #mask: number;
  /** The id of a call: a thread claims one at a time, and very many. */
  readonly #id = new Uint8Array(ID_BYTES);
  readonly #words = new Int32Array(this.#id.buffer);

  constructor(shared: SharedClaims) {
    this.shared = shared;
    this.#states = new Int32Array(shared.states);
    this.#ids = new Int32Array(shared.ids);
    this.#mask = this.#states.length - 1;
    assert((this.#states.length & this.#mask) === 0, "slots are a power of two");
  }

  /** An empty table with room for about so many chunks. */
  static forChunks(count: number): ClaimTable {
    let slots = LEAST_SLOTS;
    while (slots < Math.min(MOST_SLOTS, count * SLOTS_PER_CHUNK)) slots *= 2;
    return new ClaimTable({
      states: new SharedArrayBuffer(slots * 4),
      ids: new SharedArrayBuffer(slots * ID_BYTES),
    });
  }

  /**
   * True for the first caller of all threads, which must store the chunk. Also true, for more than one, when the table
   * is full: then the chunk is stored twice and indexed once.
   */
  claim(id: Uint8Array): boolean {
    this.#id.set(id);
    const words = this.#words;
    let slot = (words[0] ?? 0) & this.#mask;
    for (let step = 0; step < MOST_STEPS; step++) {
      const before = Atomics.compareExchange(this.#states, slot, FREE, WRITING);
      if (before === FREE) {
        this.#write(slot * ID_WORDS, words);
        Atomics.store(this.#states, slot, TAKEN);
        return true;
      }
      if (before === WRITING) this.#settled(slot);
      if (this.#equals(slot * ID_WORDS, words)) return false;
      slot = (slot + 1) & this.#mask;
    }
    return true;
  }

  /** Word by word: on shared memory `set` takes three times as long. */
  #write(at: number, words: Int32Array): void {
    for (let i = 0; i < ID_WORDS; i++) this.#ids[at + i] = words[i] ?? 0;
  }

  #settled(slot: number): void {
    for (let look = 0; Atomics.load(this.#states, slot) === WRITING; look++) {
      assert(look < MOST_LOOKS, "the thread that writes a claim lives");
    }
  }

  #equals(at: number, words: Int32Array): boolean {
    for (let i = 0; i < ID_WORDS; i++) if (this.#ids[at + i] !== words[i]) return false;
    return true;
  }
}
