/** Reads one pipe of a process to its end, always: a program that writes is never blocked by us, nor we by it. */

import type { Clock } from "../platform/clock.ts";
import type { OutputPiece } from "./lines.ts";
import { LineSplitter } from "./lines.ts";

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

export function pumpOutput(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  clock: Clock,
  emit: (piece: OutputPiece) => void,
): OutputPump {
  const reader = stream.getReader({ mode: "byob" });
  const splitter = new LineSplitter(emit);
  const closed = new AbortController();
  let lastByteMs = 0;
  let idleTimerRuns = false;

  const flushWhenIdle = async () => {
    idleTimerRuns = true;
    try {
      while (splitter.pendingBytes > 0) {
        const waitMs = lastByteMs + IDLE_FLUSH_MS - clock.monotonicMs();
        if (waitMs <= 0) splitter.flush();
        else await clock.sleep(waitMs, { signal: closed.signal });
      }
    } catch {
      // Closed: the reader below flushes the rest.
    } finally {
      idleTimerRuns = false;
    }
  };

  const read = async () => {
    let buffer = new ArrayBuffer(READ_BYTES);
    try {
      while (true) {
        const { value, done } = await reader.read(new Uint8Array(buffer));
        if (done || value === undefined) break;
        splitter.push(value);
        buffer = value.buffer;
        if (splitter.pendingBytes === 0) continue;
        lastByteMs = clock.monotonicMs();
        if (!idleTimerRuns) void flushWhenIdle();
      }
    } catch {
      // A pipe that cannot be read any more is at its end.
    }
    splitter.flush();
    closed.abort();
  };

  return {
    ended: read(),
    close: () => void reader.cancel().catch(() => {}),
  };
}
