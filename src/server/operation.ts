/** Long work (a checkpoint, a restore) that lives on its own: clients come, watch and go, and it never ends for that. */

import type { ArchiveProgress } from "../checkpoint/types.ts";
import type { LongWork } from "../manager/control.ts";

export type OperationEvent =
  | { readonly type: "progress"; readonly progress: ArchiveProgress }
  | { readonly type: "captured"; readonly id: string };

export class Operation<T> {
  /** Settles when the work is done. Having no listener is fine. */
  readonly result: Promise<T>;
  readonly #listeners = new Set<(event: OperationEvent) => void>();
  #latest: OperationEvent | null = null;
  #captured: string | null = null;

  /** Begins at once. No client's signal goes in, so none can cancel it. */
  constructor(begin: (work: LongWork) => Promise<T>) {
    this.result = Promise.resolve().then(() =>
      begin({
        onProgress: (progress) => this.#tell({ type: "progress", progress }),
        onCaptured: (id) => {
          this.#captured = id;
          this.#tell({ type: "captured", id });
        },
      })
    );
    this.result.catch(() => {});
  }

  /** Id of the checkpoint once its content is fixed. */
  get capturedId(): string | null {
    return this.#captured;
  }

  /** Hears what comes, and first where it stands. Returns the way to stop listening. */
  listen(listener: (event: OperationEvent) => void): () => void {
    this.#listeners.add(listener);
    if (this.#captured !== null) {
      listener({ type: "captured", id: this.#captured });
    }
    if (this.#latest !== null && this.#latest.type !== "captured") {
      listener(this.#latest);
    }
    return () => this.#listeners.delete(listener);
  }

  /** Resolves with the id when the content is fixed, or with null when the work ends before that was told. */
  async captured(): Promise<string | null> {
    if (this.#captured !== null) return this.#captured;
    let stop = () => {};
    const told = new Promise<string>((resolve) => {
      stop = this.listen((event) => event.type === "captured" && resolve(event.id));
    });
    try {
      return await Promise.race([told, this.result.then(() => this.#captured)]);
    } finally {
      stop();
    }
  }

  #tell(event: OperationEvent): void {
    this.#latest = event;
    for (const listener of [...this.#listeners]) listener(event);
  }
}
