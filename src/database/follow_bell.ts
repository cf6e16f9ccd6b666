/** Wakes one loop: a ring that comes while it works is not lost, many rings are one. */

export class Bell {
  #rung = false;
  #waiter: (() => void) | null = null;

  ring(): void {
    this.#rung = true;
    this.#waiter?.();
  }

  /** Resolves at once when it rang since the last wait. Rejects with the signal's reason. One waiter at a time. */
  wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const end = () => {
        this.#waiter = null;
        signal.removeEventListener("abort", onAbort);
      };
      const onAbort = () => {
        end();
        reject(signal.reason);
      };
      this.#waiter = () => {
        end();
        this.#rung = false;
        resolve();
      };
      signal.addEventListener("abort", onAbort, { once: true });
      if (this.#rung) this.#waiter();
    });
  }
}
