/** The open response streams of a server. A graceful shutdown waits for responses, so a stop closes these first. */

/** Most streams at once: each costs a connection and a buffer; operators need a handful. */
const MAX_OPEN_STREAMS = 64;

export class OpenStreams {
  readonly #closers = new Set<() => void>();
  #closed = false;

  /** Registers one; false when there are too many or the server is stopping. */
  add(close: () => void): boolean {
    if (this.#closed || this.#closers.size >= MAX_OPEN_STREAMS) return false;
    this.#closers.add(close);
    return true;
  }

  remove(close: () => void): void {
    this.#closers.delete(close);
  }

  get size(): number {
    return this.#closers.size;
  }

  /** Ends all, and refuses new ones. */
  closeAll(): void {
    this.#closed = true;
    for (const close of [...this.#closers]) close();
    this.#closers.clear();
  }
}
