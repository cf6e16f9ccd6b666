/**
 * A breadth-first walk over every interleaving of a small model: each state once, so a violation that is found is found
 * by a shortest path. States are told apart by a 53-bit hash of their canonical text (among 10⁷ states two collide
 * with a chance of 1 in 200; the walk would then miss one of them), so that millions fit into memory.
 */

import assert from "node:assert/strict";

export interface Move<State> {
  /** Says what happens, for the trace. */
  readonly label: string;
  readonly state: State;
}

export interface Model<State> {
  readonly initial: State;
  /** All that can happen next. */
  readonly moves: (state: State) => Move<State>[];
  /** What is wrong with a state; null: nothing. */
  readonly violation: (state: State) => string | null;
  /** Equal texts for states that differ in nothing that matters: absolute times, names of nonces. */
  readonly canonical: (state: State) => string;
}

export interface Walk {
  readonly states: number;
  readonly moves: number;
  readonly depth: number;
  /** The first violation in breadth-first order, with the labels that lead to it. */
  readonly found: { readonly violation: string; readonly path: readonly string[] } | null;
}

/** Walks all of `model`; `limit` is where a model that grew out of bounds stops the test. */
export function walk<State>(model: Model<State>, limit: number): Walk {
  const seen = new Set<number>([hash53(model.canonical(model.initial))]);
  const parents: number[] = [-1];
  const labels: string[] = ["start"];
  const known = new Map<string, string>();
  let frontier: { state: State; index: number }[] = [{ state: model.initial, index: 0 }];
  let moves = 0;
  let depth = 0;
  while (frontier.length > 0) {
    const next: typeof frontier = [];
    for (const { state, index } of frontier) {
      for (const move of model.moves(state)) {
        moves++;
        const violation = model.violation(move.state);
        if (violation !== null) {
          const path = [...pathTo(index, parents, labels), move.label];
          return { states: seen.size, moves, depth: depth + 1, found: { violation, path } };
        }
        const key = hash53(model.canonical(move.state));
        if (seen.has(key)) continue;
        seen.add(key);
        assert.ok(seen.size <= limit, `the model has more than ${limit} states`);
        // Labels repeat: one string each.
        const label = known.get(move.label) ?? move.label;
        known.set(label, label);
        next.push({ state: move.state, index: parents.push(index) - 1 });
        labels.push(label);
      }
    }
    frontier = next;
    depth++;
  }
  return { states: seen.size, moves, depth, found: null };
}

function pathTo(index: number, parents: readonly number[], labels: readonly string[]): string[] {
  const path: string[] = [];
  for (let i = index; i > 0; i = parents[i] ?? -1) path.push(labels[i] ?? "");
  return path.reverse();
}

/** cyrb53. */
function hash53(text: string): number {
  let a = 0xdeadbeef;
  let b = 0x41c6ce57;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    a = Math.imul(a ^ code, 2654435761);
    b = Math.imul(b ^ code, 1597334677);
  }
  a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
  b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
  return 4294967296 * (2097151 & b) + (a >>> 0);
}
