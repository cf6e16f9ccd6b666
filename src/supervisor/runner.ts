/**
 * One process: executes what the table in states.ts says. Events go through a queue, so that an effect that causes an
 * event (a spawn that fails at once) is handled after the step that asked for it, never inside it.
 */

import type { Child } from "../platform/child_process.ts";
import { ownChildren, spawnChild, SpawnError } from "../platform/child_process.ts";
import type { Clock } from "../platform/clock.ts";
import { lendTerminal, type TerminalLoan } from "../platform/foreground.ts";
import { isSubreaper, mayHaveMembers } from "../platform/libc_process.ts";
import { readAdopted, startTicksOf } from "../platform/proc.ts";
import type { Random } from "../platform/random.ts";
import { enlargePipeOf } from "../platform/libc_pipe_size.ts";
import { LineRing, type OutputLine } from "./line_ring.ts";
import { type OutputBatch, piecesOf } from "./lines.ts";
import type { Effect, Machine, MachineEvent } from "./machine.ts";
import { endVariables, Hook } from "./hook.ts";
import { launchOf } from "./launch.ts";
import { isLive, newMachine, nextTickMs } from "./machine.ts";
import type { LateStrays } from "./late_strays.ts";
import type { OomKills } from "./oom.ts";
import { causeOf } from "./outcome.ts";
import { type Unit, UNIT_VARIABLE } from "./members.ts";
import { type OutputPump, type PumpOptions, pumpOutput } from "./output.ts";
import { isFailure } from "./restart.ts";
import { type Hearing, hearingOf } from "./notify_messages.ts";
import { awaitsReadiness, hasProbes, isToldAlike, NO_PROBES, type ProcessProbes } from "./probe_types.ts";
import { Prober } from "./prober.ts";
import { SlowStop } from "./slow_stop.ts";
import { type Asked, Stillness } from "./stillness.ts";
import { isSame, specChanges } from "./spec_changes.ts";
import { transition } from "./states.ts";
import { blockersOf, everybodyOf, isAnyLeft, membersOf, type Seen, signalMembers } from "./unit_members.ts";
import { childWatches, tagOf, type UnitWatch } from "./units.ts";
import type {
  ExitCause,
  HookName,
  OutputHandler,
  ProcessSpec,
  ProcessStatus,
  ProcessUsage,
  RestartReason,
  SupervisorEvent,
} from "./types.ts";

/** Looks at a group that ends: soon at first, since most end in milliseconds, then rarely, since a look costs. */
const WATCH_FIRST_MS = 5;
const WATCH_LONGEST_MS = 200;
/** Lines kept with an exit: a stack trace. */
const LAST_LINES = 20;
/** Pids named in a reason; more would bury the message. */
const NAMED_SURVIVORS = 5;

const OUTPUT_ENDED = { type: "output-ended" } as const;
/** As many promises follow each other, at most, between the end of a pipe and the end of whoever reads it. */
const END_HOPS = 32;

export interface RunnerOptions {
  readonly spec: ProcessSpec;
  readonly clock: Clock;
  readonly random: Random;
  /** Part of the tag. */
  readonly runId: string;
  readonly units: UnitWatch;
  readonly output: OutputHandler;
  readonly onEvent: (event: SupervisorEvent) => void;
  /** Called after every change of the machine. */
  readonly onChange: () => void;
  /** Hears of an incarnation that ended without a look at all processes. */
  readonly lateStrays: Pick<LateStrays, "expect">;
  readonly oomKills: Pick<OomKills, "judge">;
  readonly notifyFolder: string | null;
}

interface Incarnation {
  readonly child: Child;
  /** Closed when nothing of it is left. */
  readonly hearing: Hearing;
  readonly unit: Unit;
  /** It has our terminal. */
  readonly loan: TerminalLoan | null;
  killReported: boolean;
}

