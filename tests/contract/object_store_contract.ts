/** The contract of ObjectStore as tests: one suite for every implementation and every stack of decorators. */

import assert from "node:assert/strict";
import { isError } from "../../src/platform/errors.ts";
import { listAll, MAX_OBJECT_BYTES, type ObjectStore, type PutLargeOptions } from "../../src/storage/mod.ts";
import { bytesOf, type Check, reading, rejectsWith, textOf } from "./object_store_reading.ts";

export { bytesOf, rejectsWith, textOf };

export interface ContractSubject {
  readonly name: string;
  readonly ignore?: boolean;
  /** A fresh, empty store; `finish` frees all that it needed. */
  open(): Promise<{ readonly store: ObjectStore; finish(): Promise<void> }>;
}

type Bytes = Uint8Array<ArrayBuffer>;
async function keysOf(store: ObjectStore, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of listAll(store, prefix)) keys.push(key);
  return keys;
}

const writing: Record<string, Check> = {
  async "put without a condition replaces body and metadata"(store) {
    const first = await store.put("object", bytesOf("one"), { metadata: { a: "1" } });
    const second = await store.put("object", bytesOf("three"), { metadata: { b: "2" } });
    assert.notEqual(first.etag, second.etag);
    const object = await store.get("object");
    assert.deepEqual([textOf(object.body), object.etag, object.metadata], ["three", second.etag, { b: "2" }]);
    await store.put("object", bytesOf("four"));
    assert.deepEqual((await store.head("object")).metadata, {});
  },
  async "put if absent creates once"(store) {
    const condition = { absent: true } as const;
    const { etag } = await store.put("once", bytesOf("first"), { condition });
    await rejectsWith("precondition-failed", store.put("once", bytesOf("second"), { condition }));
    const object = await store.get("once");
    assert.deepEqual([textOf(object.body), object.etag], ["first", etag]);
    await store.delete("once");
    await store.put("once", bytesOf("third"), { condition });
    assert.equal(textOf((await store.get("once")).body), "third");
  },
  async "put if the tag matches swaps once"(store) {
    const first = await store.put("swap", bytesOf("1"), { condition: { absent: true } });
    const second = await store.put("swap", bytesOf("2"), { condition: { etag: first.etag } });
    await rejectsWith(
      "precondition-failed",
      store.put("swap", bytesOf("x"), { condition: { etag: first.etag } }),
    );
    const third = await store.put("swap", bytesOf("3"), { condition: { etag: second.etag } });
    const object = await store.get("swap");
    assert.deepEqual([textOf(object.body), object.etag], ["3", third.etag]);
    await rejectsWith(
      "precondition-failed",
      store.put("swap", bytesOf("y"), { condition: { absent: true } }),
    );
  },
  async "put if the tag matches fails when the object is missing or deleted"(store) {
    const { etag } = await store.put("gone", bytesOf("1"));
    await rejectsWith("precondition-failed", store.put("never", bytesOf("x"), { condition: { etag } }));
    await store.delete("gone");
    await rejectsWith("precondition-failed", store.put("gone", bytesOf("x"), { condition: { etag } }));
    assert.deepEqual(await keysOf(store, ""), []);
  },
  async "put lets exactly one of many creators at once win, and the object is that one's"(store) {
    const tries = await Promise.allSettled(Array.from({ length: 10 }, async (_, i) => {
      await store.put("race", bytesOf(`racer ${i}`), { condition: { absent: true } });
      return i;
    }));
    const winners = tries.flatMap((result) => result.status === "fulfilled" ? [result.value] : []);
    assert.equal(winners.length, 1);
    assert.equal(textOf((await store.get("race")).body), `racer ${winners[0]}`);
    for (const result of tries) {
      if (result.status === "rejected") {
        assert.ok(isError(result.reason, "precondition-failed"), String(result.reason));
      }
    }
  },
  async "put loses no increment of a counter that many swap at once"(store) {
    await store.put("counter", bytesOf("0"));
    const valueOf = (body: Uint8Array) => Number(textOf(body).split(" ")[0]);
    let wins = 0;
    let unknown = 0;
    await Promise.all(Array.from({ length: 5 }, async (_, worker) => {
      for (let done = 0; done < 4;) {
        const object = await store.get("counter");
        // The worker's name is the nonce: equal bytes would count as one's own after a lost reply.
        const next = bytesOf(`${valueOf(object.body) + 1} by ${worker}`);
        try {
          await store.put("counter", next, { condition: { etag: object.etag } });
          done++;
          wins++;
        } catch (error) {
          if (isError(error, "outcome-unknown")) unknown++;
          else if (!isError(error, "precondition-failed")) throw error;
        }
      }
    }));
    // No win may be missing. More than the wins: replies were lost, and what they told of was swapped by others.
    const value = valueOf((await store.get("counter")).body);
    assert.ok(value >= wins, `${value} with ${wins} wins, ${unknown} unknown`);
    assert.ok(unknown < wins, `${unknown} outcomes unknown, ${wins} wins`);
  },
  async "delete removes the object whatever its past, and what is not there succeeds"(store) {
    await store.put("plain", bytesOf("1"), { metadata: { a: "1" } });
    await store.put("swapped", bytesOf("1"));
    await store.put("swapped", bytesOf("2"));
    for (const key of ["plain", "swapped", "never"]) {
      await store.delete(key);
      await store.delete(key);
      await rejectsWith("object-not-found", store.get(key));
    }
    assert.deepEqual(await keysOf(store, ""), []);
    await store.put("swapped", bytesOf("again"));
    assert.equal(textOf((await store.get("swapped")).body), "again");
  },
};

