/** What may be deleted, and when: the rules by themselves. */

import assert from "node:assert/strict";
import { withNotes } from "../../src/checkpoint/checkpoint_notes.ts";
import fc from "fast-check";
import { emptyHead } from "../../src/checkpoint/head_rules.ts";
import {
  type AutomaticFacts,
  automaticPrune,
  basisOf,
  doom,
  DOOMED_LIMIT,
  dueNames,
  forget,
  NO_NAMES,
  planCollection,
  release,
  tokenOfName,
  whyItStays,
} from "../../src/checkpoint/prune_rules.ts";
import type { Head } from "../../src/checkpoint/types.ts";
import { isError } from "../../src/platform/errors.ts";
import { checkpointRecord } from "../support/fake_control.ts";

const HOUR_MS = 3_600_000;
const pack = (token: number, letter: string) => `${token.toString(16).padStart(8, "0")}/${letter.repeat(26)}`;
const head: Head = {
  ...emptyHead("ab".repeat(16)),
  checkpoints: [1, 2, 3].map((n) => checkpointRecord(n)),
  current: checkpointRecord(2).id,
  indexes: [{ key: "checkpoints/index/00000001-i", sha256: "" }],
};

Deno.test("names carry the token of their term", () => {
  assert.equal(tokenOfName(pack(0x1234, "a")), 0x1234);
  assert.equal(tokenOfName(`checkpoints/index/0000000a-${"b".repeat(26)}`), 10);
  assert.equal(tokenOfName(`checkpoints/roots/00ffffff12-${"c".repeat(26)}.json`), 0xffffff12);
});

Deno.test("forgetting keeps the current checkpoint, the newest, and what a restore names, and dooms the root objects", () => {
  assert.match(whyItStays(head, checkpointRecord(2).id) ?? "", /current/);
  assert.match(whyItStays(head, checkpointRecord(3).id) ?? "", /newest/);
  const record = checkpointRecord(4, { kind: "restore", restored_from: checkpointRecord(1).id });
  const restoring = { ...head, intent: { record, on_start: null } };
  assert.match(whyItStays(restoring, checkpointRecord(1).id) ?? "", /restore/);
  const after = forget(head, [checkpointRecord(1).id], 7);
  assert.deepEqual(after.checkpoints.map(({ n }) => n), [2, 3]);
  assert.deepEqual(after.doomed_objects, [{ key: checkpointRecord(1).root, since: 7 }]);
  assert.deepEqual(basisOf(restoring).marked.length, 4);
});

Deno.test("a pin is set, set again and taken away, and changes nothing else", () => {
  const { id } = checkpointRecord(1);
  const pinned = withNotes(head, id, { pinned: true });
  assert.deepEqual(pinned.checkpoints.map((record) => record.pinned), [true, undefined, undefined]);
  assert.deepEqual(withNotes(pinned, id, { pinned: true }), pinned);
  assert.deepEqual(withNotes(pinned, id, { pinned: false }), head);
});

Deno.test("a collection dooms dead packs, orphans of our terms and unnamed objects, and nothing of later terms", () => {
  const packs = [
    { name: pack(1, "a"), sizeBytes: 100, liveBytes: 90 },
    { name: pack(1, "b"), sizeBytes: 100, liveBytes: 0 },
    { name: pack(2, "c"), sizeBytes: 100, liveBytes: 49 },
    { name: pack(2, "d"), sizeBytes: 100, liveBytes: 50 },
    { name: pack(9, "e"), sizeBytes: 100, liveBytes: 0 },
  ];
  const listed = [...packs.map(({ name }) => name), pack(3, "f"), pack(4, "g"), pack(5, "h")];
  const plan = planCollection({
    token: 4,
    head: { ...head, doomed: [{ pack: pack(3, "f"), since: 0 }] },
    roots: ["checkpoints/roots/00000001-r.json"],
    packs,
    listedPacks: new Map(listed.map((name) => [name, 100])),
    listedObjects: [
      "checkpoints/roots/00000001-r.json",
      "checkpoints/roots/00000001-s.json",
      "checkpoints/roots/00000005-t.json",
      "checkpoints/index/00000001-i",
      "checkpoints/index/00000004-j",
    ],
  });
  assert.deepEqual(plan, {
    dead: [pack(1, "b")],
    repack: [pack(2, "c")],
    orphans: [pack(4, "g")],
    objects: ["checkpoints/index/00000004-j", "checkpoints/roots/00000001-s.json"],
    missing: [],
  });
});

