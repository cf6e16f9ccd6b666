import assert from "node:assert/strict";
import { checkpointRecord } from "../support/fake_control.ts";
import { testApp } from "../support/test_app.ts";

Deno.test("DELETE /checkpoints/:id passes the reference and force on", async () => {
  const asked: unknown[] = [];
  const app = testApp({
    deleteCheckpoint: (reference, options) => {
      asked.push([reference, options.force]);
      return Promise.resolve(checkpointRecord(2));
    },
  });
  const answer = await app.ask("/checkpoints/v2", { method: "DELETE" });
  assert.equal((await answer.json()).deleted.n, 2);
  await (await app.ask("/checkpoints/v2?force=true", { method: "DELETE" })).body?.cancel();
  assert.equal((await app.ask("/checkpoints/v2?force=yes", { method: "DELETE" })).status, 422);
  assert.deepEqual(asked, [["v2", false], ["v2", true]]);
});

Deno.test("POST /checkpoints/prune says what went and why the rest stays", async () => {
  const app = testApp();
  const post = (body: unknown) =>
    app.ask("/checkpoints/prune", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const told = await (await post({ dry_run: true })).json();
  assert.equal(told.dry_run, true);
  assert.deepEqual(
    told.checkpoints.map((
      { n, kept, reasons }: { n: number; kept: boolean; reasons: string[] },
    ) => [n, kept, reasons]),
    [[3, true, ["current", "newest"]], [2, false, []]],
  );
  assert.deepEqual([told.deleted_checkpoints, told.waiting_objects], [1, 3]);
  assert.deepEqual(Object.keys(told).filter((key) => /[A-Z]/.test(key)), []);
  assert.equal((await post({ dry_run: "yes" })).status, 422);
});
