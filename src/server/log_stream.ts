/**
 * Output as a stream: what is in files, what is kept in memory, and what comes. Bytes are made when the reader asks for
 * them, a slice at a time, so a slow one costs the queue of its follower and nothing else, and hears how many lines it
 * missed; and no turn of the loop encodes more than a slice, however much one read of a program's output brought.
 */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import {
  type HistoryQuery,
  type LogFollower,
  type LogHistory,
  type NumberedBatch,
  type OutputLine,
  sliceOf,
} from "../supervisor/mod.ts";
import { encoderFor, type ShownLine } from "./log_encoding.ts";
import type { LogQuery } from "./log_query.ts";
import type { OpenStreams } from "./open_streams.ts";
import { HEARTBEAT_MS, staysQuiet, streamResponse } from "./stream_response.ts";

/** Encoded in one turn, in some two milliseconds. */
const SLICE_LINES = 500;

export interface LogStreamOptions {
  readonly process: string;
  readonly query: LogQuery;
  readonly runId: string;
  /** What is in files before what is kept; the stream disposes of it. */
  readonly past: { readonly history: LogHistory; readonly query: HistoryQuery } | null;
  /** What is kept and wanted, oldest first. */
  readonly kept: readonly OutputLine[];
  /** Number of the last line before those that `follower` brings. */
  readonly after: number;
  /** Lines between what the client has and what is kept. */
  readonly missed: number;
  /** Null: the stream ends with what is kept. */
  readonly follower: LogFollower | null;
  readonly clock: Clock;
  readonly streams: OpenStreams;
}

/** Throws `overloaded` when too many streams are open; the follower is then closed. */
export function logStream(options: LogStreamOptions): Response {
  const { query, runId, past, follower, clock, streams } = options;
  const encode = encoderFor(query.type, options.process, runId);
  const over = new AbortController();
  let open = true;
  const end = () => {
    open = false;
    over.abort();
    follower?.close();
    streams.remove(close);
    past?.history[Symbol.dispose]();
  };
  let close = end;

  const texts = async function* (): AsyncGenerator<string> {
    if (encode.start !== "") yield encode.start;
    if (past !== null) {
      for await (const lines of past.history.lines(past.query)) yield* encoded(lines);
    }
    if (options.missed > 0) yield encode.gap(options.missed);
    yield* encoded(options.kept);
    if (follower !== null) yield* comingTexts(follower);
    if (encode.end !== "") yield encode.end;
  };
  const encoded = function* (lines: readonly ShownLine[]): Generator<string> {
    for (let from = 0; from < lines.length; from += SLICE_LINES) {
      yield lines.slice(from, from + SLICE_LINES).map(encode.line).join("");
    }
  };
  const comingTexts = async function* (follower: LogFollower): AsyncGenerator<string> {
    // Without a first byte some clients wait with the headers.
    if (past === null && options.missed === 0 && options.kept.length === 0) yield encode.heartbeat();
    let lastNumber = options.after;
    let rest: NumberedBatch | null = null;
    while (open) {
      const next: NumberedBatch | null = rest ?? follower.next();
      if (next === null) {
        if (follower.closed) return;
        if (await staysQuiet(HEARTBEAT_MS, follower.wait(), clock, over.signal)) yield encode.heartbeat();
        continue;
      }
      const gap = next.sequence - lastNumber - 1;
      const slice: { lines: OutputLine[]; rest: NumberedBatch | null } = sliceOf(next, SLICE_LINES);
      rest = slice.rest;
      lastNumber = next.sequence + slice.lines.length - 1;
      yield (gap > 0 ? encode.gap(gap) : "") + slice.lines.filter(query.matches).map(encode.line).join("");
    }
  };

  const source = texts();
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      close = () => {
        if (!open) return;
        end();
        controller.close();
      };
      if (streams.add(close)) return;
      end();
      throw new StateManagerError(
        "overloaded",
        "show the output: too many streams are open, or the manager stops",
        { hint: "try again, or close streams that nobody reads" },
      );
    },
    async pull(controller) {
      try {
        while (open) {
          const { value, done } = await source.next();
          if (done) close();
          else if (open && value !== "") return controller.enqueue(encoder.encode(value));
        }
      } catch (error) {
        if (!open) return; // closed under the reader
        end();
        throw error;
      }
    },
    cancel: end,
  }, { highWaterMark: 0 });
  return streamResponse(body, query.type === "text/plain" ? "text/plain; charset=utf-8" : query.type);
}

const encoder = new TextEncoder();
