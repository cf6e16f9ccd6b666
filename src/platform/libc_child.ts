/**
 * Children that we start, read and wait for by ourselves (libc_spawn.ts): what the programs that we supervise are
 * started by, since it takes a fraction of the runtime's own way and can give a program one more descriptor.
 */

import { constants } from "node:os";
import { resolve } from "node:path";
import type { ChildExit, ChildStdio, SpawnOptions } from "./child_process.ts";
import { ErrnoError, type LibcSpawn, libcSpawn } from "./libc_spawn.ts";
import { withFileLimitOfChildren } from "./libc_process.ts";
import { NOTIFY_DESCRIPTOR } from "./notify_child.ts";
import { pipeStream } from "./pipe_stream.ts";
import { type ReadyDescriptors, readyDescriptors } from "./ready_descriptors.ts";

const ENOENT = 2;
const ENOEXEC = 8;
const EINVAL = 22;
const SHELL = "/bin/sh";
/** One that is traced has ended before we may take its status. */
const TRACED_AGAIN_MS = 5;

type ByteStream = ReadableStream<Uint8Array<ArrayBuffer>>;

export interface LibcChild {
  readonly pid: number;
  readonly status: Promise<ChildExit>;
  readonly stdout: ByteStream | null;
  readonly stderr: ByteStream | null;
  readonly notify: ByteStream | null;
}

/** Throws ErrnoError. `started` is called in the turn of the start, `reaped` in the one in which its number is free again. */
export type StartLibcChild = (
  options: SpawnOptions,
  hooks: { readonly started: (pid: number) => void; readonly reaped: (pid: number) => void },
) => LibcChild;

/** By pid, how to look whether it has ended: true when its status was taken now. */
const running = new Map<number, () => boolean>();
/**
 * Each end may be followed by a restart in the same turn, of a millisecond or two: so many at most, and the others have the
 * next turns, so that whoever else waits for the loop gets his own.
 */
export const ENDS_IN_TURN = 8;

let opened: StartLibcChild | null = null;

/** Null where this machine has not what it takes, or just now no descriptors for it. */
export function libcChildren(): StartLibcChild | null {
  if (opened !== null) return opened;
  const libc = libcSpawn();
  const ready = libc === null ? null : readyDescriptors();
  if (libc === null || ready === null) return null;
  return opened = (options, hooks) => new Start(libc, ready, options).run(hooks);
}

/** One start, with the descriptors that are to be closed when it is over, well or not. */
class Start {
  readonly #libc: LibcSpawn;
  readonly #ready: ReadyDescriptors;
  readonly #options: SpawnOptions;
  readonly #childs: number[] = [];
  readonly #readers: number[] = [];
  #null: number | null = null;

  constructor(libc: LibcSpawn, ready: ReadyDescriptors, options: SpawnOptions) {
    this.#libc = libc;
    this.#ready = ready;
    this.#options = options;
  }

