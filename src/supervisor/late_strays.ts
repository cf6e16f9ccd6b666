/**
 * A look, a while after the end of an incarnation that nobody waited for, for those that bear its mark though they are
 * neither in its group nor below us: started with its environment by a stranger, such as `at` or a daemon that others asked.
 * All processes of the machine are looked at, which takes a multiple of a restart, so a restart does not wait for it.
 */

import type { Clock } from "../platform/clock.ts";
import { ownPid } from "../platform/proc.ts";
import { Sweeper, type SweepSystem, systemSweep } from "./sweep.ts";
import type { SupervisorEvent } from "./types.ts";
import type { WatchedUnit } from "./units.ts";

/** Many ends in short order are one look. */
const LOOK_AFTER_MS = 1_000;
/** Somebody who starts others all the time is killed more than once; one that cannot be killed is the guard's in the end. */
const MOST_LOOKS = 5;

export interface LateStraysOptions {
  readonly clock: Clock;
  readonly onEvent: (event: SupervisorEvent) => void;
  /** Default: this machine. */
  readonly system?: SweepSystem;
}

export class LateStrays {
  readonly #options: LateStraysOptions;
  readonly #system: SweepSystem;
  readonly #ended = new AbortController();
  /** By tag, with the looks that are left. */
  #due = new Map<string, { readonly unit: WatchedUnit; readonly looks: number }>();
  #isWaiting = false;

  constructor(options: LateStraysOptions) {
    this.#options = options;
    this.#system = options.system ?? systemSweep(ownPid());
  }

  /** Nothing of this unit is to run any more. */
  expect(unit: WatchedUnit): void {
    this.#due.set(unit.tag, { unit, looks: MOST_LOOKS });
    void this.#lookLater();
  }

  /** All that is due at once, and no more looks: everything ends. */
  stop(): void {
    this.#ended.abort();
    this.#look();
  }

  async #lookLater(): Promise<void> {
    if (this.#isWaiting || this.#ended.signal.aborted) return;
    this.#isWaiting = true;
    while (this.#due.size > 0 && !this.#ended.signal.aborted) {
      await this.#options.clock.sleep(LOOK_AFTER_MS, { signal: this.#ended.signal }).catch(() => {});
      if (!this.#ended.signal.aborted) this.#look();
    }
    this.#isWaiting = false;
  }

  #look(): void {
    const due = this.#due;
    this.#due = new Map();
    if (due.size === 0) return;
    const tags = new Map<number, string | null>();
    const system: SweepSystem = {
      ...this.#system,
      readStartVariable: (pid, name) => {
        const tag = this.#system.readStartVariable(pid, name);
        tags.set(pid, tag);
        return tag;
      },
    };
    const units = [...due.values()].map(({ unit }) => unit);
    let found: readonly { readonly pid: number }[];
    try {
      // The group's number may be somebody else's by now: only the mark counts.
      found = new Sweeper(system, { fromRecord: true }).sweep(units, null);
    } catch {
      return; // no /proc: nobody can be seen
    }
    if (found.length === 0) return;
    for (const { unit, looks } of due.values()) {
      const pids = found.map(({ pid }) => pid).filter((pid) => tags.get(pid) === unit.tag);
      if (pids.length === 0) continue;
      this.#options.onEvent({ type: "killed-late", name: unit.name, pids });
      if (looks > 1) this.#due.set(unit.tag, { unit, looks: looks - 1 });
    }
  }
}
