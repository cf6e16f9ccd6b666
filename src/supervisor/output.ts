/**
 * Reads one pipe of a process to its end. Whoever takes the output may ask for a pause, and then the program waits in
 * its own write, as it would with any full pipe; the manager never waits.
 */

import type { Clock } from "../platform/clock.ts";
import { LINE_LIMIT_BYTES, LineSplitter, type OutputBatch, type OutputStream } from "./lines.ts";

/** One read takes at most what a Linux pipe holds by default. */
const READ_BYTES = 64 * 1024;
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
}

export function pumpOutput({ source, stream, clock, take }: PumpOptions): OutputPump {
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

  const read = async () => {
    let buffer = new ArrayBuffer(LINE_LIMIT_BYTES + READ_BYTES);
    try {
      while (true) {
        const { value, done } = await reader.read(new Uint8Array(buffer, LINE_LIMIT_BYTES, READ_BYTES));
        if (done || value === undefined) break;
        buffer = value.buffer;
        splitter.pushInPlace(value);
        if (splitter.pendingBytes > 0) {
          lastByteMs = clock.monotonicMs();
          if (!idleTimerRuns) void flushWhenIdle();
        }
        const pause = asked();
        if (pause === null || closed) continue;
        // Not Promise.race: its reactions would pile up on a promise that lives as long as the pipe.
        await new Promise<void>((resolve) => {
          resume = resolve;
          pause.then(resolve);
        });
      }
    } catch {
      // A pipe that cannot be read any more is at its end.
    }
    splitter.flush();
    idle.abort();
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
