/**
 * Whether what a model of a walk takes for one state is one. Where all states with one encoding can go on to the same
 * encodings, or to harm alike, each history from one of them is a history from the other, step by step: a walk that
 * follows only the first of them misses nothing.
 */

import { Encoding } from "./canonical.ts";
import type { Chance } from "./chance.ts";
import type { Model } from "./walker.ts";

export interface Comparison {
  /** States looked at, and encodings that they have. */
  readonly states: number;
  readonly groups: number;
  /** Two states with one encoding and different futures; null: none. */
  readonly differ: readonly [string, string] | null;
}

export function compareFutures<State>(model: Model<State>, states: Iterable<State>): Comparison {
  const text = encoder(model);
  const groups = new Map<string, { readonly future: string; readonly state: State }>();
  let count = 0;
  for (const state of states) {
    count++;
    const futures = model.moves(state).map((move) =>
      model.violation(move.state) === null ? text(move.state) : "harm"
    );
    const future = [...new Set(futures)].sort().join("|");
    const group = text(state);
    const known = groups.get(group);
    if (known === undefined) groups.set(group, { future, state });
    else if (known.future !== future) {
      const differ = [JSON.stringify(known.state), JSON.stringify(state)] as const;
      return { states: count, groups: groups.size, differ };
    }
  }
  return { states: count, groups: groups.size, differ: null };
}

/**
 * All states without harm that are reached: where `model` tells all apart, each that there is; else each that one move
 * leads to from the first of its like.
 */
export function* reachedStates<State>(model: Model<State>): Generator<State> {
  const text = encoder(model);
  const seen = new Set([text(model.initial)]);
  const queue = [model.initial];
  yield model.initial;
  // It grows while it is read.
  for (const state of queue) {
    for (const move of model.moves(state)) {
      if (model.violation(move.state) !== null) continue;
      yield move.state;
      const name = text(move.state);
      if (!seen.has(name)) queue.push(move.state);
      seen.add(name);
    }
  }
}

/** States of random histories, of at most `length` moves. */
export function* randomStates<State>(
  model: Model<State>,
  { chance, histories, length }: { chance: Chance; histories: number; length: number },
): Generator<State> {
  for (let history = 0; history < histories; history++) {
    let state = model.initial;
    for (let step = 0; step < length; step++) {
      yield state;
      const moves = model.moves(state).filter((move) => model.violation(move.state) === null);
      const move = moves[chance.below(moves.length)];
      if (move === undefined) break;
      ({ state } = move);
    }
  }
}

function encoder<State>(model: Model<State>): (state: State) => string {
  const encoding = new Encoding();
  return (state) => {
    encoding.clear();
    model.encode(state, encoding);
    return encoding.toString();
  };
}
