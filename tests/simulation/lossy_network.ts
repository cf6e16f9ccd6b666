/** One request to the simulated store, and all that can become of it on the way there and back. */

import type { Chance } from "./chance.ts";

/** `failed`: not carried out; `unknown`: nobody knows. */
export type Reply<T> = { readonly type: "done"; readonly value: T } | { readonly type: "failed" | "unknown" };

export interface NetworkWorld {
  readonly nowMs: number;
  readonly chance: Chance;
  /** Only while faults happen. */
  happens(probability: number): boolean;
  at(atMs: number, run: () => void): void;
  count(what: string): void;
}

/** A request may land so long after it was sent. */
const LATEST_LANDING_MS = 20_000;
const REPLY_LIMIT_MS = 2_500;

/** `apply` runs where and when it lands, once, twice or never; `answer` gets what the sender hears, once. */
export function sendRequest<T>(world: NetworkWorld, apply: () => T, answer: (reply: Reply<T>) => void): void {
  const there = world.nowMs + world.chance.between(5, 80);
  const back = there + world.chance.between(5, 80);
  const late = world.nowMs + world.chance.between(1_000, LATEST_LANDING_MS);
  const silence = () => world.at(world.nowMs + REPLY_LIMIT_MS, () => answer({ type: "unknown" }));
  if (world.happens(0.03)) {
    world.count("lost request");
    return silence();
  }
  if (world.happens(0.04)) {
    world.count("lost reply");
    world.at(there, apply);
    return silence();
  }
  if (world.happens(0.04)) {
    world.count("late landing");
    world.at(late, apply);
    return silence();
  }
  if (world.happens(0.03)) return world.at(back, () => answer({ type: "failed" }));
  if (world.happens(0.04)) {
    world.count("doubled request");
    world.at(late, apply);
  }
  world.at(there, () => {
    const value = apply();
    world.at(back, () => answer({ type: "done", value }));
  });
}
