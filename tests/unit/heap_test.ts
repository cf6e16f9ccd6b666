import assert from "node:assert/strict";
import { HeapKeeper } from "../../src/platform/heap.ts";

const MIB = 1024 * 1024;

/** A heap in which `living` stays, and garbage comes on top. */
function heap(living: number) {
  const state = { living, garbage: 0, collections: 0 };
  const keeper = new HeapKeeper({
    usedBytes: () => (state.living + state.garbage) * MIB,
    collect() {
      state.garbage = 0;
      state.collections++;
    },
  });
  const look = () => keeper.look();
  const grow = (garbage: number) => {
    state.garbage += garbage;
    look();
    return state.collections;
  };
  return { state, grow, look };
}

Deno.test("a heap is collected when it has grown by a share and by some mebibytes, and not before", () => {
  const { grow } = heap(20);
  assert.equal(grow(0), 1); // it begins with what the start left
  assert.equal(grow(7), 1);
  assert.equal(grow(1), 2); // 28 of 20
  assert.equal(grow(7), 2);
  const small = heap(5);
  assert.equal(small.grow(0), 1);
  assert.equal(small.grow(3), 1); // more than the share, but little
  assert.equal(small.grow(1), 2);
});

Deno.test("what lives in a heap may grow without a collection at each look", () => {
  const { state, grow } = heap(10);
  for (let i = 0; i < 300; i++) {
    state.living += 0.1;
    grow(0);
  }
  assert.ok(state.collections <= 7, `${state.collections} collections`);
});

Deno.test("a heap beyond 48 MiB is left to the runtime, which collects it a little at a time", () => {
  const { grow } = heap(20);
  grow(0);
  assert.equal(grow(40), 1);
});

Deno.test("a heap that grows fast, or was just collected, is to be looked at soon", () => {
  const { state, look } = heap(20);
  assert.equal(look(), true); // collected
  assert.equal(look(), false);
  state.garbage = 0.5;
  assert.equal(look(), false);
  state.garbage = 2;
  assert.equal(look(), true);
  assert.equal(look(), false);
  state.garbage = 0; // what is young went by itself
  assert.equal(look(), false);
  assert.equal(state.collections, 1);
});