export class ProcessRunner {
  readonly #options: RunnerOptions;
  /** What counts now; a reload changes it. */
  #spec: ProcessSpec;
  /** What the last incarnation was spawned by. */
  #spawnedBy: ProcessSpec | null = null;
  readonly #ring = new LineRing();
  readonly #queue: MachineEvent[] = [];
  #machine: Machine = newMachine();
  #handling = false;
  /** What runs now; null as soon as its group is gone, so that its number is never used again. */
  #current: Incarnation | null = null;
  /** Pipes of the last incarnation; a daemon that left may hold them longer than its group lived. */
  #pumps: readonly OutputPump[] = [];
  #timer: AbortController | null = null;
  readonly #slowStop: SlowStop;
  /** The stop or finish command that runs, or waits for a thaw. */
  #hook: Hook | null = null;
  readonly #stillness = new Stillness();
  #startedWallMs: number | null = null;
  #lastExit: ExitCause | null = null;
  #endedFor: RestartReason | null = null;
  #lastPid: number | null = null;
  #lastLines: readonly string[] = [];
  /** Of the incarnation that runs, or ran last; null where it has no probes. */
  #prober: Prober | null = null;
  /** Those in force. */
  #probes: ProcessProbes = NO_PROBES;
  #survivors: readonly string[] = [];
  #idleWaiters: (() => void)[] = [];

  constructor(options: RunnerOptions) {
    this.#spec = options.spec;
    this.#options = options;
    this.#slowStop = new SlowStop(options.clock, () => this.#tellBlocked());
  }

  get spec(): ProcessSpec {
    return this.#spec;
  }

  /** Takes over a new definition: rules count at once, what concerns the spawn from the next one on. */
  redefine(spec: ProcessSpec): void {
    const before = this.#spec;
    this.#spec = spec;
    if (!isSame(before.probes, spec.probes) || before.timeoutStartMs !== spec.timeoutStartMs) {
      this.#redefineProbes();
    }
  }

