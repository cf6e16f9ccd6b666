/**
 * Who belongs to one incarnation: its process group, and descendants that left the group (setsid, daemons). The group
 * is certain. The others are found by ancestry, as long as the chain of parents stands, and by the tag in the
 * environment that they were started with; one that does both, cut its chain and cleared its environment, is not found
 * here (as PID 1 the end of everything still takes it).
 */

import type { ProcessInfo } from "../platform/proc.ts";
import { isAlive } from "../platform/proc.ts";

/** The environment variable that marks every process of an incarnation, whatever it does later. */
export const UNIT_VARIABLE = "SM_UNIT";

/** The processes of the machine, as platform/proc.ts reads them; tests bring their own. */
export interface ProcessTable {
  readProcesses(): readonly ProcessInfo[];
  readStartVariable(pid: number, name: string): string | null;
}

/** One incarnation and what was ever seen to belong to it outside its group: pid → start time. */
export interface Unit {
  /** Leader's pid, and the id of its group and session. */
  readonly groupId: number;
  /** Start of the leader; nothing older can descend from it. */
  readonly startTicks: number;
  /** Value of UNIT_VARIABLE. */
  readonly tag: string;
  readonly strays: Map<number, number>;
}

export interface Members {
  readonly group: readonly ProcessInfo[];
  readonly strays: readonly ProcessInfo[];
}

/** Everybody of the unit who can still run. Remembers strays in the unit, so that a later look finds their children. */
export function findMembers(unit: Unit, table: ProcessTable): Members {
  const alive = table.readProcesses().filter(isAlive);
  const group = alive.filter((info) => info.groupId === unit.groupId);
  const known = new Set(group.map((info) => info.pid));
  for (const info of alive) {
    // A number alone may have been given to somebody else since.
    if (unit.strays.get(info.pid) === info.startTicks) known.add(info.pid);
  }
  const candidates = alive.filter((info) => !known.has(info.pid) && info.startTicks >= unit.startTicks);
  const found = new Set<number>();
  for (const info of candidates) {
    if (table.readStartVariable(info.pid, UNIT_VARIABLE) === unit.tag) found.add(info.pid);
  }
  // Children of members are members; children come after their parents only mostly, so until nothing is new.
  let sizeBefore = -1;
  while (sizeBefore !== found.size) {
    sizeBefore = found.size;
    for (const info of candidates) {
      if (known.has(info.parentPid) || found.has(info.parentPid)) found.add(info.pid);
    }
  }
  const strays = alive.filter((info) =>
    found.has(info.pid) || (known.has(info.pid) && info.groupId !== unit.groupId)
  );
  unit.strays.clear();
  for (const info of strays) unit.strays.set(info.pid, info.startTicks);
  return { group, strays };
}
