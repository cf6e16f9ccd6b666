/**
 * Standard output and error of the manager. A reader that stalls must never stall PID 1: a plain write into a full
 * pipe blocks the whole event loop for ever, no timer, no signal. So every write here is one the kernel takes at once,
 * what it does not take waits in a bounded queue, and what does not fit is counted and said when it flows again.
 * Not for a command's own data (`checkpoint list --json`): that must arrive whole, however slow its reader.
 */

/** A place for lines that never blocks and never throws. */
export interface OutputSink {
  /** Takes one or more whole lines, all or none of them. */
  write(bytes: Uint8Array): void;
  /** Resolves when everything accepted is written, or after at most `deadlineMs`. For the way out. */
  flush(deadlineMs: number): Promise<void>;
  /**
   * For a source that can wait: null while there is room, else a promise that resolves when there is again, or when the
   * reader has taken nothing for so long that it counts as stalled. Then there is "room" until it reads on: lines are
   * dropped instead of making everybody wait for ever. Never rejects.
   */
  room(): Promise<void> | null;
  /** Lines that were dropped since the start. */
  readonly droppedLines: number;
  /** Makes the line that stands where lines were dropped; the default is plain text. */
  describeDrops(describe: (lines: number) => string): void;
}

/** What the queue writes to: the kernel, or a test. */
export interface OutputDevice {
  /** Bytes taken without blocking (0: full just now), or "gone" when nobody will ever read again. */
  tryWrite(bytes: Uint8Array): number | "gone";
  /** Longest write that it takes at once or not at all; default PIPE_BUF. */
  readonly writeLimitBytes?: number;
}

/** Log lines of a minute or so while a collector restarts; more would only delay the notice that lines are lost. */
const QUEUE_LIMIT_BYTES = 1 << 20;
/** Part of the queue from which on sources that can wait are asked to: what others log still finds room. */
const WAIT_FROM_SHARE = 0.25;
/** PIPE_BUF: a pipe that polls writable takes this much at once, and a non-blocking write of it is all or nothing. */
const WRITE_LIMIT_BYTES = 4096;
/** A pipe's usual size: more is never taken at once. Only where a write cannot block. */
const LONG_WRITE_BYTES = 64 * 1024;
/** A reader that reads empties the pipe in less than a millisecond; one that stalls is looked at less and less often. */
const FIRST_RETRY_MS = 1;
const LONGEST_RETRY_MS = 20;
/** A reader that takes nothing for so long is not slow but stuck (a dead log driver): programs wait for it no more. */
const STALLED_AFTER_MS = 5_000;
/** During the flush at exit each millisecond counts. */
const FLUSH_INTERVAL_MS = 5;

const NEWLINE = 10;

function lineCount(bytes: Uint8Array): number {
  let lines = 0;
  for (const byte of bytes) if (byte === NEWLINE) lines++;
  return Math.max(1, lines);
}

/** The queue before a device. The timer it waits with does not keep the process alive. */
export function boundedOutput(
  device: OutputDevice,
  limits: { readonly queueBytes: number } = { queueBytes: QUEUE_LIMIT_BYTES },
): OutputSink {
  const queue: Uint8Array[] = [];
  const encoder = new TextEncoder();
  let queuedBytes = 0;
  /** Lines dropped since the last notice. */
  let unreported = 0;
  let dropped = 0;
  let gone = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let retryMs = FIRST_RETRY_MS;
  /** When the device last took something, or had nothing to take. */
  let progressMs = 0;
  let waiters: (() => void)[] = [];
  const writeLimit = device.writeLimitBytes ?? WRITE_LIMIT_BYTES;
  const waitFromBytes = limits.queueBytes * WAIT_FROM_SHARE;
  const isStalled = () => gone || performance.now() - progressMs > STALLED_AFTER_MS;
  let describe = (lines: number) =>
    `state-manager: ${lines} lines dropped, the reader of this output stalled\n`;

  function push(bytes: Uint8Array): void {
    queue.push(bytes);
    queuedBytes += bytes.length;
  }

  function drop(lines: number): void {
    dropped += lines;
    unreported += lines;
  }

  /** The notice goes where the gap is: behind what was queued before it. May exceed the limit by that one line. */
  function reportDrops(): void {
    if (unreported === 0) return;
    push(encoder.encode(describe(unreported)));
    unreported = 0;
  }

  /** Writes what the device takes now; true when nothing is left. */
  function drain(): boolean {
    for (let head = queue[0]; head !== undefined; head = queue[0]) {
      const taken = device.tryWrite(head.subarray(0, writeLimit));
      if (taken === "gone") {
        gone = true;
        for (const bytes of queue) drop(lineCount(bytes));
        queue.length = 0;
        queuedBytes = 0;
        return true;
      }
      if (taken === 0) return false;
      retryMs = FIRST_RETRY_MS;
      progressMs = performance.now();
      queuedBytes -= taken;
      if (taken === head.length) queue.shift();
      else queue[0] = head.subarray(taken);
      if (queue.length === 0) reportDrops();
    }
    return true;
  }

  function drainLater(): void {
    if (timer !== undefined) return;
    timer = setTimeout(() => {
      timer = undefined;
      if (!drain()) drainLater();
      letGoOn();
    }, retryMs);
    retryMs = Math.min(retryMs * 2, LONGEST_RETRY_MS);
    Deno.unrefTimer(timer);
  }

  function letGoOn(): void {
    if (waiters.length === 0 || (queuedBytes > waitFromBytes && !isStalled())) return;
    const woken = waiters;
    waiters = [];
    for (const wake of woken) wake();
  }

  return {
    get droppedLines() {
      return dropped;
    },
    describeDrops(next) {
      describe = next;
    },
    write(bytes) {
      if (bytes.length === 0) return;
      if (gone || queuedBytes + bytes.length > limits.queueBytes) {
        drop(lineCount(bytes));
        if (gone || queue.length > 0) return;
        // Nothing is under way behind which it would be told.
        reportDrops();
        if (timer === undefined && !drain()) drainLater();
        return;
      }
      reportDrops();
      if (queue.length === 0) progressMs = performance.now();
      push(bytes);
      if (timer === undefined && !drain()) drainLater();
    },
    room() {
      if (queuedBytes <= waitFromBytes || isStalled()) return null;
      return new Promise((resolve) => waiters.push(resolve));
    },
    async flush(deadlineMs) {
      const end = performance.now() + deadlineMs;
      while (!drain() && performance.now() < end) {
        await new Promise((resolve) => setTimeout(resolve, FLUSH_INTERVAL_MS));
      }
      if (queue.length > 0) return;
      clearTimeout(timer);
      timer = undefined;
    },
  };
}

