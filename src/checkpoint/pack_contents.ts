/**
 * What the indexes say of each pack, every record of every index. The chunk table keeps only the first place of a chunk;
 * who checks or repairs must see them all. About 50 bytes a chunk.
 */

import { assert } from "../platform/assert.ts";
import type { IndexedPack } from "./index_format.ts";
import { ENTRY_BYTES, EntryList, type PackEntry, readNumbers, writeEntry } from "./pack.ts";

export class PackContents {
  #records = new Uint8Array(1024 * ENTRY_BYTES);
  #view = new DataView(this.#records.buffer);
  #packOf = new Uint32Array(1024);
  #count = 0;
  readonly #packs: IndexedPack[] = [];
  readonly #numbers = new Map<string, number>();
  /** Records by pack: those of pack i are order[starts[i]] to order[starts[i + 1]]. Null: to be made anew. */
  #sorted: { readonly starts: Uint32Array; readonly order: Uint32Array } | null = null;

  get packs(): readonly IndexedPack[] {
    return this.#packs;
  }

  get chunks(): number {
    return this.#count;
  }

  find(name: string): IndexedPack | null {
    return this.#packs[this.#numbers.get(name) ?? -1] ?? null;
  }

  /** The pack's number; the first size that was told stays. */
  addPack(pack: IndexedPack): number {
    const known = this.#numbers.get(pack.name);
    if (known !== undefined) return known;
    this.#numbers.set(pack.name, this.#packs.length);
    this.#sorted = null;
    return this.#packs.push(pack) - 1;
  }

  add(pack: IndexedPack, entry: PackEntry): void {
    const number = this.addPack(pack);
    if (this.#count === this.#packOf.length) this.#grow();
    writeEntry(this.#records, this.#view, this.#count * ENTRY_BYTES, entry);
    this.#packOf[this.#count] = number;
    this.#count++;
    this.#sorted = null;
  }

  /** What the indexes list of the pack, by offset; empty when they do not know it. */
  entriesOf(name: string): EntryList {
    const number = this.#numbers.get(name);
    if (number === undefined) return new EntryList();
    const { starts, order } = this.#sorted ?? this.#sort();
    const places = order.slice(starts[number], starts[number + 1]);
    const offsetAt = (place: number) => readNumbers(this.#view, place * ENTRY_BYTES).offset;
    places.sort((a, b) => offsetAt(a) - offsetAt(b));
    const bytes = new Uint8Array(places.length * ENTRY_BYTES);
    for (const [i, place] of places.entries()) {
      const at = place * ENTRY_BYTES;
      bytes.set(this.#records.subarray(at, at + ENTRY_BYTES), i * ENTRY_BYTES);
    }
    return new EntryList(bytes);
  }

  #sort(): { readonly starts: Uint32Array; readonly order: Uint32Array } {
    const starts = new Uint32Array(this.#packs.length + 1);
    for (let i = 0; i < this.#count; i++) {
      const next = (this.#packOf[i] ?? 0) + 1;
      starts[next] = (starts[next] ?? 0) + 1;
    }
    for (let i = 1; i < starts.length; i++) starts[i] = (starts[i] ?? 0) + (starts[i - 1] ?? 0);
    const free = starts.slice();
    const order = new Uint32Array(this.#count);
    for (let i = 0; i < this.#count; i++) {
      const pack = this.#packOf[i] ?? 0;
      const at = free[pack] ?? 0;
      order[at] = i;
      free[pack] = at + 1;
    }
    assert(free.at(-2) === undefined || free.at(-2) === starts.at(-1), "each record belongs to a pack");
    this.#sorted = { starts, order };
    return this.#sorted;
  }

  #grow(): void {
    const records = new Uint8Array(this.#records.length * 2);
    records.set(this.#records);
    this.#records = records;
    this.#view = new DataView(records.buffer);
    const packOf = new Uint32Array(this.#packOf.length * 2);
    packOf.set(this.#packOf);
    this.#packOf = packOf;
  }
}
