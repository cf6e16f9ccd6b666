/**
 * Small files of /proc by way of libc. A look at who is left of a process reads one or two of them for each process of
 * the machine, between its end and its next start: the runtime's own calls take several times as long.
 * Where libc cannot be opened the runtime's calls do it.
 */

const OPEN_READ_CLOEXEC = 0x80000;
const OPEN_DIRECTORY = Deno.build.arch === "aarch64" ? 0x4000 : 0x10000;
/** A line of stat has some 350 bytes, an environment rarely more than this; a longer one makes room for itself. */
const FIRST_BYTES = 32 * 1024;
/** The kernel gives no longer environment; what is beyond is not looked at. */
const MOST_BYTES = 8 * 1024 * 1024;
const ENTRY_BYTES = 64 * 1024;

function openLibc() {
  try {
    return Deno.dlopen("libc.so.6", {
      open: { parameters: ["buffer", "i32"], result: "i32" },
      read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
      close: { parameters: ["i32"], result: "i32" },
      getdents64: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    }).symbols;
  } catch {
    return undefined;
  }
}

let opened: ReturnType<typeof openLibc> | null = null;
const libc = () => opened === null ? (opened = openLibc()) : opened;

const encoder = new TextEncoder();
const path = new Uint8Array(64);
let content = new Uint8Array(FIRST_BYTES);
let entries: Uint8Array<ArrayBuffer> | null = null;

/**
 * Content of /proc/<pid>/<name>, null where it cannot be read: most often the process is gone. The bytes are valid
 * until the next call.
 */
export function readProcFile(
  pid: number,
  name: "stat" | "environ" | `task/${number}/children`,
): Uint8Array | null {
  const calls = libc();
  if (calls === undefined) return readByRuntime(`/proc/${pid}/${name}`);
  path[encoder.encodeInto(`/proc/${pid}/${name}`, path).written] = 0;
  const descriptor = calls.open(path, OPEN_READ_CLOEXEC);
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
    calls.close(descriptor);
  }
}

function readByRuntime(file: string): Uint8Array | null {
  try {
    return Deno.readFileSync(file);
  } catch {
    return null;
  }
}

/** Pids of all processes that we can see. Throws where there is no /proc. */
export function listProcPids(): number[] {
  const calls = libc();
  const pids = calls === undefined ? null : listByLibc(calls);
  if (pids !== null) return pids;
  return [...Deno.readDirSync("/proc")].filter(({ name }) => /^[1-9]/.test(name)).map(({ name }) =>
    Number(name)
  );
}

function listByLibc(calls: NonNullable<ReturnType<typeof openLibc>>): number[] | null {
  path[encoder.encodeInto("/proc", path).written] = 0;
  const descriptor = calls.open(path, OPEN_READ_CLOEXEC | OPEN_DIRECTORY);
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
    calls.close(descriptor);
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
