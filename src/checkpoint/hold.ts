/**
 * A hold: the programs stand still, or are quiet by their own means, from `begin` to `end`, so that what is read in
 * between is of one moment. Both sides of the archiver's pipe use this shape: the manager's does it, the archiver's asks
 * for it.
 */

import type { DatabasePosition } from "./types.ts";

export interface Hold {
  /** Resolves when the programs stand still. Rejects when that cannot be had: the checkpoint fails. */
  begin(): Promise<void>;
  /** Aborted when they go on before `end` was called: what is read from then on is as with no hold. */
  readonly over: AbortSignal;
  /** All content is fixed: they may go on. */
  end(): Promise<Released>;
}

export interface Released {
  /** Null: they stood still from `begin` to `end`. Else why not, for the checkpoint's warnings. */
  readonly broken: string | null;
  /** Where the databases stood meanwhile. */
  readonly databases: Readonly<Record<string, DatabasePosition>>;
}
