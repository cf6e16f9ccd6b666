/** Retries, with time stood still, and against random faults: whatever happens, an answer must be true. */

import assert from "node:assert/strict";
import type { Clock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import type { Random } from "../../src/platform/random.ts";
import {
  faulty,
  type FaultyStore,
  memoryStore,
  type ObjectStore,
  retrying,
  type RetryingOptions,
} from "../../src/storage/mod.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { StoreReply } from "../../src/storage/store_errors.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (body: Uint8Array) => new TextDecoder().decode(body);
const absent = { absent: true } as const;

/** Sleeps pass at once and are noted. */
function hastyClock(): Clock & { readonly sleeps: number[] } {
  let nowMs = 0;
  const sleeps: number[] = [];
  return {
    sleeps,
    wallMs: () => nowMs,
    monotonicMs: () => nowMs,
    sleep(ms, { signal } = {}) {
      signal?.throwIfAborted();
      sleeps.push(ms);
      nowMs += ms;
      return Promise.resolve();
    },
  };
}

function seeded(seed: number): Random {
  let state = seed >>> 0;
  const float = () => {
    state = (state + 0x6d2b79f5) >>> 0; // mulberry32
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  };
  return { float, bytes: (count) => Uint8Array.from({ length: count }, () => Math.floor(float() * 256)) };
}

const most: Random = { float: () => 0.999999, bytes: (count) => new Uint8Array(count) };

function subject(options: Partial<RetryingOptions> = {}) {
  const clock = hastyClock();
  const memory = memoryStore();
  const inner: FaultyStore = faulty(memory, { clock });
  return { clock, memory, inner, store: retrying(inner, { clock, random: most, ...options }) };
}

Deno.test("retrying tries reads again with growing, bounded delays until they pass", async () => {
  const { store, memory, inner, clock } = subject({ attempts: 6, baseDelayMs: 100, maxDelayMs: 500 });
  await memory.put("a", bytes("x"));
  inner.inject({ operation: "get", count: 5, error: "store-unreachable" });
  assert.equal(text((await store.get("a")).body), "x");
  assert.deepEqual(clock.sleeps.map(Math.round), [100, 200, 400, 500, 500]);
});

Deno.test("retrying gives up after its attempts with the last error", async () => {
  const { store, inner } = subject({ attempts: 3 });
  inner.inject({ count: Infinity, error: "store-unreachable" });
  for (
    const call of [
      () => store.get("a"),
      () => store.head("a"),
      () => store.list({ prefix: "" }),
      () => store.delete("a"),
    ]
  ) {
    const before = inner.hits;
    await assert.rejects(call(), (error) => isError(error, "store-unreachable"));
    assert.equal(inner.hits - before, 3);
  }
});

Deno.test("retrying does not try again what can't pass", async () => {
  for (
    const error of [
      "store-access-denied",
      "store-refused",
      "store-full",
      "store-not-found",
      "object-not-found",
    ] as const
  ) {
    const { store, inner } = subject();
    inner.inject({ count: Infinity, error });
    await assert.rejects(store.get("a"), (thrown) => isError(thrown, error));
    await assert.rejects(
      store.put("a", bytes("x"), { condition: absent }),
      (thrown) => isError(thrown, error),
    );
    assert.equal(inner.hits, 2, error);
  }
});

Deno.test("retrying waits as long as the store asks, and not at all past the deadline", async () => {
  const { memory, clock } = subject();
  let left = 1;
  const asking: ObjectStore = {
    ...memory,
    get: (key, options) => {
      if (left-- <= 0) return memory.get(key, options);
      const cause = new StoreReply(503, "SlowDown", "answered 503", 7_000);
      return Promise.reject(new StateManagerError("store-unreachable", "get: 503", { cause }));
    },
  };
  await memory.put("a", bytes("x"));
  const store = retrying(asking, { clock, random: most, baseDelayMs: 10 });
  await store.get("a");
  assert.deepEqual(clock.sleeps, [7_000]);
  left = 1;
  await assert.rejects(store.get("a", { timeoutMs: 5_000 }), (error) => isError(error, "store-unreachable"));
  assert.deepEqual(clock.sleeps, [7_000]);
});

Deno.test("retrying ends with the signal's reason, also in a pause", async () => {
  const { inner, clock } = subject();
  const reason = new Error("enough");
  const controller = new AbortController();
  inner.inject({ count: Infinity, error: "store-unreachable" });
  const stopping: Clock = {
    ...clock,
    sleep: (ms, options) => {
      controller.abort(reason);
      return clock.sleep(ms, options);
    },
  };
  const store = retrying(inner, { clock: stopping, random: most });
  await assert.rejects(store.get("a", { signal: controller.signal }), (error) => error === reason);
});

Deno.test("retrying takes a create for won whose reply was lost", async () => {
  const { store, inner, memory } = subject();
  inner.inject({ operation: "put", error: "outcome-unknown", when: "after" });
  const { etag } = await store.put("a", bytes("mine"), { condition: absent });
  assert.equal((await memory.head("a")).etag, etag);
});

Deno.test("retrying resends the same bytes while the condition of an unknown put still holds", async () => {
  const { store, inner, memory } = subject();
  const { etag } = await memory.put("swap", bytes("old"));
  inner.inject({ operation: "put", error: "outcome-unknown", when: "before", count: 2 });
  await store.put("create", bytes("mine"), { condition: absent });
  inner.inject({ operation: "put", error: "outcome-unknown", when: "before", count: 2 });
  await store.put("swap", bytes("new"), { condition: { etag } });
  assert.deepEqual([text((await memory.get("create")).body), text((await memory.get("swap")).body)], [
    "mine",
    "new",
  ]);
});

Deno.test("retrying says precondition-failed when another version is there after an unknown put", async () => {
  const { store, inner, memory } = subject();
  const { etag } = await memory.put("swap", bytes("old"));
  await memory.put("swap", bytes("theirs"));
  inner.inject({ operation: "put", error: "outcome-unknown" });
  await assert.rejects(
    store.put("swap", bytes("mine"), { condition: { etag } }),
    (error) => isError(error, "precondition-failed"),
  );
  await memory.delete("swap");
  inner.inject({ operation: "put", error: "outcome-unknown" });
  await assert.rejects(
    store.put("swap", bytes("mine"), { condition: { etag } }),
    (error) => isError(error, "precondition-failed"),
  );
});

Deno.test("retrying does not believe a refusal after a try that landed late", async () => {
  const { inner, memory, clock } = subject();
  let puts = 0;
  // The first try lands while the second one is under way: the second is refused because of the first.
  const late: ObjectStore = {
    ...inner,
    put: async (key, body, options) => {
      if (++puts === 1) throw new StateManagerError("outcome-unknown", "put: timed out");
      await memory.put(key, body);
      return await memory.put(key, body, options);
    },
  };
  const { etag } = await retrying(late, { clock, random: most }).put("a", bytes("mine"), {
    condition: absent,
  });
  assert.deepEqual([puts, (await memory.head("a")).etag], [2, etag]);
});

Deno.test("retrying leaves the outcome unknown when it can't read back", async () => {
  const { store, inner } = subject();
  inner.inject({ operation: "put", error: "outcome-unknown", when: "after" });
  inner.inject({ operation: "get", error: "store-unreachable", count: Infinity });
  await assert.rejects(
    store.put("a", bytes("mine"), { condition: absent }),
    (error) => isError(error, "outcome-unknown"),
  );
});

/** One random life of a counter that two writers swap; throws when an answer was not true. */
async function swapUnderFaults(seed: number): Promise<void> {
  const random = seeded(seed);
  const clock = hastyClock();
  const memory = memoryStore();
  const inner = faulty(memory, { clock });
  const errors = ["outcome-unknown", "store-unreachable"] as const;
  for (let rule = 0; rule < 60; rule++) {
    // A put that happened is never "unreachable": the store's contract.
    const error = errors[Math.floor(random.float() * 2)] ?? "outcome-unknown";
    const when = error === "outcome-unknown" && random.float() < 0.5 ? "after" : "before";
    inner.inject({
      ...(error === "outcome-unknown" ? { operation: "put" } : {}),
      error,
      when,
      nth: 1 + Math.floor(random.float() * 200),
    });
  }
  const store = retrying(inner, { clock, random, attempts: 3 });
  const told = new Set<string>();
  const undecided = new Set<string>();
  const refused = new Set<string>();
  await memory.put("log", bytes(""));
  await Promise.all(["a", "b"].map(async (writer) => {
    for (let step = 0; step < 25; step++) {
      const name = `${writer}${step}`;
      const object = await memory.get("log");
      try {
        await store.put("log", bytes(`${text(object.body)}${name} `), { condition: { etag: object.etag } });
        told.add(name);
      } catch (error) {
        if (isError(error, "outcome-unknown")) undecided.add(name);
        else if (isError(error, "precondition-failed")) refused.add(name);
        else assert.ok(isError(error, "store-unreachable"), String(error));
      }
    }
  }));
  const there = text((await memory.get("log")).body).trim().split(" ");
  assert.equal(new Set(there).size, there.length, "a swap happened twice");
  for (const name of told) assert.ok(there.includes(name), `${name} was told as won and is not there`);
  for (const name of there) {
    assert.ok(
      name === "" || told.has(name) || undecided.has(name) || refused.has(name),
      `${name} is there, and was told as not sent`,
    );
  }
}

Deno.test("retrying tells no swap as won that is lost, under random faults", async () => {
  for (let seed = 1; seed <= 300; seed++) {
    try {
      await swapUnderFaults(seed);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
});
