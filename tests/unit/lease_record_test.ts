/** lease.json as bytes. */

import assert from "node:assert/strict";
import { clipInfo, decodeLease, encodeLease } from "../../src/lease/record.ts";
import type { LeaseRecord } from "../../src/lease/types.ts";
import { isError } from "../../src/platform/errors.ts";

const RECORD: LeaseRecord = {
  v: 1,
  token: 7,
  holder: "a1",
  nonce: "b2",
  state: "held",
  ttlMs: 15_000,
  info: { host: "web-1", pid: "12" },
};

function bytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

Deno.test("lease record survives encoding, and equal records give equal bytes", () => {
  assert.deepEqual(decodeLease(encodeLease(RECORD)), RECORD);
  const handed: LeaseRecord = { ...RECORD, state: "released", to: "c3" };
  assert.deepEqual(decodeLease(encodeLease(handed)), handed);
  assert.ok(!new TextDecoder().decode(encodeLease(RECORD)).includes('"to"'));
  const { info, v, ...rest } = RECORD;
  assert.deepEqual(encodeLease({ info, ...rest, v }), encodeLease(RECORD));
});

Deno.test("lease record ignores fields it does not know", () => {
  assert.deepEqual(decodeLease(bytes({ ...RECORD, more: 1 })), RECORD);
});

Deno.test("lease record of a newer version is refused as too new, whatever else it holds", () => {
  for (const value of [{ v: 2 }, { ...RECORD, v: 3, token: "x" }]) {
    assert.throws(
      () => decodeLease(bytes(value)),
      (error) => isError(error, "format-too-new"),
    );
  }
});

Deno.test("lease record that is damaged is refused", () => {
  const wrong: unknown[] = [
    null,
    [],
    7,
    {},
    { ...RECORD, v: 0 },
    { ...RECORD, v: "1" },
    { ...RECORD, token: 0 },
    { ...RECORD, token: 1.5 },
    { ...RECORD, token: 2 ** 53 },
    { ...RECORD, holder: "" },
    { ...RECORD, holder: "x".repeat(200) },
    { ...RECORD, nonce: 1 },
    { ...RECORD, state: "free" },
    { ...RECORD, ttlMs: 0 },
    { ...RECORD, ttlMs: 1e12 },
    { ...RECORD, info: null },
    { ...RECORD, to: "" },
    { ...RECORD, to: null },
    { ...RECORD, info: { host: 1 } },
    { ...RECORD, info: { host: "x".repeat(300) } },
  ];
  for (const value of wrong) {
    assert.throws(
      () => decodeLease(bytes(value)),
      (error) => isError(error, "data-damaged"),
      JSON.stringify(value),
    );
  }
  const whole = encodeLease(RECORD);
  for (let length = 0; length < whole.length - 2; length++) {
    assert.throws(
      () => decodeLease(whole.slice(0, length)),
      (error) => isError(error, "data-damaged"),
    );
  }
  assert.throws(
    () => decodeLease(new Uint8Array([0xff, 0xfe])),
    (error) => isError(error, "data-damaged"),
  );
  assert.throws(
    () => decodeLease(new Uint8Array(1 << 20)),
    (error) => isError(error, "data-damaged"),
  );
});

Deno.test("lease info of any length can be read back after clipping", () => {
  for (const filler of ["😀", "\u0000", "\ud800", "x"]) {
    const long = Array.from({ length: 99 }, (_, i) => [`${i}${filler.repeat(500)}`, filler.repeat(500)]);
    const info = clipInfo(Object.fromEntries(long));
    assert.deepEqual(decodeLease(encodeLease({ ...RECORD, info })).info, info);
  }
});
