/** Wakes one loop: a ring that comes while it works is not lost, many rings are one. */

export class Bell {
  #rung = false;
  #waiter: PromiseWithResolvers<void> | null = null;
  /** Listened to: a loop waits each second or more often, with one signal for its life. */
  #signal: AbortSignal | null = null;

  ring(): void {
    this.#rung = true;
    this.#answer();
  }

  /** Resolves at once when it rang since the last wait. Rejects with the signal's reason. One waiter at a time. */
  wait(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#signal !== signal) {
      this.#signal = signal;
      signal.addEventListener("abort", () => this.#abort(signal), { once: true });
    }
    const waiter = this.#waiter = Promise.withResolvers<void>();
    if (this.#rung) this.#answer();
    return waiter.promise;
  }

  #answer(): void {
    if (this.#waiter === null) return;
    this.#rung = false;
    this.#waiter.resolve();
    this.#waiter = null;
  }

  #abort(signal: AbortSignal): void {
    if (this.#signal !== signal) return;
    this.#waiter?.reject(signal.reason);
    this.#waiter = null;
  }
}
