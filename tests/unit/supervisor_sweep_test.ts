/** Whom a sweep takes for ours: never somebody who only got one of our numbers. */

import assert from "node:assert/strict";
import type { ProcessInfo } from "../../src/platform/proc.ts";
import { Sweeper, type SweepSystem } from "../../src/supervisor/sweep.ts";

const RUN = "0123456789abcdef";
const SELF = 2;

class Machine implements SweepSystem {
  readonly selfPid = SELF;
  readonly killed = new Set<number>();
  readonly #processes: ProcessInfo[] = [];
  readonly #tags = new Map<number, string>();

  add(pid: number, change: Partial<ProcessInfo> & { readonly tag?: string } = {}): this {
    const { tag, ...info } = change;
    this.#processes.push({
      pid,
      name: "app",
      state: "S",
      parentPid: 1,
      groupId: pid,
      startTicks: 100,
      ...info,
    });
    if (tag !== undefined) this.#tags.set(pid, tag);
    return this;
  }

  readProcesses(): ProcessInfo[] {
    return this.#processes;
  }

  readStartVariable(pid: number): string | null {
    return this.#tags.get(pid) ?? null;
  }

  killProcess(pid: number): void {
    this.killed.add(pid);
  }

  killGroup(groupId: number): void {
    for (const info of this.#processes) if (info.groupId === groupId) this.killed.add(info.pid);
  }

  sweep(options: { fromRecord?: boolean } = {}, runId: string | null = RUN): number[] {
    const unit = { name: "app", groupId: 10, startTicks: 100, tag: `app.1.${RUN}` };
    new Sweeper(this, options).sweep([unit], runId);
    return [...this.killed].sort((a, b) => a - b);
  }
}

Deno.test("sweep kills the group, strays by tag and by ancestry, and all of the run", () => {
  const machine = new Machine().add(1)
    .add(10, { tag: `app.1.${RUN}` })
    .add(11, { groupId: 10, parentPid: 10 })
    .add(12, { tag: `app.1.${RUN}` }) // left the group, its parent is gone
    .add(13, { parentPid: 12 }) // and its child, which cleared its environment
    .add(14, { tag: `archiver.3.${RUN}` })
    .add(15, { parentPid: 14 })
    .add(20, { tag: "app.1.fedcba9876543210" })
    .add(21);
  assert.deepEqual(machine.sweep(), [10, 11, 12, 13, 14, 15]);
});

Deno.test("sweep without a run id takes the unit alone", () => {
  const machine = new Machine().add(10, { tag: `app.1.${RUN}` }).add(14, { tag: `app.2.${RUN}` });
  assert.deepEqual(machine.sweep({}, null), [10]);
});

Deno.test("sweep spares a group whose leader started at another time: the number was given away", () => {
  const machine = new Machine().add(10, { startTicks: 500 }).add(11, {
    groupId: 10,
    parentPid: 10,
    startTicks: 500,
  });
  assert.deepEqual(machine.sweep(), []);
  assert.deepEqual(machine.sweep({ fromRecord: true }), []);
});

Deno.test("sweep takes a group whose leader is gone while the number is held, from a record only who bears the tag", () => {
  const machine = () => new Machine().add(11, { groupId: 10 }).add(12, { groupId: 10, tag: `app.1.${RUN}` });
  assert.deepEqual(machine().sweep(), [11, 12]);
  assert.deepEqual(machine().sweep({ fromRecord: true }), [12]);
});

Deno.test("sweep takes a group by its recorded leader though all overwrote their environment", () => {
  const machine = new Machine().add(10).add(11, { groupId: 10, parentPid: 10 });
  assert.deepEqual(machine.sweep({ fromRecord: true }), [10, 11]);
});

Deno.test("sweep takes a group whose leader is a zombie, and no zombie counts as alive", () => {
  const machine = new Machine().add(10, { state: "Z" }).add(11, { groupId: 10 });
  const sweeper = new Sweeper(machine);
  const unit = { name: "app", groupId: 10, startTicks: 100, tag: `app.1.${RUN}` };
  assert.deepEqual(sweeper.sweep([unit], RUN).map(({ pid }) => pid), [11]);
});

Deno.test("sweep never kills process 1 nor itself", () => {
  const machine = new Machine().add(1, { tag: `a.1.${RUN}` }).add(SELF, { tag: `a.1.${RUN}` });
  assert.deepEqual(machine.sweep(), []);
});
