/**
 * Whether a program that KILL ended was the kernel's victim, for want of memory. The kernel says only how many of our
 * control group it has killed; so a kill that is newly counted is taken for that of the program that died of KILL with
 * nobody of ours having sent it. A count is read where it costs nothing, and at such a death: never at another one.
 */

import type { Clock } from "../platform/clock.ts";
import { oomKillReader } from "../platform/machine.ts";
import type { ExitCause } from "./types.ts";

/**
 * A kill that was counted this long ago was another's: some child's that its program survived. A program of many gibibytes
 * takes seconds to be gone after the kernel counted it.
 */
const KILL_COUNTS_MS = 10_000;

export class OomKills {
  readonly #clock: Clock;
  readonly #read: () => number | null;
  /** What was read last; null: the group cannot be read. */
  #known: number | null;
  /** Kills that no program was found for yet, and when the last of them was noticed. */
  #open = 0;
  #noticedAtMs = -Infinity;

  constructor(clock: Clock, read: () => number | null = oomKillReader()) {
    this.#clock = clock;
    this.#read = read;
    this.#known = read();
  }

  /** Takes note of what was killed until now. */
  refresh(): void {
    if (this.#known === null) return;
    const count = this.#read();
    if (count === null) return;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#noticedAtMs > KILL_COUNTS_MS) this.#open = 0;
    if (count > this.#known) {
      this.#open += count - this.#known;
      this.#noticedAtMs = nowMs;
    }
    this.#known = count;
  }

  /** How one program ended, with that it was out of memory where it was. Each kill is told of one program only. */
  judge(cause: ExitCause, askedToEnd: boolean): ExitCause {
    if (cause.kind !== "signal" || cause.signal !== "SIGKILL" || askedToEnd) return cause;
    this.refresh();
    if (this.#open === 0) return cause;
    this.#open--;
    return { ...cause, oom: true };
  }
}
