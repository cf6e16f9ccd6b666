/** A term's procedures, step by step: the order of what is durable, and what each answer leads to. */

import assert from "node:assert/strict";
import type { CheckpointRecord, Head } from "../../src/checkpoint/types.ts";
import { changeHead } from "../../src/manager/head_changes.ts";
import { changeMarker, isOurs, type Marker, type MarkerItem } from "../../src/manager/lineage.ts";
import type {
  Learned,
  Procedure,
  TermEffect,
  TermFacts,
  TermOutcome,
} from "../../src/manager/term_machine.ts";
import { initialTerm, NO_FACTS, stepTerm } from "../../src/manager/term_rules.ts";
import type { ErrorCode } from "../../src/platform/errors.ts";

const REPO = "repo-1";

function record(id: string, manifest = `m-${id}`): CheckpointRecord {
  const files = { app: { entries: 1, bytes: 1, manifest_sha256: manifest } };
  const texts = { comment: "", root: `checkpoints/roots/${id}`, root_sha256: "" };
  return {
    ...{ id, n: 1, time: 0, token: 1, parent: null, kind: "interval", labels: {}, files, warnings: 0 },
    ...texts,
  };
}

function head(change: Partial<Head> = {}): Head {
  return {
    format: 1,
    repo_id: REPO,
    epoch: 5,
    seq: 1,
    current: "c1",
    checkpoints: [record("c1")],
    indexes: [],
    intent: null,
    on_start_applied: null,
    doomed: [],
    ...change,
  };
}

function marker(change: Partial<MarkerItem> = {}): Marker {
  const app = { repo_id: REPO, path: "/app", token: 5, claimed: null, checkpoint: "c1", pending: null };
  return { v: 1, files: { app: { ...app, ...change } } };
}

function facts(change: Partial<TermFacts> = {}): TermFacts {
  return { ...NO_FACTS, repoId: REPO, token: 6, roots: [{ name: "app", path: "/app" }], ...change };
}

type Answer = Learned | { readonly fails: ErrorCode };

/** Runs a procedure; `answers` by effect, one after the other, the last one again. Head changes answer by themselves. */
function run(
  procedure: Procedure,
  start: TermFacts,
  answers: Partial<Record<TermEffect["type"], readonly Answer[]>> = {},
): { readonly steps: string[]; readonly outcome: TermOutcome; readonly facts: TermFacts } {
  const left = Object.fromEntries(Object.entries(answers).map(([type, list]) => [type, [...list]]));
  const steps: string[] = [];
  let turn = stepTerm(initialTerm(procedure, start), { type: "begin" });
  for (let guard = 0; guard < 100; guard++) {
    const [effect] = turn.effects;
    assert.ok(effect !== undefined);
    if (effect.type === "ended") return { steps, outcome: effect.outcome, facts: turn.state.facts };
    const detail = effect.type === "write-marker" || effect.type === "swap-head"
      ? ` ${effect.change.kind}`
      : "";
    steps.push(effect.type + detail);
    const list = left[effect.type] ?? [];
    const answer = (list.length > 1 ? list.shift() : list[0]) ?? {};
    if ("fails" in answer) {
      turn = stepTerm(turn.state, { type: "failed", code: answer.fails });
      continue;
    }
    const now = turn.state.facts.head;
    const swapped = effect.type === "swap-head" && now !== null
      ? { head: changeHead(now, effect.change) }
      : {};
    turn = stepTerm(turn.state, { type: "done", learned: { ...swapped, ...answer } });
  }
  assert.fail(`no end: ${steps.join(", ")}`);
}

const intentOf = (id: string, files: string[] = ["app"]) => ({ record: record(id), on_start: null, files });

Deno.test("repair says what is live before it forgets how it came", () => {
  assert.deepEqual(run("repair", facts(), { "roll-swap": [{ rolled: null }] }).steps, ["roll-swap"]);
  const rolled = { id: "c2", names: ["app"] };
  const { steps, facts: after } = run("repair", facts({ marker: marker() }), { "roll-swap": [{ rolled }] });
  assert.deepEqual(steps, ["roll-swap", "write-marker content", "finish-swap"]);
  assert.equal(after.marker.files["app"]?.checkpoint, "c2");
});

