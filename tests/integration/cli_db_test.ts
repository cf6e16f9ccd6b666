/** The db commands with no manager, straight on a folder store. */

import assert from "node:assert/strict";
import { openRepository } from "../../src/checkpoint/mod.ts";
import type { ReplicaPlace } from "../../src/database/replica_layout.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { directoryStore } from "../../src/storage/directory_store.ts";
import { prefixed } from "../../src/storage/prefixed_store.ts";
import { command } from "../support/fake_terminal.ts";
import { findMinio, minioStore, startMinio } from "../support/minio.ts";
import { ReplicaBuilder } from "../support/replica_builder.ts";
import { timeOf } from "../support/replica_model.ts";
import { randomOf } from "../support/seeded_random.ts";
import { hashTree, scratchFolder } from "../support/tree_model.ts";

async function scene(folder: string, place: ReplicaPlace = { layout: "folder", name: "app" }) {
  const random = systemRandom();
  const directory = `${folder}/store`;
  const store = prefixed(directoryStore({ path: directory, clock: systemClock(), random }), "prod");
  await openRepository(store, { name: "prod", random });
  const builder = new ReplicaBuilder({ store, place, folder });
  await builder.commitRandom(randomOf(8).float, 9);
  await builder.put({ level: 9, minTxid: 1, maxTxid: 6 });
  for (let txid = 1; txid <= 5; txid++) await builder.remove({ level: 0, minTxid: txid, maxTxid: txid });
  return { builder, store, directory, flags: ["--directory", directory, "--prefix", "prod"] };
}

/** It loads libc, which older runtimes count as a leak of the test that does it. */
isRoot();

const iso = (ms: number) => new Date(ms).toISOString();

Deno.test("db list and db points tell what is in the store", async () => {
  await using folder = scratchFolder("cli-db-");
  const { builder, flags } = await scene(folder.path);
  using _builder = builder;
  const list = await command(["db", "list", ...flags]);
  assert.equal(list.code, 0, list.err);
  assert.match(list.out, /^NAME +TXID +OBJECTS +SIZE +CHANGED\napp +10 +6 +/);
  const alone = await command(["db", "--json", ...flags]);
  assert.equal(JSON.parse(alone.out).databases[0].txid, 10, alone.err);

  const points = await command(["db", "points", "app", "--json", ...flags]);
  assert.deepEqual(JSON.parse(points.out), {
    database: "app",
    total: 5,
    points: [6, 7, 8, 9, 10].map((txid) => ({ txid, time: iso(timeOf(txid)), level: txid === 6 ? 9 : 0 })),
  });
  const two = await command(["db", "points", "app", "--limit", "2", ...flags]);
  assert.equal(
    two.out,
    `TXID  TIME                      LEVEL\n` +
      `9     ${iso(timeOf(9))}  0\n10    ${iso(timeOf(10))}  0\n`,
  );
  assert.match(two.err, /3 older points not shown/);
});

Deno.test("db restore --to makes the newest state, one by TXID and one by time, and changes nothing in the store", async () => {
  await using folder = scratchFolder("cli-db-");
  const { builder, directory, flags } = await scene(folder.path);
  using _builder = builder;
  const before = (await hashTree(directory)).lines;
  const restore = async (name: string, ...args: string[]) => {
    const to = `${folder.path}/${name}`;
    const result = await command(["db", "restore", "app", "--to", to, ...args, ...flags]);
    assert.equal(result.code, 0, result.err);
    return { out: result.out, bytes: Deno.readFileSync(to) };
  };
  const newest = await restore("newest.db");
  assert.match(newest.out, /^restored app at TXID 10 of 20/);
  assert.deepEqual(newest.bytes, builder.bytesAt(10));
  assert.deepEqual((await restore("seven.db", "--txid", "7")).bytes, builder.bytesAt(7));
  assert.deepEqual((await restore("hex.db", "--txid", "000000000000000a")).bytes, builder.bytesAt(10));
  assert.deepEqual((await restore("at.db", "--at", iso(timeOf(8)))).bytes, builder.bytesAt(8));
  const ahead = await command([
    ...["db", "restore", "app", "--dry-run", "--to", "x.db", "--at", "2999-01-01T00:00:00Z", ...flags],
  ]);
  assert.match(ahead.out, /^would restore app at TXID 10 /);
  assert.match(ahead.err, /yet to come .* the newest state is taken/);
  assert.deepEqual((await restore("deep/er/at.db", "--at", iso(timeOf(8) + 999))).bytes, builder.bytesAt(8));

  const complete = JSON.parse(
    (await restore("json.db", "--json", "--check", "full")).out.trimEnd().split("\n").at(-1) ?? "",
  );
  assert.deepEqual(
    { ...complete, fetched_bytes: 0 },
    {
      type: "complete",
      database: "app",
      file: `${folder.path}/json.db`,
      dry_run: false,
      txid: 10,
      bytes: builder.bytesAt(10).length,
      objects: 5,
      check: "passed",
      warnings: [],
      time: iso(timeOf(10)),
      fetched_bytes: 0,
    },
  );
  const plan = await command(["db", "restore", "app", "--dry-run", "--to", "x.db", "--txid", "7", ...flags], {
    folder: folder.path,
  });
  assert.match(plan.out, /^would restore app at TXID 7 .* from 2 objects/, plan.err);
  assert.match(plan.out, /databases\/app\/ltx\/9\/0000000000000001-0000000000000006\.ltx/);
  assert.throws(() => Deno.statSync(`${folder.path}/x.db`), Deno.errors.NotFound);
  assert.deepEqual((await hashTree(directory)).lines, before);
});

