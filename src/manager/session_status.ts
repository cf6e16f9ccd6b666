/** What a session shows of itself: its part of `GET /`. */

import type { Config } from "../config/types.ts";
import type { LeaseStatus } from "../lease/types.ts";
import type { Supervisor } from "../supervisor/mod.ts";
import { currentRecord } from "./lineage.ts";
import type { Opened } from "./opening.ts";
import type { Restorer } from "./restorer.ts";
import type { SessionStatus } from "./session_types.ts";

export interface SessionParts {
  readonly config: Config;
  /** Description of the store; null: it is not asked yet. */
  readonly store: string | null;
  readonly opened: Opened | null;
  readonly restorer: Restorer | null;
  readonly supervisor: Supervisor | null;
  readonly lease: LeaseStatus | null;
  /** Wall clock. */
  readonly nextCheckpointMs: number | null;
}

export function sessionStatus(parts: SessionParts): SessionStatus {
  const { config, store, opened, restorer, supervisor, lease, nextCheckpointMs } = parts;
  const checkpointer = opened?.checkpointer;
  const inProgress = checkpointer?.inProgress ?? null;
  return {
    repoId: opened?.repo.repo_id ?? null,
    storage: store === null ? null : {
      description: store,
      key_prefix: config.storage.keyPrefix,
      // Before it is read: what this configuration opens, or makes.
      encrypted: opened === null
        ? config.checkpoint.encryptionKeyFile !== null
        : opened.repo.enc !== undefined,
    },
    waitingFor: store !== null && lease === null ? "store: no answer yet" : null,
    lease,
    processes: supervisor?.status() ?? [],
    files: restorer?.files() ?? [],
    databases: opened?.databases.status() ?? [],
    checkpoint: {
      current: opened === null ? null : currentRecord(opened.head.head),
      last_finished: iso(checkpointer?.lastFinishedMs),
      last_error: checkpointer?.lastError?.message ?? null,
      running: checkpointer?.running ?? false,
      in_progress: inProgress === null ? null : { ...inProgress, progress: checkpointer?.progress ?? null },
      next: iso(nextCheckpointMs),
      verify: opened?.verifier.status() ?? { running: false, next: null, last: null },
    },
    warnings: opened?.warnings ?? [],
  };
}

function iso(wallMs: number | null | undefined): string | null {
  return wallMs === null || wallMs === undefined ? null : new Date(wallMs).toISOString();
}
