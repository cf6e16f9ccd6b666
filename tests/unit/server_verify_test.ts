/** `POST /checkpoints/:id/verify` and what the status and the metrics say of the last one. */

import assert from "node:assert/strict";
import type { VerifyWish } from "../../src/manager/control.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { checkpointRecord, managerStatus, NOW_MS, verifyResult } from "../support/fake_control.ts";
import { testApp } from "../support/test_app.ts";

Deno.test("verify takes an id, an ordinal, latest or all, and how deep it goes", async () => {
  const asked: VerifyWish[] = [];
  const app = testApp({
    verify: (wish) => {
      asked.push(wish);
      return Promise.resolve(verifyResult());
    },
  });
  const cases: [string, unknown, VerifyWish][] = [
    ["2", {}, { checkpoint: checkpointRecord(2).id, level: 2, percent: 100 }],
    ["v1", { level: 4 }, { checkpoint: checkpointRecord(1).id, level: 4, percent: 100 }],
    ["latest", { percent: 5 }, { checkpoint: checkpointRecord(3).id, level: 3, percent: 5 }],
    ["all", { level: 3, percent: 0.5 }, { checkpoint: null, level: 3, percent: 0.5 }],
  ];
  for (const [id, json, wish] of cases) {
    const response = await app.ask(`/checkpoints/${id}/verify`, { json });
    assert.equal(response.status, 200, await response.text());
    assert.deepEqual(asked.pop(), wish);
  }
  for (const json of [{ level: 5 }, { level: "2" }, { percent: -1 }, { percent: 101 }, { depth: 2 }]) {
    const response = await app.ask("/checkpoints/all/verify", { json });
    assert.equal(response.status, 422, JSON.stringify(json));
    await response.body?.cancel();
  }
  for (const id of ["9", "nonsense"]) {
    const response = await app.ask(`/checkpoints/${id}/verify`, { json: {} });
    assert.equal(response.status, 404);
    await response.body?.cancel();
  }
  assert.deepEqual(asked, []);
});

Deno.test("verify answers 200 with what is damaged, and streams its progress", async () => {
  const finding = {
    object: "checkpoints/packs/00000001/x",
    problem: "missing",
    detail: "the object is not there",
    checkpoints: [{ id: checkpointRecord(2).id, n: 2 }],
    files: [{ root: "app", path: "a" }],
    filesTotal: 12,
  } as const;
  const app = testApp({
    verify: (_, work) => {
      work?.onProgress?.({ phase: "check", entries: 1, bytes: 2, totalBytes: 3 });
      return Promise.resolve(verifyResult({ findings: [finding], findingsTotal: 1, allReadSinceMs: NOW_MS }));
    },
  });
  const answer = await (await app.ask("/checkpoints/2/verify", { json: {} })).json();
  assert.equal(answer.ok, false);
  assert.equal(answer.all_read_since, "2026-01-31T12:00:00.000Z");
  const { filesTotal, ...told } = finding;
  assert.deepEqual(answer.findings, [{ ...told, files_total: filesTotal }]);
  const stream = await app.ask("/checkpoints/2/verify", {
    json: {},
    headers: { accept: "application/x-ndjson" },
  });
  const lines = (await stream.text()).trimEnd().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(lines.map(({ type }) => type), ["progress", "complete"]);
  assert.equal(lines[1].findings_total, 1);
});

Deno.test("a second verification meanwhile is 409", async () => {
  const app = testApp({
    verify: () => Promise.reject(new StateManagerError("busy", "verify: another verification is under way")),
  });
  const response = await app.ask("/checkpoints/all/verify", { json: {} });
  assert.equal(response.status, 409);
  await response.body?.cancel();
});

Deno.test("status and metrics tell of the last verification of all", async () => {
  const { checkpoint } = managerStatus();
  const last = {
    time: "2026-01-31T12:00:00.000Z",
    outcome: "damaged",
    checkpoint: null,
    level: 3,
    percent: 2,
    packs: 100,
    packs_read: 2,
    all_read_since: "2026-01-30T12:00:00.000Z",
    damaged: 1,
    objects: ["checkpoints/packs/00000001/x"],
    duration_seconds: 1,
    error: null,
  } as const;
  const status = managerStatus({
    checkpoint: { ...checkpoint, verify: { running: false, next: null, last } },
  });
  const app = testApp({ status: () => status });
  assert.deepEqual((await (await app.ask("/")).json()).checkpoint.verify.last, last);
  const metrics = await (await app.ask("/metrics")).text();
  assert.match(metrics, /^state_manager_last_verify_ok 0$/m);
  assert.match(metrics, /^state_manager_verify_damaged_objects 1$/m);
  assert.match(metrics, /^state_manager_verify_all_read_timestamp_seconds 1769774400$/m);
  assert.doesNotMatch(await (await testApp().ask("/metrics")).text(), /verify/, "none yet");
});
