/** The seed's promises, line by line, over HTTP as curl would: start unconfigured, configure once, checkpoint, restore, release. */

import assert from "node:assert/strict";
import { ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { testOnStores } from "../support/test_stores.ts";

testOnStores(
  "an unconfigured server is configured once over the API, persists it, and does the whole job",
  async (store) => {
    using scratch = scratchFolder();
    const files = `${scratch.path}/files`;
    const dataDir = `${scratch.path}/data`;
    Deno.mkdirSync(files);
    const configuration = {
      storage: store.config,
      processes: {
        writer: {
          command: [
            "sh",
            "-c",
            `echo started >> ${files}/starts; sleep 100000`,
          ],
        },
      },
      files: { app: { path: files } },
      stacks: ["app", "writer"],
      checkpoint: { interval: "1h" },
    };
    const start = () =>
      new ManagerProcess({
        args: ["--data-dir", dataDir],
        env: { STATE_MANAGER_TEST: "" },
      });
    {
      await using manager = start();
      const unconfigured = await manager.state("unconfigured");
      assert.equal(unconfigured.lease, null);
      assert.equal(await manager.statusOf("/livez"), 200);
      assert.equal(await manager.statusOf("/startupz"), 200);
      assert.equal(await manager.statusOf("/readyz"), 503);
      const early = await manager.fetch("/checkpoint", { method: "POST" });
      assert.equal(early.status, 409);
      assert.equal(
        early.headers.get("content-type"),
        "application/problem+json",
      );
      await early.body?.cancel();

      const bad = await manager.fetch("/config", {
        json: { storage: { bucket: 5 }, unknown: true },
      });
      assert.equal(bad.status, 422);
      const problem = await bad.json();
      assert.ok(problem.errors.length >= 2, JSON.stringify(problem));

      const created = await manager.fetch("/config", { json: configuration });
      assert.equal(
        created.status,
        201,
        await created.clone().text() + manager.tail(),
      );
      await created.body?.cancel();
      await manager.state("running");
      await waitFor("readiness", async () => await manager.statusOf("/readyz") === 200);
      const again = await manager.fetch("/config", { json: configuration });
      assert.equal(again.status, 409);
      await again.body?.cancel();

      const shown = JSON.stringify(await manager.json("/config"));
      const secret = store.config["secret_key"];
      if (typeof secret === "string") {
        assert.ok(!shown.includes(secret));
        assert.ok(shown.includes('"***"'));
        assert.ok(!manager.stderr.includes(secret));
      }
      assert.equal(
        (Deno.statSync(`${dataDir}/config.json`).mode ?? 0) & 0o777,
        0o600,
      );

      Deno.writeTextFileSync(`${files}/x`, "one");
      const first = await manager.json("/checkpoint", {
        json: { comment: "first" },
      });
      assert.equal(first.checkpoint.comment, "first");
      Deno.writeTextFileSync(`${files}/x`, "two");
      Deno.writeTextFileSync(`${files}/new`, "new");
      const second = await manager.json("/checkpoint", { method: "POST" });
      assert.equal(second.checkpoint.parent, first.checkpoint.id);

      const refused = await manager.fetch("/restore", { json: {} });
      assert.equal(refused.status, 422);
      await refused.body?.cancel();
      const starts = Deno.readTextFileSync(`${files}/starts`);
      const restored = await manager.json("/restore", {
        json: { checkpoint: first.checkpoint.id },
      });
      assert.equal(restored.source.id, first.checkpoint.id);
      assert.equal(Deno.readTextFileSync(`${files}/x`), "one");
      assert.throws(() => Deno.statSync(`${files}/new`));
      await manager.state("running");
      await waitFor(
        "the program to start again",
        () => Deno.readTextFileSync(`${files}/starts`).length > starts.length / 2,
      );

      // A restore is new history: everything before it can still be restored, also what was there right before.
      const { checkpoints } = await manager.json("/checkpoints");
      assert.deepEqual(checkpoints.map((each: { kind: string }) => each.kind), [
        "request",
        "request",
        "safety",
        "restore",
      ]);
      assert.equal(
        (await manager.json("/")).checkpoint.current.id,
        checkpoints[3].id,
      );
      await manager.json("/restore", {
        json: { checkpoint: second.checkpoint.id },
      });
      assert.equal(Deno.readTextFileSync(`${files}/x`), "two");
      await manager.state("running");

      const lease = await manager.json("/lease");
      assert.equal(lease.state, "held");
      await manager.json("/release-lease", { method: "POST" });
      await manager.state("released");
      await manager.json("/release-lease", { method: "POST" }); // idempotent
      assert.equal(await manager.statusOf("/livez"), 200);
      assert.equal(await manager.statusOf("/readyz"), 503);
      manager.signal("SIGTERM");
      assert.equal(await manager.exit(), 0, manager.tail());
    }
    {
      await using manager = start(); // configured now, and still released
      await manager.state("released");
      assert.equal(
        await manager.statusOf("/config", { json: configuration }),
        409,
      );
      await manager.json("/acquire-lease", { method: "POST" });
      const status = await manager.state("running");
      assert.equal(status.processes[0].name, "writer");
      assert.equal(Deno.readTextFileSync(`${files}/x`), "two");
      manager.signal("SIGTERM");
      assert.equal(await manager.exit(), 0, manager.tail());
    }
  },
);

testOnStores(
  "a process is restarted on exit after its delay, and its state is reported",
  async (store) => {
    using scratch = scratchFolder();
    Deno.mkdirSync(`${scratch.path}/data`);
    Deno.writeTextFileSync(
      `${scratch.path}/data/config.json`,
      JSON.stringify({
        storage: store.config,
        processes: {
          crasher: {
            command: ["sh", "-c", `echo x >> ${scratch.path}/runs; exit 3`],
            restart_delay: "100ms",
          },
          steady: { command: ["sleep", "100000"] },
        },
      }),
      { mode: 0o600 },
    );
    await using manager = new ManagerProcess({
      args: ["--data-dir", `${scratch.path}/data`],
    });
    await manager.state("running");
    await waitFor("three runs", () => Deno.readTextFileSync(`${scratch.path}/runs`).length >= 6);
    const processes = await waitFor("the steady one to be up", async () => {
      const list = (await manager.json("/")).processes;
      return list.some((each: { state: string }) => each.state === "running") ? list : null;
    });
    const byName = (name: string) => processes.find((each: { name: string }) => each.name === name);
    assert.ok(byName("crasher").restarts >= 1);
    assert.deepEqual(byName("crasher").last_exit, { kind: "exit", code: 3 });
    assert.equal(byName("steady").state, "running");
  },
);
