/**
 * Has the disk write while a stage is still being built: one sync of the filesystem beside the work whenever enough was
 * written since the last one began, so that the sync that counts, at the end, finds little. Nothing relies on these but
 * for speed; yet one that fails fails the restore, since the system tells each error once.
 */

/** What is written until the next one begins: a few tenths of a second of work. */
const AHEAD_BYTES = 64 * 1024 * 1024;
const AHEAD_FILES = 8_000;

export class SyncAhead {
  readonly #sync: () => Promise<void>;
  #bytes = 0;
  #files = 0;
  #running: Promise<void> | null = null;
  #failure: { readonly error: unknown } | null = null;

  constructor(sync: () => Promise<void>) {
    this.#sync = sync;
  }

  /** One at a time: a slow disk gets no more than it can take. */
  wrote(bytes: number, files: number): void {
    this.#bytes += bytes;
    this.#files += files;
    if (this.#running !== null || this.#failure !== null) return;
    if (this.#bytes < AHEAD_BYTES && this.#files < AHEAD_FILES) return;
    this.#bytes = 0;
    this.#files = 0;
    this.#running = this.#sync().catch((error) => void (this.#failure = { error })).finally(() => {
      this.#running = null;
    });
  }

  /** Waits for the one that runs, and throws what one of them failed with. Nothing is written meanwhile. */
  async end(): Promise<void> {
    await this.#running;
    if (this.#failure !== null) throw this.#failure.error;
  }
}
