/** What people may ask of single processes, and of the definitions of all: shapes of requests and answers. */

import type { ProcessStatus } from "../supervisor/types.ts";
import type { ReloadPlan } from "./reload_rules.ts";

export interface ReloadWish {
  /** Say what would be done. */
  readonly dryRun: boolean;
  /** Restart those whose running incarnation was started by another definition. */
  readonly restart: boolean;
}

export interface ReloadResult extends ReloadPlan {
  readonly dryRun: boolean;
  /** Those that were or would be restarted. */
  readonly restarted: readonly string[];
  /** Those that were sent their reload signal; empty for a dry run. */
  readonly signalled: readonly string[];
  readonly warnings: readonly string[];
}

export interface SignalWish {
  /** Null: the process's reload signal. */
  readonly signal: Deno.Signal | null;
  readonly to: "leader" | "group";
}

/** All reject with `wrong-state` unless the manager runs its programs, with `not-found` for an unknown name. */
export interface ProcessControl {
  /** Resolves when it was asked to start; its dependencies may still hold it back. */
  startProcess(name: string): Promise<ProcessStatus>;
  /** Resolves when nothing of it is left, or after `waitMs` (null: its own timeout) with who is: `stop` in the status. */
  stopProcess(name: string, options: { readonly waitMs: number | null }): Promise<ProcessStatus>;
  /** As `stopProcess`, then it starts again; what is not running starts. */
  restartProcess(name: string, options: { readonly waitMs: number | null }): Promise<ProcessStatus>;
  signalProcess(name: string, wish: SignalWish): Promise<ProcessStatus>;
  /** Reads the configuration again and takes over what concerns processes. Rejects before anything is changed. */
  reload(wish: ReloadWish): Promise<ReloadResult>;
}