Deno.test("open claims what is ours before it takes the head over, and decides anew when the head has changed", () => {
  const start = facts({ marker: marker() });
  const found = { "read-head": [{ head: head() }], "look-at-roots": [{ empty: [] }] };
  const plain = run("open", start, found);
  const order = ["read-head", "look-at-roots", "write-marker claim", "take-over-head"];
  assert.deepEqual(plain.steps, order);
  assert.equal(plain.facts.marker.files["app"]?.claimed, 6);

  const raced = run("open", start, {
    ...found,
    "read-head": [{ head: head() }, {
      head: head({ current: "c9", checkpoints: [record("c1"), record("c9")] }),
    }],
    "take-over-head": [{ fails: "precondition-failed" }, {}],
  });
  assert.deepEqual(raced.steps, [...order, ...order]);
  assert.equal(raced.facts.marker.files["app"]?.claimed, null, "no longer ours: the claim is taken back");

  const never = run("open", start, { ...found, "take-over-head": [{ fails: "precondition-failed" }] });
  assert.deepEqual(never.outcome, { kind: "failed", code: "precondition-failed" });
});

Deno.test("open refuses unknown data and unnamed items before anything was written", () => {
  const unknown = run("open", facts(), { "read-head": [{ head: head() }], "look-at-roots": [{ empty: [] }] });
  assert.equal(unknown.outcome.kind === "refused" && unknown.outcome.refusal.code, "origin-unknown");
  assert.deepEqual(unknown.steps, ["read-head", "look-at-roots"]);
  const orphan = run("open", facts({ roots: [] }), {
    "read-head": [{ head: head() }],
    "look-at-roots": [{}],
  });
  assert.equal(orphan.outcome.kind === "refused" && orphan.outcome.refusal.code, "config-invalid");
});

Deno.test("a claim that a later one replaces still tells that its take-over was ours", () => {
  const twice = changeMarker(marker({ claimed: 6 }), { kind: "claim", names: ["app"], token: 7 });
  const item = twice.files["app"] ?? null;
  assert.ok(isOurs("app", item, REPO, head({ epoch: 6 })), "the first claim's take-over landed late");
  assert.ok(isOurs("app", item, REPO, head({ epoch: 7 })));
  assert.ok(!isOurs("app", item, REPO, head({ epoch: 8 })));
});

Deno.test("prepare restores a new machine in an order that each crash leaves mendable", () => {
  const start = facts({ head: head({ epoch: 6 }), previous: head() });
  const { steps, facts: after } = run("prepare", start, { "look-at-roots": [{ empty: ["app"] }] });
  assert.deepEqual(steps, [
    "remove-leftovers",
    "look-at-roots",
    "stage",
    "write-marker own", // knows nothing of the content yet, but that it is ours
    "swap-files",
    "write-marker content",
    "finish-swap",
    "write-marker own",
  ]);
  assert.deepEqual(after.marker.files["app"], {
    ...{ repo_id: REPO, path: "/app", token: 6, claimed: null, checkpoint: "c1", pending: null },
  });
});

Deno.test("prepare moves stale data aside after it has staged, and keeps what is ours", () => {
  const stale = facts({ head: head({ epoch: 9 }), previous: head({ epoch: 8 }), marker: marker() });
  const moved = run("prepare", stale, { "look-at-roots": [{ empty: [] }] }).steps;
  assert.ok(moved.indexOf("stage") < moved.indexOf("move-aside"), moved.join());
  assert.ok(moved.indexOf("move-aside") < moved.indexOf("swap-files"), moved.join());
  const ours = facts({ head: head({ epoch: 6 }), previous: head(), marker: marker({ claimed: 6 }) });
  assert.deepEqual(run("prepare", ours, { "look-at-roots": [{ empty: [] }] }).steps, [
    "remove-leftovers",
    "look-at-roots",
    "write-marker own",
  ]);
});

