/** How a stop of all shares its time between levels, how it is waited for, and what it must not leave behind in silence. */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";

/**
 * Kept back from the stop of a level for each level below it (at most half of what is left): without it one hanging
 * client eats the whole grace, and the database below it is killed without ever having been asked to stop.
 */
const LEVEL_RESERVE_MS = 1_000;

/** Infinity where nothing bounds the whole stop. */
export function levelDeadlineMs(stopByMs: number, nowMs: number, levelsBelow: number): number {
  const leftMs = Math.max(0, stopByMs - nowMs);
  return stopByMs === Infinity ? Infinity : stopByMs - Math.min(levelsBelow * LEVEL_RESERVE_MS, leftMs / 2);
}

/** How often a wait looks whether its end was moved. */
const LOOK_MS = 100;

/** Resolves when none of them is live, or when the moment of giving up, which may move nearer, has come. */
export async function untilIdle(
  clock: Clock,
  runners: readonly { idle(): Promise<void> }[],
  giveUpMs: () => number,
): Promise<void> {
  const done = new AbortController();
  const ended = Promise.all(runners.map((runner) => runner.idle())).then(() => done.abort());
  while (!done.signal.aborted) {
    const leftMs = giveUpMs() - clock.monotonicMs();
    if (leftMs <= 0) return;
    const nap = clock.sleep(Math.min(leftMs, LOOK_MS), { signal: done.signal });
    await Promise.race([ended, nap.catch(() => {})]);
  }
}

/** Throws `timeout` where something outlived the KILL and may still write; what hangs in the kernel (D) may not. */
export function refuseSurvivors(
  left: readonly { readonly spec: { readonly name: string }; readonly survivors: readonly string[] }[],
): void {
  const dangerous = left.flatMap(({ spec, survivors }) =>
    survivors.filter((survivor) => !survivor.endsWith(", D)")).map((pid) => `${spec.name} ${pid}`)
  );
  if (dangerous.length === 0) return;
  throw new StateManagerError("timeout", `stop processes: still alive after KILL: ${dangerous.join("; ")}`, {
    hint: "they may belong to another user that this manager may not signal",
  });
}
