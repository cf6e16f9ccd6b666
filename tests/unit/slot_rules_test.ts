/** The slot fence's decisions, one by one. What they add up to is tests/simulation/slot_simulation_test.ts. */

import assert from "node:assert/strict";
import {
  openSlots,
  type SlotEvent,
  type SlotMachine,
  type SlotStep,
  type SlotUpload,
  stepSlots,
} from "../../src/database/slot_rules.ts";

const NOW = 1_000;
const upload = (txid: number, token = 5): SlotUpload => ({
  txid,
  token,
  sizeBytes: 300,
  identity: `bytes of ${txid} by ${token}`,
});
const mine = upload(8);
const found = (object: Extract<SlotEvent, { type: "found" }>["object"]): SlotEvent => ({
  type: "found",
  object,
});

/** A writer of token 5 at TXID 7, with 8 wanted. */
function wanting(change: Partial<SlotMachine> = {}): SlotMachine {
  const machine = { ...openSlots(5, { txid: 7, token: 4 }, NOW + 1), ...change };
  return stepSlots(machine, { type: "wanted", upload: mine }, NOW).machine;
}

function run(machine: SlotMachine, events: readonly SlotEvent[], nowMs = NOW): SlotStep {
  let step: SlotStep = { machine, effects: [] };
  for (const event of events) step = stepSlots(step.machine, event, nowMs);
  return step;
}

Deno.test("stepSlots takes a written slot for durable, and for the seal when it has our token", () => {
  const { machine, effects } = run(wanting(), [{ type: "written" }]);
  assert.deepEqual(effects, [{ type: "durable", upload: mine }]);
  assert.equal(machine.durableTxid, 8);
  assert.equal(machine.sealed, true);
  const older = upload(8, 4);
  const start = openSlots(5, { txid: 7, token: 4 }, NOW + 1);
  const late = run(start, [{ type: "wanted", upload: older }, { type: "written" }]);
  assert.equal(late.machine.durableTxid, 8);
  assert.equal(late.machine.sealed, false);
});

Deno.test("stepSlots reads a refused slot back and knows its own bytes there", () => {
  const asked = run(wanting(), [{ type: "refused" }]);
  assert.deepEqual(asked.effects, [{ type: "read", upload: mine }]);
  const { effects } = run(asked.machine, [found({ ...mine })]);
  assert.deepEqual(effects, [{ type: "durable", upload: mine }]);
});

Deno.test("stepSlots reads back after an unknown outcome and sends the same bytes when nothing is there", () => {
  const paused = run(wanting(), [{ type: "unknown" }]);
  assert.deepEqual(paused.effects, [{ type: "pause", failures: 1 }]);
  const read = run(paused.machine, [{ type: "paused" }]);
  assert.deepEqual(read.effects, [{ type: "read", upload: mine }]);
  const again = run(read.machine, [found(null)]);
  assert.deepEqual(again.effects, [{ type: "put", upload: mine }]);
  // A plain failure after the doubt does not end the doubt.
  const after = run(again.machine, [{ type: "failed" }, { type: "paused" }]);
  assert.deepEqual(after.effects, [{ type: "read", upload: mine }]);
});

Deno.test("stepSlots reads and never puts where a listing shows the slot taken", () => {
  const machine = openSlots(5, { txid: 7, token: 4 }, NOW + 1);
  const asked = run(machine, [{ type: "wanted", upload: mine, listed: true }]);
  assert.deepEqual(asked.effects, [{ type: "read", upload: mine }]);
  assert.deepEqual(run(asked.machine, [found({ ...mine })]).effects, [{ type: "durable", upload: mine }]);
  const again = run(asked.machine, [found(null), { type: "paused" }]);
  assert.deepEqual(again.effects, [{ type: "read", upload: mine }]);
});

Deno.test("stepSlots absorbs a former holder's commit before its seal only", () => {
  const theirs = { token: 4, sizeBytes: 200, identity: "theirs" };
  const first = run(wanting(), [{ type: "refused" }, found(theirs)]);
  assert.deepEqual(first.machine.end, { kind: "absorbed", txid: 8, token: 4, sizeBytes: 200 });
  const sealed = run(wanting({ sealed: true }), [{ type: "refused" }, found(theirs)]);
  assert.deepEqual(sealed.machine.end, { kind: "fenced", txid: 8, reason: "foreign-object" });
});

Deno.test("stepSlots is fenced by a larger token, in the slot and in the base", () => {
  const theirs = { token: 6, sizeBytes: 200, identity: "theirs" };
  const { machine, effects } = run(wanting(), [{ type: "refused" }, found(theirs)]);
  assert.deepEqual(machine.end, { kind: "fenced", txid: 8, reason: "larger-token" });
  assert.equal(effects[0]?.type, "ended");
  const late = openSlots(5, { txid: 7, token: 6 }, NOW + 1);
  assert.deepEqual(late.end, { kind: "fenced", txid: 7, reason: "larger-token" });
  assert.deepEqual(run(late, [{ type: "wanted", upload: mine }]).effects, []);
});

Deno.test("stepSlots never puts into a slot that was taken and is empty now", () => {
  let step = run(wanting(), [{ type: "refused" }]);
  for (let reading = 1; reading <= 2; reading++) {
    step = run(step.machine, [found(null), { type: "paused" }]);
    assert.deepEqual(step.effects, [{ type: "read", upload: mine }]);
  }
  step = run(step.machine, [found(null)]);
  assert.deepEqual(step.machine.end, { kind: "fenced", txid: 8, reason: "vanished" });
});

Deno.test("stepSlots is fenced by what is not an LTX file, and says so", () => {
  const { machine } = run(wanting(), [{ type: "refused" }, found("unreadable")]);
  assert.deepEqual(machine.end, { kind: "fenced", txid: 8, reason: "unreadable" });
});

Deno.test("stepSlots sends nothing from the deadline on and goes on where it was after a renewal", () => {
  for (const events of [[], [{ type: "refused" }], [{ type: "unknown" }, { type: "paused" }]] as const) {
    const before = run(wanting(), events);
    const held = run(wanting(), events, NOW + 1);
    if (events.length > 0) assert.deepEqual(held.effects, [{ type: "hold" }]);
    const still = stepSlots(held.machine, { type: "renewed", deadlineMs: NOW + 1 }, NOW + 1);
    if (events.length > 0) assert.deepEqual(still.effects, [{ type: "hold" }]);
    const renewed = stepSlots(held.machine, { type: "renewed", deadlineMs: NOW + 9 }, NOW + 1);
    if (events.length > 0) assert.deepEqual(renewed.effects, before.effects);
  }
  const machine = openSlots(5, { txid: 7, token: 4 }, NOW);
  const wanted = stepSlots(machine, { type: "wanted", upload: mine }, NOW);
  assert.deepEqual(wanted.effects, [{ type: "hold" }]);
});

Deno.test("stepSlots takes a reply that comes after the deadline for what it is", () => {
  const { machine } = run(wanting(), [{ type: "written" }], NOW + 100);
  assert.equal(machine.durableTxid, 8);
});
