/** The proxy in front of MinIO does to requests what its rules say, and nothing to the others. */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { Secret } from "../../src/platform/secret.ts";
import { s3Store } from "../../src/storage/mod.ts";
import { startFaultProxy } from "../support/fault_proxy.ts";
import { findMinio, startMinio } from "../support/minio.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("the fault proxy loses, delays, doubles and cuts exactly what its rules name [needs minio]", {
  ignore: findMinio() === null,
}, async (t) => {
  const service = await startMinio();
  if (service === null) throw new Error("MinIO was found before and does not start now");
  const proxy = startFaultProxy(service.endpoint);
  const store = s3Store({
    bucket: service.bucket,
    endpoint: proxy.endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: () => ({
      accessKey: new Secret(service.accessKey),
      secretKey: new Secret(service.secretKey),
      sessionToken: null,
    }),
    clock: systemClock(),
  });
  const textOf = async (key: string) => new TextDecoder().decode((await store.get(key)).body);

  await t.step("requests that no rule names pass, signed for the proxy", async () => {
    await store.put("plain/a", bytes("one"), { condition: { absent: true } });
    assert.equal(await textOf("plain/a"), "one");
    const { objects } = await store.list({ prefix: "plain/" });
    assert.deepEqual(objects.map((object) => object.key), ["plain/a"]);
    assert.equal((await store.head("plain/a")).sizeBytes, 3);
    await store.delete("plain/a");
    await assert.rejects(store.get("plain/a"), (error) => isError(error, "object-not-found"));
  });

  await t.step("the n-th put below a prefix is refused, the others are not", async () => {
    const rule = proxy.fail({ operation: "put", keyPrefix: "nth/", nth: 2, status: 503 });
    await store.put("nth/a", bytes("a"));
    await assert.rejects(store.put("nth/b", bytes("b")), (error) => isError(error));
    await store.put("nth/c", bytes("c"));
    assert.equal(rule.hits, 1);
    const { objects } = await store.list({ prefix: "nth/" });
    assert.deepEqual(objects.map((object) => object.key), ["nth/a", "nth/c"]);
    rule.end();
  });

  await t.step("a reset before the work leaves nothing, a reset after it leaves the object", async () => {
    proxy.fail({ operation: "put", keyPrefix: "reset/before", reset: true });
    proxy.fail({ operation: "put", keyPrefix: "reset/after", reset: true, when: "after" });
    const condition = { absent: true } as const; // other requests are sent again by the HTTP client itself
    await assert.rejects(store.put("reset/before", bytes("x"), { condition }));
    await assert.rejects(store.put("reset/after", bytes("x"), { condition }));
    const { objects } = await store.list({ prefix: "reset/" });
    assert.deepEqual(objects.map((object) => object.key), ["reset/after"]);
  });

  await t.step("a doubled create answers for the second one", async () => {
    proxy.fail({ operation: "put", keyPrefix: "double", duplicate: true });
    await assert.rejects(
      store.put("double", bytes("x"), { condition: { absent: true } }),
      (error) => isError(error, "precondition-failed"),
    );
    assert.equal(await textOf("double"), "x");
  });

  await t.step("a cut answer is an error, never a short object", async () => {
    await store.put("cut", bytes("x".repeat(10_000)));
    proxy.fail({ operation: "get", keyPrefix: "cut", cutAfter: 5_000 });
    await assert.rejects(store.get("cut"));
    assert.equal((await store.get("cut")).body.length, 10_000);
  });

  await t.step("a put of a client that gave up is done late", async () => {
    proxy.fail({ operation: "put", keyPrefix: "late", delayMs: 3_000 });
    await assert.rejects(store.put("late", bytes("x"), { timeoutMs: 50 }));
    await assert.rejects(store.head("late"), (error) => isError(error, "object-not-found"));
    while (proxy.requests.findLast((seen) => seen.operation === "put")?.status !== 200) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.equal(await textOf("late"), "x");
  });

  await t.step("an outage lets nothing through, and ends", async () => {
    proxy.outage("refused");
    await assert.rejects(store.put("outage/a", bytes("x")));
    proxy.outage(true);
    await assert.rejects(store.put("outage/b", bytes("x"), { timeoutMs: 100 }));
    proxy.outage(false);
    await store.put("outage/c", bytes("x"));
    proxy.outage("late");
    const held = store.put("outage/d", bytes("x"));
    proxy.outage(false);
    await held;
    const { objects } = await store.list({ prefix: "outage/" });
    assert.deepEqual(objects.map((object) => object.key), ["outage/c", "outage/d"]);
  });

  await store.close();
  await proxy.stop();
  await service.stop();
});
