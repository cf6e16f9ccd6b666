/** The small decorators, the probe, and the stack that openStore builds. */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { LimitedTurns } from "../../src/platform/limited_turns.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { Secret } from "../../src/platform/secret.ts";
import {
  directoryStore,
  faulty,
  limited,
  memoryStore,
  type ObjectStore,
  observed,
  openStore,
  prefixed,
  probeStore,
  s3Store,
  type StoreOperation,
} from "../../src/storage/mod.ts";
import { findMinio, startMinio } from "../support/minio.ts";
import { S3Server, type S3ServerOptions } from "../support/s3_server.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const effects = { clock: systemClock(), random: systemRandom() };
const bytes = (text: string) => new TextEncoder().encode(text);

/** A store whose gets wait for the test, in order. */
function gatedStore() {
  const open: (() => void)[] = [];
  let running = 0;
  let most = 0;
  const memory = memoryStore();
  const store: ObjectStore = {
    ...memory,
    async get(key, options) {
      most = Math.max(most, ++running);
      await new Promise<void>((resolve) => open.push(resolve));
      running--;
      return await memory.get(key, options);
    },
  };
  return { store, memory, open, most: () => most };
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 0));

Deno.test("limited runs so many operations at a time and the others in order", async () => {
  const { store, memory, open, most } = gatedStore();
  await memory.put("a", bytes("x"));
  const ended: number[] = [];
  const limit = limited(store, { concurrency: 2, clock: effects.clock });
  const calls = Array.from({ length: 5 }, (_, i) => limit.get("a").then(() => ended.push(i)));
  for (let i = 0; i < 5; i++) {
    while (open.length === 0) await settled();
    open.shift()?.();
  }
  await Promise.all(calls);
  assert.deepEqual([most(), ended], [2, [0, 1, 2, 3, 4]]);
});

Deno.test("limited lets a waiter go on its signal or its time, and its turn is not lost", async () => {
  const { store, memory, open } = gatedStore();
  const clock = new VirtualClock();
  await memory.put("a", bytes("x"));
  const limit = limited(store, { concurrency: 1, clock });
  const first = limit.get("a");
  const controller = new AbortController();
  const reason = new Error("enough");
  const aborted = assert.rejects(limit.get("a", { signal: controller.signal }), (error) => error === reason);
  const late = assert.rejects(
    limit.get("a", { timeoutMs: 50 }),
    (error) => isError(error, "store-unreachable"),
  );
  const last = limit.get("a");
  controller.abort(reason);
  await aborted;
  await clock.advance(60);
  await late;
  for (let i = 0; i < 2; i++) {
    while (open.length === 0) await settled();
    open.shift()?.();
  }
  await Promise.all([first, last]);
  assert.equal(clock.sleeping, 0);
});

Deno.test("a turn that was asked for with an aborted signal is taken from nobody", async () => {
  const turns = new LimitedTurns("use it", 1);
  const open = new AbortController().signal;
  const gone = AbortSignal.abort(new Error("gone"));
  await assert.rejects(turns.take(gone), /gone/);
  await turns.take(open);
  const late = turns.take(gone); // in a queue it would be given a turn that its caller does not want any more
  const next = turns.take(open);
  turns.give();
  await assert.rejects(late, /gone/);
  await next;
});

Deno.test("limited gives its turn back when an operation fails", async () => {
  const limit = limited(memoryStore(), { concurrency: 1, clock: effects.clock });
  for (let i = 0; i < 3; i++) {
    await assert.rejects(limit.get("none"), (error) => isError(error, "object-not-found"));
  }
});

Deno.test("observed tells kind, key, bytes and outcome of every operation", async () => {
  const seen: StoreOperation[] = [];
  const store = observed(memoryStore(), effects.clock, (operation) => seen.push(operation));
  await store.put("a", bytes("four"));
  await store.get("a", { range: { start: 0, end: 3 } });
  await store.head("a");
  await store.list({ prefix: "x" });
  await store.get("none").catch(() => {});
  await store.put("a", bytes("x"), { condition: { absent: true } }).catch(() => {});
  await store.get("a", { signal: AbortSignal.abort() }).catch(() => {});
  await store.delete("a");
  assert.deepEqual(seen.map(({ kind, key, bytes, outcome }) => `${kind} ${key} ${bytes} ${outcome}`), [
    "put a 4 ok",
    "get a 3 ok",
    "head a 0 ok",
    "list x 0 ok",
    "get none 0 object-not-found",
    "put a 0 precondition-failed",
    "get a 0 cancelled",
    "delete a 0 ok",
  ]);
  assert.ok(seen.every(({ durationMs }) => durationMs >= 0));
});

Deno.test("prefixed keeps apart what lies under other prefixes, also ones that begin alike", async () => {
  const memory = memoryStore();
  const store = prefixed(memory, "/team/app/");
  await store.put("a", bytes("x"));
  await memory.put("team/app2/b", bytes("x"));
  await memory.put("team/app", bytes("x"));
  const { objects } = await store.list({ prefix: "" });
  assert.deepEqual(objects.map(({ key }) => key), ["a"]);
  assert.equal((await memory.head("team/app/a")).sizeBytes, 1);
  await assert.rejects(store.get("../app2/b"), (error) => isError(error, "key-invalid"));
  assert.equal(prefixed(memory, "/"), memory);
  assert.throws(() => prefixed(memory, "a/../b"), (error) => isError(error, "key-invalid"));
});

