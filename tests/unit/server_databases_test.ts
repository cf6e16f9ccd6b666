/** Routes of the databases, and the metrics, over a fake manager. */

import assert from "node:assert/strict";
import type { DrillInfo, RestorePointsQuery } from "../../src/manager/control.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { databaseInfo, managerStatus, NOW_MS } from "../support/fake_control.ts";
import { testApp } from "../support/test_app.ts";

Deno.test("GET /databases tells position, durable position, lag and the last drill", async () => {
  const lastDrill: DrillInfo = {
    atMs: NOW_MS,
    outcome: "failed",
    txid: null,
    durationMs: 1500,
    error: "no snapshot",
  };
  const app = testApp({ status: () => managerStatus({ databases: [databaseInfo({ lastDrill })] }) });
  const { databases: [database] } = await (await app.ask("/databases")).json();
  const { name, txid, durable_txid, lag_seconds, last_drill } = database;
  assert.deepEqual({ name, txid, durable_txid, lag_seconds }, {
    name: "main",
    txid: 12,
    durable_txid: 11,
    lag_seconds: 0.25,
  });
  assert.deepEqual([last_drill.outcome, last_drill.duration_seconds, last_drill.error], [
    "failed",
    1.5,
    "no snapshot",
  ]);
});

Deno.test("GET /databases comes in pages, and one goes on where a page ended whose last database is gone", async () => {
  let names = ["shops/c.db", "main", "shops/a.db", "shops/b.db"];
  const app = testApp({
    status: () => managerStatus({ databases: names.map((name) => databaseInfo({ name })) }),
  });
  const page = async (query: string) => {
    const { databases, next_after } = await (await app.ask(`/databases${query}`)).json();
    return { names: databases.map((each: { name: string }) => each.name), next_after };
  };
  assert.deepEqual(await page(""), { names: names.toSorted(), next_after: null });
  assert.deepEqual(await page("?limit=2"), { names: ["main", "shops/a.db"], next_after: "shops/a.db" });
  names = names.filter((name) => name !== "shops/a.db");
  const rest = { names: ["shops/b.db", "shops/c.db"], next_after: null };
  assert.deepEqual(await page("?limit=2&after=shops%2Fa.db"), rest);
  assert.equal((await app.ask("/databases?limit=1001")).status, 422);
});

Deno.test("POST /restore takes the name of any database that a pattern may find", async () => {
  const name = `${"e".repeat(63)}/${"f".repeat(100)}`;
  const app = testApp();
  const restore = (name: string) => app.ask("/restore", { json: { checkpoint: "v1", databases: [name] } });
  assert.equal((await restore(name)).status, 200);
  assert.equal((await restore(`${name}x`)).status, 422);
});

Deno.test("GET /databases/:name finds one that a pattern found by its escaped name, and says where to look for others", async () => {
  const app = testApp({ status: () => managerStatus({ databases: [databaseInfo({ name: "shops/a.db" })] }) });
  assert.equal((await (await app.ask("/databases/shops%2Fa.db")).json()).name, "shops/a.db");
  const missing = await app.ask("/databases/main");
  assert.equal(missing.status, 404);
  assert.match((await missing.json()).hint, /GET \/databases/);
});

Deno.test("POST /databases/:name/sync answers with what is durable, or with the error", async () => {
  const app = testApp({ syncDatabase: (name) => Promise.resolve({ txid: name === "main" ? 40 : 0 }) });
  const answer = await app.ask("/databases/main/sync", { method: "POST" });
  assert.equal(answer.status, 200);
  assert.deepEqual(await answer.json(), { name: "main", durable_txid: 40 });
  const stopped = testApp({
    syncDatabase: () => Promise.reject(new StateManagerError("wrong-state", "sync: it is not followed now")),
  });
  assert.equal((await stopped.ask("/databases/main/sync", { method: "POST" })).status, 409);
  assert.equal((await app.ask("/databases/other/sync", { method: "POST" })).status, 404);
});

