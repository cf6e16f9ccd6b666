/**
 * Units: what the manager started and must not outlive it, a program's incarnation or a child of the manager's own.
 * Each is known by the id of its group, the start time of its leader, and the tag in its environment.
 */

import { startTicksOf } from "../platform/proc.ts";
import { UNIT_VARIABLE } from "./members.ts";

/** One started group. Plain data: it goes over a pipe and into a file. */
export interface WatchedUnit {
  readonly name: string;
  /** Leader's pid, and the id of its group and session. */
  readonly groupId: number;
  /** Start of the leader in clock ticks since boot; 0 where /proc could not tell. */
  readonly startTicks: number;
  /** Value of UNIT_VARIABLE: `<name>.<number>.<run id>`. */
  readonly tag: string;
}

/** Hears of units. Must neither block nor throw: it is called between a spawn and all that follows. */
export interface UnitWatch {
  /** Called in the turn that spawned it. */
  watch(unit: WatchedUnit): void;
  /** Nothing of the group is left: its number is never used again. */
  forget(groupId: number): void;
}

export const NOBODY_WATCHES: UnitWatch = { watch: () => {}, forget: () => {} };

export function tagOf(name: string, number: number, runId: string): string {
  return `${name}.${number}.${runId}`;
}

/** The run that a tag belongs to. Names may hold dots, run ids do not. */
export function runIdOfTag(tag: string): string {
  return tag.slice(tag.lastIndexOf(".") + 1);
}

/** One child of the manager's own, before and after its spawn. */
export interface ChildWatch {
  /** To be added to the child's environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Called in the turn that spawned it; it leads its own group. */
  started(pid: number): void;
  gone(pid: number): void;
}

/** Makes the watch of each next child that is called `name`. */
export function childWatches(
  options: { readonly name: string; readonly runId: string; readonly units: UnitWatch },
): () => ChildWatch {
  const { name, runId, units } = options;
  let count = 0;
  return () => {
    const tag = tagOf(name, ++count, runId);
    return {
      env: { [UNIT_VARIABLE]: tag },
      started: (pid) => units.watch({ name, groupId: pid, startTicks: startTicksOf(pid), tag }),
      gone: (pid) => units.forget(pid),
    };
  };
}

/** All of them hear of each unit, in order. */
export function joinWatches(...watches: readonly UnitWatch[]): UnitWatch {
  return {
    watch: (unit) => {
      for (const watch of watches) watch.watch(unit);
    },
    forget: (groupId) => {
      for (const watch of watches) watch.forget(groupId);
    },
  };
}