  run({ started, reaped }: Parameters<StartLibcChild>[1]): LibcChild {
    const { stdin, stdout, stderr, notify } = this.#options;
    let pid: number;
    let pidDescriptor: number;
    const descriptors: (number | null)[] = [];
    const readers: (number | null)[] = [];
    try {
      for (const kind of [stdin, stdout, stderr, ...(notify === true ? ["piped" as const] : [])]) {
        const { child, reader } = this.#descriptor(kind ?? "null");
        descriptors.push(child);
        readers.push(reader);
      }
      pid = this.#spawn(descriptors);
      started(pid);
      pidDescriptor = this.#open(pid, reaped);
    } catch (error) {
      for (const descriptor of this.#readers) this.#libc.close(descriptor);
      throw error;
    } finally {
      for (const descriptor of this.#childs) this.#libc.close(descriptor);
    }
    const close = (descriptor: number) => this.#libc.close(descriptor);
    const pipes = readers.map((reader) =>
      reader === null ? null : pipeStream(reader, { ready: this.#ready, close })
    );
    const lookAtPipes = () => {
      for (const pipe of pipes) pipe?.look();
    };
    const status = this.#exit(pid, pidDescriptor, { reaped, lookAtPipes });
    status.catch(() => {}); // whoever wants to know asks
    return {
      pid,
      status,
      stdout: pipes[1]?.stream ?? null,
      stderr: pipes[2]?.stream ?? null,
      notify: pipes[NOTIFY_DESCRIPTOR]?.stream ?? null,
    };
  }

  /** One whose end we would not see must not run. */
  #open(pid: number, reaped: (pid: number) => void): number {
    try {
      return this.#libc.openPid(pid);
    } catch (error) {
      Deno.kill(pid, "SIGKILL");
      reaped(pid); // as an orphan it is waited for
      throw error;
    }
  }

  #descriptor(kind: ChildStdio): { readonly child: number | null; readonly reader: number | null } {
    if (kind === "inherit") return { child: null, reader: null };
    if (kind === "null") {
      if (this.#null === null) this.#childs.push(this.#null = this.#libc.openNull());
      return { child: this.#null, reader: null };
    }
    const [reader, child] = this.#libc.pipe();
    this.#readers.push(reader);
    this.#childs.push(child);
    return { child, reader };
  }

  /** The program is there, or nothing is. */
  #spawn(descriptors: readonly (number | null)[]): number {
    const { args, cwd, detached } = this.#options;
    const env = this.#options.clearEnv === true
      ? { ...this.#options.env }
      : { ...Deno.env.toObject(), ...this.#options.env };
    const path = this.#find(env.PATH);
    const texts = [...args, cwd ?? "", ...Object.entries(env).flat()];
    if (texts.some((text) => text.includes("\0"))) throw new ErrnoError(EINVAL, "Nul byte in its data");
    const spawn = (program: string, argv: readonly string[]) =>
      this.#libc.spawn({
        path: program,
        argv,
        env,
        cwd: cwd ?? null,
        descriptors,
        ownSession: detached ?? false,
      });
    return withFileLimitOfChildren(() => {
      try {
        return spawn(path, [path, ...args]);
      } catch (error) {
        // A script without a first line that says by whom it is run: as a shell has it.
        if (!(error instanceof ErrnoError) || error.errno !== ENOEXEC) throw error;
        return spawn(SHELL, [SHELL, path, ...args]);
      }
    });
  }

  /** Path of the command, looked up in `paths` where it is a name alone. */
  #find(paths: string | undefined): string {
    const { command, cwd = "" } = this.#options;
    if (command.includes("/")) return resolve(cwd, command);
    for (const folder of command === "" ? [] : (paths ?? Deno.env.get("PATH") ?? "").split(":")) {
      const path = resolve(folder, command);
      if (this.#libc.isExecutable(path) && Deno.statSync(path).isFile) return path;
    }
    throw new ErrnoError(ENOENT, "No such file or directory");
  }

  #exit(
    pid: number,
    descriptor: number,
    { reaped, lookAtPipes }: { readonly reaped: (pid: number) => void; readonly lookAtPipes: () => void },
  ): Promise<ChildExit> {
    const { promise, resolve, reject } = Promise.withResolvers<ChildExit>();
    const watched = this.#ready.watch(descriptor);
    let isOver = false;
    const end = () => {
      isOver = true;
      running.delete(pid);
      reaped(pid);
      watched.release();
      this.#libc.close(descriptor);
    };
    const look = () => {
      if (isOver) return false;
      try {
        const status = this.#libc.waitStatus(pid);
        if (status === null) return false;
        end();
        lookAtPipes(); // what it said last, and mostly the end, is there by now
        resolve(exitOf(status));
      } catch (error) {
        end();
        reject(error);
      }
      return true;
    };
    const wait = () => {
      if (isOver) return;
      watched.arm(() => {
        const isTaken = look();
        if (!isOver) setTimeout(wait, TRACED_AGAIN_MS);
        return isTaken;
      });
    };
    running.set(pid, look);
    wait();
    return promise;
  }
}

/** The rest of a look comes in the next turn. */
let isDeferred = false;

/** Looks whether any child of ours has ended: SIGCHLD says so a little earlier than whoever waits for them. */
export function lookForEnds(): void {
  if (isDeferred) return;
  let taken = 0;
  for (const look of [...running.values()]) {
    if (!look() || ++taken < ENDS_IN_TURN) continue;
    isDeferred = true;
    setTimeout(() => {
      isDeferred = false;
      lookForEnds();
    }, 0);
    return;
  }
}

/** WCOREDUMP. */
const CORE_DUMPED = 0x80;

function exitOf(status: number): ChildExit {
  const number = status & 0x7f;
  if (number === 0) return { code: (status >> 8) & 0xff, signal: null };
  const dumped = (status & CORE_DUMPED) === 0 ? {} : { dumped: true as const };
  return { code: 128 + number, signal: signalName(number), ...dumped };
}

/** One of those without a name, from 32 on, is called by its number. */
function signalName(number: number): Deno.Signal {
  for (const [name, each] of Object.entries(constants.signals)) {
    if (each === number) return name as Deno.Signal;
  }
  return `SIG${number}` as Deno.Signal;
}
