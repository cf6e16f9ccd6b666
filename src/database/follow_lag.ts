/**
 * Since when a database has commits that are not in the store. Pure account: what was seen to change, what a capture has
 * taken, what waits, what is durable. It may count from too early (the look before the change was seen), never too late.
 */

interface Waiting {
  readonly txid: number;
  readonly sinceMs: number;
  readonly sizeBytes: number;
}

export class LagAccount {
  /** Commits that no capture has begun to take. */
  #seenSinceMs: number | null;
  /** The next look is put off until then: since when there may be commits that it will see. */
  #unseenSinceMs: number | null = null;
  /** Commits that the capture under way takes, all or a part. */
  #takenSinceMs: number | null = null;
  /** By TXID. */
  #waiting: Waiting[] = [];
  readonly #firstMs: number;

  /** A database just met may hold anything. */
  constructor(sinceMs: number) {
    this.#seenSinceMs = this.#firstMs = sinceMs;
  }

  /** It changed at this time or later. */
  changed(sinceMs: number): void {
    this.#seenSinceMs ??= sinceMs;
  }

  /** A capture has begun, and nobody looks before the next one is due: where it changes all the time, it has by then. */
  looksLater(sinceMs: number): void {
    this.#unseenSinceMs = sinceMs;
  }

  /** What changed is known again. */
  looked(): void {
    this.#unseenSinceMs = null;
  }

  captureBegins(): void {
    this.#unseenSinceMs = null;
    this.#takenSinceMs = earlier(this.#takenSinceMs, this.#seenSinceMs);
    this.#seenSinceMs = null;
  }

  /** A new local file, with what the capture under way took, or what was committed by our own upkeep. */
  captured(file: { readonly txid: number; readonly sizeBytes: number }, nowMs: number): void {
    this.#waiting.push({ ...file, sinceMs: this.#takenSinceMs ?? nowMs });
  }

  /** All that was committed before the capture began is in local files. */
  captureEnds(): void {
    this.#takenSinceMs = null;
  }

  captureFailed(): void {
    this.#seenSinceMs = earlier(this.#takenSinceMs, this.#seenSinceMs);
    this.#takenSinceMs = null;
  }

  /** A local file of a child before this one, which may still have to be sent. */
  found(file: { readonly txid: number; readonly sizeBytes: number }): void {
    this.#waiting.push({ ...file, sinceMs: this.#firstMs });
  }

  durable(txid: number): void {
    this.#waiting = this.#waiting.filter((file) => file.txid > txid);
  }

  /** Null: everything is durable that was committed before the last look, and the next one comes soon. */
  get behindSinceMs(): number | null {
    const [oldest] = this.#waiting;
    const uncapturedSinceMs = earlier(this.#seenSinceMs, this.#unseenSinceMs);
    return earlier(oldest?.sinceMs ?? null, earlier(this.#takenSinceMs, uncapturedSinceMs));
  }

  /** It was seen to change, and no capture has begun since. */
  get hasUncaptured(): boolean {
    return this.#seenSinceMs !== null;
  }

  get waitingFiles(): number {
    return this.#waiting.length;
  }

  get waitingBytes(): number {
    return this.#waiting.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }
}

function earlier(a: number | null, b: number | null): number | null {
  if (a === null) return b;
  return b === null ? a : Math.min(a, b);
}