Deno.test("prepare finishes a restore that was begun, and does not keep the tree from before it", () => {
  const previous = head({ intent: intentOf("c2") });
  const start = facts({ head: { ...previous, epoch: 6 }, previous, marker: marker({ claimed: 6 }) });
  const { steps, facts: after } = run("prepare", start, { "look-at-roots": [{ empty: [] }] });
  assert.equal(steps[0], "swap-head finish-intent");
  assert.ok(steps.includes("stage") && steps.includes("move-aside"), steps.join());
  assert.equal(after.head?.current, "c2");
  assert.equal(after.marker.files["app"]?.checkpoint, "c2");
});

Deno.test("a restore to content that is the same is not undone by a crash before its swap", () => {
  const previous = head({ intent: { ...intentOf("c2"), record: record("c2", "m-c1") } });
  assert.ok(!isOurs("app", marker().files["app"] ?? null, REPO, previous));
  assert.ok(
    isOurs("app", marker({ checkpoint: "c2" }).files["app"] ?? null, REPO, previous),
    "swapped already",
  );
});

Deno.test("a checkpoint settles what is in doubt, then marker, head, marker", () => {
  const made = { record: record("c2"), indexes: [] };
  const start = facts({ head: head(), marker: marker() });
  const { steps, facts: after } = run("checkpoint", start, { upload: [{ made }] });
  assert.deepEqual(steps, [
    "settle-head",
    "upload",
    "write-marker pending",
    "swap-head current",
    "write-marker content",
  ]);
  assert.equal(after.head?.current, "c2");
  assert.deepEqual(run("checkpoint", start, { upload: [{ made: null }] }).steps, ["settle-head", "upload"]);
  const lost = run("checkpoint", start, { upload: [{ made }], "swap-head": [{ fails: "lease-lost" }] });
  assert.deepEqual(lost.outcome, { kind: "failed", code: "lease-lost" });
  assert.equal(lost.facts.marker.files["app"]?.pending, "c2", "it may have landed: the marker says so");
});

Deno.test("a checkpoint that landed though it was told as failed is known before the next is pending", () => {
  const landed = head({ current: "c2", checkpoints: [record("c1"), record("c2")] });
  const start = facts({ head: head(), marker: marker({ pending: "c2" }) });
  const { steps } = run("checkpoint", start, { "settle-head": [{ head: landed }], upload: [{ made: null }] });
  assert.deepEqual(steps, ["settle-head", "write-marker content", "upload"]);
});

Deno.test("an intent that landed late never brings back what its restore was told to have failed with", () => {
  const late = head({ intent: intentOf("c2") });
  const start = facts({ head: head(), marker: marker() });
  const dropped = run("recover", start, { "roll-swap": [{ rolled: null }], "settle-head": [{ head: late }] });
  assert.deepEqual(dropped.steps, ["roll-swap", "remove-leftovers", "settle-head", "swap-head drop-intent"]);
  assert.equal(dropped.facts.head?.current, "c1");

  const swapped = run("recover", { ...start, marker: marker({ checkpoint: "c2" }) }, {
    "roll-swap": [{ rolled: null }],
    "settle-head": [{ head: late }],
  });
  assert.ok(swapped.steps.includes("swap-head finish-intent"), "the local tree is what it says");
  assert.equal(swapped.facts.head?.current, "c2");

  const committed = changeHead(late, { kind: "current", record: record("c3"), indexes: [] });
  assert.equal(committed.intent, null, "no intent outlives a new current state");
});

Deno.test("a restore tells its intent before it swaps, and says it is done in the head before the marker of all", () => {
  const wanted = { source: record("c1"), names: ["app"], databases: {}, onStart: null };
  const start = facts({
    head: head({ current: "c2", checkpoints: [record("c1"), record("c2")] }),
    marker: marker(),
    wanted,
  });
  const { steps, facts: after } = run("restore", start, { compose: [{ composed: record("c3", "m-c1") }] });
  assert.deepEqual(steps, [
    "settle-head",
    "stage",
    "compose",
    "swap-head set-intent",
    "swap-files",
    "write-marker content",
    "finish-swap",
    "swap-head finish-intent",
    "write-marker content",
  ]);
  assert.equal(after.head?.current, "c3");
  assert.deepEqual(after.head?.checkpoints.map(({ id }) => id), ["c1", "c2", "c3"], "nothing is rewound");
});

