/** Looks into checkpoints while programs run: the reading is the archiver's, a few at one time. */

import { type Archiver, type DiffResult, findCheckpoint, type FolderListing } from "../checkpoint/mod.ts";
import type { Head } from "../checkpoint/types.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { DiffWish, FolderWish } from "./control.ts";

export interface BrowserOptions {
  readonly archiver: Pick<Archiver, "files" | "diff">;
  readonly head: () => Head;
}

/** Each is a child process with a manifest or two in memory, beside programs that have better things to do. */
const MOST_AT_ONCE = 2;

export class Browser {
  readonly #options: BrowserOptions;
  #running = 0;

  constructor(options: BrowserOptions) {
    this.#options = options;
  }

  /** Errors: `checkpoint-not-found`, `not-found`, `overloaded`, those of a restore. */
  files(reference: string, wish: FolderWish, signal?: AbortSignal): Promise<FolderListing> {
    const { archiver, head } = this.#options;
    return this.#oneOfFew(() => {
      const { indexes } = head();
      const record = findCheckpoint(head(), { checkpoint: reference });
      return archiver.files({ ...wish, record, indexes }, workOf(signal));
    });
  }

  /** Errors: `checkpoint-not-found`, `overloaded`, those of a restore. */
  diff({ before, after, skip, limit }: DiffWish, signal?: AbortSignal): Promise<DiffResult> {
    const { archiver, head } = this.#options;
    return this.#oneOfFew(() => {
      const { indexes } = head();
      const records = {
        before: findCheckpoint(head(), { checkpoint: before }),
        after: findCheckpoint(head(), { checkpoint: after }),
      };
      return archiver.diff({ ...records, indexes, skip, limit }, workOf(signal));
    });
  }

  async #oneOfFew<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= MOST_AT_ONCE) {
      throw new StateManagerError(
        "overloaded",
        `look into a checkpoint: ${MOST_AT_ONCE} others do so already`,
        {
          hint: "ask again in a moment",
        },
      );
    }
    this.#running++;
    try {
      return await work();
    } finally {
      this.#running--;
    }
  }
}

function workOf(signal: AbortSignal | undefined): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
