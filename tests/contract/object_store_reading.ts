/** What every store must answer to those who read: a part of object_store_contract.ts. */

import assert from "node:assert/strict";
import { equalBytes } from "../../src/platform/equal_bytes.ts";
import { type ErrorCode, isError } from "../../src/platform/errors.ts";
import type { ObjectStore } from "../../src/storage/mod.ts";

type Bytes = Uint8Array<ArrayBuffer>;
export type Check = (store: ObjectStore) => Promise<void>;

export function bytesOf(text: string): Bytes {
  return new TextEncoder().encode(text);
}

export function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** Rejects with a StateManagerError of exactly this code. */
export async function rejectsWith(code: ErrorCode, promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(isError(error), `wanted ${code}, got ${error}`);
    assert.equal(error.code, code, error.message);
    return true;
  });
}

export const reading: Record<string, Check> = {
  async "get returns what put stored, with size, tag, time and metadata"(store) {
    const metadata = { "sm-token": "17", "sm-note": "two words" };
    const { etag } = await store.put("dir/object.bin", bytesOf("hello"), { metadata });
    const object = await store.get("dir/object.bin");
    assert.equal(textOf(object.body), "hello");
    assert.deepEqual(
      { key: object.key, sizeBytes: object.sizeBytes, etag: object.etag, metadata: object.metadata },
      { key: "dir/object.bin", sizeBytes: 5, etag, metadata },
    );
    const { body: _body, ...info } = object;
    assert.deepEqual(await store.head("dir/object.bin"), info);
  },
  async "put stores an empty body"(store) {
    const { etag } = await store.put("empty", new Uint8Array());
    const object = await store.get("empty");
    assert.deepEqual([object.body.length, object.sizeBytes, object.etag], [0, 0, etag]);
  },
  async "put keeps its own copy of the body"(store) {
    const body = bytesOf("before");
    await store.put("copy", body);
    body.fill(0);
    assert.equal(textOf((await store.get("copy")).body), "before");
  },
  async "put and get move a large body unchanged"(store) {
    const body = new Uint8Array(5 * 1024 * 1024 + 3);
    for (let i = 0; i < body.length; i += 1000) body[i] = i % 251;
    await store.put("large", body);
    assert.ok((await store.get("large")).body.every((byte, index) => byte === body[index]));
  },
  async "get with a range returns these bytes, cut at the object's end"(store) {
    await store.put("range", bytesOf("0123456789"));
    for (
      const [start, end, wanted] of [[0, 1, "0"], [3, 6, "345"], [9, 10, "9"], [8, 99, "89"], [
        0,
        10,
        "0123456789",
      ]] as const
    ) {
      const object = await store.get("range", { range: { start, end } });
      assert.deepEqual([textOf(object.body), object.sizeBytes], [wanted, 10]);
    }
  },
  async "get may use memory that it is given, and nobody else has the buffer that a body is in"(store) {
    const whole = new Uint8Array(100_000).map((_, index) => index % 251);
    await store.put("given", whole);
    for (const range of [{ start: 0, end: 100_000 }, { start: 10, end: 90_010 }]) {
      const wanted = whole.slice(range.start, range.end);
      const asked: number[] = [];
      const memory = (sizeBytes: number) => {
        asked.push(sizeBytes);
        return new Uint8Array(sizeBytes + 4096).fill(255).subarray(16);
      };
      const { body } = await store.get("given", { range, memory });
      assert.ok(equalBytes(body, wanted));
      assert.ok(asked.every((sizeBytes) => sizeBytes >= wanted.length), `asked for ${asked} bytes`);
      structuredClone(body.buffer, { transfer: [body.buffer] });
    }
    assert.ok(equalBytes((await store.get("given")).body, whole));
  },
  async "get of what is read once and never changes gives the same bytes"(store) {
    const whole = new Uint8Array(3_000_000).map((_, index) => index % 249);
    await store.put("once", whole, { condition: { absent: true }, uncached: true });
    const how = { uncached: true, immutable: true };
    for (
      const [start, end] of [[0, 3_000_000], [0, 1], [1, 4097], [4096, 2_097_152], [5000, 2_999_999], [
        2_999_990,
        4_000_000,
      ]] as const
    ) {
      for (const border of [0, 24]) {
        const memory = (sizeBytes: number) => new Uint8Array(sizeBytes + 4096).fill(255).subarray(border);
        for (const more of [{}, { memory }]) {
          const object = await store.get("once", { ...how, ...more, range: { start, end } });
          assert.ok(equalBytes(object.body, whole.subarray(start, end)), `[${start}, ${end}) at ${border}`);
          assert.equal(object.sizeBytes, whole.length);
        }
      }
    }
    const { etag, body } = await store.get("once", how);
    assert.ok(equalBytes(body, whole));
    assert.equal(etag, (await store.head("once")).etag);
    await rejectsWith(
      "invalid-request",
      store.get("once", { ...how, range: { start: 3_000_000, end: 3_000_001 } }),
    );
    await store.put("empty", new Uint8Array());
    assert.equal((await store.get("empty", how)).body.length, 0);
    await store.delete("once");
    await rejectsWith("object-not-found", store.get("once", how));
    await rejectsWith("object-not-found", store.get("never/there", how));
  },
  async "get with a range past the end or without length is invalid-request"(store) {
    await store.put("range", bytesOf("0123456789"));
    await store.put("empty", new Uint8Array());
    for (
      const range of [{ start: 10, end: 11 }, { start: 50, end: 60 }, { start: 4, end: 4 }, {
        start: -1,
        end: 2,
      }]
    ) {
      await rejectsWith("invalid-request", store.get("range", { range }));
    }
    await rejectsWith("invalid-request", store.get("empty", { range: { start: 0, end: 1 } }));
  },
  async "get and head of what is not there are object-not-found"(store) {
    await rejectsWith("object-not-found", store.get("none"));
    await rejectsWith("object-not-found", store.head("none"));
    await rejectsWith("object-not-found", store.get("none/below"));
    await store.put("folder/object", bytesOf("x"));
    await rejectsWith("object-not-found", store.get("folder"));
  },
};
