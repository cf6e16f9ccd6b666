import assert from "node:assert/strict";
import { RangeMemory } from "../../src/checkpoint/range_memory.ts";

Deno.test("range memory is used again once it was given back, also after it went to another thread", () => {
  const memory = new RangeMemory(1000);
  const first = memory.take(10);
  const second = memory.take(1000);
  assert.deepEqual([first.length, second.length], [1000, 1000]);
  assert.notEqual(first.buffer, second.buffer);
  const back = structuredClone(first.buffer, { transfer: [first.buffer] });
  memory.give(back);
  assert.equal(memory.take(1000).buffer, back);
});

Deno.test("range memory gives more than a piece where more is asked for, and keeps pieces only", () => {
  const memory = new RangeMemory(1000);
  const large = memory.take(1001);
  assert.equal(large.length, 1001);
  memory.give(large.buffer);
  memory.give(new ArrayBuffer(10));
  assert.equal(memory.take(5).length, 1000);
  assert.notEqual(memory.take(1000).buffer, large.buffer);
});
