/** The real follower child under a link, with programs of their own that write, on both kinds of store. */

import assert from "node:assert/strict";
import { readHeader } from "../../src/database/ltx/mod.ts";
import { listReplica } from "../../src/database/replica_listing.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { type FaultProxy, type ProxyFault, startFaultProxy } from "../support/fault_proxy.ts";
import { bucketStore, FollowScene } from "../support/follow_scene.ts";
import { findLitestream } from "../support/litestream.ts";
import { waitFor } from "../support/manager_process.ts";
import { findMinio, startMinio } from "../support/minio.ts";
import { canMount, tool } from "../support/mounts.ts";
import { say } from "../support/say.ts";
import { randomOf } from "../support/seeded_random.ts";

const clock = systemClock();

Deno.test("sync is a barrier: what was committed before it is in the store, and a clean end loses nothing", async () => {
  await using scene = await FollowScene.make();
  await scene.open("app.db");
  const link = scene.link([scene.database("app.db")]);
  const sealed = await link.seal();
  assert.deepEqual(Object.keys(sealed.positions), ["app.db"]);
  for (let last = 20; last <= 60; last += 20) {
    await scene.write("app.db", last - 19, last);
    const { txid } = await link.sync("app.db");
    assert.ok(txid > (sealed.positions["app.db"] ?? 0));
    assert.equal(await scene.restoredRows("app.db"), last);
  }
  await scene.write("app.db", 61, 70);
  await scene.program.close("app.db");
  const finished = await link.finish();
  assert.equal(await scene.restoredRows("app.db"), 70);
  assert.equal(link.status().state, "finished");
  // Again by another child: it goes on where the one before left, with no whole copy.
  await scene.open("app.db");
  const second = scene.link([scene.database("app.db")], { token: 2 });
  await second.seal();
  await scene.write("app.db", 71, 75);
  const { txid } = await second.sync("app.db");
  assert.ok(txid > (finished.positions["app.db"] ?? 0));
  assert.equal(await scene.restoredRows("app.db"), 75);
  assert.equal(second.status().databases[0]?.counts.snapshots, 0);
});

const hasMinio = findMinio() !== null;

/** A scene on MinIO, behind a proxy that can disturb it. */
async function onMinio(work: (scene: FollowScene, proxy: FaultProxy) => Promise<void>): Promise<void> {
  const minio = await startMinio();
  assert.ok(minio !== null);
  try {
    await using proxy = startFaultProxy(minio.endpoint);
    await using scene = await FollowScene.make(bucketStore(minio, proxy.endpoint));
    await work(scene, proxy);
  } finally {
    await minio.stop();
  }
}

Deno.test({
  name:
    "a bucket gets what litestream restore reads, and an idle database costs no requests [needs minio] [needs litestream]",
  ignore: !hasMinio || findLitestream() === null,
  fn: () =>
    onMinio(async (scene, proxy) => {
      await scene.open("app.db");
      const link = scene.link([scene.database("app.db")]);
      await link.seal();
      await scene.write("app.db", 1, 30);
      await link.sync("app.db");
      assert.equal(await scene.restoredRows("app.db"), 30);
      assert.equal(await scene.litestreamRows("app.db"), 30);
      // A compaction that is due at a round moment of the clock may still come once.
      await waitFor("a quiet time", async () => {
        const before = proxy.requests.length;
        await new Promise((resolve) => setTimeout(resolve, 3_000));
        return proxy.requests.length === before;
      });
      assert.equal(link.status().databases[0]?.lagMs, 0);
    }),
});

/** Rows are written and confirmed while the child is killed again and again. `disturb` may do worse, in each round. */
async function killedAgainAndAgain(
  scene: FollowScene,
  rounds: number,
  random: () => number,
  disturb: () => void = () => {},
): Promise<void> {
  await scene.open("app.db");
  const link = scene.link([scene.database("app.db")]);
  await link.seal();
  let last = 0;
  for (let round = 1; round <= rounds; round++) {
    const more = 1 + Math.floor(random() * 30);
    disturb();
    const kill = scene.killAfter(random() * 150);
    await scene.write("app.db", last + 1, last + more, 2000);
    last += more;
    await Promise.all([link.sync("app.db"), kill]);
    assert.equal(await scene.restoredRows("app.db"), last, `round ${round}`);
  }
  assert.ok(scene.pids.length > rounds / 2);
  const { databases, restarts } = link.status();
  assert.ok(restarts >= scene.pids.length - 1);
  say(`${restarts} restarts, ${databases[0]?.counts.snapshots} snapshots`);
  await scene.program.close("app.db");
  await link.finish();
  assert.equal(await scene.restoredRows("app.db"), last);
}