Deno.test("a collection tells live packs that are not in the store, and dooms no more names than the head has room for", () => {
  const names = Array.from({ length: 3 }, (_, i) => pack(1, String(i)));
  const packs = names.map((name) => ({ name, sizeBytes: 10, liveBytes: name === names[2] ? 10 : 0 }));
  const doomed = Array.from({ length: DOOMED_LIMIT - 1 }, (_, i) => ({ pack: `00000001/${i}`, since: 0 }));
  const plan = planCollection({
    token: 1,
    head: { ...head, doomed },
    roots: [],
    packs,
    listedPacks: new Map(),
    listedObjects: [],
  });
  assert.deepEqual(plan.missing, [names[2]]);
  assert.deepEqual(plan.dead, [names[0]]);
});

Deno.test("dooming needs the head that was looked at, but a checkpoint that left meanwhile does no harm", () => {
  const made = { packs: [pack(1, "a")], objects: [], indexes: [], basis: basisOf(head) };
  const after = doom(head, made, 5);
  assert.deepEqual(after.doomed, [{ pack: pack(1, "a"), since: 5 }]);
  assert.deepEqual(after.doomed_objects, [{ key: "checkpoints/index/00000001-i", since: 5 }]);
  assert.deepEqual(after.indexes, []);
  doom(forget(head, [checkpointRecord(1).id], 5), made, 5);
  const more = { ...head, checkpoints: [...head.checkpoints, checkpointRecord(4)] };
  for (const changed of [more, { ...head, indexes: [] }]) {
    assert.throws(() => doom(changed, made, 5), (error) => isError(error, "wrong-state"));
  }
  assert.deepEqual(release(after, { packs: [pack(1, "a")], objects: ["checkpoints/index/00000001-i"] }), {
    ...head,
    indexes: [],
  });
});

Deno.test("names are due after the grace by the wall clock, or by our own watch where that clock is wrong", () => {
  const doomed = [{ pack: "old", since: 0 }, { pack: "young", since: 10 * HOUR_MS }, {
    pack: "future",
    since: 999 * HOUR_MS,
  }];
  const due = (monotonicMs: number) =>
    dueNames({ doomed }, { wallMs: 10 * HOUR_MS, monotonicMs, graceMs: HOUR_MS, seenMs: () => 0 }).packs;
  assert.deepEqual(due(0), ["old"]);
  assert.deepEqual(due(HOUR_MS - 1), ["old"]);
  assert.deepEqual(due(HOUR_MS), ["old", "young", "future"]);
});

Deno.test("a prune by itself waits at first, then comes each few hours, at once only where much has expired", () => {
  const facts = { expired: 1, due: NO_NAMES, nowMs: 0, startedMs: 0, collectedMs: null, sweptMs: null };
  const at = (nowMs: number, more: Partial<AutomaticFacts> = {}) =>
    automaticPrune({ ...facts, ...more, nowMs });
  assert.equal(at(HOUR_MS / 4 - 1), "nothing");
  assert.equal(at(HOUR_MS / 4), "collect");
  assert.equal(at(0, { expired: 64 }), "collect");
  assert.equal(at(7 * HOUR_MS, { collectedMs: 2 * HOUR_MS }), "nothing");
  assert.equal(at(8 * HOUR_MS, { collectedMs: 2 * HOUR_MS }), "collect");
  assert.equal(at(2 * HOUR_MS, { collectedMs: 2 * HOUR_MS, expired: 64 }), "nothing");
  assert.equal(at(23 * HOUR_MS, { expired: 0 }), "nothing");
  assert.equal(at(24 * HOUR_MS, { expired: 0 }), "collect");
  assert.equal(at(1, { expired: 0, due: { packs: ["a"], objects: [] } }), "sweep");
});

Deno.test("swaps of a prune keep everything that must stay listed, for any names", () => {
  const letters = fc.constantFrom(..."abcdef");
  fc.assert(
    fc.property(fc.uniqueArray(letters), fc.uniqueArray(letters), fc.nat(5), (dead, deleted, since) => {
      const names = (list: readonly string[]) => list.map((letter) => pack(1, letter));
      const basis = basisOf(head);
      const doomed = doom(head, { packs: names(dead), objects: [], indexes: head.indexes, basis }, since);
      const again = doom(
        doomed,
        { packs: names(dead), objects: [], indexes: head.indexes, basis },
        since + 1,
      );
      assert.deepEqual(again, doomed, "a name keeps the time at which it was doomed");
      const left = release(doomed, { packs: names(deleted), objects: [] });
      assert.deepEqual(
        left.doomed.map((each) => each.pack),
        names(dead.filter((one) => !deleted.includes(one))),
      );
      assert.deepEqual([left.checkpoints, left.indexes, left.current], [
        head.checkpoints,
        head.indexes,
        head.current,
      ]);
    }),
  );
});
