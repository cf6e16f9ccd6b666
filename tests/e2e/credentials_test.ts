/** Storage keys that are replaced while everything runs. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { ManagerProcess, scratchFolder } from "../support/manager_process.ts";
import { S3Server } from "../support/s3_server.ts";

Deno.test("PUT /credentials replaces the storage keys of all that runs, and of the file, when they are proven", async () => {
  using scratch = scratchFolder();
  await using server = await S3Server.start({ accessKey: "old-id", secretKey: "old-secret-key" });
  const config = `${scratch.path}/config.json`;
  const storage = {
    bucket: server.bucket,
    endpoint: server.endpoint,
    access_key: "old-id",
    secret_key: "old-secret-key",
  };
  const path = `${scratch.path}/app.db`;
  const database = new DatabaseSync(path);
  database.exec("PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)");
  await Deno.writeTextFile(
    config,
    `// mine\n${
      JSON.stringify({
        storage,
        checkpoint: { interval: "24h" },
        databases: { main: { path } },
        processes: { web: { command: ["sleep", "1000"] } },
      })
    }\n`,
    { mode: 0o600 },
  );
  try {
    await using manager = new ManagerProcess({
      args: ["--config", config, "--data-dir", `${scratch.path}/data`],
    });
    await manager.state("running");
    const before = await Deno.readTextFile(config);
    const put = async (json: unknown) => {
      const response = await manager.fetch("/credentials", { method: "PUT", json });
      const text = await response.text();
      assert.doesNotMatch(text, /secret-(key|word)/);
      return { status: response.status, body: JSON.parse(text) };
    };
    const next = { access_key: "new-id", secret_key: "new-secret-word$1" };
    const early = await put(next);
    assert.deepEqual([early.status, early.body.code], [422, "store-access-denied"]);
    assert.equal(await Deno.readTextFile(config), before);
    server.otherAccounts.push({
      accessKey: "new-id",
      secretKey: "new-secret-word$1",
      sessionToken: null,
      region: server.region,
    });
    assert.deepEqual(await put(next), { status: 200, body: { persisted: true, source: null } });
    server.isRevoked = true;
    database.exec("INSERT INTO t VALUES (2)");
    const signal = AbortSignal.timeout(60_000); // with the old keys it would never be done
    assert.equal((await manager.fetch("/databases/main/sync", { json: {}, signal })).status, 200);
    await manager.checkpoint();
    const kept = await Deno.readTextFile(config);
    assert.match(kept, /^\/\/ mine\n/);
    assert.equal(JSON.parse(kept.slice(8)).storage.secret_key, "new-secret-word$$1");
    assert.equal(((await Deno.stat(config)).mode ?? 0) & 0o777, 0o600);
    const history = await manager.json("/history?kind=config-version");
    assert.deepEqual(history.events.map(({ subject }: { subject: string }) => subject), ["credentials"]);
    assert.doesNotMatch(JSON.stringify(history) + manager.stdout + manager.stderr, /secret-(key|word)/);
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
  } finally {
    database.close();
  }
});
