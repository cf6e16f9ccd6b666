/**
 * posix_spawn of libc, with all that a supervised program needs: descriptors, folder, session, signals as a shell would
 * hand them on. The runtime's own way forks when a program is to have a session of its own, which takes the longer the
 * more memory we have, and everybody waits meanwhile; this one borrows our memory until the program is there.
 */

import { errnoReader, isOutOfDescriptors } from "./errno.ts";

const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const POSIX_SPAWN_SETSID = 0x80;
/** More than glibc's posix_spawnattr_t (336) and posix_spawn_file_actions_t (80) have. */
const STRUCT_BYTES = 512;
/** Of glibc's sigset_t. */
const SIGNAL_SET_BYTES = 128;
/** The runtime ignores PIPE; a program that inherits that never ends when its reader does. glibc leaves its own two ignored. */
const DEFAULT_SIGNALS = [13, 32, 33];
const SYS_PIDFD_OPEN = 434n;
const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const F_SETFL = 4;
const X_OK = 1;
const WNOHANG = 1;

function openLibc() {
  try {
    return Deno.dlopen("libc.so.6", {
      posix_spawn: {
        parameters: ["buffer", "buffer", "buffer", "buffer", "buffer", "buffer"],
        result: "i32",
      },
      posix_spawnattr_init: { parameters: ["buffer"], result: "i32" },
      posix_spawnattr_setflags: { parameters: ["buffer", "i16"], result: "i32" },
      posix_spawnattr_setsigmask: { parameters: ["buffer", "buffer"], result: "i32" },
      posix_spawnattr_setsigdefault: { parameters: ["buffer", "buffer"], result: "i32" },
      posix_spawn_file_actions_init: { parameters: ["buffer"], result: "i32" },
      posix_spawn_file_actions_adddup2: { parameters: ["buffer", "i32", "i32"], result: "i32" },
      posix_spawn_file_actions_addchdir_np: { parameters: ["buffer", "buffer"], result: "i32" },
      posix_spawn_file_actions_destroy: { parameters: ["buffer"], result: "i32" },
      strerror: { parameters: ["i32"], result: "pointer" },
      syscall: { parameters: ["i64", "i64", "i64"], result: "i64" },
      waitpid: { parameters: ["i32", "buffer", "i32"], result: "i32" },
      pipe2: { parameters: ["buffer", "i32"], result: "i32" },
      fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
      open: { parameters: ["buffer", "i32"], result: "i32" },
      access: { parameters: ["buffer", "i32"], result: "i32" },
      close: { parameters: ["i32"], result: "i32" },
    }).symbols;
  } catch {
    return null;
  }
}

type Libc = NonNullable<ReturnType<typeof openLibc>>;

/** A call of libc that failed. */
export class ErrnoError extends Error {
  readonly errno: number;

  constructor(errno: number, text: string) {
    super(`${text} (os error ${errno})`);
    this.errno = errno;
  }
}

export interface Spawn {
  readonly path: string;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string | null;
  /** What the child has as 0, 1, 2 …; null: what we have under that number. */
  readonly descriptors: readonly (number | null)[];
  /** setsid. */
  readonly ownSession: boolean;
}

export interface LibcSpawn {
  /** Pid of the child, which is the program already. Throws ErrnoError. */
  spawn(options: Spawn): number;
  /** A descriptor that can be read as soon as child `pid`, not yet waited for, has ended. Throws ErrnoError. */
  openPid(pid: number): number;
  /** The wait status of a child that has ended, and it is gone with it; null: it runs. Throws ErrnoError. */
  waitStatus(pid: number): number | null;
  /** Reading end, which never blocks, and writing end. No program inherits them. Throws ErrnoError. */
  pipe(): readonly [number, number];
  /** /dev/null. Throws ErrnoError. */
  openNull(): number;
  close(descriptor: number): void;
  isExecutable(path: string): boolean;
}

let opened: LibcSpawn | null | undefined;

/**
 * Null where this machine has not all that it takes: another libc, a kernel without descriptors of processes; or just now
 * no descriptor to try it with.
 */
export function libcSpawn(): LibcSpawn | null {
  if (opened !== undefined) return opened;
  const libc = openLibc();
  if (libc === null) return opened = null;
  const calls = bind(libc);
  try {
    calls.close(calls.openPid(Deno.pid));
  } catch (error) {
    if (isOutOfDescriptors(error)) return null;
    return opened = null;
  }
  return opened = calls;
}

