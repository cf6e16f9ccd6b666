/**
 * Keeps the programs still while a checkpoint captures their files: by SIGSTOP, or by the operator's commands. Bounded by
 * `checkpoint.capture_limit`, and given back on every way out: they go on when the content is fixed, the time is over,
 * the checkpoint fails or the programs are stopped. If we die here, the guard kills what is stopped as all else.
 */

import type { Hold, Released } from "../checkpoint/mod.ts";
import type { CheckpointConfig, Config } from "../config/types.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { type Log, log } from "../platform/log.ts";
import { childWatches, type ProcessLogs, runCommand, type Supervisor } from "../supervisor/mod.ts";
import type { Databases } from "./databases.ts";
import { processEnvironment } from "./process_specs.ts";
import type { RunGuard } from "./run_guard.ts";
import type { Positions } from "./term_machine.ts";

/** STOP takes effect in microseconds, in the middle of a slow write when that is done. */
const STILL_LIMIT_MS = 1000;
const STILL_LOOK_MS = 5;
/** A write to a disk that is well has ended by then. */
const STILL_SOON_MS = 100;
/** After a stop was asked for, `after` has hardly anybody left to talk to. */
const AFTER_AT_STOP_MS = 1000;

export interface ProgramHoldOptions {
  readonly config: CheckpointConfig;
  readonly supervisor: Supervisor;
  /** Runs one of the operator's commands to its end. */
  readonly run: (which: "before" | "after", options: HookRun) => Promise<void>;
  /** Where the databases stand, all of it durable. */
  readonly databases: (signal: AbortSignal) => Promise<Positions>;
  /**
   * Resolves when the lease is ours for certain, with what aborts when it falls into doubt again, or, aborted already,
   * when a stop was asked for while it was in doubt; rejects when it is lost.
   */
  readonly leaseKnown: () => Promise<AbortSignal>;
  readonly clock: Clock;
  readonly log: Log;
  /** Of the checkpoint. */
  readonly signal: AbortSignal;
  /** A stop was asked for. */
  readonly stopping: AbortSignal;
}

export interface HookRun {
  readonly limitMs: number;
  readonly signal: AbortSignal;
}

export class ProgramHold implements Hold, AsyncDisposable {
  readonly #options: ProgramHoldOptions;
  readonly #over = new AbortController();
  readonly #done = new AbortController();
  #begun = false;
  #heldAtMs = 0;
  #released: Promise<void> | null = null;
  #positions: Promise<Positions | null> = Promise.resolve(null);

  constructor(options: ProgramHoldOptions) {
    this.#options = options;
  }

  get over(): AbortSignal {
    return this.#over.signal;
  }

  async begin(): Promise<void> {
    const { config, clock, databases, supervisor, signal, stopping } = this.#options;
    signal.throwIfAborted();
    this.#begun = true;
    if (config.consistency === "hooks") await this.#before();
    this.#heldAtMs = clock.monotonicMs();
    // From here on it is counted: a disk that hangs a program in its write must not hang the others for ever.
    this.#limit().catch(() => {}); // released before
    if (config.consistency === "freeze") {
      supervisor.freeze("checkpoint");
      await this.#standStill();
    }
    const until = AbortSignal.any([signal, stopping, this.#over.signal]);
    this.#positions = databases(until).catch(() => null);
  }

  async #before(): Promise<void> {
    const { config, run, signal, stopping } = this.#options;
    if (config.before === null) return;
    const limit = { limitMs: config.hookTimeoutMs, signal: AbortSignal.any([signal, stopping]) };
    await run("before", limit);
  }

  async #standStill(): Promise<void> {
    const { supervisor, clock } = this.#options;
    const startMs = clock.monotonicMs();
    let isSeen = true;
    for (;;) {
      const sinceMs = clock.monotonicMs() - startMs;
      const isStill = supervisor.standsStill({ orWaiting: sinceMs >= STILL_SOON_MS });
      if (isStill === true) return;
      isSeen = isStill !== null;
      if (sinceMs >= STILL_LIMIT_MS || !supervisor.isFrozenBy("checkpoint")) break;
      await clock.sleep(STILL_LOOK_MS);
      // Who was forked while its group was being stopped, or in another session, is stopped now.
      if (supervisor.isFrozenBy("checkpoint")) supervisor.freeze("checkpoint");
    }
    const what = isSeen ? "a program did not stand still" : "it was not to be seen whether all stood still";
    this.#end(`${what} within ${STILL_LIMIT_MS / 1000} s of SIGSTOP`);
  }