  /** Other probes for what runs, but where they need a descriptor that it was not given: then from its next start on. */
  #redefineProbes(): void {
    const { state, ready } = this.#machine;
    const current = this.#current;
    if (current === null || (state !== "starting" && state !== "running")) return;
    if (!isToldAlike(this.#probes, this.#spec.probes)) return;
    this.#probes = this.#spec.probes;
    if (this.#prober === null) this.#startProber(current);
    this.#prober?.redefine(this.#spec, { ready, wasReady: state === "running" });
  }

  /** Keys of the definition that differ from what the last incarnation was spawned by. */
  get changed(): readonly string[] {
    return this.#spawnedBy === null ? [] : specChanges(this.#spawnedBy, this.#spec).start;
  }

  get machine(): Machine {
    return this.#machine;
  }

  /** Pids and states of what a KILL has not ended yet. */
  get survivors(): readonly string[] {
    return this.#survivors;
  }

  /** Feeds the table. Returns after all effects are done, but when called from inside one. */
  dispatch(...events: readonly MachineEvent[]): void {
    this.#queue.push(...events);
    if (this.#handling) return;
    this.#handling = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) this.#step(next);
    } finally {
      this.#handling = false;
    }
    this.#armTimer();
    this.#slowStop.watch(isEnding(this.#machine));
    if (!isLive(this.#machine)) {
      for (const resolve of this.#idleWaiters.splice(0)) resolve();
    }
    this.#options.onChange();
  }

  /** Resolves as soon as nothing of this process is alive, at once when that is so. */
  idle(): Promise<void> {
    if (!isLive(this.#machine)) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /** Passes a signal to the leader alone. */
  forward(signal: Deno.Signal): void {
    if (this.#machine.leaderAlive) this.#current?.child.kill(signal);
  }

  /** Everything is being stopped: what a probe sees from now on is no fault of the process's. */
  endProbes(): void {
    this.#prober?.stop();
  }

  /** STOP or CONT to all that belongs to the incarnation. */
  signalAll(signal: "SIGSTOP" | "SIGCONT"): void {
    if (signal === "SIGSTOP") this.#stillness.freeze();
    else this.#ask(this.#stillness.thaw());
    if (this.#current !== null) this.#signal(this.#current, signal);
    this.#hook?.signal(signal);
    if (this.#stillness.isFrozen) return this.#prober?.freeze();
    this.#prober?.thaw();
    this.#hook?.start(); // where it had to wait for this
  }

  /** Whom the end of this incarnation waits for, as /proc shows them: all of it, and a command that runs for it. */
  everybody(): readonly Seen[] {
    const own = this.#current === null
      ? null
      : everybodyOf(this.#current.unit, { isAlive: this.#machine.leaderAlive });
    return [own, this.#hook?.members() ?? null].filter((seen) => seen !== null);
  }

  lines(limit?: number): readonly OutputLine[] {
    return this.#ring.last(limit);
  }

  /** What runs now; null while nothing of it does. */
  get unit(): Unit | null {
    return this.#current?.unit ?? null;
  }

  /** Signals the leader, or all that belongs to the incarnation; false where nobody is there. */
  signal(signal: Deno.Signal, to: "leader" | "group"): boolean {
    if (this.#current === null || (to === "leader" && !this.#machine.leaderAlive)) return false;
    if (to === "group") this.#signal(this.#current, signal);
    else this.#current.child.kill(signal);
    return true;
  }

  /** All but what only the supervisor knows. */
  status(use: ProcessUsage | null = null): Omit<ProcessStatus, "waitingFor" | "stoppedByRequest"> {
    const machine = this.#machine;
    const { clock } = this.#options;
    const wallOf = (atMs: number | null) =>
      atMs === null ? null : Math.round(clock.wallMs() + atMs - clock.monotonicMs());
    const nextStartMs = wallOf(machine.nextStartAtMs);
    const blocked = this.#survivors.length > 0 && isLive(machine);
    return {
      name: this.spec.name,
      wanted: machine.wanted,
      state: machine.state,
      ready: machine.ready,
      probeFailure: machine.leaderAlive ? this.#prober?.failure ?? null : null,
      pid: machine.leaderAlive ? this.#lastPid : null,
      startedMs: this.#startedWallMs,
      uptimeMs: machine.startedAtMs === null || !machine.leaderAlive
        ? null
        : Math.round(clock.monotonicMs() - machine.startedAtMs),
      restarts: machine.restarts,
      changed: this.changed,
      stop: isEnding(machine)
        ? {
          blockers: blockersOf(this.everybody().flatMap(({ all }) => all)),
          killMs: wallOf(killMomentOf(machine)),
          command: machine.hook,
        }
        : null,
      lastExit: this.#lastExit,
      nextStartMs,
      reason: blocked ? `killed, but still there: ${this.#survivors.join(", ")}` : machine.reason,
      lastLines: this.#lastLines,
      use,
    };
  }

  /** What counts for the incarnation that is there. */
  #rules(): ProcessSpec {
    return { ...this.#spec, probes: this.#probes };
  }

  #step(event: MachineEvent): void {
    const { clock, random, onEvent } = this.#options;
    const before = this.#machine;
    const moment = { nowMs: clock.monotonicMs(), roll: random.float() };
    const { machine, effects } = transition(this.#rules(), before, event, moment);
    this.#machine = machine;
    // The step that ends an incarnation forgets why it was ended; its report comes after it.
    this.#endedFor = machine.restartFor ?? before.restartFor;
    for (const effect of effects) this.#execute(effect);
    if (machine.state !== "starting" && machine.state !== "running") this.#prober?.stop();
    if (machine.groupGone && this.#current !== null) {
      this.#prober?.close();
      const { unit, loan, hearing } = this.#current;
      hearing.close();
      this.#options.units.forget(unit.groupId);
      loan?.takeBack(unit.groupId);
      this.#current = null;
      this.#stillness.forget();
    }
    if (machine.ready !== before.ready && machine.state === "running" && awaitsReadiness(this.#probes)) {
      const reason = machine.ready ? null : this.#prober?.failure ?? null;
      onEvent({ type: "readiness", name: this.spec.name, ready: machine.ready, reason });
    }
    if (machine.state === before.state && machine.reason === before.reason) return;
    onEvent({ type: "state", name: this.spec.name, state: machine.state, reason: machine.reason });
  }

  #execute(effect: Effect): void {
    const current = this.#current;
    switch (effect) {
      case "spawn":
        return this.#spawn();
      case "signal-group":
        return this.#ask("group");
      case "signal-leader":
        return this.#ask("leader");
      case "kill-group":
        return this.#kill();
      case "watch-group":
        if (current !== null) void this.#watch(current);
        return;
      case "close-output":
        for (const pump of this.#pumps) pump.close();
        return;
      case "report-exit":
        return this.#reportExit();
      case "run-stop-command":
        return this.#runHook("stop_command", { MAINPID: String(this.#lastPid) });
      case "run-finish-command":
        return this.#runHook("finish_command", endVariables(this.spec, this.#machine, this.#endedFor));
      case "skip-finish-command":
        return this.#tellHookFailed("finish_command", "the stop left no time for it");
      case "end-hook":
        return this.#hook?.end();
    }
  }

  /** While all stands still it waits, too: its time goes on. */
  #runHook(name: HookName, variables: Readonly<Record<string, string>>): void {
    const { spec } = this;
    const hook: Hook = new Hook({
      ...this.#options,
      hook: name,
      spec,
      incarnation: this.#machine.incarnation,
      variables,
      output: (_name, batch) => {
        this.#ring.push(batch);
        return this.#options.output(spec.name, batch);
      },
      onEnd: (problem) => {
        this.#hook = null;
        if (problem !== null) this.#tellHookFailed(name, problem);
        this.dispatch({ type: "hook-ended" });
      },
    });
    this.#hook = hook;
    if (!this.#stillness.isFrozen) hook.start();
  }

  #tellHookFailed(hook: HookName, problem: string): void {
    this.#options.onEvent({ type: "hook-failed", name: this.spec.name, hook, problem });
  }

  #spawn(): void {
    const { spec } = this;
    const { runId, units, clock, onEvent } = this.#options;
    const incarnation = this.#machine.incarnation;
    const tag = tagOf(spec.name, incarnation, runId);
    const stdio = spec.stdio === "pipe" ? "piped" : "inherit";
    this.#lastPid = null;
    this.#survivors = [];
    let hearing: Hearing | null = null;
    this.#spawnedBy = spec;
    this.#probes = spec.probes;
    let child: Child;
    const loan = spec.stdio === "inherit" ? lendTerminal() : null;
    try {
      const { command, args, env, user } = launchOf(spec, { terminal: loan !== null });
      const hear = (message: Uint8Array) => this.#prober?.message(message) ?? true;
      hearing = hearingOf(spec, { ...this.#options, user, hear });
      child = spawnChild({
        command,
        args,
        env: { ...env, ...hearing.variables, [UNIT_VARIABLE]: tag },
        clearEnv: true,
        stdin: spec.stdio === "pipe" ? "null" : "inherit",
        stdout: stdio,
        stderr: stdio,
        notify: hearing.variables !== null,
        // Its own group, whose id is its pid: what a stop waits for. With a terminal the helper makes that group, since a
        // session of its own would have none; until then it is found by its tag.
        detached: loan === null,
        ...(spec.cwd === null ? {} : { cwd: spec.cwd }),
      });
    } catch (error) {
      hearing?.close();
      const known = error instanceof SpawnError;
      const text = error instanceof Error ? error.message : String(error);
      const cause = { kind: "spawn-error", error: text, code: known ? error.exitCode : 126 } as const;
      const { permanent, isShortage } = known ? error : { permanent: true, isShortage: false };
      this.dispatch({ type: "spawn-failed", cause, permanent, isShortage });
      return;
    }
    const { pid } = child;
    const startTicks = startTicksOf(pid);
    units.watch({ name: spec.name, groupId: pid, startTicks, tag });
    const current: Incarnation = {
      child,
      hearing,
      unit: { groupId: pid, startTicks, tag, strays: new Map() },
      loan,
      killReported: false,
    };
    this.#current = current;
    this.#startProber(current);
    this.#pumps = this.#startPumps(child);
    this.#lastPid = pid;
    this.#startedWallMs = clock.wallMs();
    onEvent({ type: "started", name: spec.name, pid, incarnation });
    this.dispatch({ type: "spawned" });
    this.#prober?.start();
    // A late end of an older incarnation's pipes must not count for the new one.
    const isCurrent = () => this.#machine.incarnation === incarnation;
    let [outputEnded, leaderEnded] = [false, false];
    const exited = async (how: ExitCause) => {
      // Both in one step, where nobody else holds its output: what a restart waits for is then there.
      for (let hops = 0; !outputEnded && hops < END_HOPS; hops++) await null;
      leaderEnded = true;
      if (!isCurrent()) return;
      const cause = this.#options.oomKills.judge(how, this.#machine.stopRequested);
      const groupGone = this.#isAlone(current) || !isAnyLeft(current.unit);
      const exit = { type: "leader-exited", cause, groupGone } as const;
      this.dispatch(...(outputEnded ? [OUTPUT_ENDED, exit] : [exit]));
    };
    void causeOf(child.status).then(exited);
    Promise.all(this.#pumps.map((pump) => pump.ended)).then(() => {
      outputEnded = true;
      if (leaderEnded && isCurrent()) this.dispatch(OUTPUT_ENDED);
    });
  }

  #startProber({ child, unit }: Incarnation): void {
    const { spec } = this;
    const { clock, units, runId } = this.#options;
    this.#prober?.close();
    this.#prober = null;
    if (!hasProbes(spec.probes)) return;
    const { name, cwd } = spec;
    const launch = (command: readonly string[]) => launchOf({ ...spec, command });
    const watch = childWatches({ name: `${name}:probe-${this.#machine.incarnation}`, runId, units });
    const prober: Prober = new Prober({
      spec,
      clock,
      context: { name, cwd, launch, clock, watch },
      onVerdict: (verdict) => {
        // An older incarnation's probes say nothing about this one.
        if (this.#current?.unit === unit && this.#prober === prober) this.dispatch(verdict);
      },
    });
    this.#prober = prober;
    if (child.notify !== null) void prober.listen(child.notify);
  }

  #startPumps(child: Child): OutputPump[] {
    const { clock, output } = this.#options;
    const { name } = this.spec;
    const pumps: OutputPump[] = [];
    const together: PumpOptions["together"] = new Set();
    for (const stream of ["stdout", "stderr"] as const) {
      const source = child[stream];
      if (source === null) continue;
      const take = (batch: OutputBatch) => {
        this.#ring.push(batch);
        const pause = output(name, batch);
        // A late line of an older incarnation says nothing about this one.
        const prober = this.#current?.child === child ? this.#prober : null;
        if (prober?.awaitsLines) {
          for (const { text } of piecesOf(batch)) prober.line(text);
        }
        return pause;
      };
      const enlarge = () => enlargePipeOf(child.pid, stream === "stdout" ? 1 : 2);
      pumps.push(pumpOutput({ source, stream, clock, take, enlarge, together }));
    }
    return pumps;
  }

  /**
   * True where it is plain that the leader, whose status was just taken, left nobody behind: nobody in its group, and no
   * orphan, which would be our child now. A look at all processes of the machine takes a multiple of the rest of a restart.
   * It would find one more kind of stray: started with this tag by a stranger, such as by `at`. So one that ends as it was
   * asked to, for which somebody waits until all is gone, is looked for in any case, and for others late_strays.ts looks.
   */
  #isAlone({ unit }: Incarnation): boolean {
    if (this.#machine.stopRequested || unit.strays.size > 0 || !isSubreaper()) return false;
    if (mayHaveMembers(unit.groupId)) return false;
    const own = ownChildren();
    const isAlone = readAdopted()?.every((pid) => own.has(pid)) ?? false;
    const { groupId, startTicks, tag } = unit;
    if (isAlone) this.#options.lateStrays.expect({ name: this.spec.name, groupId, startTicks, tag });
    return isAlone;
  }

  /** The stop signal. A stopped process sees it only when it goes on; one that is to stand still when all do. */
  #ask(whom: Asked | null): void {
    if (whom === null || this.#current === null || !this.#stillness.mayAsk(whom)) return;
    for (const signal of [this.spec.stopSignal, "SIGCONT"] as const) this.signal(signal, whom);
  }

  #signal({ unit }: Incarnation, signal: Deno.Signal): void {
    // Looked up before: once the leader ends, nothing shows any more whose children the others were.
    signalMembers(unit, membersOf(unit), signal, this.#machine);
  }

  #kill(): void {
    const current = this.#current;
    if (current === null) return;
    const members = membersOf(current.unit);
    signalMembers(current.unit, members, "SIGKILL", this.#machine);
    const all = [...members.group, ...members.strays];
    if (!current.killReported && all.length > 0) {
      current.killReported = true;
      this.#options.onEvent({ type: "killed-group", name: this.spec.name, pids: all.map(({ pid }) => pid) });
      return;
    }
    this.#survivors = all.slice(0, NAMED_SURVIVORS).map(({ pid, name, state }) =>
      `${pid} (${name}, ${state})`
    );
  }

  /** Ends with the group; the table repeats the KILL meanwhile, so this wait needs no deadline of its own. */
  async #watch(current: Incarnation): Promise<void> {
    const { clock } = this.#options;
    for (
      let waitMs = WATCH_FIRST_MS;
      this.#current === current;
      waitMs = Math.min(waitMs * 2, WATCH_LONGEST_MS)
    ) {
      await clock.sleep(waitMs);
      if (this.#current === current && !isAnyLeft(current.unit)) this.dispatch({ type: "group-gone" });
    }
  }

  #reportExit(): void {
    const { exit, incarnation, stopRequested, uptimeMs } = this.#machine;
    const restartFor = this.#endedFor;
    if (exit === null) return;
    const requested = stopRequested && !isFailure(restartFor);
    const lastLines = this.#ring.last(LAST_LINES).map((line) => line.text);
    this.#lastExit = exit;
    this.#lastLines = requested ? [] : lastLines;
    this.#options.onEvent({
      type: "exited",
      name: this.spec.name,
      pid: this.#lastPid,
      incarnation,
      cause: exit,
      requested,
      restartFor,
      uptimeMs: Math.round(uptimeMs),
      lastLines: this.#lastLines,
    });
  }

  #tellBlocked(): void {
    const { clock, onEvent } = this.#options;
    const killAtMs = killMomentOf(this.#machine);
    onEvent({
      type: "blocked",
      name: this.spec.name,
      blockers: blockersOf(this.everybody().flatMap(({ all }) => all)),
      killInMs: killAtMs === null ? null : Math.max(0, Math.round(killAtMs - clock.monotonicMs())),
      command: this.#machine.hook,
    });
  }

  #armTimer(): void {
    this.#timer?.abort();
    this.#timer = null;
    const dueMs = nextTickMs(this.#machine);
    if (dueMs === null) return;
    const { clock } = this.#options;
    const timer = new AbortController();
    this.#timer = timer;
    clock.sleep(dueMs - clock.monotonicMs(), { signal: timer.signal }).then(
      () => this.dispatch({ type: "tick" }),
      () => {}, // re-armed
    );
  }
}

/** Somebody of it, or a command for it, is still there. */
function isEnding({ state, groupGone, hook }: Machine): boolean {
  return (state === "stopping" || state === "draining") && (!groupGone || hook !== null);
}

/** When the next of them is killed. */
function killMomentOf({ groupGone, killAtMs, hookUntilMs }: Machine): number | null {
  return groupGone ? hookUntilMs : killAtMs;
}