Deno.test("faulty loses replies, delays and forgets conditions as told", async () => {
  const memory = memoryStore();
  const store = faulty(memory, {
    clock: effects.clock,
    rules: [{ operation: "put", nth: 2, error: "outcome-unknown" }],
  });
  await store.put("a", bytes("1"));
  await assert.rejects(store.put("b", bytes("2")), (error) => isError(error, "outcome-unknown"));
  await assert.rejects(memory.get("b"), (error) => isError(error, "object-not-found"));
  store.inject({ operation: "put", keyPrefix: "c", error: "outcome-unknown", when: "after" });
  await assert.rejects(store.put("c", bytes("3")), (error) => isError(error, "outcome-unknown"));
  assert.equal((await memory.get("c")).sizeBytes, 1);
  const end = store.inject({ count: Infinity, ignoreConditions: true });
  await store.put("a", bytes("4"), { condition: { absent: true } });
  end();
  await assert.rejects(store.put("a", bytes("5"), { condition: { absent: true } }));
});

function s3On(server: { endpoint: string; bucket: string; accessKey: string; secretKey: string }) {
  return {
    kind: "s3",
    bucket: server.bucket,
    endpoint: server.endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: () => ({
      accessKey: new Secret(server.accessKey),
      secretKey: new Secret(server.secretKey),
      sessionToken: null,
    }),
  } as const;
}

Deno.test("probeStore accepts memory, a folder and S3, and leaves nothing behind", async () => {
  const path = await Deno.makeTempDir({ prefix: "state-manager-probe-" });
  await using server = await S3Server.start();
  const stores = [
    memoryStore(),
    memoryStore({ tags: "unique" }),
    directoryStore({ path, ...effects }),
    openStore(s3On(server), effects),
    openStore({ ...s3On(server), keyPrefix: "p" }, { ...effects, plain: true }),
  ];
  for (const store of stores) {
    const { capabilities } = await probeStore(store, { ...effects, large: true });
    assert.ok(Object.values(capabilities).every((capable) => capable));
    assert.deepEqual(await store.list({ prefix: "" }), { objects: [] });
    await store.close();
  }
  assert.deepEqual([...Deno.readDirSync(path)].map(({ name }) => name), [".tmp"]);
  await Deno.remove(path, { recursive: true });
});

const UNSAFE: readonly (readonly [S3ServerOptions, RegExp])[] = [
  [{ ignoreConditions: ["if-none-match"] }, /create of an object that exists succeeded/],
  [{ ignoreConditions: ["if-match"] }, /swap with an outdated tag succeeded/],
  [{ ignoreConditions: ["if-none-match", "if-match"] }, /create of an object that exists succeeded/],
  [{ racyCreates: true }, /8 creators at once had [2-8] winners/],
];

Deno.test("probeStore refuses stores that ignore conditions, names the rule, and cleans up", async () => {
  for (const [options, rule] of UNSAFE) {
    await using server = await S3Server.start(options);
    for (const plain of [false, true]) {
      const store = openStore(s3On(server), { ...effects, plain });
      await assert.rejects(
        probeStore(store, effects),
        (error) => isError(error, "store-unsafe") && rule.test(error.message) && error.hint !== undefined,
        JSON.stringify(options),
      );
      assert.equal(server.objects.size, 0);
      await store.close();
    }
  }
});

Deno.test("probeStore says what is wrong with a store that it can't use at all", async () => {
  await using server = await S3Server.start();
  const wrong = s3Store({
    ...s3On({ ...server, bucket: "other", endpoint: server.endpoint }),
    clock: effects.clock,
  });
  await assert.rejects(probeStore(wrong, effects), (error) => isError(error, "store-not-found"));
  await wrong.close();
  const store = faulty(memoryStore(), { clock: effects.clock });
  store.inject({ operation: "put", nth: 3, error: "store-access-denied", count: Infinity });
  await assert.rejects(probeStore(store, effects), (error) => isError(error, "store-access-denied"));
  assert.deepEqual(await store.list({ prefix: "" }), { objects: [] });
});

Deno.test({
  name: "probeStore accepts MinIO [needs minio]",
  ignore: findMinio() === null,
  async fn() {
    const service = await startMinio();
    if (service === null) throw new Error("MinIO was found before and does not start now");
    try {
      const store = openStore({ ...s3On(service), keyPrefix: "probe" }, { ...effects, plain: true });
      await probeStore(store, { ...effects, large: true });
      assert.deepEqual(await store.list({ prefix: "" }), { objects: [] });
      await store.close();
    } finally {
      await service.stop();
    }
  },
});

Deno.test("openStore observes every try, retries, and with plain: true does not", async () => {
  await using server = await S3Server.start();
  const seen: string[] = [];
  const observe = ({ kind, outcome }: StoreOperation) => seen.push(`${kind} ${outcome}`);
  server.fail({ operation: "put", status: 503, code: "SlowDown", count: 1 });
  const store = openStore(s3On(server), { ...effects, observe });
  await store.put("a", bytes("x"));
  assert.deepEqual(seen.splice(0), ["put outcome-unknown", "put ok"]);
  await store.close();
  server.fail({ operation: "put", status: 503, code: "SlowDown", count: 1 });
  const plain = openStore(s3On(server), { ...effects, observe, plain: true });
  await assert.rejects(plain.put("a", bytes("x")), (error) => isError(error, "outcome-unknown"));
  assert.deepEqual(seen, ["put outcome-unknown"]);
  await plain.close();
});
