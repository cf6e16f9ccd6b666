/** Which deaths by KILL are told as want of memory. */

import assert from "node:assert/strict";
import { OomKills } from "../../src/supervisor/oom.ts";
import type { ExitCause } from "../../src/supervisor/types.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const KILLED: ExitCause = { kind: "signal", signal: "SIGKILL", number: 9 };
const OUT_OF_MEMORY: ExitCause = { ...KILLED, oom: true };

function scene(first: number | null = 0) {
  const clock = new VirtualClock();
  const group = { count: first, reads: 0 };
  const kills = new OomKills(clock, () => {
    group.reads++;
    return group.count;
  });
  return { clock, group, kills };
}

Deno.test("a death by KILL is told as want of memory where the kernel counted one more, and only then", () => {
  const { group, kills } = scene(7);
  assert.deepEqual(kills.judge(KILLED, false), KILLED);
  group.count = 8;
  assert.deepEqual(kills.judge(KILLED, false), OUT_OF_MEMORY);
  assert.deepEqual(kills.judge(KILLED, false), KILLED, "each kill is one program's");
});

Deno.test("each of those that the kernel killed together is told, in whatever order they are seen", () => {
  const { group, kills } = scene();
  group.count = 2;
  assert.deepEqual(kills.judge(KILLED, false), OUT_OF_MEMORY);
  kills.refresh();
  assert.deepEqual(kills.judge(KILLED, false), OUT_OF_MEMORY);
  assert.deepEqual(kills.judge(KILLED, false), KILLED);
});

Deno.test("no other end is told as want of memory, nor one that we asked for, and none of them costs a read", () => {
  const { group, kills } = scene();
  group.count = 1;
  const { reads } = group;
  const others: ExitCause[] = [
    { kind: "exit", code: 137 },
    { kind: "signal", signal: "SIGTERM", number: 15 },
    { kind: "spawn-error", error: "not found", code: 127 },
  ];
  for (const cause of others) assert.deepEqual(kills.judge(cause, false), cause);
  assert.deepEqual(kills.judge(KILLED, true), KILLED);
  assert.equal(group.reads, reads);
});

Deno.test("a kill that was noticed long before is another's: a child's that its program survived", async () => {
  const { clock, group, kills } = scene();
  group.count = 1;
  kills.refresh();
  await clock.advance(60_000);
  assert.deepEqual(kills.judge(KILLED, false), KILLED);
  // One that was noticed a moment ago is not.
  group.count = 2;
  kills.refresh();
  await clock.advance(1_000);
  assert.deepEqual(kills.judge(KILLED, false), OUT_OF_MEMORY);
});

Deno.test("where the control group cannot be read nothing is said, and it is not asked again", () => {
  const { group, kills } = scene(null);
  group.count = 5;
  assert.deepEqual(kills.judge(KILLED, false), KILLED);
  assert.equal(group.reads, 1);
  const gone = scene(3);
  gone.group.count = null;
  assert.deepEqual(gone.kills.judge(KILLED, false), KILLED);
  gone.group.count = 4;
  assert.deepEqual(gone.kills.judge(KILLED, false), OUT_OF_MEMORY);
});
