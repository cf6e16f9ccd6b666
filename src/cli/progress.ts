/** Progress of long work: one line that is rewritten on a terminal, a line each 10 s otherwise, JSON lines for programs. */

import type { ArchiveProgress } from "../checkpoint/types.ts";
import type { StreamEvent } from "./client.ts";
import type { Context, Options } from "./context.ts";
import { size } from "./text.ts";

/** Between two lines where lines can't be rewritten. */
const LINE_INTERVAL_MS = 10_000;

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
  let shown = false;
  let nextMs = clock.monotonicMs() + LINE_INTERVAL_MS;
  return {
    onEvent(event) {
      if (event.type !== "progress") return;
      if (terminal.errIsTerminal) {
        terminal.err(`\r\x1b[K${progressText(event)}`);
        shown = true;
      } else if (clock.monotonicMs() >= nextMs) {
        nextMs = clock.monotonicMs() + LINE_INTERVAL_MS;
        terminal.err(progressText(event) + "\n");
      }
    },
    done() {
      if (shown) terminal.err("\r\x1b[K");
      shown = false;
    },
  };
}

function progressText(event: StreamEvent): string {
  const number = (key: string) => typeof event[key] === "number" ? event[key] : null;
  const total = number("total_bytes");
  const bytes = number("bytes") ?? 0;
  const share = total === null || total === 0
    ? ""
    : ` of ${size(total)} (${Math.floor((bytes / total) * 100)} %)`;
  return `${String(event["phase"])}: ${number("entries") ?? 0} entries, ${size(bytes)}${share}`;
}

/** What a manager would have sent of it. */
export function progressEvent({ phase, entries, bytes, totalBytes }: ArchiveProgress): StreamEvent {
  return { type: "progress", phase, entries, bytes, total_bytes: totalBytes };
}
