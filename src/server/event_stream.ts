/**
 * Events as a stream: first what came behind the last one that the client has, then what comes. A stream is nothing but a
 * place among the events: bytes are made when the reader asks for them, so one that does not read costs nothing and holds
 * up nobody. What memory has no more meanwhile is read from the catalog, and what is not there either is counted.
 */

import type { EventPlace } from "../database/mod.ts";
import type { EventRecord, EventSource } from "../manager/event_hub.ts";
import type { Clock } from "../platform/clock.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { eventId, eventView, type EventWish, workView } from "./event_query.ts";
import type { OpenStreams } from "./open_streams.ts";
import { HEARTBEAT_MS, staysQuiet, streamResponse } from "./stream_response.ts";

/** Encoded in one turn: with the longest details some two milliseconds. */
const SLICE_EVENTS = 100;

export type EventStreamType = "text/event-stream" | "application/x-ndjson";

export interface EventStreamOptions {
  readonly events: EventSource;
  readonly wish: EventWish;
  readonly type: EventStreamType;
  /** The last one that the client has; null: only what comes. */
  readonly after: EventPlace | null;
  readonly clock: Clock;
  readonly streams: OpenStreams;
}

/** Throws `overloaded` when too many streams are open. */
export function eventStream({ events, wish, type, after, clock, streams }: EventStreamOptions): Response {
  const reader = new EventReader(events, wish, encoderFor(type), after);
  const over = new AbortController();
  let open = true;
  /** Taken from the reader and not with the controller yet. */
  let taken = "";
  const end = () => {
    open = false;
    over.abort();
    streams.remove(close);
  };
  let close = end;

  let sentMs = clock.monotonicMs();

  /** The next that is to be sent, when there is something; empty when the stream was closed meanwhile. */
  const nextText = async (): Promise<string> => {
    while (open) {
      const changed = events.next();
      const found = reader.take();
      // With no turn between, or a stream that is closed could lose it.
      taken = typeof found === "string" ? found : await found;
      if (taken !== "") return taken;
      const leftMs = sentMs + HEARTBEAT_MS - clock.monotonicMs();
      if (leftMs <= 0) return taken = reader.heartbeat();
      if (reader.isUpToDate) await staysQuiet(leftMs, changed, clock, over.signal);
    }
    return "";
  };

  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      close = () => {
        if (!open) return;
        end();
        // The manager ends: what it did last is told to those who were up to date.
        const rest = taken + reader.rest();
        if (rest !== "") controller.enqueue(encoder.encode(rest));
        controller.close();
      };
      if (streams.add(close)) return;
      end();
      throw new StateManagerError(
        "overloaded",
        "show the events: too many streams are open, or the manager stops",
        { hint: "try again, or close streams that nobody reads" },
      );
    },
    async pull(controller) {
      try {
        const text = await nextText();
        if (!open || text === "") return;
        taken = "";
        sentMs = clock.monotonicMs();
        controller.enqueue(encoder.encode(text));
      } catch (error) {
        if (!open) return; // closed under the reader
        end();
        throw error;
      }
    },
    cancel: end,
  }, { highWaterMark: 0 });
  return streamResponse(body, type);
}

/** How far one client is. */
class EventReader {
  readonly #events: EventSource;
  readonly #wish: EventWish;
  readonly #encode: Encoder;
  #place: EventPlace;
  /** Newest step of long work that was told. */
  #version: number;
  #opened = false;

  constructor(events: EventSource, wish: EventWish, encode: Encoder, after: EventPlace | null) {
    this.#events = events;
    this.#wish = wish;
    this.#encode = encode;
    const { runId, last } = events;
    const isKnown = after !== null && (after.run !== runId || after.sequence < last);
    this.#place = isKnown ? after : { run: runId, sequence: last };
    this.#version = events.version;
  }

  /** All events up to the newest were told or left out. */
  get isUpToDate(): boolean {
    return this.#place.run === this.#events.runId && this.#place.sequence >= this.#events.last;
  }

  /** Without a first byte some clients wait with the headers. */
  #opening(): string {
    const running = this.#wish.progress ? this.#events.running() : [];
    this.#opened = true;
    return this.heartbeat() + running.map((work) => this.#encode("progress", workView(work))).join("");
  }

  heartbeat(): string {
    return this.#encode("heartbeat", {});
  }

  /** The next of them, and how far long work is by now; empty where nothing of it is wanted. At once where memory has it. */
  take(): string | Promise<string> {
    if (!this.#opened) return this.#opening();
    if (!this.#isInMemory()) return this.#takeOlder();
    return this.#tell(this.#events.recent(this.#place.sequence, SLICE_EVENTS)) + this.#takeWorks();
  }

  /** What memory has, of at most one slice, without waiting; none where the client is further behind. */
  rest(): string {
    if (!this.#isInMemory()) return "";
    return this.#tell(this.#events.recent(this.#place.sequence, SLICE_EVENTS));
  }

  #isInMemory(): boolean {
    const { run, sequence } = this.#place;
    return run === this.#events.runId && sequence + 1 >= this.#events.first;
  }

  async #takeOlder(): Promise<string> {
    const from = this.#place;
    const older = await this.#older(from);
    if (older !== null && older.length > 0) return this.#tell(older);
    // That is all there is before what memory has.
    const { runId, first } = this.#events;
    const missed = from.run === runId ? first - 1 - from.sequence : 0;
    this.#place = { run: runId, sequence: first - 1 };
    return this.#gap(older === null && from.run !== runId ? null : missed);
  }

  /** Null: nobody knows what came behind it. */
  async #older(after: EventPlace): Promise<readonly EventRecord[] | null> {
    try {
      return await this.#events.history({ after, order: "oldest-first", limit: SLICE_EVENTS });
    } catch (error) {
      if (isError(error, "not-found", "local-io")) return null;
      throw error;
    }
  }

  #tell(events: readonly EventRecord[]): string {
    const { kinds } = this.#wish;
    let text = "";
    for (const event of events) {
      text += this.#gap(this.#missedBefore(event.place));
      this.#place = event.place;
      if (kinds === null || kinds.has(event.kind)) {
        text += this.#encode(event.kind, eventView(event), eventId(event.place));
      }
    }
    return text;
  }

  /** Numbers of its run that nobody has any more. Of former runs it is not known how many they were. */
  #missedBefore({ run, sequence }: EventPlace): number {
    if (run === this.#place.run) return Math.max(0, sequence - this.#place.sequence - 1);
    return run === this.#events.runId ? sequence - 1 : 0;
  }

  #gap(events: number | null): string {
    return events === 0 ? "" : this.#encode("gap", { events });
  }

  #takeWorks(): string {
    if (!this.#wish.progress) return "";
    const works = this.#events.works(this.#version);
    this.#version = this.#events.version;
    return works.map((work) => this.#encode("progress", workView(work))).join("");
  }
}

type Encoder = (name: string, fields: Readonly<Record<string, unknown>>, id?: string) => string;

function encoderFor(type: EventStreamType): Encoder {
  if (type === "application/x-ndjson") {
    return (name, fields, id) =>
      JSON.stringify({ type: id === undefined ? name : "event", ...fields }) + "\n";
  }
  return (name, fields, id) =>
    `${id === undefined ? "" : `id: ${id}\n`}event: ${name}\ndata: ${JSON.stringify(fields)}\n\n`;
}

const encoder = new TextEncoder();
