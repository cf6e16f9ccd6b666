/** The reader of a program's pipe: nothing is lost, the pipe grows for those who write much, and nobody waits long. */

import assert from "node:assert/strict";
import { spawnChild } from "../../src/platform/child_process.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { enlargePipeOf } from "../../src/platform/libc_pipe_size.ts";
import { pumpOutput } from "../../src/supervisor/output.ts";

const clock = systemClock();
const decoder = new TextDecoder();

/** What `command` writes, as the pump gives it. */
async function pumped(command: string) {
  const child = spawnChild({ command: "/bin/sh", args: ["-c", command], stdout: "piped" });
  assert.ok(child.stdout);
  const sizes: (number | null)[] = [];
  let reads = 0;
  let lines = 0;
  let text = "";
  const pump = pumpOutput({
    source: child.stdout,
    stream: "stdout",
    clock,
    enlarge: () => {
      const size = enlargePipeOf(child.pid, 1);
      sizes.push(size);
      return size;
    },
    take: ({ bytes, count }) => {
      reads++;
      lines += count;
      text += decoder.decode(bytes);
      return null;
    },
  });
  await pump.ended;
  await child.status;
  return { text, lines, reads, sizes };
}

Deno.test("a program that writes much gets a larger pipe, once, and loses nothing", async () => {
  const count = 1_000_000;
  const { text, lines, sizes } = await pumped(`seq ${count}`);
  assert.equal(lines, count);
  const expected = Array.from({ length: count }, (_, i) => `${i + 1}\n`).join("");
  assert.ok(text === expected, `${text.length} of ${expected.length} bytes`);
  assert.ok(sizes.length <= 1);
});

Deno.test("a program that writes line by line is read many lines at a time", async () => {
  const count = 20_000;
  const { text, lines, reads } = await pumped(
    `i=0; while [ $i -lt ${count} ]; do i=$((i+1)); echo $i; done`,
  );
  assert.equal(lines, count);
  assert.ok(text.endsWith(`\n${count}\n`));
  assert.ok(reads < count / 2, `${reads} reads`);
});

Deno.test("the pipe of a program can be made larger, of one that is gone or has no pipe it cannot", async () => {
  const child = spawnChild({ command: "sleep", args: ["1000"], stdout: "piped" });
  try {
    assert.ok((enlargePipeOf(child.pid, 1) ?? 0) >= 64 * 1024);
    assert.equal(enlargePipeOf(child.pid, 2), null);
  } finally {
    child.kill("SIGKILL");
    await child.status;
    await child.stdout?.cancel();
  }
  assert.equal(enlargePipeOf(child.pid, 1), null);
});
