/** Long work of the manager with files beside its duties: lease, supervision and HTTP never wait for long. */

import { listNameBatches, type PathBytes } from "../platform/libc_files.ts";
import { Turns } from "../platform/turns.ts";

/**
 * Work between two turns: a fifth of the 50 ms that the loop may stand still, which leaves room for the piece that runs
 * then (a batch of names, one rename).
 */
const TURN_INTERVAL_MS = 10;

export function managerTurns(): Turns {
  return new Turns(TURN_INTERVAL_MS);
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
