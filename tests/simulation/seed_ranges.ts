/** Many seeds over all cores: ranges for Workers, which answer with what they counted and the first violation. */

export interface SeedRange {
  readonly first: number;
  readonly count: number;
}

export interface RangeOutcome {
  readonly tally: Readonly<Record<string, number>>;
  readonly failed:
    | { readonly seed: number; readonly violation: string; readonly trace: readonly string[] }
    | null;
}

/** One history: null where all held. */
export type Simulate = (
  seed: number,
) => {
  readonly violation: string | null;
  readonly tally: Readonly<Record<string, number | undefined>>;
  readonly trace: readonly string[];
};

/** Ranges are handed out in these pieces, so that no Worker idles at the end and a failure shows early. */
const PIECE = 500;

/** In the Worker: runs a range to its end or its first violation. */
export function runRange({ first, count }: SeedRange, simulate: Simulate): RangeOutcome {
  const total: Record<string, number> = {};
  for (let seed = first; seed < first + count; seed++) {
    const { violation, tally, trace } = simulate(seed);
    for (const [what, times] of Object.entries(tally)) total[what] = (total[what] ?? 0) + (times ?? 0);
    if (violation !== null) return { tally: total, failed: { seed, violation, trace } };
  }
  return { tally: total, failed: null };
}

declare const self: {
  onmessage: ((message: MessageEvent<SeedRange>) => void) | null;
  postMessage: (outcome: RangeOutcome) => void;
};

/** The whole of a Worker. */
export function serveRanges(simulate: Simulate): void {
  self.onmessage = ({ data }) => self.postMessage(runRange(data, simulate));
}

/** In the test: all seeds, one Worker for each core. Throws on the violation of the smallest seed that was found. */
export async function runSeeds(worker: URL, { first, count }: SeedRange): Promise<Map<string, number>> {
  const pieces: SeedRange[] = [];
  for (let at = 0; at < count; at += PIECE) {
    pieces.push({ first: first + at, count: Math.min(PIECE, count - at) });
  }
  const outcomes: RangeOutcome[] = [];
  await Promise.all(
    Array.from({ length: navigator.hardwareConcurrency }, () => runPieces(worker, pieces, outcomes)),
  );
  const failed = outcomes.flatMap((outcome) => outcome.failed ?? []).sort((a, b) => a.seed - b.seed)[0];
  if (failed !== undefined) {
    throw new Error(`seed ${failed.seed}: ${failed.violation}\n${failed.trace.join("\n")}`);
  }
  const total = new Map<string, number>();
  for (const { tally } of outcomes) {
    for (const [what, times] of Object.entries(tally)) total.set(what, (total.get(what) ?? 0) + times);
  }
  return total;
}

async function runPieces(url: URL, pieces: SeedRange[], outcomes: RangeOutcome[]): Promise<void> {
  const worker = new Worker(url, { type: "module" });
  try {
    for (let piece = pieces.shift(); piece !== undefined; piece = pieces.shift()) {
      const { promise, resolve, reject } = Promise.withResolvers<RangeOutcome>();
      const { first } = piece;
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(`seeds from ${first}: ${event.message}`));
      };
      worker.postMessage(piece);
      outcomes.push(await promise);
    }
  } finally {
    worker.terminate();
  }
}
