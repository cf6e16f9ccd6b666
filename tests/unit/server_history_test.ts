/** What checkpoints hold, how they differ, and what may be changed of them: routes over a fake manager. */

import assert from "node:assert/strict";
import { type CheckpointNotes, notedRecord } from "../../src/checkpoint/mod.ts";
import type { DiffWish, FolderWish } from "../../src/manager/control.ts";
import { nanosView } from "../../src/server/views.ts";
import { checkpointRecord, diffResult } from "../support/fake_control.ts";
import { testApp } from "../support/test_app.ts";

Deno.test("checkpoints are listed by label, kind and pin, and pages keep the filter", async () => {
  const records = Array.from({ length: 10 }, (_, i) =>
    checkpointRecord(i + 1, {
      kind: i % 2 === 0 ? "interval" : "request",
      labels: i < 6 ? { release: i < 3 ? "1" : "2" } : {},
      ...(i === 4 ? { pinned: true } : {}),
    }));
  const app = testApp({ checkpoints: () => Promise.resolve(records) });
  const listed = async (query: string) => {
    const response = await app.ask(`/checkpoints?${query}`);
    const body = await response.json();
    return [response.status, body.checkpoints?.map(({ n }: { n: number }) => n)];
  };
  assert.deepEqual(await listed("label=release"), [200, [1, 2, 3, 4, 5, 6]]);
  assert.deepEqual(await listed("label=release%3D2"), [200, [4, 5, 6]]);
  assert.deepEqual(await listed("label=release&kind=request"), [200, [2, 4, 6]]);
  assert.deepEqual(await listed("kind=request&kind=interval&label=none"), [200, []]);
  assert.deepEqual(await listed("pinned=true"), [200, [5]]);
  assert.deepEqual(await listed("label=toString"), [200, []], "a name of every object is no label");
  for (const query of ["kind=wrong", "pinned=1"]) assert.equal((await listed(query))[0], 422);
  const page = await app.ask("/checkpoints?kind=request&limit=2");
  const link = /^<(.*)>/.exec(page.headers.get("link") ?? "")?.[1] ?? "";
  await page.body?.cancel();
  assert.deepEqual(await listed(link.split("?")[1] ?? ""), [200, [6, 8]]);
});

Deno.test("a checkpoint names its parent by ordinal, too, as long as that is listed", async () => {
  const records = [
    checkpointRecord(2, { parent: checkpointRecord(1).id }),
    checkpointRecord(3, { parent: checkpointRecord(2).id, restored_from: checkpointRecord(2).id }),
  ];
  const app = testApp({ checkpoints: () => Promise.resolve(records) });
  const shown = async (n: number) => await (await app.ask(`/checkpoints/${n}`)).json();
  assert.equal((await shown(2)).parent_n, null);
  assert.deepEqual([(await shown(3)).parent_n, (await shown(3)).restored_from_n], [2, 2]);
});

Deno.test("comment, labels and pin are changed by PATCH; null takes a label away", async () => {
  const asked: [string, CheckpointNotes][] = [];
  const app = testApp({
    annotateCheckpoint: (reference, notes) => {
      asked.push([reference, notes]);
      return Promise.resolve(notedRecord(checkpointRecord(2, { labels: { old: "1", stays: "2" } }), notes));
    },
  });
  const patch = (json: unknown) => app.ask("/checkpoints/v2", { method: "PATCH", json });
  const body = await (await patch({ comment: "new", labels: { old: null, more: "3" }, pinned: true })).json();
  assert.deepEqual([body.comment, body.labels, body.pinned], ["new", { stays: "2", more: "3" }, true]);
  assert.equal((await (await patch({ pinned: false })).json()).pinned, false);
  assert.deepEqual(asked.at(-1), ["v2", { pinned: false }], "what is not said is not changed");
  for (
    const wrong of [
      { comment: "two\nlines" },
      { labels: { "": "x" } },
      { labels: { a: 1 } },
      { labels: { a: "x".repeat(300) } },
      { pinned: "yes" },
      { kind: "request" },
    ]
  ) {
    const response = await patch(wrong);
    assert.equal(response.status, 422, JSON.stringify(wrong));
    await response.body?.cancel();
  }
  assert.equal(asked.length, 2);
});

Deno.test("files of a checkpoint are told with public names, and by pages", async () => {
  const wishes: [string, FolderWish][] = [];
  const app = testApp({
    checkpointFiles: (reference, wish) => {
      wishes.push([reference, wish]);
      const entry = {
        path: "app/a",
        type: "file",
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtimeNs: "1769860800000000001",
        sizeBytes: 3,
        target: null,
        sqlite: false,
      } as const;
      return Promise.resolve({ entries: [entry], next: 1 });
    },
  });
  const body = await (await app.ask("/checkpoints/3/files?path=app&recursive=true&limit=1&after=7")).json();
  assert.deepEqual(wishes.pop(), ["3", { path: "app", recursive: true, skip: 7, limit: 1 }]);
  assert.equal(body.next_after, "1");
  assert.deepEqual(body.entries, [{
    path: "app/a",
    type: "file",
    mode: "0644",
    uid: 1,
    gid: 2,
    mtime: "2026-01-31T12:00:00.000000001Z",
    size_bytes: 3,
    target: null,
    sqlite: false,
  }]);
  for (const query of ["limit=0", "limit=1001", "after=x", "recursive=1", `path=${"x".repeat(20_001)}`]) {
    const response = await app.ask(`/checkpoints/3/files?${query}`);
    assert.equal(response.status, 422, query.slice(0, 20));
    await response.body?.cancel();
  }
});

Deno.test("a difference is told with totals and by pages", async () => {
  const wishes: DiffWish[] = [];
  const app = testApp({
    diffCheckpoints: (wish) => {
      wishes.push(wish);
      const after = { type: "file", sizeBytes: 5 } as const;
      return Promise.resolve(diffResult({
        differences: [{ root: "app", path: "a", change: "added", before: null, after }],
        next: 1000,
        totals: { added: 1500, removed: 0, changed: 0, metadata: 0 },
        databases: { main: { before: 3, after: 9 } },
      }));
    },
  });
  const body = await (await app.ask("/checkpoints/1/diff/latest?after=5")).json();
  assert.deepEqual(wishes, [{ before: "1", after: "latest", skip: 5, limit: 1000 }]);
  assert.deepEqual(body.differences, [{
    path: "app/a",
    change: "added",
    before: null,
    after: { type: "file", size_bytes: 5 },
  }]);
  assert.deepEqual([body.next_after, body.totals.added, body.databases.main.after], ["1000", 1500, 9]);
});

Deno.test("times of files are told to the nanosecond, before 1970 and beyond year 9999, too", () => {
  assert.equal(nanosView("0"), "1970-01-01T00:00:00.000000000Z");
  assert.equal(nanosView("-1"), "1969-12-31T23:59:59.999999999Z");
  assert.equal(nanosView("-1000000000"), "1969-12-31T23:59:59.000000000Z");
  assert.equal(nanosView("9223372036854775807"), "2262-04-11T23:47:16.854775807Z");
});