Deno.test("GET /databases/:name/restore-points goes on where the page before ended, and refuses odd numbers", async () => {
  const asked: RestorePointsQuery[] = [];
  const app = testApp({
    restorePoints: (_name, query) => {
      asked.push(query);
      return Promise.resolve({ points: [{ txid: 7, timeMs: null }], nextAfter: 7 });
    },
  });
  const page = await (await app.ask("/databases/main/restore-points?limit=1&after=6")).json();
  assert.deepEqual(page, { restore_points: [{ txid: 7, time: null }], next_after: 7 });
  assert.deepEqual(asked, [{ limit: 1, afterTxid: 6 }]);
  for (const query of ["limit=0", "limit=1001", "after=x", "after=-1"]) {
    assert.equal((await app.ask(`/databases/main/restore-points?${query}`)).status, 422, query);
  }
});

Deno.test("GET /metrics is Prometheus text with the lag of each database, names escaped", async () => {
  const lastDrill: DrillInfo = { atMs: NOW_MS, outcome: "passed", txid: 3, durationMs: 5, error: null };
  const databases = [
    databaseInfo({ name: 'a"b\\c', lastDrill }),
    databaseInfo({ lastDrill }),
    databaseInfo({ name: "stopped", followed: null }),
  ];
  const app = testApp({ status: () => managerStatus({ databases }) });
  const answer = await app.ask("/metrics");
  assert.match(answer.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/);
  const lines = (await answer.text()).split("\n");
  for (
    const line of [
      'state_manager_state{state="running"} 1',
      'state_manager_state{state="frozen"} 0',
      "state_manager_lease_token 7",
      'state_manager_replication_lag_seconds{database="a\\"b\\\\c"} 0.25',
      'state_manager_durable_txid{database="a\\"b\\\\c"} 11',
      'state_manager_last_restore_check_ok{database="a\\"b\\\\c"} 1',
      `state_manager_last_restore_check_timestamp_seconds{database="main"} ${NOW_MS / 1000}`,
      'state_manager_txid{database="main"} 12',
      'state_manager_replication_sent_bytes_total{database="main"} 5000',
      'state_manager_replication_errors_total{database="main"} 0',
      'state_manager_replication_checkpoints_total{database="main"} 2',
      "# TYPE state_manager_replication_lag_seconds gauge",
    ]
  ) {
    assert.ok(lines.includes(line), `${line}\nis not in\n${lines.join("\n")}`);
  }
  assert.ok(!lines.some((line) => line.includes('lag_seconds{database="stopped"')));
  for (const line of lines) assert.match(line, /^$|^# (HELP|TYPE) \w+ .+$|^\w+(\{.*\})? -?[0-9.e+]+$/);
});

Deno.test("the status page shows databases, those that are not well first, and not all of very many", async () => {
  const lastError = {
    atMs: NOW_MS,
    code: "disk-full",
    message: "<no room>",
    hint: null,
    details: [],
  } as const;
  const { followed } = databaseInfo();
  assert.ok(followed);
  const many = Array.from({ length: 150 }, (_, n) => databaseInfo({ name: `shops/${n}.db` }));
  const failing = databaseInfo({
    name: "shops/failing.db",
    followed: { ...followed, state: "failing", lastError },
  });
  const app = testApp({ status: () => managerStatus({ databases: [...many, failing] }) });
  const page = await (await app.ask("/", { headers: { accept: "text/html" } })).text();
  assert.match(page, /Databases[^]*shops\/failing\.db[^]*failing[^]*&lt;no room&gt;[^]*shops\/0\.db/);
  assert.match(page, /51 more/);
  const none = testApp({ status: () => managerStatus({ databases: [] }) });
  assert.doesNotMatch(await (await none.ask("/", { headers: { accept: "text/html" } })).text(), /Databases/);
});
