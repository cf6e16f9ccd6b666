/** `storage copy` on the whole program: beside a manager, into a bucket, and a manager that comes up on the copy. */

import assert from "node:assert/strict";
import { checkChain, readJournal } from "../support/chain.ts";
import { placeAt, startAt, untilRow } from "../support/database_place.ts";
import { ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";
import { findMinio, minioStore, startMinio } from "../support/minio.ts";
import { S3Server } from "../support/s3_server.ts";

const NAME = { STATE_MANAGER_NAME: "shop" };

Deno.test({
  name:
    "a repository goes from a folder into a bucket, and a manager in an empty place has files and rows [needs minio]",
  ignore: findMinio() === null,
  fn: async () => {
    using scratch = scratchFolder();
    const minio = await startMinio();
    assert.ok(minio !== null);
    try {
      const folder = { args: ["--directory", `${scratch.path}/store`], env: NAME, config: {} };
      const one = placeAt(`${scratch.path}/one`);
      const filesOf = (root: string) => ["--files", `web=${root}/web`];
      Deno.mkdirSync(`${one.root}/web`);
      Deno.writeTextFileSync(`${one.root}/web/page`, "first");
      const to = ["--to-bucket", minio.bucket, "--to-endpoint", minio.endpoint, "--to-prefix", "copies/one"];
      const copy = async (...more: string[]) => {
        const { code, stdout, stderr } = await runProgram(
          ["storage", "copy", ...folder.args, "--data-dir", `${scratch.path}/none`, ...to, ...more, "--json"],
          {
            env: {
              STATE_MANAGER_TO_ACCESS_KEY: minio.accessKey,
              STATE_MANAGER_TO_SECRET_KEY: minio.secretKey,
            },
          },
        );
        assert.equal(code, 0, stdout + stderr);
        return JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "");
      };
      {
        await using manager = startAt(one, folder, { args: filesOf(one.root) });
        await untilRow(one, manager, 100);
        await manager.checkpoint();
        const beside = await copy();
        assert.ok(beside.objects > 3 && beside.copied_objects >= beside.objects, JSON.stringify(beside));
        Deno.writeTextFileSync(`${one.root}/web/page`, "second");
        await untilRow(one, manager, (readJournal(one.journal).rows.at(-1)?.n ?? 0) + 100);
        manager.signal("SIGTERM");
        assert.equal(await manager.exit(), 0, manager.tail());
      }
      const rows = checkChain(one.database);
      const rest = await copy();
      assert.ok(rest.copied_objects > 0 && rest.copied_objects < rest.objects, JSON.stringify(rest));
      const plan = await runProgram(
        ["storage", "copy", ...folder.args, "--data-dir", `${scratch.path}/none`, ...to, "--dry-run"],
        { env: { AWS_ACCESS_KEY_ID: minio.accessKey, AWS_SECRET_ACCESS_KEY: minio.secretKey } },
      );
      assert.match(plan.stdout, /^would copy 0 objects /, plan.stderr);

      const bucket = {
        args: ["--bucket", minio.bucket, "--endpoint", minio.endpoint, "--prefix", "copies/one"],
        env: { ...NAME, AWS_ACCESS_KEY_ID: minio.accessKey, AWS_SECRET_ACCESS_KEY: minio.secretKey },
        config: {},
      };
      const store = minioStore(minio, "copies/one/databases/app/0000");
      const { objects: [slot] } = await store.list({ prefix: "" });
      assert.ok(slot !== undefined);
      assert.deepEqual(
        Object.keys((await store.head(slot.key)).metadata).sort(),
        ["litestream-timestamp", "sm-token"],
      );
      await store.close();
      const check = await runProgram(["storage", "check", "--level", "3", ...bucket.args], {
        env: bucket.env,
      });
      assert.equal(check.code, 0, check.stdout + check.stderr);

      const two = placeAt(`${scratch.path}/two`);
      await using next = startAt(two, bucket, { args: filesOf(two.root) });
      await untilRow(two, next, 1);
      assert.equal(readJournal(two.journal).starts[0], rows, "every row came back");
      assert.equal(Deno.readTextFileSync(`${two.root}/web/page`), "second");
      next.signal("SIGTERM");
      assert.equal(await next.exit(), 0, next.tail());
      const refused = await runProgram(
        ["storage", "copy", ...folder.args, "--data-dir", `${scratch.path}/none`, ...to],
        { env: bucket.env },
      );
      assert.equal(refused.code, 78, refused.stdout + refused.stderr);
      assert.match(refused.stderr, /a manager has run/);
    } finally {
      await minio.stop();
    }
  },
});

Deno.test("a copy that is interrupted gives its lease back, and the next one goes on with it", async () => {
  using scratch = scratchFolder();
  const store = ["--directory", `${scratch.path}/store`, "--data-dir", `${scratch.path}/data`];
  Deno.mkdirSync(`${scratch.path}/web`);
  Deno.writeTextFileSync(`${scratch.path}/web/page`, "content");
  {
    await using manager = new ManagerProcess({
      args: ["run", ...store, "--files", `web=${scratch.path}/web`, "--", "sleep", "100000"],
    });
    await manager.state("running");
    await manager.checkpoint();
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 143, manager.tail());
  }
  await using server = await S3Server.start({ bucket: "bucket" });
  const to = ["--to-bucket", "bucket", "--to-endpoint", server.endpoint, "--to-region", server.region];
  const args = ["storage", "copy", ...store, ...to];
  const env = {
    STATE_MANAGER_TO_ACCESS_KEY: server.accessKey,
    STATE_MANAGER_TO_SECRET_KEY: server.secretKey,
  };
  // Tried again after so long a while that the signal comes in it.
  const fault = server.fail({
    operation: "put",
    keyPrefix: "checkpoints/roots/",
    status: 503,
    code: "SlowDown",
    headers: { "retry-after": "60" },
  });
  const leaseOf = () => {
    const object = server.objects.get("lease.json");
    return object === undefined ? null : JSON.parse(new TextDecoder().decode(object.body));
  };
  {
    await using copy = new ManagerProcess({ args, env });
    await waitFor("a root that is not taken", () => fault.hits > 0, 60_000, () => copy.tail());
    assert.equal(leaseOf()?.state, "held");
    copy.signal("SIGINT");
    assert.equal(await copy.exit(), 130, copy.tail());
  }
  assert.equal(leaseOf()?.state, "released");
  assert.ok(!server.objects.has("repo.json"));
  fault.end();
  const again = await runProgram(args, { env });
  assert.equal(again.code, 0, again.stdout + again.stderr);
  assert.match(again.stdout, /^copied [0-9]+ objects? /);
  assert.ok(server.objects.has("repo.json") && server.objects.has("head.json"));
});
