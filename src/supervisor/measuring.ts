/**
 * Figures of all processes, and their memory limits. Without a limit nothing is measured until somebody asks, and then
 * at most once in a few seconds: an idle manager stays idle.
 */

import type { Clock } from "../platform/clock.ts";
import { ownPid, readProportionalBytes } from "../platform/proc.ts";
import { FigureReader, type Figures } from "./figures.ts";
import { type MemoryState, memoryStep, NEW_MEMORY_STATE } from "./memory_rules.ts";
import type { ProcessSpec, ProcessUsage, SupervisorEvent } from "./types.ts";

/** Between two looks. One costs some 50 microseconds for each process of the machine. */
const MEASURE_EVERY_MS = 5_000;

/** One process as it is now. */
export interface Measured {
  readonly spec: ProcessSpec;
  /** Null while nothing of it runs. */
  readonly unit: { readonly groupId: number; readonly tag: string } | null;
  readonly machine: { readonly incarnation: number };
}

export interface MeasuringOptions {
  readonly clock: Clock;
  readonly all: () => readonly Measured[];
  readonly onEvent: (event: SupervisorEvent) => void;
  /** Called at each look. */
  readonly onMeasure: () => void;
  /** Restarts it for its memory. */
  readonly restart: (name: string, detail: string) => void;
}

export class Measuring {
  readonly #options: MeasuringOptions;
  readonly #reader = new FigureReader(ownPid());
  readonly #states = new Map<string, MemoryState>();
  readonly #ended = new AbortController();
  #figures: ReadonlyMap<string, Figures> = new Map();
  #measuredAtMs = -Infinity;
  #watching = false;

  constructor(options: MeasuringOptions) {
    this.#options = options;
  }

  /** Watches the limits from now on, where there are any; again after definitions changed. */
  start(): void {
    if (this.#watching || this.#options.all().every(({ spec }) => spec.memoryLimit === null)) return;
    this.#watching = true;
    void this.#watch();
  }

  stop(): void {
    this.#ended.abort();
  }

  /** A few seconds old at most; null where nothing runs. */
  useOf(tag: string | undefined): ProcessUsage | null {
    if (tag === undefined) return null;
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#measuredAtMs >= MEASURE_EVERY_MS) this.#measure();
    const figures = this.#figures.get(tag);
    if (figures === undefined) return null;
    const { memoryBytes, cpuSeconds, processes } = figures;
    return { memoryBytes, cpuSeconds, processes };
  }

  #measure(): void {
    const { clock, all, onMeasure } = this.#options;
    this.#measuredAtMs = clock.monotonicMs();
    onMeasure();
    try {
      this.#figures = this.#reader.measure(all().flatMap(({ unit }) => unit === null ? [] : [unit]));
    } catch {
      this.#figures = new Map(); // no /proc: nothing is known
    }
  }

  async #watch(): Promise<void> {
    const { clock } = this.#options;
    const { signal } = this.#ended;
    while (!signal.aborted) {
      await clock.sleep(MEASURE_EVERY_MS, { signal }).catch(() => {});
      if (signal.aborted) return;
      this.#measure();
      for (const measured of this.#options.all()) await this.#judge(measured);
    }
  }

  async #judge({ spec: { name, memoryLimit }, unit, machine: { incarnation } }: Measured): Promise<void> {
    const figures = unit === null ? undefined : this.#figures.get(unit.tag);
    if (memoryLimit === null || figures === undefined) return;
    const { clock, onEvent, restart } = this.#options;
    // Dear, so only for those that seem too large: what they share is counted once.
    const bytes = figures.memoryBytes < memoryLimit.warnBytes
      ? figures.memoryBytes
      : await readProportionalBytes(figures.pids) ?? figures.memoryBytes;
    if (this.#ended.signal.aborted) return;
    const nowMs = clock.monotonicMs();
    const sample = { incarnation, bytes, nowMs };
    const { state, verdict } = memoryStep(memoryLimit, this.#states.get(name) ?? NEW_MEMORY_STATE, sample);
    this.#states.set(name, state);
    if (verdict === "warn") onEvent({ type: "memory", name, bytes, limitBytes: memoryLimit.maxBytes });
    if (verdict === "restart") {
      restart(name, `${mebibytes(bytes)} of ${mebibytes(memoryLimit.maxBytes)}`);
    }
  }
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1_048_576)} MiB`;
}
