/** The store is away for three TTLs under load: programs stand still in time, and go on, unless another took over. */

import assert from "node:assert/strict";
import { say } from "../support/say.ts";
import { ChaosScene, nowMs, overlaps } from "../support/chaos_scene.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault_proxy.ts";
import { unlessStalled } from "../support/machine_stall.ts";
import { waitFor } from "../support/manager_process.ts";
import { findMinio, startMinio } from "../support/minio.ts";
import type { TestStore } from "../support/test_stores.ts";

const TTL_MS = 3000;
/** Where programs are to be frozen and nobody killed: a tenth of it lies between the freeze and the guard's kill. */
const LONG_TTL_MS = 5000;
/** A good part of that tenth. */
const STALL_MS = LONG_TTL_MS / 20;

/** One bucket by two ways: through the proxy, and past it. */
interface Ways {
  readonly direct: TestStore;
  readonly proxied: TestStore;
  readonly proxy: FaultProxy;
}

async function onProxiedMinio(body: (ways: Ways) => Promise<void>): Promise<void> {
  const minio = await startMinio();
  if (minio === null) throw new Error("MinIO was found before and does not start now");
  try {
    await using proxy = startFaultProxy(minio.endpoint);
    const at = (endpoint: string): TestStore => ({
      args: ["--bucket", minio.bucket, "--endpoint", endpoint, "--region", "us-east-1", "--prefix", "outage"],
      env: { AWS_ACCESS_KEY_ID: minio.accessKey, AWS_SECRET_ACCESS_KEY: minio.secretKey },
      config: {
        bucket: minio.bucket,
        endpoint,
        region: "us-east-1",
        access_key: minio.accessKey,
        secret_key: minio.secretKey,
        key_prefix: "outage",
      },
    });
    await body({ direct: at(minio.endpoint), proxied: at(proxy.endpoint), proxy });
  } finally {
    await minio.stop();
  }
}

const ignore = findMinio() === null;

Deno.test({
  name:
    "an outage of three TTLs freezes the programs before the lease ends, and all goes on by itself [needs minio]",
  ignore,
  fn: () => unlessStalled(() => onProxiedMinio(frozenAndGoesOn), STALL_MS),
});

async function frozenAndGoesOn({ direct, proxied, proxy }: Ways): Promise<void> {
  await using scene = new ChaosScene(direct, { ttlMs: LONG_TTL_MS });
  const a = scene.machine("a");
  const manager = a.start({ store: proxied });
  await a.nextLine("value", 0, () => manager.tail());
  await manager.checkpoint();
  const pid = a.lastLine()?.pid;
  const asked = manager.fetch("/checkpoint", { json: {} }).then((response) => response.body?.cancel())
    .catch(() => {});
  const outageMs = nowMs();
  proxy.outage(true);
  await manager.state("frozen");
  await waitFor("three TTLs", () => nowMs() > outageMs + 3 * LONG_TTL_MS);
  const frozen = a.lastLine();
  say(
    `last value ${
      Math.round((frozen?.timeMs ?? 0) - outageMs)
    } ms after the outage began, TTL ${LONG_TTL_MS} ms`,
  );
  assert.ok((frozen?.timeMs ?? 0) < outageMs + LONG_TTL_MS, "it counted on after the lease's end");
  const mark = scene.journal().length;
  proxy.outage(false);
  await manager.state("running");
  const next = await a.nextLine("value", mark, () => manager.tail());
  assert.deepEqual(
    [next.pid, next.value],
    [pid, (frozen?.value ?? 0) + 1],
    "the same program goes on where it stood",
  );
  await asked;
  await manager.checkpoint();
  assert.equal((await scene.lease())?.token, 1);
  const last = a.lastLine()?.value ?? 0;
  await manager.killTree();
  const b = scene.machine("b");
  const other = b.start();
  const found = await b.nextLine("found", 0, () => other.tail());
  assert.ok(
    found.value >= (frozen?.value ?? 0) && found.value <= last + 1,
    `${found.value} after ${last}`,
  );
  assert.deepEqual(found.torn, []);
  assert.deepEqual(overlaps(scene.journal()), []);
}

Deno.test({
  name:
    "in an outage that only the holder sees another takes over undisturbed, and the holder's programs never run again [needs minio]",
  ignore,
  fn: () =>
    onProxiedMinio(async ({ direct, proxied, proxy }) => {
      await using scene = new ChaosScene(direct, { ttlMs: TTL_MS });
      const a = scene.machine("a");
      const b = scene.machine("b");
      const first = a.start({ store: proxied });
      await a.nextLine("value", 0, () => first.tail());
      const low = a.lastLine()?.value ?? 0;
      await first.checkpoint();
      const second = b.start();
      await second.state("waiting");
      const asked = first.fetch("/checkpoint", { json: {} }).then((response) => response.body?.cancel())
        .catch(() => {});
      const outageMs = nowMs();
      proxy.outage("late"); // what was asked meanwhile arrives when it is over
      const found = await b.nextLine("found", 0, () => second.tail());
      await second.state("running");
      assert.ok((a.lastLine()?.timeMs ?? 0) < outageMs + TTL_MS, "it counted on after the lease's end");
      assert.ok(found.value >= low, `${found.value} after a checkpoint at ${low}`);
      await waitFor("three TTLs", () => nowMs() > outageMs + 3 * TTL_MS);
      const before = await scene.bucket();
      proxy.outage(false);
      assert.equal(await first.exit(), 75, first.tail());
      await asked;
      // What is new under the former token is garbage: no head names it. What says what counts has not changed.
      const after = await scene.bucket();
      for (const [key, tag] of before) assert.equal(after.get(key), tag, key);
      assert.deepEqual(
        [...after.keys()].filter((key) =>
          !before.has(key) && !/^checkpoints\/(packs|index|roots)\/0*1[-/]/.test(key)
        ),
        [],
      );
      const mark = scene.journal().length;
      await b.nextLine("value", mark, () => second.tail());
      assert.equal((await scene.lease())?.token, 2);
      assert.deepEqual(scene.shouts(), []);
      assert.deepEqual(overlaps(scene.journal()), []);
    }),
});
