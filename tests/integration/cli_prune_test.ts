import assert from "node:assert/strict";
import { StateManagerError } from "../../src/platform/errors.ts";
import { checkpointRecord, pruneResult } from "../support/fake_control.ts";
import { command } from "../support/fake_terminal.ts";
import { serveControl } from "../support/served_control.ts";

Deno.test("checkpoint prune --dry-run asks nothing and says what would go and why the rest stays", async () => {
  const asked: boolean[] = [];
  await using served = await serveControl({
    prune: ({ dryRun }) => {
      asked.push(dryRun);
      return Promise.resolve(pruneResult({ dryRun }));
    },
  });
  const { code, out, err } = await command([
    "checkpoint",
    "prune",
    "--dry-run",
    "--data-dir",
    served.dataDir,
  ]);
  assert.equal(code, 0, err);
  assert.match(out, /v3 .*stays\s+current, newest/);
  assert.match(out, /v2 .*would go/);
  assert.match(err, /Would free 1 checkpoint\./);
  // For good it asks first, and without a terminal it refuses.
  assert.equal((await command(["checkpoint", "prune", "--data-dir", served.dataDir])).code, 64);
  assert.equal((await command(["checkpoint", "prune", "--yes", "--data-dir", served.dataDir])).code, 0);
  assert.deepEqual(asked, [true, false]);
});

Deno.test("checkpoint rm looks all of them up, asks, and deletes each by its id", async () => {
  const asked: unknown[] = [];
  await using served = await serveControl({
    deleteCheckpoint: (reference, { force }) => {
      asked.push([reference, force]);
      if (!force) {
        return Promise.reject(new StateManagerError("wrong-state", "delete checkpoint 2: it is pinned"));
      }
      return Promise.resolve(checkpointRecord(2));
    },
  });
  const run = (...argv: string[]) => command(["checkpoint", "rm", ...argv, "--data-dir", served.dataDir]);
  assert.equal((await run("v2")).code, 64);
  assert.equal((await run("v2", "v99", "--yes")).code, 1);
  assert.equal((await run("latest", "--yes")).code, 64);
  assert.deepEqual(asked, []);
  const refused = await run("v2", "--yes");
  assert.equal(refused.code, 1);
  assert.match(refused.err, /pinned/);
  const { code, out } = await run("v2", "--yes", "--force");
  assert.equal(code, 0);
  assert.match(out, /^v2 /);
  assert.deepEqual(asked, [[checkpointRecord(2).id, false], [checkpointRecord(2).id, true]]);
});
