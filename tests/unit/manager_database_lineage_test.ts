/** The lineage rules of one database, row by row, and what a crash between two steps leaves. */

import assert from "node:assert/strict";
import {
  type DatabaseFacts,
  decideDatabaseLineage,
  isDatabaseOurs,
} from "../../src/manager/database_lineage.ts";
import type { DatabaseMarker } from "../../src/manager/lineage.ts";

const REPO = "repo-1";
const PATH = "/srv/app.db";

function marker(change: Partial<DatabaseMarker> = {}): DatabaseMarker {
  return { repo_id: REPO, path: PATH, token: 5, claimed: null, txid: 10, ...change };
}

function facts(change: Partial<DatabaseFacts> = {}): DatabaseFacts {
  return {
    localMissing: false,
    marker: marker(),
    repoId: REPO,
    path: PATH,
    previousEpoch: 5,
    bucketTxid: 20,
    localTxid: 20,
    sameContent: true,
    restoreBegun: false,
    onConflict: "refuse",
    restoreNothing: false,
    ...change,
  };
}

function decide(change: Partial<DatabaseFacts>): string {
  const decision = decideDatabaseLineage(facts(change));
  return decision.kind === "restore" ? `restore${decision.moveAside ? " aside" : ""}` : decision.kind;
}

function reason(change: Partial<DatabaseFacts>): string {
  return decideDatabaseLineage(facts(change)).reason;
}

Deno.test("database lineage decides every row of the table", () => {
  assert.equal(decide({ localMissing: true }), "restore");
  assert.equal(decide({ localMissing: true, marker: null }), "restore");
  assert.equal(decide({ localMissing: true, marker: null, bucketTxid: null }), "empty");
  assert.equal(decide({}), "keep");
  assert.equal(decide({ previousEpoch: 6 }), "restore aside");
  assert.equal(decide({ bucketTxid: 21 }), "restore aside");
  assert.equal(decide({ marker: null, bucketTxid: null, previousEpoch: null }), "adopt");
  assert.equal(decide({ bucketTxid: null }), "adopt");
  assert.equal(decide({ marker: null }), "refuse");
  assert.equal(decide({ marker: marker({ repo_id: "other" }) }), "refuse");
  assert.equal(decide({ path: "/elsewhere/app.db" }), "refuse");
  assert.equal(decide({ marker: null, onConflict: "bucket" }), "restore aside");
  assert.equal(decide({ marker: null, onConflict: "local" }), "keep");
});

Deno.test("a database with restore none stays as it is, and none is restored", () => {
  const restoreNothing = true;
  assert.equal(decide({ restoreNothing, localMissing: true }), "empty");
  assert.equal(decide({ restoreNothing, previousEpoch: 9 }), "keep");
  assert.equal(decide({ restoreNothing, marker: null }), "keep");
});

Deno.test("a database is ours when it is ahead of the bucket, and when it was just restored", () => {
  assert.equal(decide({ localTxid: 25 }), "keep");
  assert.equal(decide({ localTxid: 25, sameContent: null }), "keep");
  // Restored to TXID 20, nothing written since: there are no L0 files yet.
  assert.equal(decide({ marker: marker({ txid: 20 }), localTxid: null, sameContent: null }), "keep");
});

Deno.test("a database is ours when a crash fell between two steps of a take-over", () => {
  assert.equal(decide({ marker: marker({ claimed: 6 }) }), "keep");
  assert.equal(decide({ marker: marker({ claimed: 6 }), previousEpoch: 6 }), "keep");
  assert.equal(decide({ marker: marker({ claimed: 7, claimed_before: [6] }), previousEpoch: 6 }), "keep");
  assert.equal(decide({ marker: marker({ claimed: 6 }), previousEpoch: 7 }), "restore aside");
});

Deno.test("a database is stale when the bucket has another history, or more of it", () => {
  assert.equal(decide({ localTxid: 25, sameContent: false }), "restore aside");
  assert.match(reason({ localTxid: 25, sameContent: false }), /holds another TXID 20/);
  // The data dir was emptied, or is an older copy: nothing proves that the local file holds TXID 11 to 20.
  assert.equal(decide({ localTxid: null, sameContent: null }), "restore aside");
  assert.match(reason({ localTxid: null, sameContent: null }), /TXID 20, here 10/);
  assert.equal(
    decide({ marker: marker({ txid: null }), localTxid: null, sameContent: null }),
    "restore aside",
  );
  assert.equal(decide({ previousEpoch: null }), "restore aside");
});

Deno.test("a database whose restore has begun is restored, though it was ours", () => {
  assert.equal(decide({ restoreBegun: true }), "restore aside");
  assert.match(reason({ restoreBegun: true }), /restore of it has begun/);
});

Deno.test("a database is never moved aside without a reason, nor kept without proof, whatever the facts", () => {
  const booleans = [true, false];
  const markers = [
    null,
    marker(),
    marker({ claimed: 6 }),
    marker({ repo_id: "other" }),
    marker({ txid: null }),
  ];
  for (const localMissing of booleans) {
    for (const restoreNothing of booleans) {
      for (const onConflict of ["refuse", "bucket", "local"] as const) {
        for (const each of markers) {
          for (const previousEpoch of [null, 5, 6, 7]) {
            for (const bucketTxid of [null, 9, 10, 20]) {
              for (const localTxid of [null, 10, 20]) {
                for (const sameContent of [true, false, null]) {
                  const all = facts({
                    localMissing,
                    restoreNothing,
                    onConflict,
                    marker: each,
                    previousEpoch,
                    bucketTxid,
                    localTxid,
                    sameContent,
                  });
                  const decision = decideDatabaseLineage(all);
                  const text = JSON.stringify({ all, decision });
                  assert.notEqual(decision.reason, "", text);
                  if (decision.kind === "restore") assert.equal(decision.moveAside, !localMissing, text);
                  if (decision.kind === "restore") assert.notEqual(bucketTxid, null, text);
                  if (decision.kind === "empty") assert.ok(localMissing, text);
                  if (decision.kind === "adopt") assert.ok(!localMissing && bucketTxid === null, text);
                  if (decision.kind === "keep") {
                    assert.ok(isDatabaseOurs(all) || restoreNothing || onConflict === "local", text);
                  }
                }
              }
            }
          }
        }
      }
    }
  }
});
