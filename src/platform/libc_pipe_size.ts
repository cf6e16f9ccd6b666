/**
 * How much a pipe holds. The usual 64 KiB are full in a tenth of a millisecond when a program writes as fast as it can:
 * then it and its reader take turns, a switch of the processor for each few lines.
 */

const F_SETPIPE_SZ = 1031;
/** All pipes of a user without privileges may have 64 MiB, and what is beyond gets a page each: nobody takes much of that. */
export const LARGE_PIPE_BYTES = 512 * 1024;
/** Reading ends do not keep a pipe from its end, and this opening of one waits for nobody. */
const O_RDONLY_NOCTTY_NONBLOCK_CLOEXEC = 0o400 | 0o4000 | 0o2000000;

function openLibc() {
  try {
    return Deno.dlopen("libc.so.6", {
      open: { parameters: ["buffer", "i32"], result: "i32" },
      fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
      close: { parameters: ["i32"], result: "i32" },
    }).symbols;
  } catch {
    return undefined;
  }
}

let opened: ReturnType<typeof openLibc> | null = null;

/**
 * Makes the pipe that the process has as `descriptor` hold LARGE_PIPE_BYTES. Gives what it holds then; null where it is no pipe,
 * where the kernel refuses (another user's process, the user's share of all pipes is used up), or the process is gone.
 */
export function enlargePipeOf(pid: number, descriptor: 1 | 2): number | null {
  const path = `/proc/${pid}/fd/${descriptor}`;
  try {
    if (!Deno.readLinkSync(path).startsWith("pipe:")) return null;
  } catch {
    return null;
  }
  const libc = opened === null ? (opened = openLibc()) : opened;
  if (libc === undefined) return null;
  const own = libc.open(new TextEncoder().encode(`${path}\0`), O_RDONLY_NOCTTY_NONBLOCK_CLOEXEC);
  if (own < 0) return null;
  const size = libc.fcntl(own, F_SETPIPE_SZ, LARGE_PIPE_BYTES);
  libc.close(own);
  return size < 0 ? null : size;
}
