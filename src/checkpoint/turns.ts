/**
 * Lets the manager do long work with files beside its duties: between two synchronous pieces it gives the event loop
 * its turn, by time, so that lease, supervision and HTTP never wait for long.
 */

import { listNameBatches, type PathBytes } from "../platform/libc_files.ts";

/**
 * Work between two turns: a fifth of the 50 ms that the loop may stand still, which leaves room for the piece that runs
 * then (a batch of names, one rename). A single call that the disk or a busy machine holds for longer is not bounded here.
 */
const TURN_INTERVAL_MS = 10;

export class Turns {
  #lastMs = performance.now();

  /** Null when it is not time yet, else a promise to await. */
  next(): Promise<void> | null {
    if (performance.now() - this.#lastMs < TURN_INTERVAL_MS) return null;
    return new Promise((resolve) =>
      setTimeout(() => {
        this.#lastMs = performance.now();
        resolve();
      }, 0)
    );
  }
}

/** All names in an open folder, however many. */
export async function listAllNames(fd: number, turns: Turns): Promise<PathBytes[]> {
  const names: PathBytes[] = [];
  for (const batch of listNameBatches(fd)) {
    for (const name of batch) names.push(name);
    const pause = turns.next();
    if (pause !== null) await pause;
  }
  return names;
}
