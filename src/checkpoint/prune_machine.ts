/**
 * The order of a prune, pure: (state, event) → state and effect. Shipped (manager/pruner.ts) and simulated alike.
 *
 *   settle → forget → collect → doom → sweep → release
 *
 * Each step is left out where there is nothing to do, and none follows one that failed, but for `release`, which says what
 * the sweep did reach. If we die anywhere, the next run finds what is left: see prune_rules.ts.
 */

import { assert } from "../platform/assert.ts";
import type { ErrorCode } from "../platform/errors.ts";
import {
  type Doom,
  dueNames,
  type GraceFacts,
  isEmptyNames,
  type Names,
  NO_NAMES,
  recordsToForget,
  type Unwanted,
} from "./prune_rules.ts";
import type { Head } from "./types.ts";

export interface PruneRequest {
  readonly unwanted: Unwanted;
  /** Look for garbage; false: only delete what is doomed already. */
  readonly collect: boolean;
}

export type PruneChange =
  | { readonly kind: "forget"; readonly ids: readonly string[]; readonly nowMs: number }
  | { readonly kind: "doom"; readonly doom: Doom; readonly nowMs: number }
  | { readonly kind: "release"; readonly names: Names };

export type PruneEffect =
  /** No earlier swap of ours may land any more. Learns `head`. */
  | { readonly type: "settle" }
  /** By compare-and-swap, under the lease. Learns `head`. */
  | { readonly type: "swap"; readonly change: PruneChange }
  /** Marks, lists, repacks; writes only what nothing names yet. Learns `doom`. */
  | { readonly type: "collect"; readonly head: Head }
  /** Packs first, then index and root objects. Learns `swept`, also what it reached before it failed. */
  | { readonly type: "sweep"; readonly names: Names }
  | { readonly type: "ended"; readonly failure: ErrorCode | null };

export interface PruneLearned {
  readonly head?: Head;
  readonly doom?: Doom;
  readonly swept?: { readonly names: Names; readonly failure: ErrorCode | null };
}

export type PruneEvent =
  | { readonly type: "begin" }
  | { readonly type: "done"; readonly learned: PruneLearned }
  | { readonly type: "failed"; readonly code: ErrorCode };

/** What the turn is told of time: asked for anew at each. */
export interface PruneNow extends GraceFacts {
  /** What is doomed now is doomed since then: of the clocks there are the later one, so that no other one finds it old. */
  readonly stampMs: number;
}

export interface PruneMachine {
  readonly request: PruneRequest;
  readonly doing: PruneEffect | null;
  readonly head: Head | null;
  /** Ids that were forgotten. */
  readonly forgotten: readonly string[];
  readonly deleted: Names;
  readonly failure: ErrorCode | null;
}

export interface PruneTurn {
  readonly state: PruneMachine;
  readonly effect: PruneEffect;
}

export function initialPrune(request: PruneRequest): PruneMachine {
  return { request, doing: null, head: null, forgotten: [], deleted: NO_NAMES, failure: null };
}

export function stepPrune(state: PruneMachine, event: PruneEvent, now: PruneNow): PruneTurn {
  if (event.type === "begin") return perform(state, { type: "settle" });
  const { doing } = state;
  assert(doing !== null && doing.type !== "ended", "an answer comes while something is under way");
  if (event.type === "failed") return end({ ...state, failure: event.code });
  const { head = state.head, doom, swept } = event.learned;
  assert(head !== null, "the head is known once it is settled");
  const next = { ...state, head };
  switch (doing.type) {
    case "settle":
      return forgetFirst(next, head, now);
    case "collect":
      assert(doom !== undefined, "a collection says what it found");
      return afterCollection(next, head, doom, now);
    case "sweep": {
      assert(swept !== undefined, "a sweep says what it reached");
      const swepted = { ...next, deleted: swept.names, failure: swept.failure };
      if (isEmptyNames(swept.names)) return end(swepted);
      return perform(swepted, { type: "swap", change: { kind: "release", names: swept.names } });
    }
    case "swap":
      return afterSwap(next, head, doing.change, now);
  }
}

function forgetFirst(state: PruneMachine, head: Head, now: PruneNow): PruneTurn {
  const ids = recordsToForget(head, state.request.unwanted, now.wallMs).map(({ id }) => id);
  if (ids.length === 0) return collectNext(state, head, now);
  return perform(state, { type: "swap", change: { kind: "forget", ids, nowMs: now.stampMs } });
}

function afterSwap(state: PruneMachine, head: Head, change: PruneChange, now: PruneNow): PruneTurn {
  switch (change.kind) {
    case "forget":
      return collectNext({ ...state, forgotten: change.ids }, head, now);
    case "doom":
      return sweepNext(state, head, now);
    case "release":
      return end(state);
  }
}

function collectNext(state: PruneMachine, head: Head, now: PruneNow): PruneTurn {
  return state.request.collect ? perform(state, { type: "collect", head }) : sweepNext(state, head, now);
}

function afterCollection(state: PruneMachine, head: Head, doom: Doom, now: PruneNow): PruneTurn {
  const nothing = doom.packs.length === 0 && doom.objects.length === 0 &&
    doom.indexes.every(({ key }, i) => head.indexes[i]?.key === key) &&
    doom.indexes.length === head.indexes.length;
  if (nothing) return sweepNext(state, head, now);
  return perform(state, { type: "swap", change: { kind: "doom", doom, nowMs: now.stampMs } });
}

/** `head` is one that we committed: rule B. */
function sweepNext(state: PruneMachine, head: Head, now: PruneNow): PruneTurn {
  const names = dueNames(head, now);
  return isEmptyNames(names) ? end(state) : perform(state, { type: "sweep", names });
}

function perform(state: PruneMachine, effect: PruneEffect): PruneTurn {
  return { state: { ...state, doing: effect }, effect };
}

function end(state: PruneMachine): PruneTurn {
  return perform(state, { type: "ended", failure: state.failure });
}
