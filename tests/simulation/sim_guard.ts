/** The guard of one manager: the shipped rules, in time or as late as its machine lets it, over the one program. */

import {
  type GuardEvent,
  type GuardState,
  guardStep,
  guardWaitMs,
  LOOK_INTERVAL_MS,
  newGuardState,
} from "../../src/supervisor/guard_rules.ts";
import type { SimNode } from "./node.ts";

const GROUP = 100;

export class SimGuard {
  readonly #node: SimNode;
  #state: GuardState = newGuardState();
  #wake = 0;
  /** One that died with its container does nothing any more. */
  get #there(): boolean {
    return this.#node.guard === this;
  }

  constructor(node: SimNode) {
    this.#node = node;
    this.#turn({ type: "run", protocol: 1, runId: node.name });
  }

  watch(): void {
    this.#turn({ type: "watch", unit: { name: "program", groupId: GROUP, startTicks: 1, tag: "" } });
  }

  forget(): void {
    this.#turn({ type: "forget", groupId: GROUP });
  }

  deadline(killAtMs: number | null): void {
    if (this.#node.world.mutant.guardIgnoresDeadline === true) return;
    this.#turn({ type: "deadline", killAtMs });
  }

  managerGone(): void {
    if (this.#node.world.mutant.guardIgnoresDeath === true) {
      this.#node.guard = null;
      return;
    }
    this.#node.onMachine(this.#node.world.nowMs + this.#node.world.chance.between(0, 200), () => {
      if (this.#there) this.#turn({ type: "end" });
      if (this.#there) this.#turn({ type: "tick" });
    });
  }

  #turn(event: GuardEvent): void {
    const node = this.#node;
    const { state, effects } = guardStep(this.#state, event, node.bootMs);
    this.#state = state;
    for (const effect of effects) {
      if (effect.type === "exit") {
        node.guard = null;
        return;
      }
      if (effect.type === "sweep") return this.#sweep(effect.units.length > 0 || effect.runId !== null);
    }
    this.#arm();
  }

  #sweep(looks: boolean): void {
    const node = this.#node;
    const found = looks && node.program !== null ? [{ pid: GROUP, name: "program", state: "R" }] : [];
    if (found.length > 0) {
      const atDeadline = this.#state.mode === "overdue";
      node.world.count(
        atDeadline ? "guard killed at the deadline" : "guard killed after the manager's death",
      );
      node.touch();
      node.program = null;
      node.world.trace(() =>
        `${node.name}: its guard kills the program${atDeadline ? " at the deadline" : ""}`
      );
      if (node.alive && this.#state.mode !== "ending") node.session?.programDied();
    }
    this.#turn({ type: "swept", found });
  }

  #arm(): void {
    const node = this.#node;
    const wake = ++this.#wake;
    const state = this.#state;
    const waitMs = guardWaitMs(state, node.bootMs);
    if (waitMs === Infinity) return;
    // Of the looks in between, which find nothing to do, only the one after the deadline is simulated.
    const deadlineMs = state.mode === "watching" && state.sweepAtMs === null ? state.killAtMs : null;
    const lateMs = node.world.mutant.guardLateMs ?? 0;
    const atMs = deadlineMs === null
      ? node.world.nowMs + waitMs / node.rate
      : node.trueMs(deadlineMs) + node.world.chance.between(0, LOOK_INTERVAL_MS) + lateMs;
    node.onMachine(atMs + 0.01, () => {
      if (this.#there && this.#wake === wake) this.#turn({ type: "tick" });
    });
  }
}
