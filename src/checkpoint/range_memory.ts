/**
 * Memory of ranges that are fetched, used again when a range is done with. Else the runtime clears some megabytes for
 * each one, and looks through all that the program holds whenever 64 MiB of them have come: a quarter of a restore's work.
 */

/** Holds no more than were in use at one time. Sizes beyond `pieceBytes` come and go. */
export class RangeMemory {
  readonly #pieceBytes: number;
  readonly #free: ArrayBuffer[] = [];

  constructor(pieceBytes: number) {
    this.#pieceBytes = pieceBytes;
  }

  /** At least `sizeBytes`, with whatever was in it before. */
  take(sizeBytes: number): Uint8Array<ArrayBuffer> {
    if (sizeBytes > this.#pieceBytes) return new Uint8Array(sizeBytes);
    return new Uint8Array(this.#free.pop() ?? new ArrayBuffer(this.#pieceBytes));
  }

  /** What nobody uses any more. */
  give(memory: ArrayBuffer): void {
    if (memory.byteLength === this.#pieceBytes) this.#free.push(memory);
  }
}