const listing: Record<string, Check> = {
  async "list returns keys in byte order with size and tag, and no metadata"(store) {
    const keys = [
      "a",
      "a-b/c",
      "a.b",
      "a0",
      "B/x",
      "b/1/z",
      "b/1.z",
      "b/10",
      "b/2",
      "zz/~".slice(0, 3) + "y",
    ];
    const tags = new Map<string, string>();
    for (const key of keys) {
      tags.set(key, (await store.put(key, bytesOf(key), { metadata: { m: "1" } })).etag);
    }
    const { objects, nextStartAfter } = await store.list({ prefix: "" });
    assert.deepEqual(objects.map(({ key }) => key), keys.toSorted());
    assert.equal(nextStartAfter, undefined);
    for (const { key, sizeBytes, etag, metadata } of objects) {
      assert.deepEqual([sizeBytes, etag, metadata], [key.length, tags.get(key), {}]);
    }
  },
  async "list pages through everything once, whatever the page size"(store) {
    const keys = ["p/a", "p/a/b".replace("a/b", "ab"), "p/b/1", "p/b/2", "p/b-1", "p/c/d/e", "q/1"];
    for (const key of keys) await store.put(key, bytesOf("x"));
    await store.put("p/b/2", bytesOf("swapped"));
    for (let limit = 1; limit <= keys.length + 1; limit++) {
      const seen: string[] = [];
      let startAfter: string | undefined;
      do {
        const page = await store.list({
          prefix: "",
          limit,
          ...(startAfter === undefined ? {} : { startAfter }),
        });
        assert.ok(page.objects.length <= limit);
        seen.push(...page.objects.map(({ key }) => key));
        startAfter = page.nextStartAfter;
      } while (startAfter !== undefined);
      assert.deepEqual(seen, keys.toSorted(), `limit ${limit}`);
    }
  },
  async "list takes a prefix that ends inside a segment, and a start that is no key"(store) {
    for (const key of ["log/a1", "log/a2", "log/b1", "logs", "lo"]) await store.put(key, bytesOf("x"));
    assert.deepEqual(await keysOf(store, "log/a"), ["log/a1", "log/a2"]);
    assert.deepEqual(await keysOf(store, "log"), ["log/a1", "log/a2", "log/b1", "logs"]);
    assert.deepEqual(await keysOf(store, "log/a1"), ["log/a1"]);
    assert.deepEqual(await keysOf(store, "none/"), []);
    const { objects } = await store.list({ prefix: "log", startAfter: "log/a9" });
    assert.deepEqual(objects.map(({ key }) => key), ["log/b1", "logs"]);
  },
  async "list refuses a page size outside 1 to 1000"(store) {
    for (const limit of [0, 1001, 1.5]) {
      await rejectsWith("invalid-request", store.list({ prefix: "", limit }));
    }
  },
};

