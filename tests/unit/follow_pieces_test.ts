import assert from "node:assert/strict";
import { databasesIn } from "../../src/database/follow_folder.ts";
import {
  BACKLOG_LIMIT_BYTES,
  isCaptureDue,
  lookAfterMs,
  nextLookMs,
  type PaceFacts,
} from "../../src/database/follow_pace.ts";
import type { FollowedFolder } from "../../src/database/follow_protocol.ts";

/** One that nobody writes to, and nothing waits. */
const STILL: PaceFacts = {
  sinceCaptureMs: 0,
  syncIntervalMs: 1000,
  waitingFiles: 0,
  uncapturedBytes: 0,
  backlogBytes: 0,
};

Deno.test("capture is due at once after a quiet time, once an interval under load, and rarely while files wait", () => {
  const due = (facts: Partial<PaceFacts>) => isCaptureDue({ ...STILL, uncapturedBytes: 4152, ...facts });
  const mib = 1024 * 1024;
  assert.equal(due({ sinceCaptureMs: Infinity }), true);
  assert.equal(due({ sinceCaptureMs: 949 }), false);
  assert.equal(due({ sinceCaptureMs: 950 }), true, "the look that is nearest");
  assert.equal(due({ sinceCaptureMs: 1000, waitingFiles: 1 }), true);
  assert.equal(due({ sinceCaptureMs: 59_000, waitingFiles: 2 }), false);
  assert.equal(due({ sinceCaptureMs: 60_000, waitingFiles: 2 }), true);
  assert.equal(due({ sinceCaptureMs: 600_000, waitingFiles: 60 }), false);
  // The log must not grow without end, whatever waits.
  assert.equal(due({ waitingFiles: 60, uncapturedBytes: 4 * mib }), true);
  assert.equal(
    due({ waitingFiles: 60, uncapturedBytes: 63 * mib, backlogBytes: BACKLOG_LIMIT_BYTES }),
    false,
  );
  assert.equal(due({ waitingFiles: 60, uncapturedBytes: 64 * mib, backlogBytes: BACKLOG_LIMIT_BYTES }), true);
});

Deno.test("a database that waits for its interval is looked at again at its end, or before its log can be a step", () => {
  const next = (facts: Partial<PaceFacts>) =>
    nextLookMs({ ...STILL, sinceCaptureMs: 100, waitingFiles: 1, ...facts });
  const mib = 1024 * 1024;
  assert.equal(next({}), 890);
  assert.equal(next({ sinceCaptureMs: 880 }), 110);
  assert.equal(next({ sinceCaptureMs: 990 }), 100);
  assert.equal(next({ syncIntervalMs: 60_000 }), 1000);
  assert.equal(next({ uncapturedBytes: mib / 10 }), 890, "it had time for 4 s");
  assert.equal(next({ uncapturedBytes: mib }), 150, "half of the 300 ms that three more take");
  assert.equal(next({ uncapturedBytes: 4 * mib }), 100);
  assert.equal(next({ waitingFiles: 2 }), 100, "the line may be free at any time");
  assert.equal(next({ backlogBytes: BACKLOG_LIMIT_BYTES }), 100);
});

Deno.test("a database that changes all the time is looked at when its next capture is due, one after a quiet time at once", () => {
  const after = (facts: Partial<PaceFacts>) => lookAfterMs({ ...STILL, sinceCaptureMs: 990, ...facts });
  const mib = 1024 * 1024;
  assert.equal(after({}), 990);
  assert.equal(after({ sinceCaptureMs: 1100 }), 990);
  assert.equal(after({ sinceCaptureMs: 1101 }), 100, "nobody wrote for a while");
  assert.equal(after({ sinceCaptureMs: Infinity }), 100);
  assert.equal(after({ syncIntervalMs: 60_000, sinceCaptureMs: 60_000 }), 1000);
  assert.equal(after({ syncIntervalMs: 50, sinceCaptureMs: 50 }), 100);
  assert.equal(after({ sinceCaptureMs: 1000, uncapturedBytes: 4 * mib }), 500, "half of a step's time");
  assert.equal(after({ sinceCaptureMs: 100, uncapturedBytes: 4 * mib }), 100);
  assert.equal(after({ waitingFiles: 1 }), 100, "the line is slow, or away");
  assert.equal(after({ backlogBytes: BACKLOG_LIMIT_BYTES }), 100);
});

Deno.test("folder scan takes the files that match, leaves SQLite's companions, and names what no key can hold", () => {
  const folder: FollowedFolder = {
    name: "tenants",
    folder: "/srv/tenants",
    pattern: "*.db",
    journal: "follow",
    syncIntervalMs: 1000,
    snapshotIntervalMs: 1,
    retentionMs: 1,
    pins: { "b.db": [4] },
  };
  const names = ["b.db", "a.db", "a.db-wal", ".hidden.db", "a.dbx", "ä.db", "x y.db", "a+b.db"];
  const scan = databasesIn(folder, names);
  assert.deepEqual(scan.databases.map(({ name, path, pins }) => [name, path, pins]), [
    ["tenants/a.db", "/srv/tenants/a.db", []],
    ["tenants/b.db", "/srv/tenants/b.db", [4]],
  ]);
  assert.deepEqual(scan.refused, ["a+b.db", "x y.db", "ä.db"]);
  const any = databasesIn({ ...folder, pattern: "*" }, [
    "a.db",
    "a.db-wal",
    "a.db-shm",
    "a.db-journal",
    "t.tmp",
  ]);
  assert.deepEqual(any.databases.map(({ name }) => name), ["tenants/a.db"]);
});
