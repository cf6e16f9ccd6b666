/** Some of the chunks of a table: a bit each. */

import type { ChunkLocation, ChunkTable } from "./chunk_table.ts";

export class ChunkMarks {
  readonly #table: ChunkTable;
  readonly #bits: Uint8Array;

  constructor(table: ChunkTable) {
    this.#table = table;
    this.#bits = new Uint8Array(Math.ceil(table.size / 8));
  }

  /** By its number in the table. False when it was marked before. */
  add(number: number): boolean {
    const before = this.#bits[number >>> 3] ?? 0;
    this.#bits[number >>> 3] = before | (1 << (number & 7));
    return (before & (1 << (number & 7))) === 0;
  }

  has(number: number): boolean {
    return ((this.#bits[number >>> 3] ?? 0) & (1 << (number & 7))) !== 0;
  }

  *marked(): Generator<ChunkLocation> {
    let number = 0;
    for (const chunk of this.#table.all()) if (this.has(number++)) yield chunk;
  }
}
