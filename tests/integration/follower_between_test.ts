/**
 * What an application can do between any two steps of a follower: whatever it does there, nothing is missed, and
 * nothing needs all pages again. The application is a second connection here, so that it acts at exactly that step;
 * SQLite's locks between connections of one process are the same as between processes.
 */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { systemClock } from "../../src/platform/clock.ts";
import type { FollowerStep } from "../../src/database/follower_types.ts";
import { assertSnapshot, FollowedDatabase, rows } from "../support/followed_database.ts";
import { say } from "../support/say.ts";

const machine = systemClock();
const COMMIT = rows(3, 700);
const PASSIVE = "PRAGMA wal_checkpoint(PASSIVE)";
const LATER = "at the next step"; // what comes after it is done there
const ACTIONS: Readonly<Record<string, readonly string[]>> = {
  "commits": [COMMIT],
  "checkpoints": [PASSIVE, COMMIT],
  "commits, checkpoints and begins the log anew": [COMMIT, PASSIVE, COMMIT],
  "commits and cuts the log": [COMMIT, "PRAGMA wal_checkpoint(TRUNCATE)", COMMIT],
  "cuts the log": ["PRAGMA wal_checkpoint(TRUNCATE)", COMMIT],
  "rolls back what it spilled": [`BEGIN; ${rows(200, 700)}; ROLLBACK`, COMMIT],
  "commits, then checkpoints and begins the log anew": [COMMIT, LATER, PASSIVE, COMMIT],
  "commits, later checkpoints and begins the log anew": [COMMIT, LATER, LATER, PASSIVE, COMMIT],
  // Around a move of the reader, and around a checkpoint.
  "commits, takes that in, and commits three steps on": [COMMIT, LATER, PASSIVE, LATER, LATER, COMMIT],
  "commits, and again five steps on": [COMMIT, LATER, LATER, LATER, LATER, LATER, COMMIT],
  "vacuums": ["DELETE FROM t WHERE a%2=0", "VACUUM", COMMIT],
};

/** Of each kind of checkpoint: those where that one is made. */
const LIMITS = {
  reader: { barrierPages: 1e9 },
  rest: { barrierPages: 1, restPages: 1e9, jointPages: -1 },
  joint: { barrierPages: 1, restPages: 1e9, jointPages: 1e9 },
  barrier: { barrierPages: 1, restPages: -1 },
};

for (const [name, action] of Object.entries(ACTIONS)) {
  for (const how of ["reader", "rest", "joint", "barrier"] as const) {
    const barrier = how === "barrier";
    Deno.test(`follower misses nothing when the application ${name} between any two steps, ${how}`, async () => {
      const steps = new Set<FollowerStep>();
      let left = 0;
      let refused = 0;
      let joint = 0;
      let todo: readonly string[] = [];
      let app: DatabaseSync | null = null;
      const onStep = (step: FollowerStep) => {
        steps.add(step);
        if (--left === 0) todo = action;
        while (todo.length > 0) {
          const [sql = "", ...rest] = todo;
          todo = rest;
          if (sql === LATER) return;
          try {
            app?.exec(sql);
          } catch (error) {
            assert.match(String(error), /locked|busy/);
            refused++;
            if (app?.isTransaction) app.exec("ROLLBACK");
          }
        }
      };
      const limits = { checkpointPages: 1, checkpointIntervalMs: 0, ...LIMITS[how] };
      let nowMs = 0;
      const clock = { ...machine, monotonicMs: () => nowMs += 100_000 }; // every attempt is due
      await using scene = await FollowedDatabase.wal({ limits, onStep, clock });
      const follower = await scene.start();
      assertSnapshot(await scene.synced(), "first-contact");
      app = new DatabaseSync(scene.path);
      app.exec("PRAGMA busy_timeout=0; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=5");
      const reader = new DatabaseSync(scene.path);
      try {
        for (let nth = 1, reached = true; reached; nth++) {
          app.exec(
            "UPDATE t SET b=randomblob(9) WHERE a%7=0; DELETE FROM t WHERE a<(SELECT max(a) FROM t)-300",
          );
          app.exec(COMMIT);
          if (barrier) { // one attempt is held up by an old reader; the next one takes the barrier
            await follower.sync();
            reader.exec("BEGIN; SELECT count(*) FROM t");
            app.exec(COMMIT);
            await follower.sync();
            assert.notEqual(await follower.checkpointIfNeeded(), null);
            reader.exec("COMMIT");
          }
          left = nth;
          for (let round = 0; round < 3; round++) {
            const before = follower.status.checkpoints;
            await follower.sync();
            joint += follower.status.checkpoints - before;
            const kind = await follower.checkpointIfNeeded();
            if (round === 0 && barrier) assert.equal(kind, "barrier");
          }
          reached = left <= 0;
          left = 0;
          todo = [];
          for (let more = true; more;) more = (await follower.sync()).changed;
          await scene.assertSame(`${name} at step ${nth}`);
          await follower.deleteUpTo(scene.replica.txid);
        }
      } finally {
        await scene.stop();
        reader.close();
        app.close();
      }
      const { snapshots } = follower.status;
      say(`${follower.status.txid} TXIDs, ${refused} times refused; ${[...steps].join(" ")}`);
      assert.equal(snapshots, 1);
      if (barrier && action.includes(COMMIT)) assert.ok(refused > 0, "writers wait for a barrier");
      for (const step of ["read-lock-taken", "read-lock-dropped"] as const) assert.ok(steps.has(step));
      assert.ok(steps.has("gate") || how === "reader");
      assert.equal(joint > 0, how === "joint");
    });
  }
}

