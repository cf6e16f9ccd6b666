/**
 * The guard: the hidden subcommand `__guard`, a child of the manager that ends the programs when the manager dies or
 * overstays its lease. It has no event loop: it waits in the kernel for the next line or moment, so that nothing can
 * come between a closed pipe and the kills. It starts nothing, writes nothing but its reports, and reads only /proc.
 *
 * It holds `<data dir>/guard.lock` from before its first word until everything that it was told of is dead: who gets
 * that lock knows that the programs of the manager before are gone.
 */

import { buildInfo } from "../platform/build_info.ts";
import { systemClock } from "../platform/clock.ts";
import { lockFolder } from "../platform/folder_lock.ts";
import { openHeapKeeper } from "../platform/heap.ts";
import { type KernelPipes, openKernelPipes } from "../platform/libc_pipe.ts";
import { ignoreSignals } from "../platform/libc_process.ts";
import { ownPid } from "../platform/proc.ts";
import {
  GUARD_LINE_LIMIT_BYTES,
  GUARD_PROTOCOL,
  type GuardLine,
  type GuardReport,
} from "./guard_protocol.ts";
import {
  type Found,
  type GuardEffect,
  type GuardEvent,
  guardStep,
  guardWaitMs,
  LOOK_INTERVAL_MS,
  newGuardState,
} from "./guard_rules.ts";
import { Sweeper, systemSweep } from "./sweep.ts";

/** Exit code when the lock is another guard's (EX_TEMPFAIL). */
const BUSY = 75;
/** Exit code when a line cannot be understood (EX_PROTOCOL is not ours to give; this is EX_SOFTWARE). */
const NOT_UNDERSTOOD = 70;
/** A pipe holds 64 KiB, at most 1 MiB: more reads in a row mean a writer that never ends, and time must be looked at. */
const READS_IN_A_ROW = 32;

/** Guards until the manager is gone and everything of it dead. `lockPath` names the guard's lock file. */
export function guardMain(lockPath: string): number {
  ignoreSignals();
  const pipes = openKernelPipes();
  const tell = (report: GuardReport) => {
    pipes.write(new TextEncoder().encode(JSON.stringify(report) + "\n"));
  };
  const lock = lockFolder(lockPath);
  if (lock === null) {
    tell({ type: "busy" });
    return BUSY;
  }
  tell({ type: "hello", protocol: GUARD_PROTOCOL, build: buildInfo().build });
  // The kernel frees the lock with this process; nothing may free it earlier.
  return guard(pipes, tell);
}

function guard(pipes: KernelPipes, tell: (report: GuardReport) => void): number {
  const clock = systemClock();
  const sweeper = new Sweeper(systemSweep(ownPid()));
  const lines = new LineReader(pipes);
  const heap = openHeapKeeper();
  let state = newGuardState();
  let done = false;

  const feed = (event: GuardEvent): void => {
    const step = guardStep(state, event, clock.monotonicMs());
    state = step.state;
    for (const effect of step.effects) execute(effect);
  };
  /** Where /proc cannot be read just now (out of descriptors) nobody was seen to be gone: it is tried again. */
  const sweep = ({ units, runId }: GuardEffect & { type: "sweep" }): readonly Found[] => {
    try {
      return sweeper.sweep(units, runId);
    } catch (error) {
      return [{ pid: 0, name: String(error).slice(0, 100), state: "?" }];
    }
  };
  const execute = (effect: GuardEffect): void => {
    switch (effect.type) {
      case "sweep":
        sweeper.keepOnly(state.units);
        return feed({ type: "swept", found: sweep(effect) });
      case "tell":
        return tell(effect.report);
      case "exit":
        done = true;
        return;
    }
  };

  while (!done) {
    const nowMs = clock.monotonicMs();
    const waitMs = guardWaitMs(state, nowMs, pipes.countsSuspend ? Infinity : LOOK_INTERVAL_MS);
    if (!lines.ended) pipes.wait(waitMs);
    else pipes.sleep(waitMs);
    for (const line of lines.readAll()) {
      if (line.type === "run" && line.protocol !== GUARD_PROTOCOL) return NOT_UNDERSTOOD;
      feed(line);
    }
    if (lines.ended) feed({ type: "end" });
    feed({ type: "tick" });
    heap?.look();
  }
  return 0;
}

/** Whole lines out of the pipe, all that are there. */
class LineReader {
  readonly #pipes: KernelPipes;
  readonly #decoder = new TextDecoder();
  #rest = "";
  #ended = false;

  constructor(pipes: KernelPipes) {
    this.#pipes = pipes;
  }

  get ended(): boolean {
    return this.#ended;
  }

  *readAll(): Generator<GuardLine> {
    for (let reads = 0; reads < READS_IN_A_ROW && !this.#ended; reads++) {
      const bytes = this.#pipes.read();
      if (bytes === "nothing") return;
      if (bytes === "end") {
        // What has no newline was cut off by the manager's death. What is no line of ours counts as its death too.
        this.#ended = true;
        return;
      }
      const texts = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
      this.#rest = texts.pop() ?? "";
      if (this.#rest.length > GUARD_LINE_LIMIT_BYTES) this.#ended = true;
      for (const text of texts) {
        const line = parsed(text);
        if (line === null) this.#ended = true;
        else yield line;
      }
    }
  }
}

function parsed(text: string): GuardLine | null {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