const F_SETPIPE_SZ = 1031;
/**
 * The most that anybody may have. We look at a full pipe each millisecond at best, so what it holds is what a thousand of
 * them pass on in a second: with the usual 64 KiB a talkative program would be held back by us, not by its reader.
 */
const PIPE_BYTES = 1 << 20;
const POLLOUT = 4;
const POLLERR_OR_HUP_OR_NVAL = 8 | 16 | 32;
const O_WRONLY_NOCTTY_NONBLOCK_CLOEXEC = 0o1 | 0o400 | 0o4000 | 0o2000000;

/**
 * A second opening of a pipe or terminal with O_NONBLOCK of its own: the flag on the inherited one is shared with every
 * process that has it (a shell, our programs) and must stay as it is. Another process that writes to the same pipe can
 * fill it between poll and write, which blocks; this opening cannot. Refused where the pipe belongs to another user.
 */
function reopen(
  fd: number,
  open: (path: Uint8Array<ArrayBuffer>, flags: number) => number,
): number | undefined {
  try {
    const path = `/proc/self/fd/${fd}`;
    const info = Deno.statSync(path);
    if (!info.isFifo && !info.isCharDevice) return undefined; // a file has one offset; sockets can't be reopened
    const own = open(new TextEncoder().encode(`${path}\0`), O_WRONLY_NOCTTY_NONBLOCK_CLOEXEC);
    return own < 0 ? undefined : own;
  } catch {
    return undefined;
  }
}

function isFile(fd: number): boolean {
  try {
    return Deno.statSync(`/proc/self/fd/${fd}`).isFile;
  } catch {
    return false;
  }
}

/** The kernel's side of descriptor 1 or 2. */
function descriptor(fd: number, stream: { writeSync(bytes: Uint8Array): number }): OutputDevice {
  let libc;
  try {
    libc = Deno.dlopen("libc.so.6", {
      poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
      open: { parameters: ["buffer", "i32"], result: "i32" },
      write: { parameters: ["i32", "buffer", "u64"], result: "i64" },
      fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
    }).symbols;
  } catch {
    // No glibc: writes may block, as they do in every program that does not take this care.
    return { tryWrite: (bytes) => stream.writeSync(bytes) };
  }
  const { poll, write, open, fcntl } = libc;
  const own = reopen(fd, open);
  const target = own ?? fd;
  // Refused for other things than pipes, and above the user's limit: then it stays as it is.
  if (own !== undefined) fcntl(own, F_SETPIPE_SZ, PIPE_BYTES);
  const pollfd = new Uint8Array(8);
  const view = new DataView(pollfd.buffer);
  return {
    // A file never blocks as a pipe does: it polls writable always.
    writeLimitBytes: own !== undefined || isFile(fd) ? LONG_WRITE_BYTES : WRITE_LIMIT_BYTES,
    tryWrite(bytes) {
      view.setInt32(0, target, true);
      view.setInt16(4, POLLOUT, true);
      view.setInt16(6, 0, true);
      if (poll(pollfd, 1n, 0) <= 0) return 0;
      const events = view.getInt16(6, true);
      if ((events & POLLERR_OR_HUP_OR_NVAL) !== 0) return "gone";
      // -1 is EAGAIN, EINTR or, into a file, ENOSPC: each may pass, and the queue is bounded if it does not.
      const taken = Number(write(target, bytes.slice(), BigInt(bytes.length)));
      return Math.max(0, taken);
    },
  };
}

let output: OutputSink | undefined;
let errorOutput: OutputSink | undefined;

/** The manager's standard output, opened at first use. */
export function standardOutput(): OutputSink {
  return output ??= boundedOutput(descriptor(1, Deno.stdout));
}

/** The manager's standard error, where the log goes, opened at first use. */
export function standardError(): OutputSink {
  return errorOutput ??= boundedOutput(descriptor(2, Deno.stderr));
}
