/**
 * What happens, for those who want to hear of it. Every event gets a number, stays in memory for a while and goes to the
 * catalog, where it stays for long; nobody who listens can hold it up: a listener remembers how far he is, and what memory
 * has no more he asks of the catalog. How far long work is, is told only while it runs, and only the newest of it.
 */

import { ProgressRate, type SpeedFigures, speedFigures } from "../checkpoint/mod.ts";
import {
  type Catalog,
  type CatalogEvent,
  type CatalogInsert,
  type CatalogKind,
  type EventPlace,
  type HistoryQuery,
  keptForm,
} from "../database/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { PlainValue } from "../platform/plain_value.ts";

/** Hours of a quiet manager, minutes of a crash loop. */
const RING_EVENTS = 1000;
/** With the longest details there is room for some two hundred events. */
const RING_CHARACTERS = 1024 * 1024;
/** Nobody reads faster; each step wakes all who listen. */
const PROGRESS_INTERVAL_MS = 500;

export const WORKS = ["checkpoint", "restore", "database-restore", "verify", "repair", "prune"] as const;

export type WorkName = typeof WORKS[number];

/** Where long work stands; `done` and `failed` are its end. */
export type WorkStep =
  | {
    readonly phase: string;
    readonly entries: number;
    readonly bytes: number;
    readonly totalBytes: number | null;
  }
  | "done"
  | "failed";

export interface EventRecord {
  readonly place: EventPlace;
  readonly timeMs: number;
  readonly kind: CatalogKind;
  readonly subject: string;
  readonly summary: string;
  readonly detail: PlainValue;
}

export interface WorkProgress extends SpeedFigures {
  readonly work: WorkName;
  /** Grows with each step of any work. */
  readonly version: number;
  readonly phase: string;
  readonly entries: number;
  readonly bytes: number;
  readonly totalBytes: number | null;
}

export interface EventHubOptions {
  /** Random, one per manager process. */
  readonly runId: string;
  readonly clock: Clock;
  /** Null: there is none before the manager is configured. */
  readonly openCatalog: () => Catalog | null;
}

interface Work {
  progress: WorkProgress;
  rate: ProgressRate;
  toldMs: number;
}

export class EventHub {
  readonly #options: EventHubOptions;
  readonly #ring: CatalogInsert[] = [];
  readonly #works = new Map<WorkName, Work>();
  #characters = 0;
  #last = 0;
  #catalog: Catalog | null = null;
  #closed = false;
  #version = 0;
  #next: PromiseWithResolvers<void> | null = null;

  constructor(options: EventHubOptions) {
    this.#options = options;
  }

  get runId(): string {
    return this.#options.runId;
  }

  /** Number of the newest event of this run; 0 before the first. */
  get last(): number {
    return this.#last;
  }

  /** Number of the oldest event in memory; `last + 1` where there is none. */
  get first(): number {
    return this.#last - this.#ring.length + 1;
  }

