/** Progress of long work: one line that is rewritten on a terminal, a line each 10 s otherwise, JSON lines for programs. */

import type { ArchiveProgress } from "../checkpoint/types.ts";
import type { StreamEvent } from "./client.ts";
import type { Context, Options } from "./context.ts";
import { size, timeLeft } from "./text.ts";

/** Between two lines where lines can't be rewritten. */
const LINE_INTERVAL_MS = 10_000;
/** The rate is that of the last while: what a slow start or a fast beginning was, is soon forgotten. */
const RATE_WINDOW_MS = 10_000;
/** Before this a rate says nothing. */
const RATE_FROM_MS = 1000;
const BAR_WIDTH = 24;

export interface Progress {
  readonly onEvent: (event: StreamEvent) => void;
  /** Ends the rewritten line; call it before anything else is printed. */
  done(): void;
}

export function showProgress(context: Context, options: Options): Progress {
  const { terminal, clock } = context;
  if (options.flag("json")) {
    return { onEvent: (event) => terminal.out(JSON.stringify(event) + "\n"), done: () => {} };
  }
  if (options.flag("quiet")) return { onEvent: () => {}, done: () => {} };
  const rate = new Rate();
  let shown = false;
  let nextMs = clock.monotonicMs() + LINE_INTERVAL_MS;
  return {
    onEvent(event) {
      if (event.type !== "progress") return;
      const now = clock.monotonicMs();
      const text = progressText(event, rate.next(event, now), terminal.errIsTerminal);
      if (terminal.errIsTerminal) {
        terminal.err(`\r\x1b[K${text}`);
        shown = true;
      } else if (now >= nextMs) {
        nextMs = now + LINE_INTERVAL_MS;
        terminal.err(text + "\n");
      }
    },
    done() {
      if (shown) terminal.err("\r\x1b[K");
      shown = false;
    },
  };
}

/** Bytes per second of the phase that runs, over the last while. */
class Rate {
  #phase: unknown = null;
  #samples: { readonly atMs: number; readonly bytes: number }[] = [];

  /** Null while it is too early to say. */
  next(event: StreamEvent, nowMs: number): number | null {
    if (event["phase"] !== this.#phase) this.#samples = [];
    this.#phase = event["phase"];
    this.#samples.push({ atMs: nowMs, bytes: numberOf(event, "bytes") ?? 0 });
    // The one before the window stays: it is where the window begins.
    while ((this.#samples[1]?.atMs ?? Infinity) <= nowMs - RATE_WINDOW_MS) this.#samples.shift();
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.atMs - first.atMs < RATE_FROM_MS) return null;
    return Math.max(0, (last.bytes - first.bytes) / (last.atMs - first.atMs) * 1000);
  }
}

function numberOf(event: StreamEvent, key: string): number | null {
  const value = event[key];
  return typeof value === "number" ? value : null;
}

function progressText(event: StreamEvent, rate: number | null, bar: boolean): string {
  const total = numberOf(event, "total_bytes");
  const bytes = numberOf(event, "bytes") ?? 0;
  const known = total !== null && total > 0;
  // What is counted can pass what was expected: a tree that grew while it was read.
  const share = known ? Math.min(1, bytes / total) : 0;
  const filled = Math.floor(share * BAR_WIDTH);
  return [
    `${String(event["phase"])}:`,
    ...(bar && known ? [`[${"#".repeat(filled)}${"-".repeat(BAR_WIDTH - filled)}]`] : []),
    `${numberOf(event, "entries") ?? 0} entries, ${size(bytes)}`,
    ...(known ? [`of ${size(total)} (${Math.floor(share * 100)} %)`] : []),
    ...(rate === null ? [] : [`${size(Math.round(rate))}/s`]),
    ...(known && rate !== null && rate > 0 && share < 1 ? [`${timeLeft((total - bytes) / rate)} left`] : []),
  ].join(" ");
}

/** What a manager would have sent of it. */
export function progressEvent({ phase, entries, bytes, totalBytes }: ArchiveProgress): StreamEvent {
  return { type: "progress", phase, entries, bytes, total_bytes: totalBytes };
}
