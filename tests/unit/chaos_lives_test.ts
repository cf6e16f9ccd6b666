/** The second witness of the kill tests: who wrote to the journal while another one did. */

import assert from "node:assert/strict";
import type { JournalLine } from "../support/chaos_program.ts";
import { overlaps } from "../support/chaos_scene.ts";

const line = (timeMs: number, pid: number, machine: string, event: JournalLine["event"]): JournalLine => ({
  timeMs,
  pid,
  machine,
  event,
  value: 0,
});

Deno.test("a journal shows programs that ran in turns, and none where a pid came twice", () => {
  const inTurn = [
    line(1, 7, "m1", "found"),
    line(2, 7, "m1", "value"),
    line(3, 8, "m2", "found"),
    line(4, 8, "m2", "value"),
    line(5, 7, "m1", "found"),
    line(6, 7, "m1", "value"),
  ];
  assert.deepEqual(overlaps(inTurn), []);
  const beside = [...inTurn, line(7, 8, "m2", "value")];
  assert.deepEqual(overlaps(beside), ["8 on m2 until 7, 7 on m1 from 5"]);
});
