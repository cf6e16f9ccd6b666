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
  /** Start of the leader; nothing older can descend from it. 0: not known. */
  readonly startTicks: number;
  /** Value of UNIT_VARIABLE. */
  readonly tag: string;
  readonly strays: Map<number, number>;
}

export interface Members {
  readonly group: readonly ProcessInfo[];
  readonly strays: readonly ProcessInfo[];
}

export interface FindOptions {
  /**
   * The unit comes from a record that may be old: its leader may have been reaped and its group's number given away
   * since. Then the group counts only while its leader is there; a member without it must bear the tag.
   */
  readonly fromRecord?: boolean;
}

/** Everybody of the unit who can still run. Remembers strays in the unit, so that a later look finds their children. */
export function findMembers(unit: Unit, table: ProcessTable, options: FindOptions = {}): Members {
  const all = table.readProcesses();
  const alive = all.filter(isAlive);
  const group = ownsNumber(unit, all, options) ? alive.filter((info) => info.groupId === unit.groupId) : [];
  const known = new Set(group.map((info) => info.pid));
  for (const info of alive) {
    // A number alone may have been given to somebody else since.
    if (unit.strays.get(info.pid) === info.startTicks) known.add(info.pid);
  }
  const candidates = alive.filter((info) => !known.has(info.pid) && info.startTicks >= unit.startTicks);
  const tagged = candidates.filter((info) => table.readStartVariable(info.pid, UNIT_VARIABLE) === unit.tag);
  const found = withDescendants(new Set(tagged.map((info) => info.pid)), known, candidates);
  const grouped = new Set(group.map((info) => info.pid));
  const strays = alive.filter((info) =>
    !grouped.has(info.pid) && (found.has(info.pid) || known.has(info.pid))
  );
  unit.strays.clear();
  for (const info of strays) unit.strays.set(info.pid, info.startTicks);
  return { group, strays };
}

/** Everybody who can still run and bears a tag that `isOurs`, and their descendants as far as the chain stands. */
export function findTagged(isOurs: (tag: string) => boolean, table: ProcessTable): readonly ProcessInfo[] {
  const alive = table.readProcesses().filter(isAlive);
  const tagged = alive.filter((info) => {
    const tag = table.readStartVariable(info.pid, UNIT_VARIABLE);
    return tag !== null && isOurs(tag);
  });
  const found = withDescendants(new Set(tagged.map((info) => info.pid)), new Set(), alive);
  return alive.filter((info) => found.has(info.pid));
}

/** A leader that is there, zombie or not, has the number; with another start it is somebody else's. */
function ownsNumber(unit: Unit, all: readonly ProcessInfo[], { fromRecord = false }: FindOptions): boolean {
  const leader = all.find((info) => info.pid === unit.groupId);
  if (leader === undefined) return !fromRecord;
  return leader.startTicks === unit.startTicks || (unit.startTicks === 0 && !fromRecord);
}

/** Children of members are members; children come after their parents only mostly, so until nothing is new. */
function withDescendants(
  found: Set<number>,
  known: ReadonlySet<number>,
  candidates: readonly ProcessInfo[],
): ReadonlySet<number> {
  let sizeBefore = -1;
  while (sizeBefore !== found.size) {
    sizeBefore = found.size;
    for (const info of candidates) {
      if (known.has(info.parentPid) || found.has(info.parentPid)) found.add(info.pid);
    }
  }
  return found;
}
