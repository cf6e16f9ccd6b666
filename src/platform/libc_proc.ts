/**
 * Small files of /proc by way of libc. A look at who is left of a process reads one or two of them for each process of
 * the machine, between its end and its next start: the runtime's own calls take several times as long.
 * Where libc cannot be opened the runtime's calls do it.
 *
 * Who has no descriptor left sees nobody, which is not the same as that nobody is there: a look has a descriptor of its
 * own, kept for it, and where that does not do it throws `OutOfDescriptors`.
 */

import { errnoReader, isOutOfDescriptors, isShortOfDescriptors } from "./errno.ts";

/** This process or the machine has no descriptor for a look: nothing is known, and the look is worth another try. */
export class OutOfDescriptors extends Error {
  override readonly name = "OutOfDescriptors";

  constructor() {
    super("look at the processes of this machine: no file descriptor is left for it");
  }
}

const OPEN_READ_CLOEXEC = 0x80000;
const OPEN_DIRECTORY = Deno.build.arch === "aarch64" ? 0x4000 : 0x10000;
/** A line of stat has some 350 bytes, an environment rarely more than this; a longer one makes room for itself. */
const FIRST_BYTES = 32 * 1024;
/** The kernel gives no longer environment; what is beyond is not looked at. */
const MOST_BYTES = 8 * 1024 * 1024;
const ENTRY_BYTES = 64 * 1024;

function openLibc() {
  try {
    const { symbols } = Deno.dlopen("libc.so.6", {
      open: { parameters: ["buffer", "i32"], result: "i32" },
      read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
      close: { parameters: ["i32"], result: "i32" },
      getdents64: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    });
    const { open, read, close, getdents64 } = symbols;
    return { open, read, close, getdents64, errno: errnoReader() };
  } catch {
    return undefined;
  }
}

let opened: ReturnType<typeof openLibc> | null = null;
const libc = () => opened === null ? (opened = openLibc()) : opened;

type Libc = NonNullable<ReturnType<typeof openLibc>>;

const encoder = new TextEncoder();
const path = new Uint8Array(64);
const nothing = encoder.encode("/dev/null\0");
/** Given up for a look that has no other, and taken back with the number that this one gives back. -1: none. */
let spare = -1;
let content = new Uint8Array(FIRST_BYTES);
let entries: Uint8Array<ArrayBuffer> | null = null;

/** Opens `path` to read; less than 0 where it cannot be. Throws OutOfDescriptors. */
function openForLook(calls: Libc, flags: number): number {
  const descriptor = calls.open(path, flags);
  if (descriptor >= 0 || !isShortOfDescriptors(calls.errno())) return descriptor;
  if (spare < 0) throw new OutOfDescriptors();
  calls.close(spare);
  spare = -1;
  const second = calls.open(path, flags);
  // Another thread was faster.
  if (second < 0 && isShortOfDescriptors(calls.errno())) throw new OutOfDescriptors();
  return second;
}

function closeLook(calls: Libc, descriptor: number): void {
  calls.close(descriptor);
  if (spare < 0) spare = calls.open(nothing, OPEN_READ_CLOEXEC);
}

/**
 * Content of /proc/<pid>/<name>, null where it cannot be read: most often the process is gone. The bytes are valid
 * until the next call. Throws OutOfDescriptors.
 */
export function readProcFile(
  pid: number,
  name: "stat" | "environ" | `task/${number}/children`,
): Uint8Array | null {
  const calls = libc();
  if (calls === undefined) return readByRuntime(`/proc/${pid}/${name}`);
  path[encoder.encodeInto(`/proc/${pid}/${name}`, path).written] = 0;
  const descriptor = openForLook(calls, OPEN_READ_CLOEXEC);
  if (descriptor < 0) return null;
  let length = 0;
  try {
    while (true) {
      const size = Number(calls.read(descriptor, content.subarray(length), BigInt(content.length - length)));
      if (size < 0) return null;
      length += size;
      // The kernel fills the buffer as long as there is more.
      if (length < content.length || length >= MOST_BYTES) return content.subarray(0, length);
      const larger = new Uint8Array(content.length * 2);
      larger.set(content);
      content = larger;
    }
  } finally {
    closeLook(calls, descriptor);
  }
}

function readByRuntime(file: string): Uint8Array | null {
  try {
    return Deno.readFileSync(file);
  } catch (error) {
    if (isOutOfDescriptors(error)) throw new OutOfDescriptors();
    return null;
  }
}

/** Pids of all processes that we can see. Throws where there is no /proc, and OutOfDescriptors. */
export function listProcPids(): number[] {
  const calls = libc();
  const pids = calls === undefined ? null : listByLibc(calls);
  return pids ?? listByRuntime();
}

function listByRuntime(): number[] {
  try {
    return [...Deno.readDirSync("/proc")].map(({ name }) => name).filter((name) => /^[1-9]/.test(name)).map(
      Number,
    );
  } catch (error) {
    if (isOutOfDescriptors(error)) throw new OutOfDescriptors();
    throw error;
  }
}

function listByLibc(calls: Libc): number[] | null {
  path[encoder.encodeInto("/proc", path).written] = 0;
  const descriptor = openForLook(calls, OPEN_READ_CLOEXEC | OPEN_DIRECTORY);
  if (descriptor < 0) return null;
  entries ??= new Uint8Array(ENTRY_BYTES);
  const pids: number[] = [];
  try {
    while (true) {
      const size = Number(calls.getdents64(descriptor, entries, BigInt(entries.length)));
      if (size < 0) return null;
      if (size === 0) return pids;
      takePids(entries.subarray(0, size), pids);
    }
  } finally {
    closeLook(calls, descriptor);
  }
}

/** Each entry: u64 inode, i64 offset, u16 length, u8 type, name, NUL. */
function takePids(bytes: Uint8Array, pids: number[]): void {
  for (let at = 0; at < bytes.length;) {
    const next = at + (bytes[at + 16] ?? 0) + ((bytes[at + 17] ?? 0) << 8);
    let pid = 0;
    for (let index = at + 19; index < next; index++) {
      const digit = (bytes[index] ?? 0) - 0x30;
      if (bytes[index] === 0) break;
      if (digit < 0 || digit > 9) {
        pid = 0;
        break;
      }
      pid = pid * 10 + digit;
    }
    if (pid > 0) pids.push(pid);
    at = next;
  }
}