function seeded(): () => number {
  const seed = Math.floor(Math.random() * 2 ** 31);
  say(`seed ${seed}`);
  const random = randomOf(seed);
  return () => random.float();
}

Deno.test("killed at random moments, the child comes back and nothing that a barrier confirmed is missing", async () => {
  await using scene = await FollowScene.make();
  await killedAgainAndAgain(scene, 10, seeded());
});

Deno.test({
  name: "killed while the bucket loses replies and is away, the same holds [needs minio] [needs litestream]",
  ignore: !hasMinio || findLitestream() === null,
  fn: () =>
    onMinio(async (scene, proxy) => {
      const random = seeded();
      const faults: readonly ProxyFault[] = [
        { operation: "put", when: "after", reset: true, count: 2 },
        { operation: "put", when: "before", status: 503, count: 3 },
        { operation: "put", delayMs: 300 },
        { operation: "put", duplicate: true },
        { operation: "get", reset: true, count: 2 },
        { operation: "list", status: 500 },
      ];
      await killedAgainAndAgain(scene, 12, random, () => {
        const fault = faults[Math.floor(random() * faults.length)];
        // Restores go through the same proxy, and wait for a service that is back.
        if (fault !== undefined) proxy.fail({ nth: 1 + Math.floor(random() * 3), ...fault });
      });
      assert.equal(await scene.litestreamRows("app.db"), await scene.restoredRows("app.db"));
    }),
});

Deno.test("a hundred databases are followed at once, one that cannot be disturbs no other", async () => {
  await using scene = await FollowScene.make();
  const names = Array.from({ length: 100 }, (_, i) => `db${i}.db`);
  for (const name of names) {
    await scene.open(name);
    await scene.write(name, 1, 2);
  }
  await Deno.writeFile(`${scene.folder}/app/bad.db`, new Uint8Array(8192).fill(65));
  const link = scene.link([...names, "bad.db"].map((name) => scene.database(name)));
  const sealed = await link.seal();
  assert.deepEqual(Object.keys(sealed.positions).sort(), [...names].sort());
  assert.deepEqual(Object.keys(sealed.failures), ["bad.db"]);
  for (const name of names) await scene.write(name, 3, 4);
  const { positions } = await link.positions();
  assert.equal(Object.keys(positions).length, 100);
  for (const name of ["db0.db", "db42.db", "db99.db"]) assert.equal(await scene.restoredRows(name), 4);
  await waitFor("a status of all", () => link.status().databases.length === 101);
  assert.equal(link.status().databases.find(({ name }) => name === "bad.db")?.state, "failing");
});

Deno.test("new files of a folder are followed as they come", async () => {
  await using scene = await FollowScene.make();
  const { name: _name, path: _path, baseline: _baseline, pins: _pins, ...settings } = scene.database("x");
  const link = scene.link([], {
    folders: [{ ...settings, name: "tenants", folder: `${scene.folder}/app`, pattern: "*.db", pins: {} }],
  });
  assert.deepEqual((await link.seal()).positions, {});
  await scene.open("one.db");
  await scene.write("one.db", 1, 3);
  await waitFor("the database", () => link.status().databases.some(({ name }) => name === "tenants/one.db"));
  await link.sync("tenants/one.db");
  assert.equal(await scene.restoredRows("tenants/one.db"), 3);
  assert.ok(scene.events.some(({ kind, name }) => kind === "found" && name === "tenants/one.db"));
  // Removed, for example to replace the file by an earlier state: left alone until it is added, by a new child too.
  await link.remove("tenants/one.db");
  await scene.killAfter(0);
  await scene.open("two.db");
  await waitFor("the other", () => link.status().databases.some(({ name }) => name === "tenants/two.db"));
  assert.deepEqual(link.status().databases.map(({ name }) => name), ["tenants/two.db"]);
  link.add({ ...scene.database("one.db"), name: "tenants/one.db" });
  await scene.write("one.db", 4, 4);
  await link.sync("tenants/one.db");
  assert.equal(await scene.restoredRows("tenants/one.db"), 4);
});

