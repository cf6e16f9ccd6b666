/**
 * A breadth-first walk over every interleaving of a small model: each state once, so a violation that is found is found
 * by a shortest path. States are told apart by a 64-bit hash of their encoding (among 10⁷ states two collide with a
 * chance of 1 in 300,000; the walk would then miss one of them), and a path is kept as which move it was of each state
 * on it: so millions fit into memory, and only the states of one depth are held.
 */

import assert from "node:assert/strict";
import { Encoding } from "./canonical.ts";

export interface Move<State> {
  /** Says what happens, for the trace. */
  readonly label: string;
  readonly state: State;
}

export interface Model<State> {
  readonly initial: State;
  /** All that can happen next, in an order that is always the same. */
  readonly moves: (state: State) => Move<State>[];
  /** What is wrong with a state; null: nothing. */
  readonly violation: (state: State) => string | null;
  /** Equal bytes for states that differ in nothing that matters: absolute times, names of nonces. */
  readonly encode: (state: State, into: Encoding) => void;
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
  const encoding = new Encoding();
  const seen = new HashSet();
  const isNew = (state: State) => {
    encoding.clear();
    model.encode(state, encoding);
    return seen.add(encoding);
  };
  isNew(model.initial);
  const parents: number[] = [-1];
  const ordinals: number[] = [0];
  let frontier: State[] = [model.initial];
  let first = 0;
  let moves = 0;
  let depth = 0;
  while (frontier.length > 0) {
    const next: State[] = [];
    for (const [i, state] of frontier.entries()) {
      for (const [ordinal, move] of model.moves(state).entries()) {
        moves++;
        const violation = model.violation(move.state);
        if (violation !== null) {
          const path = [...pathTo(first + i, parents, ordinals), ordinal];
          return {
            states: parents.length,
            moves,
            depth: depth + 1,
            found: { violation, path: labels(model, path) },
          };
        }
        if (!isNew(move.state)) continue;
        next.push(move.state);
        parents.push(first + i);
        ordinals.push(ordinal);
        assert.ok(parents.length <= limit, `the model has more than ${limit} states`);
      }
    }
    first += frontier.length;
    frontier = next;
    depth++;
  }
  return { states: parents.length, moves, depth, found: null };
}

function pathTo(index: number, parents: readonly number[], ordinals: readonly number[]): number[] {
  const path: number[] = [];
  for (let i = index; i > 0; i = parents[i] ?? -1) path.push(ordinals[i] ?? 0);
  return path.reverse();
}

/** Goes the path again. */
function labels<State>(model: Model<State>, path: readonly number[]): string[] {
  let { initial: state } = model;
  return path.map((ordinal) => {
    const move = model.moves(state)[ordinal];
    assert.ok(move !== undefined, "a model makes the same moves each time");
    state = move.state;
    return move.label;
  });
}

/** Two words for each entry, open addressing; two zeros are a free place. */
class HashSet {
  #words = new Uint32Array(1 << 16);
  #size = 0;

  /** False when it was there. */
  add(encoding: Encoding): boolean {
    const [a, b] = encoding.hash();
    if (!this.#put(a, b)) return false;
    if (++this.#size * 3 > this.#words.length) this.#grow();
    return true;
  }

  #put(a: number, b: number): boolean {
    const words = this.#words;
    const mask = words.length - 1;
    for (let at = (a << 1) & mask;; at = (at + 2) & mask) {
      const first = words[at];
      const second = words[at + 1];
      if (first === a && second === b) return false;
      if (first !== 0 || second !== 0) continue;
      words[at] = a;
      words[at + 1] = b;
      return true;
    }
  }

  #grow(): void {
    const old = this.#words;
    this.#words = new Uint32Array(old.length * 2);
    for (let at = 0; at < old.length; at += 2) {
      const a = old[at] ?? 0;
      const b = old[at + 1] ?? 0;
      if (a !== 0 || b !== 0) this.#put(a, b);
    }
  }
}
