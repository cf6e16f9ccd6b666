/** Runs a range of seeds in a Worker: what was counted, and the first violation. */

import type { Tally } from "./faults.ts";
import { simulate } from "./world.ts";

export interface SeedRange {
  readonly first: number;
  readonly count: number;
}

export interface RangeOutcome {
  readonly tally: Tally;
  readonly failed:
    | { readonly seed: number; readonly violation: string; readonly trace: readonly string[] }
    | null;
}

export function runRange({ first, count }: SeedRange): RangeOutcome {
  const total: Record<string, number> = {};
  for (let seed = first; seed < first + count; seed++) {
    const { violation, tally, trace } = simulate(seed);
    for (const [what, times] of Object.entries(tally)) total[what] = (total[what] ?? 0) + times;
    if (violation !== null) return { tally: total, failed: { seed, violation, trace } };
  }
  return { tally: total, failed: null };
}

declare const self: {
  onmessage: ((message: MessageEvent<SeedRange>) => void) | null;
  postMessage: (outcome: RangeOutcome) => void;
};

self.onmessage = ({ data }) => self.postMessage(runRange(data));