Deno.test("a restore brings databases back after the files and before the head says that it is done", () => {
  const positions = { main: { txid: 7 } };
  const start = (names: string[]) =>
    facts({
      head: head(),
      marker: marker(),
      wanted: { source: record("c1"), names, databases: positions, onStart: null },
    });
  const composed = { compose: [{ composed: record("c3", "m-c1") }] };
  const both = run("restore", start(["app"]), composed).steps;
  const tail = ["finish-swap", "restore-databases", "swap-head finish-intent", "write-marker content"];
  assert.deepEqual(both.slice(-4), tail);
  const only = run("restore", start([]), composed);
  assert.deepEqual(only.steps, [
    "settle-head",
    "compose",
    "swap-head set-intent",
    "restore-databases",
    "swap-head finish-intent",
    "write-marker content",
  ]);
});

Deno.test("a restore of databases that its holder began is done anew by the next, before the head forgets it", () => {
  const intent = { ...intentOf("c2", []), databases: { main: { txid: 7 } } };
  const { steps } = run("prepare", facts({ head: head({ intent }), previous: head({ intent }) }), {
    "look-at-roots": [{ empty: ["app"] }],
  });
  assert.deepEqual(steps.slice(0, 3), ["look-at-points", "restore-databases", "swap-head finish-intent"]);
});

Deno.test("a begun restore of databases whose states are gone is given up by the next start, which goes on with what is current", () => {
  const intent = { ...intentOf("c2"), databases: { main: { txid: 7 } } };
  // Its files were swapped, its databases were not.
  const start = facts({
    head: head({ intent }),
    previous: head({ intent }),
    marker: marker({ checkpoint: "c2" }),
  });
  const { steps, facts: after } = run("prepare", start, {
    "look-at-points": [{ lost: ["main"] }],
    "look-at-roots": [{ empty: [] }],
  });
  assert.deepEqual(steps.slice(0, 2), ["look-at-points", "swap-head drop-intent"]);
  assert.deepEqual([after.head?.current, after.head?.intent], ["c1", null]);
  assert.ok(steps.includes("move-aside"), "the files of the restore that did not take place");
});

Deno.test("recovery goes on with databases where a restore may have begun with them, and drops it where files come first", () => {
  const databases = { main: { txid: 7 } };
  const recover = (intent: NonNullable<Head["intent"]>, content: string, lost: string[] = []) =>
    run("recover", facts({ head: head({ intent }), marker: marker({ checkpoint: content }) }), {
      "roll-swap": [{ rolled: null }],
      "look-at-points": [{ lost }],
    }).steps.slice(3);
  const finish = ["restore-databases", "swap-head finish-intent", "write-marker content"];
  const only = { ...intentOf("c2", []), databases };
  assert.deepEqual(recover(only, "c1"), ["look-at-points", ...finish]);
  assert.deepEqual(recover(only, "c1", ["main"]), ["look-at-points", "swap-head drop-intent"]);
  assert.deepEqual(recover({ ...intentOf("c2"), databases }, "c2"), finish);
  assert.deepEqual(recover({ ...intentOf("c2"), databases }, "c1"), ["swap-head drop-intent"]);
});

Deno.test("open claims databases that we held last, and takes the claim from those that others held", () => {
  const item = { repo_id: REPO, path: "/db", claimed: null, txid: 3 };
  const databases = { ours: { ...item, token: 5 }, theirs: { ...item, token: 4, claimed: 3 } };
  const start = facts({ marker: { ...marker(), databases } });
  const { facts: after } = run("open", start, {
    "read-head": [{ head: head() }],
    "look-at-roots": [{ empty: [] }],
  });
  assert.equal(after.marker.databases?.["ours"]?.claimed, 6);
  assert.equal(after.marker.databases?.["theirs"]?.claimed, null);
});
