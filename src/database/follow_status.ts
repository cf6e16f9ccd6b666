/**
 * What the manager knows of the databases that its child follows: the child's last word on each, lag that grows also
 * while the child is dead or silent, and counts that go on over its restarts.
 */

import type { Clock } from "../platform/clock.ts";
import type { StateManagerError } from "../platform/errors.ts";
import {
  addCounts,
  ALIVE_INTERVAL_MS,
  type DatabaseCounts,
  type DatabaseStatus,
  NO_COUNTS,
} from "./follow_protocol.ts";

export type LinkState = "starting" | "following" | "restarting" | "fenced" | "finished" | "ended";

export interface FollowStatus {
  readonly state: LinkState;
  readonly pid: number | null;
  /** Children that ended by themselves, since the link began. */
  readonly restarts: number;
  /** Why the last child ended by itself. */
  readonly lastEnd: StateManagerError | null;
  /** By name. */
  readonly databases: readonly FollowedStatus[];
}

export interface FollowedStatus extends Omit<DatabaseStatus, "behindSinceBootMs"> {
  /** Age of the oldest commit that is not, or may not be, durable; 0 when all are. */
  readonly lagMs: number;
}

/** Words of the child are this late at most: an alive line late by more than this makes its "all is durable" doubtful. */
const DOUBT_AFTER_MS = 3 * ALIVE_INTERVAL_MS;

export class FollowBoard {
  readonly #clock: Clock;
  /** As told by the living child, or the last words of the dead one. */
  readonly #told = new Map<string, DatabaseStatus>();
  /** Of the children before. */
  readonly #former = new Map<string, DatabaseCounts>();
  #heardMs: number;
  #alive = false;
  #ends = 0;
  #lastEnd: StateManagerError | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#heardMs = clock.monotonicMs();
  }

  childStarted(): void {
    this.#alive = true;
  }

  childEnded(error: StateManagerError): void {
    this.#alive = false;
    this.#ends++;
    this.#lastEnd = error;
    for (const [name, status] of this.#told) {
      this.#former.set(name, addCounts(this.#former.get(name) ?? NO_COUNTS, status.counts));
      this.#told.set(name, {
        ...status,
        state: "proving",
        counts: NO_COUNTS,
        // Up to its last word nothing was missing; what was committed since nobody has seen.
        behindSinceBootMs: status.behindSinceBootMs ?? this.#heardMs,
      });
    }
  }

  heard(): void {
    this.#heardMs = this.#clock.monotonicMs();
  }

  update(databases: readonly DatabaseStatus[], gone: readonly string[]): void {
    for (const status of databases) this.#told.set(status.name, status);
    for (const name of gone) {
      this.#told.delete(name);
      this.#former.delete(name);
    }
  }

  /** For a new child: since when each database may have commits that are not durable. */
  behind(): Readonly<Record<string, number>> {
    const behind: Record<string, number> = {};
    for (const { name, behindSinceBootMs } of this.#told.values()) {
      if (behindSinceBootMs !== null) behind[name] = behindSinceBootMs;
    }
    return behind;
  }

  status(state: LinkState, pid: number | null): FollowStatus {
    const nowMs = this.#clock.monotonicMs();
    const databases = [...this.#told.values()].map((status) => this.#of(status, nowMs))
      .sort((a, b) => a.name < b.name ? -1 : 1);
    return { state, pid, restarts: this.#ends, lastEnd: this.#lastEnd, databases };
  }

  #of(status: DatabaseStatus, nowMs: number): FollowedStatus {
    const { behindSinceBootMs, counts, ...rest } = status;
    const isSilent = !this.#alive || nowMs - this.#heardMs > DOUBT_AFTER_MS;
    const ended = status.state === "finished" || status.state === "waiting";
    const sinceMs = behindSinceBootMs ?? (isSilent && !ended ? this.#heardMs : nowMs);
    return {
      ...rest,
      lagMs: Math.max(0, Math.round(nowMs - sinceMs)),
      counts: addCounts(this.#former.get(status.name) ?? NO_COUNTS, counts),
    };
  }
}
