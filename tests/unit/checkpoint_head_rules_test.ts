/** The head's rules against a store whose puts may land late: what `settle` promises, and what ends a term. */

import assert from "node:assert/strict";
import {
  type HeadEffect,
  type HeadEvent,
  type HeadMachine,
  type HeadOutcome,
  type HeadState,
  initialHead,
  stepHead,
} from "../../src/checkpoint/head_rules.ts";

type Put = Extract<HeadEffect, { type: "put" }>;
type Fate = "lands" | "lands, answer lost" | "is late";

/** A store with conditional puts; a late one is kept, to land when the test says so. The tag of a version is its nonce. */
class Place {
  there: HeadState | null = null;
  readonly late: Put[] = [];

  /** True when the condition held. */
  land(put: Put): boolean {
    if ((this.there?.etag ?? null) !== put.base) return false;
    assert.ok(put.head.nonce !== undefined);
    this.there = { head: put.head, etag: put.head.nonce };
    return true;
  }

  put(put: Put, fate: Fate): HeadEvent {
    if (fate === "is late") this.late.push(put);
    if (fate === "is late" || (this.land(put) && fate !== "lands")) {
      return { type: "unknown", code: "outcome-unknown" };
    }
    const etag = put.head.nonce;
    return etag !== undefined && this.there?.etag === etag ? { type: "written", etag } : { type: "refused" };
  }
}

/** Does what is asked for, to its end; one fate for each put, in their order, then all land. */
function run(place: Place, start: HeadMachine, asked: HeadEvent, fates: readonly Fate[] = []) {
  const left = [...fates];
  let puts = 0;
  let event = asked;
  let machine = start;
  while (true) {
    const { state, effects: [effect] } = stepHead(machine, event);
    machine = state;
    assert.ok(effect !== undefined);
    switch (effect.type) {
      case "settled":
        return { machine, puts, outcome: effect.outcome };
      case "get":
        event = { type: "read", found: place.there };
        break;
      case "prove":
        event = { type: "proven" };
        break;
      case "put":
        puts++;
        event = place.put(effect, left.shift() ?? "lands");
    }
  }
}

const DONE: HeadOutcome = { kind: "done" };

function taken(place: Place, token = 1): HeadMachine {
  const looked = run(place, initialHead({ repoId: "repo", token, writer: `w${token}` }), { type: "look" });
  const { machine, outcome } = run(place, looked.machine, { type: "take-over" });
  assert.deepEqual(outcome, DONE);
  return machine;
}

/** A commit that says so in `on_start_applied`. */
function commit(machine: HeadMachine, text: string): HeadEvent {
  assert.ok(machine.base !== null);
  return { type: "commit", next: { ...machine.base.head, on_start_applied: text } };
}

/** A commit that was told to have failed and may land yet. */
function inDoubt(place: Place): HeadMachine {
  const ours = taken(place);
  const { machine, outcome } = run(place, ours, commit(ours, "doubt"), ["is late"]);
  assert.equal(outcome.kind, "failed");
  assert.equal(machine.unsettled.length, 1);
  return machine;
}

Deno.test("head settle makes a late put impossible, and changes nothing but the version", () => {
  const place = new Place();
  const doubtful = inDoubt(place);
  const { machine, outcome, puts } = run(place, doubtful, { type: "settle" });
  assert.deepEqual([outcome, puts, machine.unsettled], [DONE, 1, []]);
  assert.equal(machine.base?.head.seq, (doubtful.base?.head.seq ?? 0) + 1);
  assert.equal(machine.base?.head.on_start_applied, null);
  for (const put of place.late) assert.equal(place.land(put), false, "the late put lands after all");
});

Deno.test("head settle takes a put that has landed for what is there, and sends nothing", () => {
  const place = new Place();
  const doubtful = inDoubt(place);
  for (const put of place.late) assert.ok(place.land(put));
  const { machine, outcome, puts } = run(place, doubtful, { type: "settle" });
  assert.deepEqual([outcome, puts, machine.unsettled], [DONE, 0, []]);
  assert.equal(machine.base?.head.on_start_applied, "doubt");
});

Deno.test("head settle is done when the late put lands just before its own", () => {
  const place = new Place();
  const doubtful = inDoubt(place);
  const [late] = place.late;
  assert.ok(late !== undefined);
  // Up to its put, then the late one is first.
  const reading = stepHead(doubtful, { type: "settle" });
  const proving = stepHead(reading.state, { type: "read", found: place.there });
  const { state, effects: [put] } = stepHead(proving.state, { type: "proven" });
  assert.ok(put?.type === "put" && place.land(late));
  const { machine, outcome } = run(place, state, place.put(put, "lands"));
  assert.deepEqual([outcome, machine.unsettled], [DONE, []]);
  assert.equal(machine.base?.head.on_start_applied, "doubt");
  assert.equal(machine.standing, "ours");
});

Deno.test("head settle fails with everything still in doubt when no answer comes, and may be tried again", () => {
  const place = new Place();
  const doubtful = inDoubt(place);
  const lost = run(place, doubtful, { type: "settle" }, ["is late", "is late", "is late"]);
  assert.equal(lost.outcome.kind, "failed");
  assert.equal(lost.machine.unsettled.length, 2, "the commit, and one version however often it was sent");
  const { machine, outcome } = run(place, lost.machine, { type: "settle" }, ["lands, answer lost"]);
  assert.deepEqual([outcome, machine.unsettled], [DONE, []]);
  for (const put of place.late) assert.equal(place.land(put), false);
});

Deno.test("head settle is done at once when nothing is in doubt", () => {
  const place = new Place();
  const { outcome, puts } = run(place, taken(place), { type: "settle" });
  assert.deepEqual([outcome, puts], [DONE, 0]);
});

Deno.test("head is lost for good when a later term has taken it over, whatever was in doubt", () => {
  const place = new Place();
  const doubtful = inDoubt(place);
  taken(place, 2);
  const settled = run(place, doubtful, { type: "settle" });
  assert.equal(settled.outcome.kind, "lost");
  for (const put of place.late) assert.equal(place.land(put), false);
  const again = run(place, settled.machine, commit(settled.machine, "late"));
  assert.deepEqual([again.outcome.kind, again.puts], ["lost", 0]);
});
