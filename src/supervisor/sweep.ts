/**
 * One sweep: finds all that is alive of some units and runs, and kills it. For those who end what another left behind:
 * the guard, and the next start. Nothing is signalled that is not proven ours: a start time that fits, or our tag.
 */

import { sendGroupSignal, sendSignal } from "../platform/child_process.ts";
import type { ProcessInfo } from "../platform/proc.ts";
import { readProcesses, readStartVariable } from "../platform/proc.ts";
import type { FindOptions, ProcessTable, Unit } from "./members.ts";
import { findMembers, findTagged } from "./members.ts";
import { runIdOfTag, type WatchedUnit } from "./units.ts";

/** What a sweep needs of the machine; tests bring their own. */
export interface SweepSystem extends ProcessTable {
  /** KILL to one, best effort: one that is gone or not ours to signal is no error. */
  killProcess(pid: number): void;
  killGroup(groupId: number): void;
  /** Never killed, whatever it looks like. */
  readonly selfPid: number;
}

export function systemSweep(selfPid: number): SweepSystem {
  return {
    readProcesses,
    readStartVariable,
    killProcess: (pid) => void sendSignal(pid, "SIGKILL"),
    killGroup: (groupId) => void sendGroupSignal(groupId, "SIGKILL"),
    selfPid,
  };
}

/** Repeats sweeps over the same machine; remembers who left a unit's group, so that their children are found too. */
export class Sweeper {
  readonly #system: SweepSystem;
  readonly #options: FindOptions;
  /** By tag: numbers come again, tags do not. */
  readonly #units = new Map<string, Unit>();

  constructor(system: SweepSystem, options: FindOptions = {}) {
    this.#system = system;
    this.#options = options;
  }

  /** Kills what is alive of `units` and, with a run id, all that bears a tag of that run. Returns whom it found. */
  sweep(units: readonly WatchedUnit[], runId: string | null): readonly ProcessInfo[] {
    const system = this.#system;
    const table = snapshot(system);
    const found = new Map<number, ProcessInfo>();
    const groups = new Set<number>();
    for (const watched of units) {
      const members = findMembers(this.#unit(watched), table, this.#options);
      if (members.group.length > 0) groups.add(watched.groupId);
      for (const info of [...members.group, ...members.strays]) found.set(info.pid, info);
    }
    if (runId !== null) {
      for (const info of findTagged((tag) => runIdOfTag(tag) === runId, table)) found.set(info.pid, info);
    }
    for (const spared of [0, 1, system.selfPid]) found.delete(spared);
    // A whole group at once first: one that forks all the time could outrun its members' list.
    for (const groupId of groups) system.killGroup(groupId);
    for (const pid of found.keys()) system.killProcess(pid);
    return [...found.values()];
  }

  #unit({ groupId, startTicks, tag }: WatchedUnit): Unit {
    const key = `${tag} ${groupId}`;
    const known = this.#units.get(key);
    if (known !== undefined) return known;
    const unit: Unit = { groupId, startTicks, tag, strays: new Map() };
    this.#units.set(key, unit);
    return unit;
  }

  /** Lets go of units that are not watched any more. */
  keepOnly(units: readonly WatchedUnit[]): void {
    const wanted = new Set(units.map(({ tag, groupId }) => `${tag} ${groupId}`));
    for (const key of this.#units.keys()) if (!wanted.has(key)) this.#units.delete(key);
  }
}

/** Every process and every tag is read once a sweep, however many units ask. */
function snapshot(system: ProcessTable): ProcessTable {
  const processes = system.readProcesses();
  const variables = new Map<string, string | null>();
  return {
    readProcesses: () => processes,
    readStartVariable(pid, name) {
      const key = `${pid} ${name}`;
      const known = variables.get(key);
      if (known !== undefined) return known;
      const value = system.readStartVariable(pid, name);
      variables.set(key, value);
      return value;
    },
  };
}