function bind(libc: Libc): LibcSpawn {
  const errno = errnoReader();
  const failed = (number: number) => {
    const text = libc.strerror(number);
    return new ErrnoError(number, text === null ? "failed" : new Deno.UnsafePointerView(text).getCString());
  };
  const checked = (result: number) => {
    if (result < 0) throw failed(errno());
    return result;
  };
  const attributes = { own: attributesOf(libc, true), ours: attributesOf(libc, false) };
  const number = new Int32Array(1);
  const numberBytes = new Uint8Array(number.buffer);
  const ends = new Int32Array(2);
  const endsBytes = new Uint8Array(ends.buffer);
  /** What the call in hand knows by address alone: nothing else keeps it from the garbage collector. */
  const addressed: { texts: readonly unknown[] } = { texts: [] };

  return {
    spawn({ path, argv, env, cwd, descriptors, ownSession }) {
      const actions = new Uint8Array(STRUCT_BYTES);
      libc.posix_spawn_file_actions_init(actions);
      try {
        descriptors.forEach((descriptor, index) => {
          if (descriptor !== null) libc.posix_spawn_file_actions_adddup2(actions, descriptor, index);
        });
        if (cwd !== null) libc.posix_spawn_file_actions_addchdir_np(actions, textBytes(cwd));
        const args = listOf(argv);
        const variables = listOf(Object.entries(env).map(([name, value]) => `${name}=${value}`));
        addressed.texts = [args.block, variables.block];
        const result = libc.posix_spawn(
          numberBytes,
          textBytes(path),
          actions,
          ownSession ? attributes.own : attributes.ours,
          args.pointers,
          variables.pointers,
        );
        if (result !== 0) throw failed(result);
        return number[0] ?? -1;
      } finally {
        libc.posix_spawn_file_actions_destroy(actions);
      }
    },
    openPid: (pid) => checked(Number(libc.syscall(SYS_PIDFD_OPEN, BigInt(pid), 0n))),
    waitStatus: (pid) => checked(libc.waitpid(pid, numberBytes, WNOHANG)) === pid ? (number[0] ?? 0) : null,
    pipe() {
      checked(libc.pipe2(endsBytes, O_CLOEXEC));
      const [reading = -1, writing = -1] = ends;
      // Of the reading end alone: a program that finds its output not to block may lose some.
      libc.fcntl(reading, F_SETFL, O_NONBLOCK);
      return [reading, writing];
    },
    openNull: () => checked(libc.open(textBytes("/dev/null"), O_RDWR | O_CLOEXEC)),
    close: (descriptor) => void libc.close(descriptor),
    isExecutable: (path) => libc.access(textBytes(path), X_OK) === 0,
  };
}

/** No signal is blocked and PIPE ends the program; what else we were told to ignore, as by nohup, it ignores as well. */
function attributesOf(libc: Libc, ownSession: boolean): Uint8Array<ArrayBuffer> {
  const attributes = new Uint8Array(STRUCT_BYTES);
  libc.posix_spawnattr_init(attributes);
  const flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | (ownSession ? POSIX_SPAWN_SETSID : 0);
  libc.posix_spawnattr_setflags(attributes, flags);
  libc.posix_spawnattr_setsigmask(attributes, new Uint8Array(SIGNAL_SET_BYTES));
  const defaults = new Uint8Array(SIGNAL_SET_BYTES);
  for (const signal of DEFAULT_SIGNALS) {
    const index = (signal - 1) >> 3;
    defaults[index] = (defaults[index] ?? 0) | 1 << ((signal - 1) & 7);
  }
  libc.posix_spawnattr_setsigdefault(attributes, defaults);
  return attributes;
}

function textBytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}

/** A null-ended list of addresses of texts; `block`, which holds the texts, must be kept until the call has read it. */
function listOf(texts: readonly string[]) {
  const block = textBytes(texts.join("\0"));
  const pointers = new BigUint64Array(texts.length + 1);
  const base = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(block)));
  for (let index = 0, at = 0; index < texts.length; index++) {
    pointers[index] = base + BigInt(at);
    at = block.indexOf(0, at) + 1;
  }
  return { pointers: new Uint8Array(pointers.buffer), block };
}
