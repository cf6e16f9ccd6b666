import assert from "node:assert/strict";
import { boundedOutput, type OutputDevice } from "../../src/platform/standard_output.ts";

/** A device whose reader takes `room` bytes, then stalls until more room is given. */
function fakeDevice(room: number) {
  const device = {
    room,
    gone: false,
    text: "",
    largest: 0,
    tryWrite(bytes: Uint8Array) {
      if (device.gone) return "gone";
      const taken = Math.min(device.room, bytes.length);
      device.room -= taken;
      device.largest = Math.max(device.largest, bytes.length);
      device.text += new TextDecoder().decode(bytes.subarray(0, taken));
      return taken;
    },
  };
  return device satisfies OutputDevice & Record<string, unknown>;
}

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("output writes at once while the reader reads, in pieces the kernel takes whole", () => {
  const device = fakeDevice(Infinity);
  const output = boundedOutput(device);
  const text = `${"x".repeat(10_000)}\n`;
  output.write(bytes(text));
  assert.equal(device.text, text);
  assert.equal(device.largest, 4096);
  assert.equal(output.droppedLines, 0);
});

Deno.test("output keeps what does not go out and drops, counts and reports what does not fit", async () => {
  const device = fakeDevice(3);
  const output = boundedOutput(device, { queueBytes: 20 });
  output.describeDrops((lines) => `<${lines} lost>\n`);
  output.write(bytes("aaaaaaaa\n")); // three bytes go out
  output.write(bytes("bbbbbbbb\n"));
  output.write(bytes("cccccccc\ndddddddd\n"));
  assert.equal(output.droppedLines, 2);
  device.room = Infinity;
  await output.flush(1000);
  output.write(bytes("e\n"));
  assert.equal(device.text, "aaaaaaaa\nbbbbbbbb\n<2 lost>\ne\n");
});

Deno.test("output drains by itself when the reader comes back", async () => {
  const device = fakeDevice(0);
  const output = boundedOutput(device);
  output.write(bytes("late\n"));
  device.room = 100;
  const end = performance.now() + 60_000;
  while (device.text === "" && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.equal(device.text, "late\n");
});

Deno.test("output flush gives up at its deadline", async () => {
  const output = boundedOutput(fakeDevice(0));
  output.write(bytes("never\n"));
  const begin = performance.now();
  await output.flush(50);
  const took = performance.now() - begin;
  assert.ok(took >= 45 && took < 30_000, `${took} ms`);
});

Deno.test("output counts everything as dropped once the reader is gone", async () => {
  const device = fakeDevice(0);
  const output = boundedOutput(device);
  output.write(bytes("one\ntwo\n"));
  device.gone = true;
  await output.flush(10);
  output.write(bytes("three\n"));
  assert.equal(output.droppedLines, 3);
});

Deno.test("output asks who can wait to wait while the reader is slow, and no more once it is stuck", async () => {
  const device = fakeDevice(0);
  const output = boundedOutput(device, { queueBytes: 400 });
  assert.equal(output.room(), null);
  output.write(bytes("x".repeat(100) + "\n"));
  const room = output.room();
  assert.ok(room);
  device.room = Infinity;
  const alive = setInterval(() => {}, 1000); // the queue's own timer keeps no process alive
  await room;
  clearInterval(alive);
  assert.equal(output.room(), null);
  device.gone = true;
  output.write(bytes("y".repeat(200) + "\n"));
  assert.equal(output.room(), null);
});
