/** Everybody of one unit on this machine: who is there, and signals to all of them. */

import { sendGroupSignal, sendSignal } from "../platform/child_process.ts";
import { type ProcessInfo, readProcesses, readStartVariable, readWaitChannel } from "../platform/proc.ts";
import { findMembers, type Members, type Unit } from "./members.ts";
import type { StopBlocker } from "./types.ts";

/** Those that a stop waits for, as told: the first that an operator can do something about. */
const NAMED_BLOCKERS = 20;

/** Without /proc nobody can be seen: then the leader alone counts, as under a plain shell. */
export function membersOf(unit: Unit): Members {
  try {
    return findMembers(unit, { readProcesses, readStartVariable });
  } catch {
    return { group: [], strays: [] };
  }
}

/** True while anybody of it can run; `kill(-group, 0)` would count zombies too. */
export function isAnyLeft(unit: Unit): boolean {
  const { group, strays } = membersOf(unit);
  return group.length + strays.length > 0;
}

/** An empty group's number may soon be somebody else's: it is signalled only while it has a member. */
export function signalMembers(
  unit: Unit,
  { group, strays }: Members,
  signal: Deno.Signal,
  { leaderAlive }: { readonly leaderAlive: boolean },
): void {
  if (group.length > 0 || leaderAlive) sendGroupSignal(unit.groupId, signal);
  for (const { pid } of strays) sendSignal(pid, signal);
}

export function blockersOf(members: readonly ProcessInfo[]): readonly StopBlocker[] {
  return members.slice(0, NAMED_BLOCKERS).map(({ pid, name, state }) => ({
    pid,
    name,
    state,
    wchan: readWaitChannel(pid),
  }));
}
