/**
 * Output as a stream that goes on. Bytes are made when the reader asks for them, so a slow one costs the queue of its
 * follower and nothing else, and hears how many lines it missed.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { linesOf, type LogFollower, type OutputLine } from "../supervisor/mod.ts";
import type { LogQuery, LogType } from "./log_query.ts";
import type { OpenStreams } from "./open_streams.ts";

/** A sign of life this often keeps proxies from closing a quiet stream. */
const HEARTBEAT_MS = 15_000;

export interface LogStreamOptions {
  readonly query: LogQuery;
  readonly runId: string;
  /** What is kept and wanted, oldest first. */
  readonly kept: readonly OutputLine[];
  /** Number of the last line before those that `follower` brings. */
  readonly after: number;
  /** Lines between what the client has and what is kept. */
  readonly missed: number;
  readonly follower: LogFollower;
  readonly clock: Clock;
  readonly streams: OpenStreams;
}

/** Throws `overloaded` when too many streams are open; the follower is then closed. */
export function logStream(options: LogStreamOptions): Response {
  const { query, runId, follower, clock, streams } = options;
  const encode = encoderFor(query.type, runId);
  const over = new AbortController();
  let lastNumber = options.after;
  let open = true;
  const end = () => {
    open = false;
    over.abort();
    follower.close();
    streams.remove(close);
  };
  let close = end;

  /** What waits, encoded; null: nothing does. Empty texts are left out. */
  const nextText = (): string | null => {
    for (let next = follower.next(); next !== null; next = follower.next()) {
      const gap = next.sequence - lastNumber - 1;
      lastNumber = next.sequence + next.batch.count - 1;
      const text = (gap > 0 ? encode.gap(gap) : "") +
        linesOf(next).filter(query.matches).map(encode.line).join("");
      if (text !== "") return text;
    }
    return null;
  };

  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      close = () => {
        if (!open) return;
        end();
        controller.close();
      };
      if (!streams.add(close)) {
        end();
        throw new StateManagerError(
          "overloaded",
          "follow the output: too many streams are open, or the manager stops",
        );
      }
      const first = (options.missed > 0 ? encode.gap(options.missed) : "") +
        options.kept.map(encode.line).join("");
      // Without a first byte some clients wait with the headers.
      const text = first === "" ? encode.heartbeat() : first;
      if (text !== "") controller.enqueue(bytesOf(text));
    },
    async pull(controller) {
      while (open) {
        const text = nextText() ?? (await quiet(follower, clock, over.signal) ? encode.heartbeat() : "");
        if (open && text !== "") return controller.enqueue(bytesOf(text));
        if (follower.closed) close();
      }
    },
    cancel: end,
  }, { highWaterMark: 0 });
  return new Response(body, {
    headers: {
      "content-type": query.type === "text/plain" ? "text/plain; charset=utf-8" : query.type,
      "cache-control": "no-store, no-transform",
      "x-accel-buffering": "no",
    },
  });
}

/** True when nothing came for the time of a heartbeat. */
async function quiet(follower: LogFollower, clock: Clock, over: AbortSignal): Promise<boolean> {
  const came = new AbortController();
  const signal = AbortSignal.any([came.signal, over]);
  const pause = clock.sleep(HEARTBEAT_MS, { signal }).then(() => true, () => false);
  const isQuiet = await Promise.race([pause, follower.wait().then(() => false)]);
  came.abort();
  return isQuiet;
}

interface LogEncoder {
  line(line: OutputLine): string;
  gap(lines: number): string;
  /** May be empty: then there is none. */
  heartbeat(): string;
}

export function encoderFor(type: LogType, runId: string): LogEncoder {
  if (type === "text/plain") {
    return {
      line: ({ text, partial }) => partial ? text : `${text}\n`,
      gap: (lines) => `\nstate-manager: ${lines} lines dropped\n`,
      heartbeat: () => "",
    };
  }
  const encode = type === "text/event-stream"
    ? (name: string, fields: object, id?: string) =>
      `${id === undefined ? "" : `id: ${id}\n`}event: ${name}\ndata: ${JSON.stringify(fields)}\n\n`
    : (name: string, fields: object) => JSON.stringify({ type: name, ...fields }) + "\n";
  return {
    line: (line) => encode("line", lineView(line, runId), `${runId}-${line.sequence}`),
    gap: (lines) => encode("gap", { lines }),
    heartbeat: () => encode("heartbeat", {}),
  };
}

/** The public form of a line. `partial` and `part` are there only where a line came in pieces. */
export function lineView(line: OutputLine, runId: string): Readonly<Record<string, unknown>> {
  const { sequence, wallMs, stream, text, partial, part } = line;
  return {
    id: `${runId}-${sequence}`,
    time: new Date(wallMs).toISOString(),
    stream,
    text,
    ...(partial || part > 0 ? { partial, part } : {}),
  };
}

const encoder = new TextEncoder();

function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(text);
}
