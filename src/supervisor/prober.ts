/**
 * The probes of one incarnation at work: feeds probe_rules.ts with time, answers, lines and words, and does what it says.
 * After `stop` nothing of it is heard any more.
 */

import type { Clock } from "../platform/clock.ts";
import { LineSplitter, piecesOf } from "./lines.ts";
import { type CheckContext, LINE_LIMIT_CHARS, lineMatches, runCheck } from "./probe_checks.ts";
import type { ProbeEffect, ProbeEvent, ProbeName, ProbesState } from "./probe_rules.ts";
import { newProbes, nextProbeTickMs, otherProbes, stepProbes } from "./probe_rules.ts";
import type { ProcessSpec } from "./types.ts";

export type ProbeVerdict = Extract<ProbeEffect, { type: "ready" | "not-ready" | "restart" }>;

export type ProbeRules = Pick<ProcessSpec, "probes" | "timeoutStartMs">;

export interface ProberOptions {
  readonly spec: ProcessSpec;
  readonly clock: Clock;
  readonly context: CheckContext;
  /** Hears what follows from the answers; in order. */
  readonly onVerdict: (verdict: ProbeVerdict) => void;
}

export class Prober {
  readonly #options: ProberOptions;
  readonly #decoder = new TextDecoder();
  /** Probes that wait for a line still. */
  readonly #awaited = new Map<ProbeName, readonly string[]>();
  #state: ProbesState;
  #runs = new AbortController();
  #timer: AbortController | null = null;
  #stopped = false;
  #reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | null = null;

  constructor(options: ProberOptions) {
    this.#options = options;
    const { spec, clock } = options;
    this.#state = newProbes(spec.probes, spec.timeoutStartMs, clock.monotonicMs());
    this.#awaitLines();
  }

  /** Other probes from now on; `seen`: what is known of the process. */
  redefine(rules: ProbeRules, seen: { readonly ready: boolean; readonly wasReady: boolean }): void {
    if (this.#stopped) return;
    this.#take({ type: "abort" });
    const { state, effects } = otherProbes(this.#state, rules, seen, this.#options.clock.monotonicMs());
    this.#state = state;
    this.#awaitLines();
    for (const effect of effects) this.#take(effect);
    this.#armTimer();
  }

  #awaitLines(): void {
    const { probes, ones } = this.#state;
    this.#awaited.clear();
    for (const name of ["startup", "readiness"] as const) {
      const check = probes[name]?.check;
      if (check?.kind === "log" && ones[name].successes === 0) this.#awaited.set(name, check.pieces);
    }
  }

  /** The last failure of a probe that has not succeeded since, such as "readiness: HTTP 503". */
  get failure(): string | null {
    const { failure } = this.#state;
    return failure === null ? null : `${failure.probe}: ${failure.detail}`;
  }

  start(): void {
    this.#armTimer();
  }

  /** True while a probe waits for a line: else none need be shown to it. */
  get awaitsLines(): boolean {
    return this.#awaited.size > 0 && !this.#stopped;
  }

  /** A piece of output. */
  line(text: Uint8Array): void {
    if (this.#awaited.size === 0 || this.#stopped) return;
    const line = this.#decoder.decode(text.subarray(0, LINE_LIMIT_CHARS));
    for (const [name, pieces] of this.#awaited) {
      if (!lineMatches(line, pieces)) continue;
      this.#awaited.delete(name);
      this.#feed({ type: "seen", probe: name });
    }
  }

  /** Reads the notify descriptor to its end, or until `close`: who writes must not be blocked, nor get a SIGPIPE. */
  async listen(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    const reader = stream.getReader();
    this.#reader = reader;
    const splitter = new LineSplitter("stdout", () => 0, (batch) => {
      for (const { text, partial } of piecesOf(batch)) {
        const what = partial ? null : meaningOf(this.#decoder.decode(text));
        if (what !== null) this.#feed({ type: "told", what });
      }
    });
    try {
      for (let next = await reader.read(); !next.done; next = await reader.read()) splitter.push(next.value);
    } catch {
      // It says no more.
    }
  }

  /** A datagram in systemd's way: lines of NAME=value. False: it is none, and nothing of it counts. */
  message(bytes: Uint8Array): boolean {
    const lines = this.#decoder.decode(bytes).split("\n").filter((line) => line !== "");
    if (lines.length === 0 || !lines.every((line) => ASSIGNMENT.test(line))) return false;
    for (const line of lines) {
      const what = meaningOf(line);
      if (what !== null) this.#feed({ type: "told", what });
    }
    return true;
  }

  freeze(): void {
    this.#feed({ type: "frozen" });
  }

  thaw(): void {
    this.#feed({ type: "thawed" });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.abort();
    this.#runs.abort();
  }

  /** Nothing of the incarnation is left: lets go of its notify descriptor. */
  close(): void {
    this.stop();
    this.#reader?.cancel().catch(() => {});
  }

  #feed(event: ProbeEvent): void {
    if (this.#stopped) return;
    const { state, effects } = stepProbes(this.#state, event, this.#options.clock.monotonicMs());
    this.#state = state;
    for (const effect of effects) this.#take(effect);
    if (!this.#stopped) this.#armTimer();
  }

  #take(effect: ProbeEffect): void {
    if (effect.type === "run") void this.#run(effect);
    else if (effect.type === "abort") {
      this.#runs.abort();
      this.#runs = new AbortController();
    } else this.#options.onVerdict(effect);
  }

  async #run({ probe, run, spec }: ProbeEffect & { type: "run" }): Promise<void> {
    const { signal } = this.#runs;
    const failure = await runCheck(spec, this.#options.context, signal);
    if (!signal.aborted) this.#feed({ type: "result", probe, run, failure });
  }

  #armTimer(): void {
    this.#timer?.abort();
    this.#timer = null;
    const dueMs = nextProbeTickMs(this.#state);
    if (dueMs === null) return;
    const { clock } = this.#options;
    const timer = new AbortController();
    this.#timer = timer;
    clock.sleep(dueMs - clock.monotonicMs(), { signal: timer.signal }).then(
      () => this.#feed({ type: "tick" }),
      () => {}, // armed anew
    );
  }
}

const ASSIGNMENT = /^[A-Z][A-Z0-9_]*=/;

/**
 * systemd's words: READY=1, WATCHDOG=1, RELOADING=1 and STOPPING=1 (both: not ready until the next READY=1). Other
 * NAME=value are ignored; any other line, an empty one too, is s6's way to say that it is ready.
 */
function meaningOf(line: string): "ready" | "not-ready" | "heartbeat" | null {
  switch (line.trim()) {
    case "READY=1":
      return "ready";
    case "WATCHDOG=1":
      return "heartbeat";
    case "RELOADING=1":
    case "STOPPING=1":
      return "not-ready";
  }
  return ASSIGNMENT.test(line) ? null : "ready";
}
