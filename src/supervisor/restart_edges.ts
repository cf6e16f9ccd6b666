/**
 * Edges of depends_on with restart_with: a dependent runs beside one run of what it depends on, and never beside the next.
 * Where that is to be stopped or restarted, the dependent stops before it; where it has ended, as soon as that is seen. It
 * starts again when its condition is met again. An end of this kind is nobody's failure and counts for nothing.
 */

import { isLive, type Machine, type MachineEvent } from "./machine.ts";
import { mayComplete } from "./restart.ts";
import { longestStopMs } from "./states.ts";
import type { ProcessSpec } from "./types.ts";

/** What these rules need of a process. */
export interface EdgeRunner {
  readonly spec: ProcessSpec;
  readonly machine: Machine;
  /** Who outlived a KILL: nobody waits for those. */
  readonly survivors: readonly string[];
  dispatch(event: MachineEvent): void;
}

/** What the other was when a dependent started. */
interface Beside {
  readonly incarnation: number;
  readonly ran: boolean;
}

export class RestartEdges {
  readonly #runners: ReadonlyMap<string, EdgeRunner>;
  /** By name, those that stop with it; only where there are some. */
  #dependents: ReadonlyMap<string, readonly EdgeRunner[]> = new Map();
  /** By name, what it gets when its dependents are down. */
  readonly #due = new Map<string, MachineEvent>();
  /** By names of dependent and other. */
  readonly #beside = new Map<string, Map<string, Beside>>();

  /** The map may change; `define` says so. */
  constructor(runners: ReadonlyMap<string, EdgeRunner>) {
    this.#runners = runners;
    this.define();
  }

  define(): void {
    const dependents = new Map<string, EdgeRunner[]>();
    for (const [name, runner] of this.#runners) {
      for (const other of runner.spec.restartWith) {
        dependents.set(other, [...(dependents.get(other) ?? []), runner]);
      }
      // A new edge counts from the run on that is there.
      this.#bind(name, runner, this.#beside.get(name));
    }
    this.#dependents = dependents;
  }

  /** Those that stop with it. */
  dependentsOf(name: string): readonly EdgeRunner[] {
    return this.#dependents.get(name) ?? [];
  }

  /** Ends or restarts it: at once, or when those that stop with it are down. What was asked for last counts. */
  end(name: string, event: MachineEvent): void {
    this.#due.delete(name);
    const runner = this.#runners.get(name);
    const left = runner !== undefined && runsOn(runner) ? this.#left(name) : [];
    if (left.length === 0) return runner?.dispatch(event);
    this.#due.set(name, event);
    for (const dependent of left) this.#stopFor(dependent, name);
  }

  /** It is to go on after all. */
  spare(name: string): void {
    this.#due.delete(name);
  }

  /** Everything ends, by other rules. */
  clear(): void {
    this.#due.clear();
  }

  /** It is to end as soon as those that stop with it have: nobody starts beside it any more. */
  isDue(name: string): boolean {
    return this.#due.has(name);
  }

  /** Why it still runs; null where nothing keeps it from ending. */
  reasonOf(name: string): string | null {
    return this.#due.has(name)
      ? `ends when these have: ${this.#left(name).map(({ spec }) => spec.name).join(", ")}`
      : null;
  }

  /** How long its stop may take, with that of those that stop before it. */
  longestStopMs(name: string): number {
    const runner = this.#runners.get(name);
    if (runner === undefined) return 0;
    const before = this.dependentsOf(name).map(({ spec }) => this.longestStopMs(spec.name));
    return longestStopMs(runner.spec) + Math.max(0, ...before);
  }

  /** True where it may start as far as these rules go; else those that ran beside its former run are told to stop. */
  mayStart(name: string): boolean {
    const left = this.#dependents.size === 0 ? [] : this.#left(name);
    for (const dependent of left) this.#stopFor(dependent, name);
    return left.length === 0;
  }

  /** It is about to start. */
  starts(name: string): void {
    const runner = this.#runners.get(name);
    if (runner !== undefined) this.#bind(name, runner, undefined);
  }

  /** Does what has become possible, tells who is to stop; true where anything was done. */
  step(): boolean {
    let changed = false;
    for (const [name, event] of this.#due) {
      if (this.#left(name).length > 0) continue;
      this.#due.delete(name);
      this.#runners.get(name)?.dispatch(event);
      changed = true;
    }
    for (const [name, dependents] of this.#dependents) {
      const other = this.#runners.get(name);
      if (other === undefined) continue;
      for (const dependent of dependents) {
        if (this.#isBeside(dependent, other)) continue;
        changed = this.#stopFor(dependent, name) || changed;
      }
    }
    return changed;
  }

  #bind(name: string, { spec }: EdgeRunner, known: Map<string, Beside> | undefined): void {
    if (spec.restartWith.length === 0) return void this.#beside.delete(name);
    const beside = spec.restartWith.flatMap((other): [string, Beside][] => {
      const machine = this.#runners.get(other)?.machine;
      if (machine === undefined) return [];
      return [[other, known?.get(other) ?? { incarnation: machine.incarnation, ran: isLive(machine) }]];
    });
    this.#beside.set(name, new Map(beside));
  }

  /** The run of the other that it was started beside goes on, or completed, or it does not run itself. */
  #isBeside(dependent: EdgeRunner, { spec, machine }: EdgeRunner): boolean {
    if (!isLive(dependent.machine)) return true;
    const beside = this.#beside.get(dependent.spec.name)?.get(spec.name);
    if (beside === undefined) return true;
    return machine.incarnation === beside.incarnation && !(beside.ran && hasEnded(spec, machine));
  }

  #left(name: string): readonly EdgeRunner[] {
    return this.dependentsOf(name).filter(({ machine, survivors }) =>
      isLive(machine) && survivors.length === 0
    );
  }

  /** False where it ends already, or as soon as others have. */
  #stopFor(dependent: EdgeRunner, name: string): boolean {
    const { spec, machine } = dependent;
    if (this.#due.has(spec.name) || !mayBeTold(machine)) return false;
    this.end(spec.name, { type: "restart", reason: "dependency", detail: name });
    return true;
  }
}

function runsOn({ machine: { state } }: EdgeRunner): boolean {
  return state === "starting" || state === "running";
}

/** It runs, or ended by itself a moment ago: mostly for want of the other, so that is no failure of its own. */
function mayBeTold({ state, wanted, stopRequested, restartFor, leaderAlive }: Machine): boolean {
  if (state === "starting" || state === "running") return leaderAlive;
  return state === "draining" && wanted === "up" && !stopRequested && restartFor === null;
}

/** Completing is no end here: who is done is not missed. */
function hasEnded(spec: ProcessSpec, machine: Machine): boolean {
  switch (machine.state) {
    case "starting":
    case "running":
    case "completed":
      return false;
    case "draining":
      return !mayComplete(spec, machine);
    default:
      return true;
  }
}