for (const jointPages of [-1, 60]) {
  Deno.test(
    `follower lets the log begin anew under an application that commits at each of its steps, ${
      jointPages < 0 ? "after" : "with"
    } a sync`,
    async () => {
      let app: DatabaseSync | null = null;
      let commits = 0;
      let refused = 0;
      const commit = () => {
        try {
          app?.exec(COMMIT);
          commits++;
        } catch (error) {
          assert.match(String(error), /locked|busy/);
          refused++;
        }
      };
      const limits = { checkpointPages: 60, barrierPages: 120, restPages: 60, jointPages };
      await using scene = await FollowedDatabase.wal({ limits, onStep: commit });
      const follower = await scene.start();
      await follower.sync();
      app = new DatabaseSync(scene.path);
      const kinds: string[] = [];
      let joint = 0;
      try {
        app.exec("PRAGMA busy_timeout=0; PRAGMA wal_autocheckpoint=0");
        let [restarts, longest, former] = [0, 0, 0];
        while (restarts < 3 && kinds.length < 200) {
          const { checkpoints } = follower.status;
          await follower.sync();
          const { walBytes } = follower.status;
          joint += follower.status.checkpoints - checkpoints;
          if (walBytes < former) restarts++;
          longest = Math.max(longest, walBytes);
          former = walBytes;
          const kind = await follower.checkpointIfNeeded();
          if (kind !== null) kinds.push(kind);
        }
        say(`${commits} commits, ${refused} refused, ${kinds.join(" ")}, log at most ${longest} bytes`);
        assert.equal(restarts, 3);
        assert.ok(longest < 400 * 4120);
        assert.ok(kinds.includes("reader") && !kinds.includes("barrier"));
        assert.deepEqual([kinds.includes("rest"), joint > 0], jointPages < 0 ? [true, false] : [false, true]);
        assert.equal(follower.status.snapshots, 1);
      } finally {
        app.close();
        app = null;
      }
      while ((await follower.sync()).changed);
      await scene.assertSame();
    },
  );
}

Deno.test("follower reads all pages again when the log begins anew over those that it reads", async () => {
  let app: DatabaseSync | null = null;
  let scans = 0;
  await using scene = await FollowedDatabase.wal({
    onStep: (step) => {
      if (step === "scanned" && ++scans === 1) app?.exec(`UPDATE t SET b=randomblob(500); ${COMMIT}`);
    },
  });
  await scene.program.run("app", rows(200));
  await scene.program.run("app", PASSIVE); // all is in the database: the next commit begins the log anew
  app = new DatabaseSync(scene.path);
  try {
    await scene.start();
    assertSnapshot(await scene.synced(), "first-contact");
    assert.equal(scans, 2);
    app.exec(COMMIT);
    assertSnapshot(await scene.synced(), null);
  } finally {
    await scene.stop();
    app.close();
  }
});
