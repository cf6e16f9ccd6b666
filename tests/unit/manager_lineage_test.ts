/** The lineage rules, row by row, and what a crash between two steps leaves. */

import assert from "node:assert/strict";
import type { CheckpointRecord, Head } from "../../src/checkpoint/types.ts";
import {
  decideLineage,
  type LineageFacts,
  LineageFile,
  type MarkerItem,
  readMarker,
} from "../../src/manager/lineage.ts";

const REPO = "repo-1";

function record(id: string, manifest = `m-${id}`): CheckpointRecord {
  return {
    id,
    n: 1,
    time: 0,
    token: 1,
    parent: null,
    kind: "interval",
    comment: "",
    labels: {},
    root: `checkpoints/roots/${id}`,
    root_sha256: "",
    files: { app: { entries: 1, bytes: 1, manifest_sha256: manifest } },
    warnings: 0,
  };
}

function head(epoch: number, current: string | null, records: CheckpointRecord[] = []): Head {
  return {
    format: 1,
    repo_id: REPO,
    epoch,
    seq: 1,
    current,
    checkpoints: records.length > 0 || current === null ? records : [record(current)],
    indexes: [],
    intent: null,
    on_start_applied: null,
    doomed: [],
  };
}

function marker(change: Partial<MarkerItem> = {}): MarkerItem {
  return { repo_id: REPO, path: "/app", token: 5, claimed: null, checkpoint: "c1", pending: null, ...change };
}

function decide(change: Partial<LineageFacts>): string {
  const decision = decideLineage({
    name: "app",
    localEmpty: false,
    marker: marker(),
    repoId: REPO,
    previousHead: head(5, "c1"),
    onConflict: "refuse",
    restoreNothing: false,
    ...change,
  });
  return decision.kind === "restore" ? `restore${decision.moveAside ? " aside" : ""}` : decision.kind;
}

Deno.test("lineage decides every row of the table", () => {
  assert.equal(decide({ localEmpty: true }), "restore");
  assert.equal(decide({ localEmpty: true, marker: null, previousHead: null }), "empty");
  assert.equal(decide({}), "keep");
  assert.equal(decide({ previousHead: head(6, "c1") }), "restore aside");
  assert.equal(decide({ previousHead: head(5, "c2") }), "restore aside");
  assert.equal(decide({ marker: null, previousHead: null }), "adopt");
  assert.equal(decide({ previousHead: head(5, null) }), "adopt");
  assert.equal(decide({ marker: null }), "refuse");
  assert.equal(decide({ marker: marker({ repo_id: "other" }) }), "refuse");
  assert.equal(decide({ marker: null, onConflict: "bucket" }), "restore aside");
  assert.equal(decide({ marker: null, onConflict: "local" }), "keep");
});

Deno.test("lineage with restore none keeps what is there and restores nothing", () => {
  const restoreNothing = true;
  assert.equal(decide({ restoreNothing, localEmpty: true }), "empty");
  assert.equal(decide({ restoreNothing, previousHead: head(9, "c9") }), "keep");
});

Deno.test("lineage is ours when a crash fell between two steps of our own", () => {
  // After the claim, before the head's swap: the epoch is still the old one.
  assert.equal(decide({ marker: marker({ claimed: 6 }) }), "keep");
  // After the head's swap, before the marker's token: the epoch is our claim.
  assert.equal(decide({ marker: marker({ claimed: 6 }), previousHead: head(6, "c1") }), "keep");
  // Before and after a checkpoint's swap.
  assert.equal(decide({ marker: marker({ pending: "c2" }) }), "keep");
  assert.equal(decide({ marker: marker({ pending: "c2" }), previousHead: head(5, "c2") }), "keep");
});

Deno.test("lineage is stale when another made a checkpoint after our claim, whatever is pending", () => {
  assert.equal(decide({ marker: marker({ claimed: 6 }), previousHead: head(7, "c1") }), "restore aside");
  assert.equal(decide({ marker: marker({ pending: "c2" }), previousHead: head(6, "c2") }), "restore aside");
  assert.equal(decide({ marker: marker({ claimed: 6 }), previousHead: head(6, "c3") }), "restore aside");
});

Deno.test("lineage is ours when only another root changed in the head's current checkpoint", () => {
  const same = head(5, "c2", [record("c1", "m"), record("c2", "m")]);
  assert.equal(decide({ previousHead: same }), "keep");
  const other = head(5, "c2", [record("c1", "m"), record("c2", "n")]);
  assert.equal(decide({ previousHead: other }), "restore aside");
});

Deno.test("a lineage marker survives on disk, and a damaged one counts as absent", async () => {
  const folder = await Deno.makeTempDir({ prefix: "lineage-" });
  try {
    const path = `${folder}/lineage.json`;
    const file = new LineageFile(path);
    assert.equal(await file.load(), false);
    await file.apply({ kind: "own", items: { app: marker() } });
    await file.apply({ kind: "pending", names: ["app", "absent"], id: "c2" });
    assert.deepEqual((await readMarker(path)).marker.files, { app: marker({ pending: "c2" }) });
    for (const text of ["", "{", "[]", '{"v":2,"files":{}}', '{"v":1,"files":{"app":{}}}']) {
      await Deno.writeTextFile(path, text);
      assert.deepEqual(await readMarker(path), { marker: { v: 1, files: {} }, damaged: true }, text);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
