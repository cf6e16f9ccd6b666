/**
 * Reads one pipe of a process to its end. Whoever takes the output may ask for a pause, and then the program waits in
 * its own write, as it would with any full pipe; the manager never waits.
 */

import type { Clock } from "../platform/clock.ts";
import { lookAtPipe } from "../platform/pipe_stream.ts";
import { LINE_LIMIT_BYTES, LineSplitter, type OutputBatch, type OutputStream } from "./lines.ts";

/** What a Linux pipe holds by default, and one read takes. */
const PIPE_BYTES = 64 * 1024;
/**
 * Who writes line by line would be read line by line, and each read costs as much as copying a hundred kilobytes. So after
 * a read the next one waits this long, while what comes by then surely fits the pipe.
 */
const PAUSE_MS = 1;
/** A pause may take longer: what is expected in this time must fit half of the pipe. */
const LONGEST_PAUSE_MS = 2.5;
/** A program whose output came faster than that for so long is worth a larger pipe; others share what a user may have. */
const ENLARGE_AFTER_BYTES = 1 << 20;
/** A program that said nothing for so long is not in full flow: its next line is read at once. */
const FLOW_MS = 20;
/** A prompt without newline shows after this long; shorter would cut lines that come in two writes. */
const IDLE_FLUSH_MS = 200;

/** A pipe being read. */
export interface OutputPump {
  /** Resolves at the end of the stream or after `close`, with everything emitted. Never rejects. */
  readonly ended: Promise<void>;
  /** Lets go of the pipe; a process that still writes to it gets SIGPIPE. */
  close(): void;
}

/** Takes what was read, and copies what it keeps; a promise: read on when it resolves. Neither throws nor rejects. */
export type TakeOutput = (batch: OutputBatch) => Promise<void> | null;

export interface PumpOptions {
  readonly source: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly stream: OutputStream;
  readonly clock: Clock;
  readonly take: TakeOutput;
  /** Makes the pipe hold more, once, when so much comes that it pays; gives what it holds then. Null: as it was. */
  readonly enlarge?: () => number | null;
  /** The pumps of the same program, one set for all of them. */
  readonly together?: Set<Pausing>;
}

/** A pump that may be waiting: for more to come, or because it was asked to. */
interface Pausing {
  /** What the pipe has is to be taken, as soon as may be; resolves when it is. Null: the pump does not wait. */
  catchUp(): Promise<void> | null;
}

/** For a pipe that turns out to be empty: its read does not end. */
const CATCH_UP_MS = 2;

export function pumpOutput(options: PumpOptions): OutputPump {
  const { source, stream, clock, take, enlarge, together = new Set() } = options;
  const reader = source.getReader({ mode: "byob" });
  const idle = new AbortController();
  let asked: () => Promise<void> | null = () => null;
  let resume = () => {};
  let closed = false;
  const splitter = new LineSplitter(stream, () => clock.wallMs(), (batch) => {
    const pause = take(batch);
    asked = () => pause;
  });
  let lastByteMs = 0;
  let idleTimerRuns = false;

  const flushWhenIdle = async () => {
    idleTimerRuns = true;
    try {
      while (splitter.pendingBytes > 0) {
        const waitMs = lastByteMs + IDLE_FLUSH_MS - clock.monotonicMs();
        if (waitMs <= 0) splitter.flush();
        else await clock.sleep(waitMs, { signal: idle.signal });
      }
    } catch {
      // Closed: the reader below flushes the rest.
    } finally {
      idleTimerRuns = false;
    }
  };

  const flow = new Flow(enlarge ?? (() => null));
  let endPause: (() => void) | null = null;
  /** While whoever takes the output has asked for a pause. */
  let held: Promise<void> | null = null;
  let caughtUp = () => {};
  const self: Pausing = {
    catchUp() {
      if (endPause === null && held === null) {
        // What came after the last read was there before what another stream has just said, in full flow at least.
        if (!flow.flowsAt(clock.monotonicMs()) || !lookAtPipe(source)) return null;
      }
      endPause?.();
      const read = new Promise<void>((resolve) => caughtUp = resolve);
      return Promise.resolve(held).then(() => Promise.race([read, clock.sleep(CATCH_UP_MS)]));
    },
  };
  together.add(self);

  const pauseAWhile = async () => {
    await new Promise<void>((resolve) => {
      endPause = resolve;
      clock.sleep(PAUSE_MS).then(resolve);
    });
    endPause = null;
  };
  /** A program's last words on one stream must not come before what it said earlier on the other. */
  const letOthersCatchUp = async () => {
    for (const other of together) {
      if (other !== self) await other.catchUp();
    }
  };

  const read = async () => {
    let buffer = new ArrayBuffer(LINE_LIMIT_BYTES + flow.readBytes);
    try {
      while (true) {
        const { value, done } = await reader.read(new Uint8Array(buffer, LINE_LIMIT_BYTES, flow.readBytes));
        if (done || value === undefined) break;
        buffer = value.buffer;
        if (together.size > 1) await letOthersCatchUp();
        splitter.pushInPlace(value);
        caughtUp();
        const nowMs = clock.monotonicMs();
        if (splitter.pendingBytes > 0) {
          lastByteMs = nowMs;
          if (!idleTimerRuns) void flushWhenIdle();
        }
        if (flow.mayPause(value.length, nowMs)) await pauseAWhile();
        if (buffer.byteLength < LINE_LIMIT_BYTES + flow.readBytes) {
          buffer = new ArrayBuffer(LINE_LIMIT_BYTES + flow.readBytes);
        }
        const pause = asked();
        if (pause === null || closed) continue;
        // Not Promise.race: its reactions would pile up on a promise that lives as long as the pipe.
        held = new Promise<void>((resolve) => {
          resume = resolve;
          pause.then(resolve);
        });
        await held;
        held = null;
      }
    } catch {
      // A pipe that cannot be read any more is at its end.
    }
    splitter.flush();
    idle.abort();
    together.delete(self);
    caughtUp();
  };

  return {
    ended: read(),
    close() {
      closed = true;
      resume();
      reader.cancel().catch(() => {});
    },
  };
}

/** How fast output comes, and how much of it the pipe can take while nobody reads. */
class Flow {
  readonly #enlarge: () => number | null;
  #wasEnlarged = false;
  #pipeBytes = PIPE_BYTES;
  #lastMs = -Infinity;
  #flows = false;
  /** In reads that came too fast to pause after them. */
  #fastBytes = 0;

  constructor(enlarge: () => number | null) {
    this.#enlarge = enlarge;
  }

  /** One read empties the pipe: else a line of the other stream would overtake what is left. */
  get readBytes(): number {
    return this.#pipeBytes;
  }

  /** The last reads came one after the other. */
  flowsAt(nowMs: number): boolean {
    return this.#flows && nowMs - this.#lastMs <= FLOW_MS;
  }

  /** After a read. */
  mayPause(bytes: number, nowMs: number): boolean {
    const sinceMs = nowMs - this.#lastMs;
    this.#lastMs = nowMs;
    this.#flows = sinceMs <= FLOW_MS;
    if (sinceMs > FLOW_MS || sinceMs <= 0) return false;
    const isAll = bytes < this.readBytes;
    if (isAll && bytes / sinceMs * LONGEST_PAUSE_MS < this.#pipeBytes / 2) return true;
    this.#fastBytes += bytes;
    if (!this.#wasEnlarged && this.#fastBytes > ENLARGE_AFTER_BYTES) {
      this.#wasEnlarged = true;
      this.#pipeBytes = Math.max(PIPE_BYTES, this.#enlarge() ?? 0);
    }
    return false;
  }
}