const refusing: Record<string, Check> = {
  async "every operation refuses keys outside the grammar"(store) {
    const bad = [
      "",
      "/a",
      "a/",
      "a//b",
      ".",
      "..",
      "a/../b",
      "a/./b",
      "a b",
      "a+b",
      "ä",
      "a\u0000",
      "a~",
      "a%2Fb",
    ];
    for (const key of [...bad, "x".repeat(201), "x/".repeat(450) + "x", ".tmp/a"]) {
      await rejectsWith("key-invalid", store.get(key));
      await rejectsWith("key-invalid", store.head(key));
      await rejectsWith("key-invalid", store.put(key, bytesOf("x")));
      await rejectsWith("key-invalid", store.delete(key));
    }
    assert.deepEqual(await keysOf(store, ""), []);
  },
  async "keys of the longest segment and of every allowed character work"(store) {
    const characters = "ABCXYZabcxyz0189._-";
    const keys = ["x".repeat(200), `${characters}/${characters}`, "...", "-", "a/.hidden"];
    for (const key of keys) await store.put(key, bytesOf(key));
    for (const key of keys) {
      await store.put(key, bytesOf(`${key}!`));
      assert.equal(textOf((await store.get(key)).body), `${key}!`);
    }
    assert.deepEqual(await keysOf(store, ""), keys.toSorted());
  },
  async "put refuses bodies over 64 MiB and metadata that HTTP would change"(store) {
    await rejectsWith("body-too-large", store.put("big", new Uint8Array(MAX_OBJECT_BYTES + 1)));
    for (
      const metadata of [{ "Upper": "x" }, { a: "ümlaut" }, { a: " blank" }, { a: "two  blanks" }, {
        a: "x\ny",
      }]
    ) {
      await rejectsWith("invalid-request", store.put("metadata", bytesOf("x"), { metadata }));
    }
    await rejectsWith(
      "invalid-request",
      store.put("metadata", bytesOf("x"), { metadata: { a: "x".repeat(2100) } }),
    );
    assert.deepEqual(await keysOf(store, ""), []);
  },
  async "every operation rejects with the signal's reason when it is aborted already"(store) {
    const reason = new Error("no more");
    const signal = AbortSignal.abort(reason);
    const calls = [
      () => store.get("a", { signal }),
      () => store.head("a", { signal }),
      () => store.put("a", bytesOf("x"), { signal }),
      () => store.list({ prefix: "", signal }),
      () => store.delete("a", { signal }),
    ];
    for (const call of calls) await assert.rejects(call(), (error) => error === reason);
    assert.deepEqual(await keysOf(store, ""), []);
  },
};

const MEBIBYTE = 1024 * 1024;
const LARGE_BYTES = 20 * MEBIBYTE + 17;

/** Bytes that differ from place to place and from one `seed` to another, in pieces of uneven sizes. */
async function* largePieces(seed: number, sizeBytes = LARGE_BYTES): AsyncGenerator<Bytes> {
  const piece = new Uint8Array(700_001);
  for (let sent = 0; sent < sizeBytes;) {
    const length = Math.min(sizeBytes - sent, sent % 2 === 0 ? piece.length : 123_457);
    for (let i = 0; i < length; i += 97) piece[i] = (sent + i + seed) % 251;
    await Promise.resolve();
    yield piece.subarray(0, length);
    sent += length;
  }
}

