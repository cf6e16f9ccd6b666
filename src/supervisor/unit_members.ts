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

/** Everybody of it, to be looked at. */
export interface Seen {
  readonly all: readonly ProcessInfo[];
  /** False where somebody is there who is not seen. */
  readonly isComplete: boolean;
}

/** `isAlive`: its leader is, as far as we know. */
export function everybodyOf(unit: Unit, { isAlive }: { readonly isAlive: boolean }): Seen {
  return seenOf(membersOf(unit), isAlive);
}

/** A living leader that is not in its group was not seen: there is no /proc. */
export function seenOf({ group, strays, isKnown }: SeenMembers, isAlive: boolean): Seen {
  return { all: [...group, ...strays], isComplete: isKnown && (group.length > 0 || !isAlive) };
}

/** Whether each is in one of these states; null: not known, since not all can be seen. */
export function areAllIn(states: string, seen: readonly Seen[]): boolean | null {
  if (seen.some(({ all }) => all.some(({ state }) => !states.includes(state)))) return false;
  return seen.every(({ isComplete }) => isComplete) ? true : null;
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