Deno.test({
  name: "while the store is away the lag grows, nothing is lost, and it catches up by itself [needs minio]",
  ignore: !hasMinio,
  fn: () =>
    onMinio(async (scene, proxy) => {
      await scene.open("app.db");
      const link = scene.link([scene.database("app.db")]);
      await link.seal();
      await scene.write("app.db", 1, 10);
      await link.sync("app.db");
      proxy.outage("refused");
      await scene.write("app.db", 11, 40);
      await waitFor("lag", () => (link.status().databases[0]?.lagMs ?? 0) > 2_000);
      const away = link.status().databases[0];
      assert.equal(away?.state, "failing");
      assert.ok((away?.txid ?? 0) > (away?.durableTxid ?? 0));
      const caller = new AbortController();
      const barrier = link.sync("app.db", { signal: caller.signal });
      await scene.write("app.db", 41, 50);
      proxy.outage(false);
      await barrier;
      await link.sync("app.db");
      assert.equal(await scene.restoredRows("app.db"), 50);
      await waitFor("no lag", () => link.status().databases[0]?.lagMs === 0);
      assert.equal(link.status().databases[0]?.state, "following");
      assert.ok(scene.events.some(({ kind }) => kind === "recovered"));
    }),
});

Deno.test("a child whose deadline has passed sends nothing until it is told a later one", async () => {
  await using scene = await FollowScene.make();
  await scene.open("app.db");
  const link = scene.link([scene.database("app.db")]);
  await link.seal();
  await scene.write("app.db", 1, 5);
  await link.sync("app.db");
  link.deadline(clock.monotonicMs() - 1);
  await scene.write("app.db", 6, 10);
  const caller = new AbortController();
  const barrier = link.sync("app.db", { signal: caller.signal });
  await waitFor("a local file", () => (link.status().databases[0]?.waitingFiles ?? 0) > 0);
  const place = { layout: "folder", name: "app.db" } as const;
  const before = await listReplica(scene.store, place);
  await waitFor("lag", () => (link.status().databases[0]?.lagMs ?? 0) > 1_500);
  assert.deepEqual((await listReplica(scene.store, place)).files, before.files);
  link.deadline(clock.monotonicMs() + 60_000);
  await barrier;
  assert.equal(await scene.restoredRows("app.db"), 10);
});

Deno.test("a holder that was stopped while another took over sends nothing, and is fenced if it thinks it may", async () => {
  await using scene = await FollowScene.make();
  await scene.open("app.db");
  const former = scene.link([scene.database("app.db")]);
  await former.seal();
  await scene.write("app.db", 1, 5);
  const { txid } = await former.sync("app.db");
  const other = `${scene.folder}/app/other.db`;
  for (const suffix of ["", "-wal"]) {
    await Deno.copyFile(`${scene.folder}/app/app.db${suffix}`, `${other}${suffix}`);
  }
  const deadlineMs = clock.monotonicMs() + 200;
  former.deadline(deadlineMs);
  const [pid = 0] = scene.pids;
  Deno.kill(pid, "SIGSTOP");
  await scene.write("app.db", 6, 9);
  // Another machine: the same state restored, sealed with a larger token once the deadline has passed.
  await waitFor("the deadline", () => clock.monotonicMs() > deadlineMs);
  await scene.program.open("other", other, "PRAGMA wal_checkpoint(TRUNCATE)");
  await scene.program.close("other");
  const moved = { ...scene.database("app.db", { baseline: txid }), path: other };
  const later = scene.link([moved], { token: 2, dataFolder: `${scene.folder}/other` });
  assert.equal((await later.seal()).positions["app.db"], txid + 1);
  const place = { layout: "folder", name: "app.db" } as const;
  // The later holder compacts meanwhile, in the levels above.
  const commits = async () => (await listReplica(scene.store, place, { levels: [0] })).files;
  const before = await commits();
  Deno.kill(pid, "SIGCONT");
  await waitFor("a local file", () => (former.status().databases[0]?.waitingFiles ?? 0) > 0);
  assert.deepEqual(await commits(), before);
  assert.equal(scene.fenced.length, 0);
  former.deadline(clock.monotonicMs() + 60_000); // as a manager would that has overslept
  await assert.rejects(former.sync("app.db"), (error) => isError(error, "lease-lost"));
  assert.equal(scene.fenced.length, 1);
  assert.equal(former.status().state, "fenced");
  assert.equal(await scene.restoredRows("app.db"), 5);
  await scene.program.open("other", other);
  await scene.program.run("other", "INSERT INTO log VALUES(6, '6: of the later holder')");
  await later.sync("app.db");
  assert.equal(await scene.restoredRows("app.db"), 6);
});