async function joined(pieces: AsyncIterable<Bytes>): Promise<Bytes> {
  const parts: Bytes[] = [];
  for await (const piece of pieces) parts.push(piece.slice());
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/**
 * Puts as a careful caller does: what failed with nothing written is done again, and an unknown outcome is settled by
 * what is there. So it holds on a store that fails too.
 */
async function putLargeSettled(
  store: ObjectStore,
  key: string,
  seed: number,
  options: Partial<PutLargeOptions> = {},
): Promise<string> {
  const body = await joined(largePieces(seed));
  for (let unknown = false, tries = 1;; tries++) {
    try {
      const { etag } = await store.putLarge(key, largePieces(seed), { sizeBytes: LARGE_BYTES, ...options });
      return etag;
    } catch (error) {
      if (tries >= 10 || !isError(error, "outcome-unknown", "store-unreachable", "precondition-failed")) {
        throw error;
      }
      unknown ||= isError(error, "outcome-unknown");
      if (!unknown && isError(error, "precondition-failed")) throw error;
      const there = await store.get(key).catch((failure) => {
        if (isError(failure, "object-not-found")) return null;
        throw failure;
      });
      if (there !== null && equal(there.body, body)) return there.etag;
      if (isError(error, "precondition-failed")) throw error;
    }
  }
}

function equal(a: Bytes, b: Bytes): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

const large: Record<string, Check> = {
  async "putLarge stores a body of many pieces, with metadata, and ranges of it can be read"(store) {
    const metadata = { "litestream-timestamp": "2026-11-25T09:36:17.123456789Z" };
    const etag = await putLargeSettled(store, "dir/large", 1, { metadata });
    const body = await joined(largePieces(1));
    const object = await store.get("dir/large");
    assert.ok(equal(object.body, body));
    assert.deepEqual([object.sizeBytes, object.etag, object.metadata], [LARGE_BYTES, etag, metadata]);
    const { body: _body, ...info } = object;
    assert.deepEqual(await store.head("dir/large"), info);
    const [start, end] = [8 * MEBIBYTE - 5, 8 * MEBIBYTE + 5];
    const part = await store.get("dir/large", { range: { start, end } });
    assert.ok(equal(part.body, body.slice(start, end)));
    const { objects } = await store.list({ prefix: "" });
    assert.deepEqual(objects.map(({ key, sizeBytes, etag }) => [key, sizeBytes, etag]), [[
      "dir/large",
      LARGE_BYTES,
      etag,
    ]]);
  },
  async "putLarge of a small or empty body is a put"(store) {
    async function* pieces(...texts: string[]) {
      for (const text of texts) yield await Promise.resolve(bytesOf(text));
    }
    const metadata = { a: "1" };
    const { etag } = await store.putLarge("small", pieces("he", "", "llo"), { sizeBytes: 5, metadata });
    const object = await store.get("small");
    assert.deepEqual([textOf(object.body), object.etag, object.metadata], ["hello", etag, metadata]);
    await store.putLarge("empty", pieces(), { sizeBytes: 0 });
    assert.equal((await store.head("empty")).sizeBytes, 0);
    await rejectsWith("invalid-request", store.putLarge("bad", pieces("hell"), { sizeBytes: 5 }));
    await rejectsWith("invalid-request", store.putLarge("bad", pieces("hello", "!"), { sizeBytes: 5 }));
    assert.deepEqual(await keysOf(store, ""), ["empty", "small"]);
  },
  async "putLarge in parts takes a small body too"(store) {
    async function* pieces() {
      yield await Promise.resolve(bytesOf("hello"));
    }
    const options = { sizeBytes: 5, inParts: true, condition: { absent: true } } as const;
    let refused = false;
    for (let tries = 0; !refused && tries < 20; tries++) {
      refused = await store.putLarge("parts", pieces(), options).then(() => false, (error) => {
        if (isError(error, "outcome-unknown", "store-unreachable")) return false;
        if (isError(error, "precondition-failed")) return true;
        throw error;
      });
    }
    assert.ok(refused);
    assert.equal(textOf((await store.get("parts")).body), "hello");
  },
  async "putLarge keeps its condition"(store) {
    const condition = { absent: true } as const;
    const first = await putLargeSettled(store, "once", 1, { condition });
    await rejectsWith("precondition-failed", putLargeSettled(store, "once", 2, { condition }));
    assert.equal((await store.head("once")).etag, first);
    await rejectsWith(
      "precondition-failed",
      putLargeSettled(store, "never", 1, { condition: { etag: first } }),
    );
    const second = await putLargeSettled(store, "once", 2, { condition: { etag: first } });
    assert.notEqual(second, first);
    await rejectsWith(
      "precondition-failed",
      putLargeSettled(store, "once", 3, { condition: { etag: first } }),
    );
    assert.ok(equal((await store.get("once")).body, await joined(largePieces(2))));
    await store.delete("once");
    await putLargeSettled(store, "once", 4, { condition });
    assert.deepEqual(await keysOf(store, ""), ["once"]);
  },
  async "putLarge without a condition replaces what a put left, and the other way round"(store) {
    await store.put("object", bytesOf("small"), { metadata: { a: "1" } });
    await putLargeSettled(store, "object", 1, { metadata: { b: "2" } });
    const { sizeBytes, metadata } = await store.head("object");
    assert.deepEqual([sizeBytes, metadata], [LARGE_BYTES, { b: "2" }]);
    await store.put("object", bytesOf("small again"));
    assert.equal(textOf((await store.get("object")).body), "small again");
    assert.deepEqual((await store.head("object")).metadata, {});
  },
  async "putLarge lets exactly one of many creators at once win, and the object is that one's"(store) {
    const condition = { absent: true } as const;
    const tries = await Promise.allSettled(
      Array.from({ length: 8 }, (_, i) => putLargeSettled(store, "race", i, { condition })),
    );
    const winners = tries.flatMap(({ status }, i) => status === "fulfilled" ? [i] : []);
    assert.equal(winners.length, 1);
    assert.ok(equal((await store.get("race")).body, await joined(largePieces(winners[0] ?? -1))));
    for (const result of tries) {
      if (result.status === "rejected") {
        assert.ok(isError(result.reason, "precondition-failed"), String(result.reason));
      }
    }
  },
  async "putLarge whose source is shorter or longer than announced leaves nothing"(store) {
    for (const sizeBytes of [LARGE_BYTES - 1, LARGE_BYTES + 1, 10 * MEBIBYTE, 30 * MEBIBYTE]) {
      await rejectsWith("invalid-request", store.putLarge("size", largePieces(1), { sizeBytes }));
    }
    await rejectsWith("invalid-request", store.putLarge("size", largePieces(1), { sizeBytes: -1 }));
    await rejectsWith("invalid-request", store.putLarge("size", largePieces(1), { sizeBytes: 1.5 }));
    assert.deepEqual(await keysOf(store, ""), []);
  },
  async "putLarge whose source throws midway throws the same and leaves nothing"(store) {
    const reason = new Error("the source is broken");
    async function* broken() {
      yield* largePieces(1, 15 * MEBIBYTE);
      throw reason;
    }
    const options = { sizeBytes: LARGE_BYTES };
    await assert.rejects(store.putLarge("broken", broken(), options), (error) => error === reason);
    assert.deepEqual(await keysOf(store, ""), []);
  },
  async "putLarge that is aborted midway rejects with the reason, closes its source and leaves nothing"(
    store,
  ) {
    const reason = new Error("no more");
    for (const hangs of [false, true]) {
      const controller = new AbortController();
      const closed = Promise.withResolvers<void>();
      const stuck = Promise.withResolvers<void>();
      const stopping = async function* () {
        try {
          yield* largePieces(1, 12 * MEBIBYTE);
          controller.abort(reason);
          if (hangs) await stuck.promise;
          yield* largePieces(2, 12 * MEBIBYTE);
        } finally {
          closed.resolve();
        }
      };
      const options = { sizeBytes: 24 * MEBIBYTE, signal: controller.signal };
      await assert.rejects(store.putLarge("stopped", stopping(), options), (error) => error === reason);
      stuck.resolve();
      await closed.promise;
      assert.deepEqual(await keysOf(store, ""), []);
    }
  },
  async "putLarge refuses wrong keys and metadata, and an aborted signal, before it reads its source"(store) {
    async function* untouched() {
      yield await Promise.reject(new Error("the source was read"));
    }
    const sizeBytes = LARGE_BYTES;
    await rejectsWith("key-invalid", store.putLarge("a/../b", untouched(), { sizeBytes }));
    await rejectsWith(
      "invalid-request",
      store.putLarge("metadata", untouched(), { sizeBytes, metadata: { Upper: "x" } }),
    );
    await rejectsWith("body-too-large", store.putLarge("huge", untouched(), { sizeBytes: 2 ** 50 }));
    const reason = new Error("no more");
    const signal = AbortSignal.abort(reason);
    await assert.rejects(
      store.putLarge("a", untouched(), { sizeBytes, signal }),
      (error) => error === reason,
    );
    assert.deepEqual(await keysOf(store, ""), []);
  },
  async "get of more than 64 MiB at once is body-too-large, and ranges of it are read"(store) {
    const sizeBytes = MAX_OBJECT_BYTES + MEBIBYTE;
    async function* zeros() {
      for (let sent = 0; sent < sizeBytes; sent += MEBIBYTE) {
        yield await Promise.resolve(new Uint8Array(MEBIBYTE));
      }
    }
    for (let tries = 0, there = false; !there && tries < 10; tries++) {
      there = await store.putLarge("huge", zeros(), { sizeBytes }).then(() => true, (error) => {
        if (isError(error, "outcome-unknown", "store-unreachable")) return false;
        throw error;
      });
    }
    assert.equal((await store.head("huge")).sizeBytes, sizeBytes);
    await rejectsWith("body-too-large", store.get("huge"));
    await rejectsWith("body-too-large", store.get("huge", { range: { start: 1, end: sizeBytes } }));
    const last = await store.get("huge", { range: { start: sizeBytes - 3, end: sizeBytes + 5 } });
    assert.deepEqual([last.body.length, last.sizeBytes], [3, sizeBytes]);
  },
};

/** Registers the whole suite for one subject, a fresh store per test. */
export function testObjectStore(subject: ContractSubject): void {
  for (const [name, check] of Object.entries({ ...reading, ...writing, ...listing, ...refusing, ...large })) {
    Deno.test({
      name: `${subject.name}: ${name}`,
      ignore: subject.ignore ?? false,
      async fn() {
        const { store, finish } = await subject.open();
        try {
          await check(store);
        } finally {
          await store.close();
          await finish();
        }
      },
    });
  }
}
