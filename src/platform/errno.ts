/**
 * errno of this thread. It is copied by a call of libc: the runtime's own reading of memory (`UnsafePointerView`) takes a
 * lock that all threads share, and whoever has to wait for it finds EAGAIN where errno was (seen once in some millions of
 * reads, four threads at it, 2.6.10).
 */

const SYMBOLS = {
  __errno_location: { parameters: [], result: "pointer" },
  memcpy: { parameters: ["buffer", "pointer", "usize"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

const BYTES = 4;

function open(): () => number {
  const { symbols } = Deno.dlopen("libc.so.6", SYMBOLS);
  // The address belongs to this thread, and JavaScript never changes threads.
  const location = symbols.__errno_location();
  const value = new Int32Array(1);
  const bytes = new Uint8Array(value.buffer);
  return () => {
    symbols.memcpy(bytes, location, BigInt(BYTES));
    return value[0] ?? 0;
  };
}

let opened: (() => number) | undefined;

/** What reads it: for right after a call that failed, with nothing in between. Throws where libc cannot be opened. */
export function errnoReader(): () => number {
  return opened ??= open();
}

/** The N of "(os error N)" in the message of what the runtime or we threw; null where it names none. */
export function osErrorOf(error: unknown): number | null {
  const text = error instanceof Error ? error.message : String(error);
  const number = /\(os error (\d+)\)/.exec(text)?.[1];
  return number === undefined ? null : Number(number);
}

const ENFILE = 23;
const EMFILE = 24;

/** True for the errno of a process, or a machine, that has no descriptor left. */
export function isShortOfDescriptors(errno: number | null): boolean {
  return errno === ENFILE || errno === EMFILE;
}

/** Their names, as errors of libc_files.ts have them. */
export const NO_DESCRIPTOR: readonly string[] = ["ENFILE", "EMFILE"];

/** The same of what was thrown. */
export function isOutOfDescriptors(error: unknown): boolean {
  return isShortOfDescriptors(osErrorOf(error));
}
