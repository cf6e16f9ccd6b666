/**
 * All processes of one run: started when their dependencies allow, stopped in reverse order within one deadline,
 * frozen, killed. A supervisor is used once; after a stop a new one is made. It never ends the manager: it tells, by
 * `outcome`, that there is nothing left to do or that an essential process failed for good.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { type Random, randomHex } from "../platform/random.ts";
import { conditionOf, orderOf } from "./dependencies.ts";
import { LateStrays } from "./late_strays.ts";
import type { OutputLine } from "./line_ring.ts";
import { isEnded, isLive } from "./machine.ts";
import { Measuring } from "./measuring.ts";
import { OomKills } from "./oom.ts";
import { isJob, outcomeOf } from "./outcome.ts";
import { RestartEdges } from "./restart_edges.ts";
import { isFailure } from "./restart.ts";
import { ProcessRunner } from "./runner.ts";
import { Scheduler } from "./scheduler.ts";
import { StartTurns } from "./start_turns.ts";
import { levelDeadlineMs, refuseSurvivors, untilIdle } from "./stop_order.ts";
import { Watching } from "./watching.ts";
import { areAllIn } from "./unit_members.ts";
import { NOBODY_WATCHES, type UnitWatch } from "./units.ts";
import type {
  OutputHandler,
  ProcessSpec,
  ProcessStatus,
  RestartReason,
  SupervisorEvent,
  SupervisorOutcome,
} from "./types.ts";

/** After KILL at the deadline a process is gone in milliseconds, or it is in the kernel and cannot be ended by anybody. */
const UNKILLABLE_AFTER_MS = 2_000;

export interface SupervisorOptions {
  readonly specs: readonly ProcessSpec[];
  readonly clock: Clock;
  readonly random: Random;
  readonly output: OutputHandler;
  /** Hears facts in order. Must not throw, and must not call the supervisor back synchronously. */
  readonly onEvent: (event: SupervisorEvent) => void;
  /** The last part of every tag; one per manager process. Default: one of its own. */
  readonly runId?: string;
  /** Hears of every incarnation in the turn that spawned it, and when nothing of it is left. */
  readonly units?: UnitWatch;
  /** Names of those that a person stopped; kept up to date here, so that the next supervisor leaves them down, too. */
  readonly heldDown?: Set<string>;
  /** Sockets for NOTIFY_SOCKET are made in it, one for each process; without it there are none. */
  readonly notifyFolder?: string;
  /** Default: those that the machine tells of. */
  readonly oomKills?: OomKills;
}

/** lease: it is in doubt. checkpoint: files are being captured. */
export type FreezeReason = "lease" | "checkpoint";

/** A stop of a single process: its own `timeoutStopMs` is the only limit. */
const DOWN = { type: "want-down", deadlineMs: Infinity } as const;

export class Supervisor {
  readonly #clock: Clock;
  readonly #newRunner: (spec: ProcessSpec) => ProcessRunner;
  #levels: readonly (readonly string[])[];
  readonly #runners: Map<string, ProcessRunner>;
  /** Not defined any more; forgotten when nothing of them is left. */
  readonly #retiring = new Set<string>();
  /** Stopped by a person: not started by anybody else. */
  readonly #heldDown: Set<string>;
  readonly #edges: RestartEdges;
  readonly #measuring: Measuring;
  readonly #scheduler: Scheduler;
  readonly #watching: Watching;
  readonly #lateStrays: LateStrays;
  readonly #turns: StartTurns;
  readonly #onEvent: (event: SupervisorEvent) => void;
  /** Jobs whose tick came, or that a person wants to run, until that run is over. */
  readonly #due = new Set<string>();
  readonly #outcome = Promise.withResolvers<SupervisorOutcome>();
  /** Nothing is started while set: start() has not come yet, or the lease is in doubt. */
  #held = true;
  #started = false;
  #evaluating = false;
  /** Who wants everything to stand still. */
  readonly #frozenBy = new Set<FreezeReason>();
  #fenced = false;
  /** Monotonic; Infinity while nobody asked for a stop. */
  #stopByMs = Infinity;
  #stopping: Promise<void> | null = null;
  #stopped = false;