Deno.test("a former holder's last commit in the slot of the seal is told, and counts", async () => {
  await using scene = await FollowScene.make();
  await scene.open("app.db");
  const former = scene.link([scene.database("app.db")]);
  await former.seal();
  await scene.write("app.db", 1, 5);
  const { txid } = await former.sync("app.db");
  for (const suffix of ["", "-wal"]) {
    await Deno.copyFile(`${scene.folder}/app/app.db${suffix}`, `${scene.folder}/app/other.db${suffix}`);
  }
  await scene.program.open("other.db", `${scene.folder}/app/other.db`, "PRAGMA wal_checkpoint(TRUNCATE)");
  await scene.program.close("other.db");
  await scene.write("app.db", 6, 6);
  const { txid: last } = await former.sync("app.db");
  const moved = { ...scene.database("app.db", { baseline: txid }), path: `${scene.folder}/app/other.db` };
  const later = scene.link([moved], { token: 2, dataFolder: `${scene.folder}/other` });
  const sealed = await later.seal();
  assert.deepEqual(sealed.positions, {});
  assert.deepEqual(sealed.absorbed, { "app.db": last });
  assert.equal(await scene.restoredRows("app.db"), 6);
});

Deno.test("times of commits go on ascending on a machine whose clock is behind that of the one before", async () => {
  await using scene = await FollowScene.make();
  await scene.open("app.db");
  const aheadMs = clock.wallMs() + 3_600_000;
  const former = scene.link([scene.database("app.db", { afterMs: aheadMs })]);
  await former.seal();
  await scene.write("app.db", 1, 5);
  await former.sync("app.db");
  await scene.program.close("app.db");
  const { positions: { "app.db": lastTxid = 0 } } = await former.finish();

  // Nothing but the store says what was before.
  await scene.open("app.db");
  const later = scene.link([scene.database("app.db")], { token: 2, dataFolder: `${scene.folder}/other` });
  const sealed = await later.seal();
  assert.equal(sealed.positions["app.db"], lastTxid + 1);
  await scene.write("app.db", 6, 8);
  await later.sync("app.db");

  const place = { layout: "folder", name: "app.db" } as const;
  const { files } = await listReplica(scene.store, place, { levels: [0] });
  const headers = await Promise.all(
    files.map(async ({ key }) => readHeader((await scene.store.get(key)).body, key)),
  );
  const times = headers.map(({ timestampMs }) => timestampMs);
  assert.ok(times.length > lastTxid + 1, `${times.length} commits`);
  assert.ok((times[0] ?? 0) > aheadMs);
  times.forEach((ms, at) => assert.ok(at === 0 || ms > (times[at - 1] ?? 0), `times ${times.join(" ")}`));
});

Deno.test("a database without WAL is copied: at once for a barrier, else when its changes have settled", async () => {
  await using scene = await FollowScene.make();
  await scene.open("app.db", "DELETE");
  await scene.write("app.db", 1, 3);
  const link = scene.link([scene.database("app.db")]);
  await link.seal();
  await scene.write("app.db", 4, 6);
  const { txid } = await link.sync("app.db");
  assert.equal(await scene.restoredRows("app.db"), 6);
  await scene.write("app.db", 7, 9);
  await waitFor("the copy", () => (link.status().databases[0]?.durableTxid ?? 0) > txid);
  assert.equal(await scene.restoredRows("app.db"), 9);
  await waitFor("no lag", () => link.status().databases[0]?.lagMs === 0);
  const [status] = link.status().databases;
  assert.equal(status?.state, "copying");
  assert.equal(status?.journalMode, "rollback");
  assert.ok(scene.events.some(({ kind, message }) => kind === "warning" && message.includes("WAL")));
  // Nothing was committed since: a barrier makes no file.
  assert.equal((await link.sync("app.db")).txid, status?.durableTxid);
});

