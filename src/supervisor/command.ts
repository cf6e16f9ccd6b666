/**
 * One command from its start to its end, within a time limit: no restarts, no state. All that it started ends with it:
 * its group and what left the group are killed when the leader has ended, the time is over or the work was aborted.
 */

import { sendGroupSignal, sendSignal, spawnChild } from "../platform/child_process.ts";
import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { mayHaveMembers } from "../platform/libc_process.ts";
import { startTicksOf } from "../platform/proc.ts";
import { type Unit, UNIT_VARIABLE } from "./members.ts";
import { type OutputPump, pumpOutput } from "./output.ts";
import { describeCause } from "./restart.ts";
import type { ExitCause, OutputHandler } from "./types.ts";
import { membersOf } from "./unit_members.ts";
import type { ChildWatch } from "./units.ts";

export interface CommandOptions {
  /** For output and errors. */
  readonly name: string;
  readonly argv: readonly string[];
  /** All of its environment, but for the tag. */
  readonly env: Readonly<Record<string, string>>;
  /** Folder that it runs in. Default: ours. */
  readonly cwd?: string | null;
  readonly limitMs: number;
  readonly clock: Clock;
  readonly output: OutputHandler;
  readonly watch: ChildWatch;
  /** Kills it; its reason is what the run rejects with. */
  readonly signal: AbortSignal;
}

/** What is still in the pipes after the end comes in milliseconds; the rest is held by somebody who left. */
const DRAIN_OUTPUT_MS = 500;
/** After KILL it is gone in milliseconds, or hangs in the kernel and cannot be waited for. */
const UNKILLABLE_AFTER_MS = 2_000;

/** Resolves when it ended with 0 and nothing of it is left to run; any other end is `command-failed`, or the signal's reason. */
export async function runCommand(options: CommandOptions): Promise<void> {
  const { name, argv, env, limitMs, clock, watch, signal } = options;
  signal.throwIfAborted();
  const [command = "", ...args] = argv;
  const child = spawnChild({
    command,
    args,
    env: { ...env, ...watch.env },
    clearEnv: true,
    stdout: "piped",
    stderr: "piped",
    detached: true,
    ...(options.cwd === undefined || options.cwd === null ? {} : { cwd: options.cwd }),
  });
  watch.started(child.pid);
  const unit: Unit = {
    groupId: child.pid,
    startTicks: startTicksOf(child.pid),
    tag: watch.env[UNIT_VARIABLE] ?? "",
    strays: new Map(),
  };
  const pumps = (["stdout", "stderr"] as const).flatMap((stream) => {
    const source = child[stream];
    if (source === null) return [];
    return [pumpOutput({ source, stream, clock, take: (batch) => options.output(name, batch) })];
  });
  const timer = new AbortController();
  const ended = child.status.then(({ code, signal: by }): ExitCause =>
    by === null ? { kind: "exit", code } : { kind: "signal", signal: by, number: code - 128 }
  );
  try {
    const over = AbortSignal.any([signal, timer.signal]);
    const late = clock.sleep(limitMs, { signal: over }).then(() => null);
    const cause = await Promise.race([ended, late]);
    if (cause === null) throw failed(name, `took longer than ${limitMs / 1000} s`, "raise its time limit");
    if (cause.kind !== "exit" || cause.code !== 0) {
      throw failed(name, describeCause(cause), "its output is in the log");
    }
  } finally {
    timer.abort();
    killAll(unit);
    await within(ended, UNKILLABLE_AFTER_MS, clock);
    killAll(unit); // what was forked between the look and the kill
    await drain(pumps, clock);
    watch.gone(child.pid);
  }
}

function failed(name: string, what: string, hint: string): StateManagerError {
  return new StateManagerError("command-failed", `run ${name}: ${what}`, { hint });
}

function killAll(unit: Unit): void {
  const { group, strays, isKnown } = membersOf(unit);
  // Where nobody can be seen the group can still be asked for; its number is too young to be somebody else's.
  if (group.length > 0 || (!isKnown && mayHaveMembers(unit.groupId))) {
    sendGroupSignal(unit.groupId, "SIGKILL");
  }
  for (const { pid } of strays) sendSignal(pid, "SIGKILL");
}

async function drain(pumps: readonly OutputPump[], clock: Clock): Promise<void> {
  await within(Promise.all(pumps.map((pump) => pump.ended)), DRAIN_OUTPUT_MS, clock);
  for (const pump of pumps) pump.close();
}

/** Waits for it, but not longer. */
async function within(work: Promise<unknown>, limitMs: number, clock: Clock): Promise<void> {
  const done = new AbortController();
  const pause = clock.sleep(limitMs, { signal: done.signal }).catch(() => {});
  await Promise.race([work, pause]);
  done.abort();
}
