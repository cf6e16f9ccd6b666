/**
 * Three ways to wait for an operation, chosen by `Accept`: one JSON answer, server-sent events, or JSON lines. A slow
 * reader loses progress events, never the last one, and costs a bounded buffer; a reader that goes away costs nothing.
 */

import { accepts } from "hono/accepts";
import { ProgressRate, speedFigures } from "../checkpoint/mod.ts";
import type { ArchiveProgress } from "../checkpoint/types.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import type { Log } from "../platform/log.ts";
import type { ServerContext } from "./env.ts";
import type { Operation, OperationEvent } from "./operation.ts";
import { logUnexpected, problemOf } from "./problems.ts";
import { HEARTBEAT_MS, streamResponse } from "./stream_response.ts";

/** Events that wait for a slow reader before progress is left out: six seconds' worth. */
const MAX_WAITING_EVENTS = 64;

/**
 * A stream's status is sent before its end is known. Refusals (busy, no such checkpoint) come at once, so we give the
 * work this long, or until its first sign of life, before a stream begins.
 */
const REFUSAL_GRACE_MS = 250;

export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: Readonly<Record<string, unknown>>;
}

export interface WaitOptions<T> {
  readonly clock: Clock;
  readonly log: Log;
  /** Called once there is room for its answer: what is refused for want of that has not begun. */
  readonly begin: () => Operation<T>;
  readonly answerOf: (result: T) => Answer;
  /** Answer as soon as the content is fixed, with 202. */
  readonly untilCaptured: boolean;
}

/** Begins the operation; the response tells how it goes and ends. */
export async function waitFor<T>(
  c: ServerContext,
  options: WaitOptions<T>,
): Promise<Response> {
  const type = accepts(c, {
    header: "Accept",
    supports: ["application/json", "text/event-stream", "application/x-ndjson"],
    default: "application/json",
  });
  if (type === "text/event-stream" || type === "application/x-ndjson") {
    return await stream(c, type, options);
  }
  const operation = options.begin();
  if (options.untilCaptured) {
    const id = await operation.captured();
    if (id !== null) {
      return jsonResponse({ status: 202, body: { id, captured: true } });
    }
  }
  return jsonResponse(options.answerOf(await operation.result));
}

/** JSON with a line end, so that a terminal shows it well. */
export function jsonResponse({ status, headers, body }: Answer): Response {
  return new Response(JSON.stringify(body, null, 2) + "\n", {
    status,
    headers: { "content-type": "application/json", ...headers },
  });
}

async function stream<T>(
  c: ServerContext,
  type: "text/event-stream" | "application/x-ndjson",
  { clock, log, begin, answerOf, untilCaptured }: WaitOptions<T>,
): Promise<Response> {
  const streams = c.env.streams;
  let isOver = false;
  let close = () => {};
  const place = () => {
    isOver = true;
    close();
  };
  if (!streams.add(place)) {
    throw new StateManagerError(
      "overloaded",
      "open a stream: too many are open, or the manager stops",
      { hint: "try again, or close streams that nobody reads" },
    );
  }
  let operation: Operation<T>;
  try {
    operation = begin();
    await firstSign(operation, clock);
  } catch (error) {
    streams.remove(place);
    throw error;
  }
  const requestId = c.get("requestId");
  const encode = type === "text/event-stream" ? encodeEvent : encodeLine;
  const timeNow = () => new Date(clock.wallMs()).toISOString();
  const heartbeat = new AbortController();
  const rate = new ProgressRate();
  let stopListening = () => {};
  let open = true;
  /** Nothing may be sent after this: a write to a stream that its reader has left throws. */
  const end = () => {
    open = false;
    heartbeat.abort();
    stopListening();
    streams.remove(place);
  };
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      close = () => {
        if (!open) return;
        end();
        controller.close();
      };
      if (isOver) return close(); // the manager began to stop meanwhile
      const send = (
        name: string,
        fields: Readonly<Record<string, unknown>>,
        last = false,
      ) => {
        if (!open) return;
        if (!last && (controller.desiredSize ?? 0) <= 0) return;
        controller.enqueue(
          encode(name, { type: name, time: timeNow(), ...fields }),
        );
        if (last) close();
      };
      stopListening = operation.listen((event) => {
        const last = untilCaptured && event.type === "captured";
        send(event.type, eventFields(event, rate, clock.monotonicMs()), last);
      });
      operation.result.then(
        (result) => send("complete", answerOf(result).body, true),
        (error) => {
          logUnexpected(log, error, requestId);
          send("error", {
            problem: problemOf(asStateManagerError(error), requestId),
          }, true);
        },
      ).catch(close); // nothing of this may end the process as an unhandled rejection
      beat(clock, heartbeat.signal, () => send("heartbeat", {}));
    },
    cancel: end,
  }, { highWaterMark: MAX_WAITING_EVENTS });
  return streamResponse(body, type);
}

/** Returns on the first sign of life or after the grace; throws what the work threw meanwhile. */
async function firstSign<T>(
  operation: Operation<T>,
  clock: Clock,
): Promise<void> {
  const over = new AbortController();
  let stop = () => {};
  const sign = new Promise<void>((resolve) => {
    stop = operation.listen(() => resolve());
  });
  const grace = clock.sleep(REFUSAL_GRACE_MS, { signal: over.signal }).catch(
    () => {},
  );
  try {
    await Promise.race([operation.result.then(() => {}), sign, grace]);
  } finally {
    stop();
    over.abort();
  }
}

async function beat(
  clock: Clock,
  signal: AbortSignal,
  send: () => void,
): Promise<void> {
  while (!signal.aborted) {
    await clock.sleep(HEARTBEAT_MS, { signal }).catch(() => {});
    if (!signal.aborted) send();
  }
}

function eventFields(
  event: OperationEvent,
  rate: ProgressRate,
  nowMs: number,
): Readonly<Record<string, unknown>> {
  if (event.type === "captured") return { id: event.id };
  return { ...progressView(event.progress), ...speedFigures(rate.next(event.progress, nowMs)) };
}

function progressView(
  progress: ArchiveProgress,
): Readonly<Record<string, unknown>> {
  return {
    phase: progress.phase,
    entries: progress.entries,
    bytes: progress.bytes,
    total_bytes: progress.totalBytes,
  };
}

const encoder = new TextEncoder();

function encodeEvent(
  name: string,
  fields: Readonly<Record<string, unknown>>,
): Uint8Array {
  return encoder.encode(`event: ${name}\ndata: ${JSON.stringify(fields)}\n\n`);
}

function encodeLine(
  _name: string,
  fields: Readonly<Record<string, unknown>>,
): Uint8Array {
  return encoder.encode(JSON.stringify(fields) + "\n");
}