  /** Throws config-invalid where `dependsOn` has a circle or an unknown name. */
  constructor(options: SupervisorOptions) {
    this.#clock = options.clock;
    this.#heldDown = options.heldDown ?? new Set();
    this.#levels = orderOf(options.specs);
    const { clock, onEvent, runId = randomHex(options.random, 8), oomKills = new OomKills(clock) } = options;
    const onChange = () => this.#evaluate();
    this.#turns = new StartTurns(clock, onChange);
    const lateStrays = this.#lateStrays = new LateStrays({ clock, onEvent });
    const own = { runId, onChange, lateStrays, oomKills };
    const shared = { units: NOBODY_WATCHES, notifyFolder: null, ...options, ...own };
    this.#newRunner = (spec) => new ProcessRunner({ ...shared, spec });
    this.#runners = new Map(options.specs.map((spec) => [spec.name, this.#newRunner(spec)]));
    this.#edges = new RestartEdges(this.#runners);
    this.#onEvent = onEvent;
    this.#watching = new Watching({
      clock,
      onEvent,
      restart: (name, detail) => this.#restartFor(name, "watch", detail),
    });
    this.#scheduler = new Scheduler({ clock, onTick: (name) => this.#tick(name) });
    this.#measuring = new Measuring({
      clock,
      onEvent,
      all: () => [...this.#runners.values()],
      onMeasure: () => oomKills.refresh(),
      restart: (name, detail) => void this.#restartFor(name, "memory", detail),
    });
  }

  /** A service is restarted where it runs; a job is started where it rests and nobody stopped it. */
  #tick(name: string): void {
    const runner = this.#runner(name);
    if (!isJob(runner.spec)) {
      this.#restartFor(name, "schedule", "its time has come");
      return;
    }
    const { state, wanted } = runner.machine;
    if (this.#stopping !== null || this.#fenced || wanted === "down") return;
    if (this.#due.has(name) && !isEnded(runner.machine)) {
      return this.#onEvent({ type: "skipped-tick", name, state });
    }
    this.#due.add(name);
    if (state === "waiting") this.#evaluate();
    else runner.dispatch({ type: "want-up" });
  }

  /** What a watch of ours wants; false, and nothing is done, where it may not be. */
  #restartFor(name: string, reason: RestartReason, detail: string): boolean {
    if (this.#stopping !== null || this.#fenced || this.#frozenBy.size > 0) return false;
    this.#restart(name, reason, detail);
    return true;
  }

  /**
   * Resolves when all processes ended by themselves, when an essential one failed for good (the others run on: stopping
   * them is the caller's), or at the end of `stop` or `kill`. Never rejects. With no process at all it waits for `stop`.
   */
  get outcome(): Promise<SupervisorOutcome> {
    return this.#outcome.promise;
  }

  /** Wants all processes up but those that a person stopped; each starts when its dependencies allow. */
  start(): void {
    if (this.#started || this.#stopping !== null || this.#fenced) return;
    this.#started = true;
    // All are wanted before the first is looked at, else a dependency that comes later would count as not wanted.
    for (const [name, runner] of this.#runners) {
      runner.dispatch(this.#heldDown.has(name) ? DOWN : { type: "want-up" });
    }
    this.#held = false;
    this.#evaluate();
    this.#armWatches();
  }

  /** What looks at the processes besides us, after their definitions. */
  #armWatches(): void {
    if (!this.#started) return;
    this.#measuring.start();
    this.#watching.arm(
      new Map(
        [...this.#runners].flatMap(([name, { spec: { watch } }]) =>
          watch === null || this.#retiring.has(name) || this.#heldDown.has(name) ? [] : [[name, watch]]
        ),
      ),
    );
    this.#scheduler.schedule(
      new Map(
        [...this.#runners].flatMap(([name, { spec: { schedule } }]) =>
          schedule === null || this.#retiring.has(name) ? [] : [[name, schedule]]
        ),
      ),
    );
  }

  /**
   * Stops all, dependents before what they depend on. Everything left at the deadline is killed, groups and all, and at once
   * what is frozen by the lease. Calling it again may only shorten the deadline. Rejects (timeout) where something outlived the KILL and may still write; what
   * only hangs in the kernel (state D) runs no more code and does not count, but stays named in the status.
   */
  stop(options: { readonly deadlineMonotonicMs: number }): Promise<void> {
    this.#stopByMs = Math.min(this.#stopByMs, options.deadlineMonotonicMs);
    if (this.#stopping === null) this.#stopping = this.#stopLevels();
    else this.shortenStop(options.deadlineMonotonicMs);
    return this.#stopping;
  }

  /** An earlier deadline for the stop that is under way, or for the one to come. */
  shortenStop(deadlineMonotonicMs: number): void {
    this.#stopByMs = Math.min(this.#stopByMs, deadlineMonotonicMs);
    if (this.#stopping === null) return;
    for (const runner of this.#runners.values()) {
      const { state } = runner.machine;
      if (state !== "stopping" && state !== "draining") continue;
      runner.dispatch({ type: "want-down", deadlineMs: this.#stopByMs });
    }
  }

  /** No more grace: all that is alive is killed now. For a second TERM. */
  hurry(): void {
    const deadlineMs = this.#clock.monotonicMs();
    this.#stopByMs = Math.min(this.#stopByMs, deadlineMs);
    this.#stopping ??= this.#stopLevels();
    this.#stopping.catch(() => {}); // a caller of `stop` hears of it; without one the status says it
    for (const runner of this.#runners.values()) runner.dispatch({ type: "want-down", deadlineMs });
  }

  /**
   * Fence: everything is killed at once and nothing is ever started again, not by `start` either. Resolves when all is
   * gone, at the latest after two seconds (then the status names what is left). Never rejects.
   */
  async kill(): Promise<void> {
    this.#fenced = true;
    this.#frozenBy.clear(); // who is killed need not be woken
    for (const runner of this.#runners.values()) runner.dispatch({ type: "fence" });
    const giveUpMs = this.#clock.monotonicMs() + UNKILLABLE_AFTER_MS;
    await untilIdle(this.#clock, [...this.#runners.values()], () => giveUpMs);
    this.#finishStop();
  }

  /** SIGSTOP to all; nothing is started until every reason was taken back by `thaw`, or a stop or kill came. */
  freeze(reason: FreezeReason): void {
    this.#frozenBy.add(reason);
    this.#scheduler.freeze();
    for (const runner of this.#runners.values()) runner.signalAll("SIGSTOP");
  }

  /** Takes the reason back. Where it was the last one: SIGCONT to all, and starts what became due meanwhile. */
  thaw(reason: FreezeReason): void {
    if (!this.#frozenBy.delete(reason) || this.#frozenBy.size > 0) return;
    for (const runner of this.#runners.values()) runner.signalAll("SIGCONT");
    this.#scheduler.thaw();
    this.#evaluate();
  }

  /** True while `freeze` for this reason is in force: nobody has stopped, killed or thawed meanwhile. */
  isFrozenBy(reason: FreezeReason): boolean {
    return this.#frozenBy.has(reason);
  }

  /**
   * True when nobody of the processes runs any more: STOP takes effect a little later than it is sent. With `orWaiting`
   * those count too who wait in the kernel: between vfork and exec of a stopped child, or for a disk. null: not known.
   */
  standsStill({ orWaiting = false }: { readonly orWaiting?: boolean } = {}): boolean | null {
    return areAllIn(orWaiting ? "TtD" : "Tt", [...this.#runners.values()].flatMap((one) => one.everybody()));
  }

  /** Passes a signal on to the leaders that want it (`forwardSignals`); false where it is for none, running or not. */
  forward(signal: Deno.Signal): boolean {
    const takers = [...this.#runners.values()].filter(({ spec }) =>
      Object.hasOwn(spec.forwardSignals, signal)
    );
    for (const runner of takers) runner.forward(runner.spec.forwardSignals[signal] ?? signal);
    return takers.length > 0;
  }

  status(): readonly ProcessStatus[] {
    return [...this.#runners.keys()].map((name) => this.processStatus(name));
  }

  /** `not-found` where there is none of that name. */
  processStatus(name: string): ProcessStatus {
    const runner = this.#runner(name);
    const status = runner.status(this.#measuring.useOf(runner.unit?.tag));
    const tickMs = status.wanted === "up" ? this.#scheduler.nextWallMs(name) : null;
    return {
      ...status,
      nextStartMs: status.nextStartMs ?? tickMs,
      reason: this.#edges.reasonOf(name) ?? status.reason ?? this.#watching.troubleOf(name),
      stoppedByRequest: this.#heldDown.has(name),
      waitingFor: runner.machine.state === "waiting" ? this.#openConditions(runner) : [],
    };
  }

  /** The last lines of a process, oldest first, at most 1000. */
  lines(name: string, limit?: number): readonly OutputLine[] {
    return this.#runner(name).lines(limit);
  }

  /**
   * A person starts one process: counters start anew. Its dependencies still count. Those that were skipped since it was
   * not to be had get their chance again.
   */
  startProcess(name: string): void {
    this.#refuseWhileStopping(`start ${name}`);
    const runner = this.#runner(name);
    this.#refuseRetiring(name, "start");
    this.#heldDown.delete(name);
    this.#edges.spare(name);
    this.#due.add(name);
    runner.dispatch({ type: "want-up" });
    this.#retrySkipped(name);
    this.#armWatches();
    this.#watching.forget(name);
  }

  /**
   * A person stops one process: it stays down until a person starts it, and its end is no failure, essential or not.
   * Resolves when it and its group are gone, at the latest after `waitMs` (default: its `timeoutStopMs` and what a KILL
   * takes): then its status names who is left. Those that depend on it are left alone, but with `restartWith` they stop
   * before it and wait for it.
   */
  async stopProcess(name: string, options: { readonly waitMs?: number } = {}): Promise<void> {
    this.#refuseWhileStopping(`stop ${name}`);
    this.#refuseWhileFrozen(`stop ${name}`);
    const runner = this.#runner(name);
    this.#heldDown.add(name);
    this.#edges.end(name, DOWN);
    this.#armWatches();
    await this.#gone(runner, options.waitMs);
  }

  /**
   * Ends one process and starts it anew when all of it is gone. The reason decides whether that counts as a failure, and
   * whether it starts what does not run (states.ts): then false, as `restarted` has nothing to wait for. Not while frozen.
   */
  restartProcess(name: string, reason: RestartReason = "person", detail: string | null = null): boolean {
    this.#refuseWhileStopping(`restart ${name}`);
    this.#refuseWhileFrozen(`restart ${name}`);
    const wasLive = isLive(this.#runner(name).machine);
    if (reason === "person") {
      this.#refuseRetiring(name, "restart");
      this.#heldDown.delete(name);
      this.#due.add(name);
    }
    this.#restart(name, reason, detail);
    if (reason === "person") {
      this.#retrySkipped(name);
      this.#armWatches();
      this.#watching.forget(name);
    }
    return wasLive;
  }

  /** What is unwell is ended at once; else those go first that stop with it. */
  #restart(name: string, reason: RestartReason, detail: string | null): void {
    if (isFailure(reason)) this.#runner(name).dispatch({ type: "restart", reason, detail });
    else this.#edges.end(name, { type: "restart", reason, detail });
  }

  /** Resolves when the old incarnation of a process that restarts is gone, or after `waitMs` as `stopProcess` has it. */
  async restarted(name: string, options: { readonly waitMs?: number } = {}): Promise<void> {
    await this.#gone(this.#runner(name), options.waitMs);
  }

  /** Sends a signal to the leader or to all of one process; `null`: its reload signal. What it does is its own affair. */
  signalProcess(name: string, signal: Deno.Signal | null, to: "leader" | "group" = "leader"): void {
    this.#refuseWhileFrozen(`signal ${name}`);
    const runner = this.#runner(name);
    const chosen = signal ?? runner.spec.reloadSignal;
    if (chosen === null) {
      throw new StateManagerError(
        "invalid-request",
        `signal ${name}: no signal is named, and it has no reload_signal`,
        { hint: "name one, such as SIGHUP" },
      );
    }
    if (runner.signal(chosen, to)) return;
    throw new StateManagerError(
      "wrong-state",
      `signal ${name}: it is ${runner.machine.state}, wanted a running one`,
      { hint: "start it, then ask again" },
    );
  }

  /**
   * Takes over new definitions: what is new is started, what is not defined any more is stopped and forgotten, rules count
   * at once, and what concerns the spawn counts from the next start on, which comes now where `restart` is set (their
   * names are returned). Throws before anything is changed.
   */
  redefine(specs: readonly ProcessSpec[], options: { readonly restart: boolean }): readonly string[] {
    this.#refuseWhileStopping("reload");
    this.#refuseWhileFrozen("reload");
    orderOf(specs);
    this.#evaluating = true; // nothing is started, forgotten or told as over before all is in its place
    try {
      return this.#takeOver(specs, options);
    } finally {
      this.#evaluating = false;
      this.#armWatches();
      this.#evaluate();
    }
  }

  #takeOver(specs: readonly ProcessSpec[], options: { readonly restart: boolean }): readonly string[] {
    const defined = new Set(specs.map(({ name }) => name));
    for (const [name, runner] of this.#runners) {
      if (defined.has(name)) continue;
      this.#retiring.add(name);
      this.#heldDown.delete(name);
      // It ends already as far as the order of stops goes: nobody can be its dependent any more.
      runner.redefine({ ...runner.spec, dependsOn: {}, restartWith: [] });
    }
    const fresh: ProcessRunner[] = [];
    for (const spec of specs) {
      const known = this.#runners.get(spec.name);
      const runner = known ?? this.#newRunner(spec);
      known?.redefine(spec);
      // One that was dropped a moment ago and may still be ending is taken up again: never two of a name.
      if (known === undefined || this.#retiring.delete(spec.name)) fresh.push(runner);
      this.#runners.set(spec.name, runner);
    }
    this.#levels = orderOf([...this.#runners.values()].map((runner) => runner.spec));
    this.#edges.define();
    for (const name of this.#retiring) this.#runner(name).dispatch(DOWN);
    if (this.#started) { for (const runner of fresh) runner.dispatch({ type: "want-up" }); }
    if (!options.restart) return [];
    const stale = [...this.#runners.values()].filter((runner) =>
      runner.changed.length > 0 && !fresh.includes(runner) && !this.#retiring.has(runner.spec.name) &&
      !this.#heldDown.has(runner.spec.name)
    );
    for (const { spec, changed } of stale) this.#restart(spec.name, "changed", changed.join(", "));
    return stale.map((runner) => runner.spec.name);
  }

  /** Sends each running process that has one its reload signal. Returns their names. */
  sendReloadSignals(): readonly string[] {
    return [...this.#runners].flatMap(([name, { spec, machine }]) => {
      // One that only starts reads its configuration anyway, and may not have its handler yet.
      if (spec.reloadSignal === null || machine.state !== "running" || this.#retiring.has(name)) return [];
      return this.#runner(name).signal(spec.reloadSignal, "leader") ? [name] : [];
    });
  }

  #runner(name: string): ProcessRunner {
    const runner = this.#runners.get(name);
    if (runner !== undefined) return runner;
    throw new StateManagerError("not-found", `find process ${name}: there is none of that name`, {
      hint: `known: ${[...this.#runners.keys()].join(", ")}`,
    });
  }

  #refuseWhileFrozen(action: string): void {
    if (this.#frozenBy.size === 0) return;
    throw new StateManagerError(
      "busy",
      `${action}: the processes are frozen by a ${[...this.#frozenBy].join(", ")}`,
      {
        hint: "they go on when the files are captured, or when the lease is proven ours: try again then",
      },
    );
  }

  #refuseRetiring(name: string, action: string): void {
    if (!this.#retiring.has(name)) return;
    throw new StateManagerError("wrong-state", `${action} ${name}: it is not in the configuration any more`, {
      hint: "it is gone as soon as it has stopped; to have it again, define it anew and reload",
    });
  }

  /** Whoever was skipped since `name`, or one that needed it, was not to be had waits for it again. */
  #retrySkipped(name: string, among: Iterable<string> = this.#runners.keys()): void {
    for (const other of among) {
      const runner = this.#runner(other);
      if (runner.machine.state !== "skipped" || this.#heldDown.has(other)) continue;
      if (!Object.hasOwn(runner.spec.dependsOn, name)) continue;
      runner.dispatch({ type: "want-up" });
      this.#retrySkipped(other);
    }
  }

  #gone(runner: ProcessRunner, waitMs?: number): Promise<void> {
    const giveUpMs = this.#clock.monotonicMs() +
      (waitMs ?? this.#edges.longestStopMs(runner.spec.name) + UNKILLABLE_AFTER_MS);
    return untilIdle(this.#clock, [runner], () => giveUpMs);
  }

  #refuseWhileStopping(action: string): void {
    if (this.#stopping === null && !this.#fenced) return;
    throw new StateManagerError("wrong-state", `${action}: all processes are being stopped`, {
      hint: "ask again when the manager is running",
    });
  }

  /** Starts what may start, drops what may not any more, until nothing changes; then looks whether all is over. */
  #evaluate(): void {
    if (this.#evaluating) return; // the loop below sees the change that called us
    this.#evaluating = true;
    try {
      while (this.#evaluateOnce()) { /* one start may allow the next */ }
    } finally {
      this.#evaluating = false;
    }
    for (const name of this.#retiring) {
      if (isLive(this.#runner(name).machine)) continue;
      this.#retiring.delete(name);
      this.#runners.delete(name);
    }
    this.#checkOutcome();
  }

  #evaluateOnce(): boolean {
    const isCalm = this.#stopping === null && !this.#fenced && this.#frozenBy.size === 0;
    let changed = isCalm && this.#edges.step();
    for (const runner of this.#runners.values()) {
      const { state } = runner.machine;
      if (isEnded(runner.machine)) this.#due.delete(runner.spec.name);
      if (this.#stopping !== null && (state === "waiting" || state === "backoff")) {
        runner.dispatch({ type: "want-down", deadlineMs: this.#stopByMs });
        changed = true;
      } else if (state === "waiting" && !this.#held && !this.#turns.isPause && this.#frozenBy.size === 0) {
        changed = this.#turns.take(() => this.#tryStart(runner)) || changed;
      }
    }
    return changed;
  }

  #tryStart(runner: ProcessRunner): boolean {
    if (isJob(runner.spec) && !this.#due.has(runner.spec.name)) return false;
    for (const { name, condition, state, verdict } of this.#openConditions(runner)) {
      if (verdict !== "never") continue;
      runner.dispatch({ type: "unmeetable", reason: `${name} is ${state}, ${condition} was wanted` });
      return true;
    }
    const { name } = runner.spec;
    if (this.#openConditions(runner).length > 0 || !this.#edges.mayStart(name)) return false;
    this.#edges.starts(name);
    runner.dispatch({ type: "met" });
    this.#retrySkipped(name, this.#edges.dependentsOf(name).map(({ spec }) => spec.name));
    return true;
  }

  /** The conditions that are not met. What a person stopped may be started again by a person: it is waited for. */
  #openConditions(runner: ProcessRunner) {
    return Object.entries(runner.spec.dependsOn).flatMap(([name, condition]) => {
      const { machine } = this.#runner(name);
      const together = runner.spec.restartWith.includes(name);
      const verdict = conditionOf(machine, condition, together);
      if (verdict === "met" && !(together && this.#edges.isDue(name))) return [];
      const isHeld = verdict === "never" && this.#heldDown.has(name);
      return [{ name, condition, state: machine.state, verdict: isHeld ? "open" as const : verdict }];
    });
  }

  #checkOutcome(): void {
    if (!this.#started || this.#runners.size === 0) return;
    const ends = [...this.#runners.values()].map(({ spec, machine }) => ({ spec, machine }));
    const outcome = outcomeOf(ends, this.#stopped);
    if (outcome !== null) this.#outcome.resolve(outcome);
  }

  #finishStop(): void {
    this.#lateStrays.stop();
    this.#measuring.stop();
    this.#scheduler.stop();
    this.#watching.stop();
    this.#turns.stop();
    this.#stopped = true;
    this.#checkOutcome();
    // Nothing was ever started, or something cannot be killed: whoever waits must not wait for ever.
    this.#outcome.resolve({ exitCode: 0, decidedBy: null, error: null });
  }

  async #stopLevels(): Promise<void> {
    this.#scheduler.stop();
    this.#watching.stop();
    this.#edges.clear();
    await Promise.resolve(); // so that #stopping is set when the first event comes back
    // All at once: what is stopped first may need what is stopped last. But while the lease is in doubt none may go on.
    if (this.#frozenBy.has("lease")) this.#stopByMs = Math.min(this.#stopByMs, this.#clock.monotonicMs());
    else for (const reason of [...this.#frozenBy]) this.thaw(reason);
    for (const runner of this.#runners.values()) runner.endProbes();
    this.#evaluate(); // what waits or backs off is dropped now, also in the levels below
    let levelsBelow = this.#levels.length;
    for (const names of this.#levels.toReversed()) {
      levelsBelow--;
      const runners = names.flatMap((name) => this.#runners.get(name) ?? []); // one may have been retired
      const deadlineMs = levelDeadlineMs(this.#stopByMs, this.#clock.monotonicMs(), levelsBelow);
      for (const runner of runners) runner.dispatch({ type: "want-down", deadlineMs });
      await untilIdle(this.#clock, runners, () => this.#stopByMs + UNKILLABLE_AFTER_MS);
    }
    const left = [...this.#runners.values()].filter((runner) => isLive(runner.machine));
    this.#finishStop();
    refuseSurvivors(left);
  }
}