Deno.test({
  name: "while the disk of the data folder is full the lag grows, and nothing is lost [needs mount]",
  ignore: !canMount,
  async fn() {
    await using scene = await FollowScene.make();
    const data = `${scene.folder}/data`;
    assert.ok(tool("mount", "-t", "tmpfs", "-o", "size=1m", "none", data));
    try {
      await scene.open("app.db");
      const link = scene.link([scene.database("app.db")]);
      await link.seal();
      await scene.write("app.db", 1, 5);
      await link.sync("app.db");
      const file = await Deno.open(`${data}/ballast`, { create: true, write: true });
      await assert.rejects(async () => {
        for (;;) await file.write(new Uint8Array(4096));
      });
      file.close();
      await scene.write("app.db", 6, 30, 2000);
      await waitFor("the failure", () => link.status().databases[0]?.state === "failing");
      await assert.rejects(link.sync("app.db"), (error) => isError(error, "disk-full"));
      assert.equal(link.status().databases[0]?.lastError?.code, "disk-full");
      assert.ok((link.status().databases[0]?.lagMs ?? 0) > 0);
      await Deno.remove(`${data}/ballast`);
      await waitFor("no lag", () => link.status().databases[0]?.lagMs === 0);
      await link.sync("app.db");
      assert.equal(await scene.restoredRows("app.db"), 30);
      await link.close();
    } finally {
      assert.ok(tool("umount", data));
    }
  },
});

Deno.test("a snapshot of a hundred megabytes and small commits go through one child, with bounded memory", async () => {
  await using scene = await FollowScene.make();
  await scene.open("large.db");
  await scene.open("small.db");
  const filling = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000) " +
    "INSERT INTO log SELECT n, n || ':' || hex(randomblob(50000)) FROM c";
  await scene.program.run("large.db", filling);
  const link = scene.link([scene.database("large.db"), scene.database("small.db")]);
  await scene.write("small.db", 1, 5);
  await link.sync("small.db");
  assert.equal(await scene.restoredRows("small.db"), 5);
  await link.seal();
  assert.equal(await scene.restoredRows("large.db"), 1000);
  const [pid = 0] = scene.pids;
  const peak = /VmHWM:\s+(\d+) kB/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1];
  say(`${Number(peak) / 1024} MiB at most`);
  assert.ok(Number(peak) < 400 * 1024);
});

Deno.test("local files that are lost or damaged under a running term cost a whole copy, never a commit", async () => {
  await using scene = await FollowScene.make();
  await scene.open("app.db");
  const link = scene.link([scene.database("app.db")]);
  await link.seal();
  const folder = `${scene.folder}/data/databases/app.db`;
  const newest = () => [...Deno.readDirSync(`${folder}/ltx/0`)].map(({ name }) => name).sort().at(-1) ?? "";
  const damages: readonly (() => void)[] = [
    () => Deno.removeSync(folder, { recursive: true }),
    () => Deno.removeSync(`${folder}/ltx/0/${newest()}`),
    () => Deno.truncateSync(`${folder}/ltx/0/${newest()}`, 200),
    () => Deno.removeSync(`${folder}/position.json`),
  ];
  let last = 0;
  for (const [index, damage] of damages.entries()) {
    await scene.write("app.db", last + 1, last + 5);
    last += 5;
    await link.sync("app.db");
    const children = scene.pids.length;
    Deno.kill(scene.pids.at(-1) ?? 0, "SIGSTOP"); // so that it makes nothing new meanwhile
    damage();
    await scene.write("app.db", last + 1, last + 5);
    last += 5;
    // Asked before the next child knows: its first capture may bear a TXID that the store has for less.
    const asked = link.sync("app.db");
    await scene.killAfter(0);
    const { txid } = await asked;
    assert.equal(scene.pids.length, children + 1);
    assert.equal(await scene.restoredRows("app.db"), last, `damage ${index}`);
    assert.equal(link.status().databases[0]?.durableTxid, txid);
  }
});
