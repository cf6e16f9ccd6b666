/** Progress of long work: one line that is rewritten on a terminal, a line each 10 s otherwise, JSON lines for programs. */

import { ProgressRate, type ProgressSpeed, speedFigures } from "../checkpoint/mod.ts";
import type { ArchiveProgress } from "../checkpoint/types.ts";
import type { StreamEvent } from "./client.ts";
import type { Context, Options } from "./context.ts";
import { size, timeLeft } from "./text.ts";

/** Between two lines where lines can't be rewritten. */
const LINE_INTERVAL_MS = 10_000;
const BAR_WIDTH = 24;

export interface Progress {
  readonly onEvent: (event: StreamEvent) => void;
  /** Ends the rewritten line; call it before anything else is printed. */
  done(): void;
}

export function showProgress(context: Context, options: Options): Progress {
  const { terminal, clock } = context;
  const rate = new ProgressRate();
  if (options.flag("json")) {
    const full = (event: StreamEvent) => {
      // A manager's say it themselves.
      if (event.type !== "progress" || "bytes_per_second" in event) return event;
      return { ...event, ...speedFigures(rate.next(figuresOf(event), clock.monotonicMs())) };
    };
    return { onEvent: (event) => terminal.out(JSON.stringify(full(event)) + "\n"), done: () => {} };
  }
  if (options.flag("quiet")) return { onEvent: () => {}, done: () => {} };
  let shown = false;
  let nextMs = clock.monotonicMs() + LINE_INTERVAL_MS;
  return {
    onEvent(event) {
      if (event.type !== "progress") return;
      const now = clock.monotonicMs();
      const text = progressText(event, rate.next(figuresOf(event), now), terminal.errIsTerminal);
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

function numberOf(event: StreamEvent, key: string): number | null {
  const value = event[key];
  return typeof value === "number" ? value : null;
}

function figuresOf(event: StreamEvent): Parameters<ProgressRate["next"]>[0] {
  // A manager of another version may have other phases.
  const phase = String(event["phase"]) as ArchiveProgress["phase"];
  return { phase, bytes: numberOf(event, "bytes") ?? 0, totalBytes: numberOf(event, "total_bytes") };
}

function progressText(
  event: StreamEvent,
  { bytesPerSecond: rate, secondsLeft }: ProgressSpeed,
  bar: boolean,
): string {
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
    ...(known && secondsLeft !== null && share < 1 ? [`${timeLeft(secondsLeft)} left`] : []),
  ].join(" ");
}

/** What a manager would have sent of it. */
export function progressEvent({ phase, entries, bytes, totalBytes }: ArchiveProgress): StreamEvent {
  return { type: "progress", phase, entries, bytes, total_bytes: totalBytes };
}
