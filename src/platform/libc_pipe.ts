/**
 * Standard input and output of a process that has no event loop to speak of: it waits in the kernel for input or a
 * moment, reads what is there, writes what is taken at once. Nothing here ever blocks longer than it is told to.
 */

const STDIN = 0;
const STDOUT = 1;
const POLLIN = 1;
const POLLOUT = 4;
/** Hang-up and error: the other side is gone. */
const POLL_GONE = 8 | 16 | 32;
const POLL_RECORD_BYTES = 8;
/** A timer on this clock fires at its moment also where the machine was suspended; poll's own time stands still then. */
const CLOCK_BOOTTIME = 7;
const CLOSE_ON_EXEC = 0o2000000;
/** struct itimerspec: the interval, which is none here, and the first moment, as seconds and nanoseconds each. */
const TIMER_SPEC_BYTES = 32;
const READ_BYTES = 64 * 1024;
/** PIPE_BUF: a pipe that polls writable takes this much at once. */
const WRITE_LIMIT_BYTES = 4096;
/** Longest wait that poll takes. */
const LONGEST_WAIT_MS = 0x7fffffff;

export interface KernelPipes {
  /** True when `wait` counts the time that the machine is suspended: it ends at once when that was too long. */
  readonly countsSuspend: boolean;
  /** Waits until there is input, or it has ended, or `ms` have passed. May return early. */
  wait(ms: number): void;
  /** Waits `ms`, whatever comes: an input that has ended would end every other wait at once. */
  sleep(ms: number): void;
  /** What can be read now: bytes, "nothing" yet, or "end" when nobody can write any more. */
  read(): Uint8Array<ArrayBuffer> | "nothing" | "end";
  /** One line, at most 4096 bytes. False when it was dropped: the reader is gone or does not read. */
  write(line: Uint8Array<ArrayBuffer>): boolean;
}

/** Throws where there is no libc to open. */
export function openKernelPipes(): KernelPipes {
  const libc = Deno.dlopen("libc.so.6", {
    poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
    read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    timerfd_create: { parameters: ["i32", "i32"], result: "i32" },
    timerfd_settime: { parameters: ["i32", "i32", "buffer", "buffer"], result: "i32" },
  }).symbols;
  const record = new Uint8Array(POLL_RECORD_BYTES);
  const view = new DataView(record.buffer);
  const timer = libc.timerfd_create(CLOCK_BOOTTIME, CLOSE_ON_EXEC);
  const spec = new BigInt64Array(TIMER_SPEC_BYTES / 8);
  const both = new Int32Array(2 * POLL_RECORD_BYTES / 4);
  const buffer = new Uint8Array(READ_BYTES);

  // Rounded up: a wait that ends just before its moment would spin until it has come.
  const wholeMs = (ms: number) =>
    ms === Infinity ? -1 : Math.min(LONGEST_WAIT_MS, Math.max(0, Math.ceil(ms)));

  /** The events that hold for `descriptor`, 0 after `ms` without any. */
  const poll = (descriptor: number, events: number, ms: number): number => {
    view.setInt32(0, descriptor, true);
    view.setInt16(4, events, true);
    view.setInt16(6, 0, true);
    return libc.poll(record, 1n, ms) > 0 ? view.getInt16(6, true) : 0;
  };

  /** Sets the timer; setting it anew also takes back that it has fired. */
  const setTimer = (ms: number): boolean => {
    const whole = Math.max(1, wholeMs(ms)); // 0 would stop it
    spec[2] = BigInt(Math.floor(whole / 1000));
    spec[3] = BigInt(whole % 1000 * 1_000_000);
    return libc.timerfd_settime(timer, 0, new Uint8Array(spec.buffer), null) === 0;
  };

  return {
    countsSuspend: timer >= 0,
    wait(ms) {
      if (timer < 0 || ms <= 0 || ms === Infinity || !setTimer(ms)) {
        return void poll(STDIN, POLLIN, wholeMs(ms));
      }
      both.set([STDIN, POLLIN, timer, POLLIN]); // an event's 16 bits, and 16 for what holds: little-endian
      libc.poll(new Uint8Array(both.buffer), 2n, -1);
    },
    sleep(ms) {
      libc.poll(null, 0n, wholeMs(ms));
    },
    read() {
      if (poll(STDIN, POLLIN, 0) === 0) return "nothing";
      const count = Number(libc.read(STDIN, buffer, BigInt(buffer.length)));
      if (count > 0) return buffer.slice(0, count);
      return count === 0 ? "end" : "nothing";
    },
    write(line) {
      if (line.length > WRITE_LIMIT_BYTES) return false;
      const events = poll(STDOUT, POLLOUT, 0);
      if ((events & POLL_GONE) !== 0 || (events & POLLOUT) === 0) return false;
      return Number(libc.write(STDOUT, line, BigInt(line.length))) === line.length;
    },
  };
}
