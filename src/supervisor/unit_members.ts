/** Everybody of one unit on this machine: who is there, and signals to all of them. */

import { sendGroupSignal, sendSignal } from "../platform/child_process.ts";
import { OutOfDescriptors } from "../platform/libc_proc.ts";
import { type ProcessInfo, readProcesses, readStartVariable, readWaitChannel } from "../platform/proc.ts";
import { findMembers, type Members, type Unit } from "./members.ts";
import type { StopBlocker } from "./types.ts";

/** Those that a stop waits for, as told: the first that an operator can do something about. */
const NAMED_BLOCKERS = 20;

/** Whom we can see; not `isKnown`: just now nobody can be looked for, and it is worth another try. */
export interface SeenMembers extends Members {
  readonly isKnown: boolean;
}

/** Without /proc nobody can ever be seen: then the leader alone counts, as under a plain shell. */
export function membersOf(unit: Unit): SeenMembers {
  try {
    return { ...findMembers(unit, { readProcesses, readStartVariable }), isKnown: true };
  } catch (error) {
    return { group: [], strays: [], isKnown: !(error instanceof OutOfDescriptors) };
  }
}

/** True while anybody of it can run, or nobody can be looked for; `kill(-group, 0)` would count zombies too. */
export function isAnyLeft(unit: Unit): boolean {
  const { group, strays, isKnown } = membersOf(unit);
  return !isKnown || group.length + strays.length > 0;
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