Deno.test("db restore says what is wrong, with its exit code, and leaves no file", async () => {
  await using folder = scratchFolder("cli-db-");
  const { builder, flags } = await scene(folder.path);
  using _builder = builder;
  Deno.writeTextFileSync(`${folder.path}/mine.db`, "precious");
  Deno.writeTextFileSync(`${folder.path}/orphan.db-wal`, "precious");
  const to = ["--to", `${folder.path}/x.db`];
  const cases: [string[], number, RegExp][] = [
    [["app", ...flags], 64, /in place say which state/],
    [["app", "--data-dir", folder.path], 64, /in place say which state/],
    [["app", "--to", `${folder.path}/`, ...flags], 64, /say where: --to FILE/],
    [["app", "--to", `${folder.path}/mine.db`, ...flags], 64, /nothing is overwritten/],
    [["app", "--to", `${folder.path}/orphan.db`, ...flags], 64, /orphan\.db-wal is there already/],
    [["app", ...to, "--txid", "7", "--at", "2026-01-01T00:00:00Z", ...flags], 64, /not two/],
    [["app", ...to, "--txid", "0", ...flags], 64, /read --txid/],
    [["app", ...to, "--at", "yesterday", ...flags], 64, /RFC 3339/],
    [["app", ...to, "--txid", "3", ...flags], 1, /the nearest are 6/],
    [["app", ...to, "--txid", "11", ...flags], 1, /newer than all/],
    [["app", ...to, "--at", "2001-01-01T00:00:00Z", ...flags], 1, /the oldest is TXID 6/],
    [["web", ...to, ...flags], 1, /it has app/],
    [["../app", ...to, ...flags], 1, /none of that name/],
    [["app", ...to, "--directory", `${folder.path}/nothing-there`], 78, /nothing is there/],
  ];
  for (const [argv, code, text] of cases) {
    const result = await command(["db", "restore", ...argv, "--data-dir", `${folder.path}/none`]);
    assert.equal(result.code, code, `${argv.join(" ")}: ${result.err}`);
    assert.match(result.err, text);
  }
  await builder.remove({ level: 0, minTxid: 8, maxTxid: 8 });
  const gap = await command(["db", "restore", "app", ...to, ...flags]);
  assert.equal(gap.code, 65, gap.err);
  assert.match(gap.err, /holds TXID 8/);
  assert.deepEqual(
    [...Deno.readDirSync(folder.path)].map(({ name }) => name).filter((name) => /x\.db|sm-/.test(name)),
    [],
  );
  assert.equal(Deno.readTextFileSync(`${folder.path}/mine.db`), "precious");
});

Deno.test("db restore reads a bucket that was copied to a folder, with no repo.json", async () => {
  await using folder = scratchFolder("cli-db-");
  const { builder, store, flags } = await scene(folder.path, { layout: "bucket", name: "app" });
  using _builder = builder;
  await store.delete("repo.json");
  const to = `${folder.path}/x.db`;
  const result = await command(["db", "restore", "app", "--to", to, ...flags]);
  assert.equal(result.code, 0, result.err);
  assert.deepEqual(Deno.readFileSync(to), builder.bytesAt(10));
});

Deno.test({
  name: "[needs minio] db restore, points and list work straight on a bucket",
  ignore: findMinio() === null,
  async fn() {
    const minio = await startMinio();
    assert.ok(minio !== null);
    try {
      await using folder = scratchFolder("cli-db-");
      const { bucket, endpoint } = minio;
      const store = minioStore(minio, "prod");
      await openRepository(store, { name: "prod", random: systemRandom() });
      using builder = new ReplicaBuilder({
        store,
        place: { layout: "bucket", name: "app" },
        folder: folder.path,
      });
      await builder.commitRandom(randomOf(8).float, 9);
      await store.close();
      const environment = { AWS_ACCESS_KEY_ID: minio.accessKey, AWS_SECRET_ACCESS_KEY: minio.secretKey };
      const flags = [
        "--bucket",
        bucket,
        "--endpoint",
        endpoint,
        "--prefix",
        "prod",
        "--data-dir",
        `${folder.path}/none`,
      ];
      const run = (...argv: string[]) => command(["db", ...argv, ...flags], { environment });
      const to = `${folder.path}/restored.db`;
      const restored = await run("restore", "app", "--to", to, "--at", iso(timeOf(8)));
      assert.equal(restored.code, 0, restored.err);
      assert.deepEqual(Deno.readFileSync(to), builder.bytesAt(8));
      const points = await run("points", "app", "--json", "--all");
      assert.equal(JSON.parse(points.out).points.length, 10, points.err);
      assert.match((await run("list")).out, /\napp +10 +10 /);
      const denied = await command(["db", "list", ...flags], {
        environment: { ...environment, AWS_SECRET_ACCESS_KEY: "wrong" },
      });
      assert.equal(denied.code, 78, denied.err);
    } finally {
      await minio.stop();
    }
    const away = await command([
      "db",
      "list",
      "--bucket",
      minio.bucket,
      "--endpoint",
      minio.endpoint,
      "--data-dir",
      "/nonexistent/none",
    ], { environment: { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b" } });
    assert.equal(away.code, 69, away.err);
  },
});