  async #limit(): Promise<void> {
    const { config, clock } = this.#options;
    await clock.sleep(config.captureLimitMs, { signal: this.#done.signal });
    this.#end(`longer than checkpoint.capture_limit (${config.captureLimitMs / 1000} s)`);
  }

  /** They go on before everything was captured. */
  #end(why: string): void {
    if (this.#over.signal.aborted || this.#done.signal.aborted) return;
    this.#over.abort(new StateManagerError("timeout", `hold programs: ${why}`));
    void this.#release();
  }

  async end(): Promise<Released> {
    const { config, clock, supervisor, log } = this.#options;
    const databases = await Promise.race([this.#positions, aborted(this.#over.signal)]);
    let broken = this.#over.signal.aborted ? asStateManagerError(this.#over.signal.reason).message : null;
    if (broken === null && config.consistency === "freeze" && !supervisor.isFrozenBy("checkpoint")) {
      broken = "the programs were stopped or killed meanwhile";
    }
    if (broken === null && this.#options.stopping.aborted) broken = "a stop of the programs was asked for";
    if (broken === null && databases === null) broken = "the databases did not say where they stand";
    void this.#release();
    const fields = { ms: Math.round(clock.monotonicMs() - this.#heldAtMs), consistency: config.consistency };
    if (broken === null) log.info("files were captured while the programs stood still", fields);
    else {log.warn("files were not captured at one moment: the rest is read live", {
        ...fields,
        reason: broken,
      });}
    return { broken, databases: databases ?? {} };
  }

  /** Once, whoever comes first. Never rejects. */
  #release(): Promise<void> {
    return this.#released ??= this.#letGo();
  }

  async #letGo(): Promise<void> {
    this.#done.abort();
    const { config, supervisor } = this.#options;
    supervisor.thaw("checkpoint");
    if (config.consistency === "hooks" && config.after !== null) await this.#after();
  }

  async #after(): Promise<void> {
    const { clock, log, stopping } = this.#options;
    const hurry = new AbortController();
    const onStop = () => {
      clock.sleep(AFTER_AT_STOP_MS, { signal: hurry.signal }).then(
        () => hurry.abort(new StateManagerError("timeout", "run after: the programs are being stopped")),
        () => {}, // it ended
      );
    };
    stopping.addEventListener("abort", onStop, { once: true });
    if (stopping.aborted) onStop();
    try {
      await this.#runAfter(hurry.signal);
    } catch (error) {
      const { message, code } = asStateManagerError(error);
      log.error("checkpoint.after failed: programs may still be waiting for it", { error: message, code });
    } finally {
      stopping.removeEventListener("abort", onStop);
      hurry.abort();
    }
  }

  /** A command may write: none of ours runs while the lease is in doubt. One that was cut off by that is run anew. */
  async #runAfter(hurry: AbortSignal): Promise<void> {
    const { config, run, leaseKnown, stopping } = this.#options;
    while (true) {
      const doubt = await leaseKnown();
      const signal = AbortSignal.any([hurry, doubt]);
      try {
        return await run("after", { limitMs: config.hookTimeoutMs, signal });
      } catch (error) {
        if (!doubt.aborted || stopping.aborted) throw error;
      }
    }
  }

  /** However the checkpoint ended: the programs go on, and `after` has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#begun) await this.#release();
  }
}

async function aborted(signal: AbortSignal): Promise<null> {
  if (signal.aborted) return null;
  return await new Promise((resolve) =>
    signal.addEventListener("abort", () => resolve(null), { once: true })
  );
}

/** What a session gives to its holds. */
export interface HoldParts
  extends Omit<ProgramHoldOptions, "config" | "supervisor" | "run" | "databases" | "log" | "signal"> {
  readonly config: Config;
  readonly environment: Readonly<Record<string, string>>;
  readonly logs: ProcessLogs;
  readonly guard: RunGuard;
  readonly supervisor: Supervisor | null;
  /** The lease is lost: nothing of ours may run. */
  readonly fenced: AbortSignal;
}

/** The hold that the configuration wants for a checkpoint of programs that run; null: none. */
export function holdFor(parts: HoldParts, databases: Databases, signal: AbortSignal): ProgramHold | null {
  const { config, environment, logs, guard, supervisor, fenced, clock } = parts;
  const { checkpoint } = config;
  if (checkpoint.consistency === "live" || supervisor === null) return null;
  const watches = childWatches({ name: "hook", runId: guard.runId, units: guard.units });
  return new ProgramHold({
    ...parts,
    config: checkpoint,
    supervisor,
    signal,
    log: log("checkpoint"),
    databases: (until) => databases.positions(until),
    run: (which, limit) =>
      runCommand({
        name: `checkpoint.${which}`,
        argv: checkpoint[which] ?? [],
        env: processEnvironment({ envFrom: [] }, environment),
        limitMs: limit.limitMs,
        clock,
        output: logs.take,
        watch: watches(),
        signal: AbortSignal.any([limit.signal, fenced]),
      }),
  });
}
