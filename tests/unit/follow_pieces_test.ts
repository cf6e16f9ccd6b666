import assert from "node:assert/strict";
import { databasesIn } from "../../src/database/follow_folder.ts";
import { gated, SendGate } from "../../src/database/follow_gate.ts";
import { BACKLOG_LIMIT_BYTES, isCaptureDue, type PaceFacts } from "../../src/database/follow_pace.ts";
import type { FollowedFolder } from "../../src/database/follow_protocol.ts";
import { isError } from "../../src/platform/errors.ts";
import { memoryStore, type ObjectStore } from "../../src/storage/mod.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const bytes = new Uint8Array([1]);

/** A store whose requests end only by their signal. */
function mute(clock: VirtualClock): ObjectStore {
  const store = memoryStore({ clock });
  return {
    ...store,
    put: (_key, _body, options = {}) =>
      new Promise((_, reject) =>
        options.signal?.addEventListener("abort", () => reject(options.signal?.reason))
      ),
  };
}

Deno.test("send gate lets nothing through before a deadline is told, nor after it has passed", async () => {
  const clock = new VirtualClock();
  const gate = new SendGate(clock);
  const store = gated(memoryStore({ clock }), gate);
  await assert.rejects(store.put("a", bytes), (error) => isError(error, "lease-not-held"));
  gate.deadline(clock.monotonicMs() + 10);
  await store.put("a", bytes);
  await clock.advance(10);
  await assert.rejects(store.put("b", bytes), (error) => isError(error, "lease-not-held"));
  await assert.rejects(store.delete("a"), (error) => isError(error, "lease-not-held"));
  await assert.rejects(store.list({ prefix: "" }), (error) => isError(error, "lease-not-held"));
  gate.deadline(clock.monotonicMs() + 10);
  assert.equal((await store.list({ prefix: "" })).objects.length, 1);
  gate.close();
  assert.equal(clock.sleeping, 0);
});

Deno.test("send gate ends what is under way when its deadline passes, and not when that was moved in time", async () => {
  const clock = new VirtualClock();
  const gate = new SendGate(clock);
  const store = gated(mute(clock), gate);
  gate.deadline(clock.monotonicMs() + 10);
  let ended: unknown = null;
  const put = store.put("a", bytes).catch((error) => ended = error);
  await clock.advance(5);
  gate.deadline(clock.monotonicMs() + 10);
  await clock.advance(9);
  assert.equal(ended, null);
  await clock.advance(1);
  await put;
  assert.ok(isError(ended, "lease-not-held"));
  gate.close();
});

Deno.test("send gate wakes who waits for it when it opens, and lets go of who gives up", async () => {
  const clock = new VirtualClock();
  const gate = new SendGate(clock);
  const caller = new AbortController();
  const givenUp = gate.untilOpen(caller.signal);
  let open = false;
  const waiting = gate.untilOpen(new AbortController().signal).then(() => open = true);
  caller.abort(new Error("no more"));
  await assert.rejects(givenUp, /no more/);
  gate.deadline(clock.monotonicMs() - 1);
  await clock.advance(1);
  assert.equal(open, false);
  gate.deadline(clock.monotonicMs() + 1);
  await waiting;
  gate.close();
});

Deno.test("capture is due at once after a quiet time, once an interval under load, and rarely while files wait", () => {
  const due = (facts: Partial<PaceFacts>) =>
    isCaptureDue({
      sinceCaptureMs: 0,
      syncIntervalMs: 1000,
      waitingFiles: 0,
      uncapturedBytes: 4152,
      backlogBytes: 0,
      ...facts,
    });
  const mib = 1024 * 1024;
  assert.equal(due({ sinceCaptureMs: Infinity }), true);
  assert.equal(due({ sinceCaptureMs: 999 }), false);
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
