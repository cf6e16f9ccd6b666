/** Who bears the mark of an incarnation after its end is found and killed, and nobody else. */

import assert from "node:assert/strict";
import type { ProcessInfo } from "../../src/platform/proc.ts";
import { LateStrays } from "../../src/supervisor/late_strays.ts";
import type { WatchedUnit } from "../../src/supervisor/units.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const unit = (number: number): WatchedUnit => ({
  name: "app",
  groupId: 10 * number,
  startTicks: 100,
  tag: `app.${number}.0123456789abcdef`,
});

class Scene {
  readonly clock = new VirtualClock();
  readonly killed: number[] = [];
  readonly told: string[] = [];
  looks = 0;
  /** Tag by pid; all of them in groups of their own, below process 1. */
  readonly #alive = new Map<number, string | null>();
  readonly strays: LateStrays;

  constructor(alive: Readonly<Record<number, string | null>>, { mortal = true } = {}) {
    for (const [pid, tag] of Object.entries(alive)) this.#alive.set(Number(pid), tag);
    this.strays = new LateStrays({
      clock: this.clock,
      onEvent: (event) => {
        assert.equal(event.type, "killed-late");
        this.told.push(`${event.name} ${event.pids.join(" ")}`);
      },
      system: {
        selfPid: 2,
        readProcesses: () => {
          this.looks++;
          return [...this.#alive.keys()].map((pid): ProcessInfo => ({
            pid,
            name: "x",
            state: "S",
            parentPid: 1,
            groupId: pid,
            startTicks: 200,
          }));
        },
        readStartVariable: (pid) => this.#alive.get(pid) ?? null,
        killProcess: (pid) => {
          this.killed.push(pid);
          if (mortal) this.#alive.delete(pid);
        },
        killGroup: () => assert.fail("a number may be somebody else's by now"),
      },
    });
  }
}

Deno.test("LateStrays kills who bears the mark of what ended, and neither the next incarnation nor others", async () => {
  const scene = new Scene({ 5: unit(1).tag, 10: null, 20: unit(2).tag, 30: "other.1.0123456789abcdef" });
  scene.strays.expect(unit(1));
  assert.equal(scene.looks, 0, "a restart waits for no look");
  await scene.clock.advance(10_000);
  assert.deepEqual(scene.killed, [5]);
  assert.deepEqual(scene.told, ["app 5"]);
  assert.equal(scene.looks, 2, "once more after somebody was found");
  assert.equal(scene.clock.sleeping, 0);
});

Deno.test("LateStrays looks once for many ends, and not at all without one", async () => {
  const scene = new Scene({ 5: unit(3).tag });
  await scene.clock.advance(10_000);
  assert.equal(scene.looks, 0);
  for (const number of [1, 2, 3]) scene.strays.expect(unit(number));
  await scene.clock.advance(1_000);
  assert.equal(scene.looks, 1);
  assert.deepEqual(scene.killed, [5]);
  await scene.clock.advance(10_000);
});

Deno.test("LateStrays gives up on what no KILL ends", async () => {
  const scene = new Scene({ 5: unit(1).tag }, { mortal: false });
  scene.strays.expect(unit(1));
  await scene.clock.advance(60_000);
  assert.equal(scene.looks, 5);
  assert.equal(scene.clock.sleeping, 0);
});

Deno.test("LateStrays that is stopped looks at once for what is due, and never again", async () => {
  const scene = new Scene({ 5: unit(1).tag, 6: unit(2).tag });
  scene.strays.expect(unit(1));
  scene.strays.stop();
  assert.deepEqual(scene.killed, [5]);
  scene.strays.expect(unit(2));
  await scene.clock.advance(10_000);
  assert.deepEqual(scene.killed, [5]);
  assert.equal(scene.clock.sleeping, 0);
});