  /** Returns at once and never throws. */
  record(event: CatalogEvent): void {
    const place = { run: this.runId, sequence: this.#last + 1 };
    let kept: CatalogInsert;
    try {
      kept = keptForm(event, this.#options.clock.wallMs(), place);
    } catch {
      return; // of the wrong shape, from code that casts
    }
    this.#last++;
    this.#ring.push(kept);
    this.#characters += charactersOf(kept);
    while (this.#ring.length > RING_EVENTS || this.#characters > RING_CHARACTERS) {
      const oldest = this.#ring.shift();
      if (oldest !== undefined) this.#characters -= charactersOf(oldest);
    }
    this.#catalog?.keep(kept);
    this.#wake();
  }

  /** Of each work only the newest step counts, and of steps in quick succession not even each of these. */
  progress(work: WorkName, step: WorkStep): void {
    const nowMs = this.#options.clock.monotonicMs();
    const known = this.#works.get(work);
    if (typeof step === "string") {
      const over = { phase: step, bytes_per_second: null, seconds_left: null, version: ++this.#version };
      // What was done before anything could be told of it has an end, too.
      const before = known !== undefined && !isOver(known.progress)
        ? known.progress
        : { work, entries: 0, bytes: 0, totalBytes: null };
      this.#works.set(work, { progress: { ...before, ...over }, rate: new ProgressRate(), toldMs: nowMs });
      return this.#wake();
    }
    const isNew = known === undefined || isOver(known.progress);
    const rate = isNew ? new ProgressRate() : known.rate;
    const { phase, entries, bytes, totalBytes } = step;
    const figures = speedFigures(rate.next({ phase: phase as "read", bytes, totalBytes }, nowMs));
    const isSoon = !isNew && nowMs - known.toldMs < PROGRESS_INTERVAL_MS && known.progress.phase === phase;
    if (isSoon) return;
    const progress = { work, phase, entries, bytes, totalBytes, ...figures, version: ++this.#version };
    this.#works.set(work, { progress, rate, toldMs: nowMs });
    this.#wake();
  }

  /** Version of the newest step. */
  get version(): number {
    return this.#version;
  }

  /** What runs, and what ended after `version`, oldest step first: of all that has moved on since then. */
  works(version: number): readonly WorkProgress[] {
    return [...this.#works.values()].map(({ progress }) => progress)
      .filter((progress) => progress.version > version)
      .sort((a, b) => a.version - b.version);
  }

  /** What runs now. */
  running(): readonly WorkProgress[] {
    return this.works(0).filter((progress) => !isOver(progress));
  }

  /** Events of this run behind number `after`, as far as memory has them, oldest first. */
  recent(after: number, limit: number): readonly EventRecord[] {
    const from = Math.max(0, after + 1 - this.first);
    return this.#ring.slice(from, from + limit).map(recordOf);
  }

  /** From the catalog; where there is none yet, from memory. Rejects `not-found`, and where the catalog is out of order. */
  async history(query: HistoryQuery): Promise<readonly EventRecord[]> {
    this.openCatalog();
    if (this.#catalog !== null) return await this.#catalog.history(query);
    return historyOf(this.#ring, this.runId, query).map(recordOf);
  }

  /** Resolves when there is something new. */
  next(): Promise<void> {
    this.#next ??= Promise.withResolvers();
    return this.#next.promise;
  }

  /** What memory has goes into the catalog; from then on everything does. */
  openCatalog(): void {
    if (this.#catalog !== null || this.#closed) return;
    this.#catalog = this.#options.openCatalog();
    for (const event of this.#ring) this.#catalog?.keep(event);
  }

  async close(deadlineMs: number): Promise<void> {
    this.#closed = true;
    await this.#catalog?.close(deadlineMs);
  }

  #wake(): void {
    this.#next?.resolve();
    this.#next = null;
  }
}

export function isOver({ phase }: WorkProgress): boolean {
  return phase === "done" || phase === "failed";
}

function charactersOf({ subject, summary, detail }: CatalogInsert): number {
  return subject.length + summary.length + detail.length;
}

function recordOf(event: CatalogInsert): EventRecord {
  const { place, timeMs, kind, subject, summary, detail } = event;
  return {
    place: place ?? { run: "", sequence: 0 }, // not reached: each got its own
    timeMs,
    kind,
    subject,
    summary,
    detail: JSON.parse(detail),
  };
}

/** As the catalog would answer. */
function historyOf(ring: readonly CatalogInsert[], runId: string, query: HistoryQuery): CatalogInsert[] {
  const { kinds, sinceMs = -Infinity, untilMs = Infinity, after, order, limit } = query;
  if (after !== undefined && after.run !== runId) {
    throw new StateManagerError("not-found", "read history: nothing is known of the run of this event", {
      hint: "leave after out, and read from the newest one on",
    });
  }
  const isBehind = (sequence: number) =>
    after === undefined || (order === "oldest-first" ? sequence > after.sequence : sequence < after.sequence);
  const found = ring.filter(({ place, timeMs, kind }) =>
    isBehind(place?.sequence ?? 0) && timeMs >= sinceMs && timeMs < untilMs &&
    (kinds === undefined || kinds.includes(kind))
  );
  return (order === "oldest-first" ? found : found.reverse()).slice(0, limit);
}

/** What those who listen need of it. */
export type EventSource = Pick<
  EventHub,
  "runId" | "first" | "last" | "recent" | "history" | "next" | "version" | "works" | "running"
>;
