/**
 * All chunks that the live indexes know, in memory: a hash table over 48-byte records, about 60 bytes a chunk (a Map
 * of texts would take ten times that). Used to find what is stored already and where to read it.
 */

import { assert } from "../platform/assert.ts";
import { ID_BYTES, idFromTextInto } from "./ids.ts";
import type { IndexedPack } from "./index_format.ts";
import { copyRecord, ENTRY_BYTES, EntryList, type PackEntry, readNumbers, writeEntry } from "./pack.ts";

/** A pack entry (44 bytes) and the number of its pack. */
const SLOT_BYTES = 48;

export interface ChunkLocation extends PackEntry {
  readonly pack: IndexedPack;
}

type ChunkPlace = Omit<ChunkLocation, "id">;

/** The table is rebuilt at twice the size when more than this share of it is in use. */
const FILL_LIMIT = 0.6;

export class ChunkTable {
  #records = new Uint8Array(1024 * SLOT_BYTES);
  #view = new DataView(this.#records.buffer);
  /** Number of the record + 1; 0 is free. Open addressing by the id's first 32 bits, which are uniform. */
  #slots = new Uint32Array(4096);
  #count = 0;
  readonly #packs: IndexedPack[] = [];
  readonly #asked = new Uint8Array(ID_BYTES);

  get size(): number {
    return this.#count;
  }

  get packs(): readonly IndexedPack[] {
    return this.#packs;
  }

  /** Makes room for so many more chunks at once: to grow step by step costs as much as to take them in. */
  reserve(more: number): void {
    const count = this.#count + more;
    const bytes = count * SLOT_BYTES;
    // Twice the size at least: one small index after the other must not have all copied each time.
    if (bytes > this.#records.length) this.#growRecords(Math.max(bytes, this.#records.length * 2));
    let slots = this.#slots.length;
    while (count > slots * FILL_LIMIT) slots *= 2;
    if (slots > this.#slots.length) this.#rehash(slots);
  }

  /** Number of a new pack; its size may be told later by `setPackSize`. */
  addPack(pack: IndexedPack): number {
    this.#packs.push(pack);
    return this.#packs.length - 1;
  }

  setPackSize(number: number, sizeBytes: number): void {
    const pack = this.#packs[number];
    assert(pack !== undefined, "the pack is known");
    this.#packs[number] = { name: pack.name, sizeBytes };
  }

  /** False when the id is known already; the first one stays. */
  add(entry: PackEntry, packNumber: number): boolean {
    assert(packNumber < this.#packs.length, "the pack is known");
    const slot = this.#slotOf(entry.id);
    if (this.#slots[slot] !== 0) return false;
    const at = this.#count * SLOT_BYTES;
    if (at + SLOT_BYTES > this.#records.length) this.#growRecords(this.#records.length * 2);
    writeEntry(this.#records, this.#view, at, entry);
    this.#take(slot, packNumber);
    return true;
  }

  /** Adds those that are not known yet, and says which these are. None becomes an object: a pack may have a hundred thousand. */
  addAll(entries: EntryList, packNumber: number): EntryList {
    assert(packNumber < this.#packs.length, "the pack is known");
    this.reserve(entries.length);
    const { bytes } = entries;
    const added = new Uint8Array(bytes.length);
    let end = 0;
    for (let from = 0; from < bytes.length; from += ENTRY_BYTES) {
      const slot = this.#slotOf(bytes, from);
      if (this.#slots[slot] !== 0) continue;
      copyRecord(bytes, from, ENTRY_BYTES, this.#records, this.#count * SLOT_BYTES);
      this.#take(slot, packNumber);
      copyRecord(bytes, from, ENTRY_BYTES, added, end);
      end += ENTRY_BYTES;
    }
    return new EntryList(added.subarray(0, end));
  }

  /** Takes in the record that was written behind all others. */
  #take(slot: number, packNumber: number): void {
    this.#view.setUint32(this.#count * SLOT_BYTES + ENTRY_BYTES, packNumber, true);
    this.#count++;
    this.#slots[slot] = this.#count;
    if (this.#count > this.#slots.length * FILL_LIMIT) this.#rehash(this.#slots.length * 2);
  }

  has(id: Uint8Array): boolean {
    return this.#slots[this.#slotOf(id)] !== 0;
  }

  /** Its place in `all`, from 0; null when it is not known. */
  numberOf(id: Uint8Array): number | null {
    const number = this.#slots[this.#slotOf(id)] ?? 0;
    return number === 0 ? null : number - 1;
  }

  find(id: Uint8Array): ChunkLocation | null {
    const number = this.#slots[this.#slotOf(id)] ?? 0;
    return number === 0 ? null : this.#location(number - 1);
  }

  /** Like `find` for an id as text, without a copy of the id: plans ask for very many. */
  locate(id: string): ChunkPlace | null {
    const number = this.#slots[this.#slotOf(idFromTextInto(id, this.#asked))] ?? 0;
    return number === 0 ? null : this.#place(number - 1);
  }

  /** Every chunk, in the order it was added. */
  *all(): Generator<ChunkLocation> {
    for (let i = 0; i < this.#count; i++) yield this.#location(i);
  }

  #location(index: number): ChunkLocation {
    const at = index * SLOT_BYTES;
    // A copy of the id: the records move when the table grows.
    return { ...this.#place(index), id: this.#records.slice(at, at + ID_BYTES) };
  }

  #place(index: number): ChunkPlace {
    const at = index * SLOT_BYTES;
    const { offset, storedLength, length, flags } = readNumbers(this.#view, at);
    const pack = this.#packs[this.#view.getUint32(at + ENTRY_BYTES, true)];
    assert(pack !== undefined, "the pack is known");
    return { offset, storedLength, length, flags, pack };
  }

  /** The slot that holds the id that begins at `from`, or the free one where it belongs. */
  #slotOf(bytes: Uint8Array, from = 0): number {
    const mask = this.#slots.length - 1;
    const word = (bytes[from] ?? 0) | (bytes[from + 1] ?? 0) << 8 | (bytes[from + 2] ?? 0) << 16 |
      (bytes[from + 3] ?? 0) << 24;
    let slot = word & mask;
    for (;;) { // `#rehash` begins where this does
      const number = this.#slots[slot] ?? 0;
      if (number === 0 || this.#equals((number - 1) * SLOT_BYTES, bytes, from)) return slot;
      slot = (slot + 1) & mask;
    }
  }

  #equals(at: number, bytes: Uint8Array, from: number): boolean {
    for (let i = 0; i < ID_BYTES; i++) if (this.#records[at + i] !== bytes[from + i]) return false;
    return true;
  }

  #growRecords(bytes: number): void {
    const grown = new Uint8Array(bytes);
    grown.set(this.#records);
    this.#records = grown;
    this.#view = new DataView(grown.buffer);
  }

  /** No id is there twice, so none is compared. */
  #rehash(length: number): void {
    const slots = new Uint32Array(length);
    const mask = length - 1;
    for (let i = 0; i < this.#count; i++) {
      let slot = this.#view.getUint32(i * SLOT_BYTES, true) & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = i + 1;
    }
    this.#slots = slots;
  }
}
