/**
 * The only place that starts a process. Every child is in the own set from the same turn that made it until its exit
 * status was taken, so that the reaper of orphans never takes the status of a child that somebody waits for. By libc where
 * that can be (libc_child.ts), else by the runtime.
 */

import { resolve } from "node:path";
import { osErrorOf } from "./errno.ts";
import { StateManagerError } from "./errors.ts";
import { libcChildren, type StartLibcChild } from "./libc_child.ts";
import { ErrnoError } from "./libc_spawn.ts";
import { withFileLimitOfChildren } from "./libc_process.ts";
import { spawnNotifyChild } from "./notify_child.ts";

export type ChildStdio = "piped" | "null" | "inherit";

export interface SpawnOptions {
  /** A name looked up in the child's PATH, or a path. */
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** True: the child gets `env` and nothing else. */
  readonly clearEnv?: boolean;
  /** Default "null". A piped stdout or stderr must be read to its end or cancelled: it leaks descriptors otherwise. */
  readonly stdin?: ChildStdio;
  readonly stdout?: ChildStdio;
  readonly stderr?: ChildStdio;
  /** setsid: own session and own group, whose id is the child's pid. */
  readonly detached?: boolean;
  /** The child gets descriptor 3 to tell us something on; `stdin` is not to be "piped" then. */
  readonly notify?: boolean;
}

/** How a child ended. With a signal, `code` is 128 + its number. */
export interface ChildExit {
  readonly code: number;
  readonly signal: Deno.Signal | null;
  /** The kernel wrote a core file; told only where libc started the child. */
  readonly dumped?: true;
}

export interface Child {
  readonly pid: number;
  /** Resolves at the leader's exit; says nothing about its pipes, which a grandchild may hold open. */
  readonly status: Promise<ChildExit>;
  /** Null unless "piped". */
  readonly stdin: WritableStream<Uint8Array<ArrayBufferLike>> | null;
  readonly stdout: ReadableStream<Uint8Array<ArrayBuffer>> | null;
  readonly stderr: ReadableStream<Uint8Array<ArrayBuffer>> | null;
  /** What it writes to descriptor 3; must be read to its end or cancelled. Null unless asked for. */
  readonly notify: ReadableStream<Uint8Array<ArrayBuffer>> | null;
  /** Signals this process alone. One that already ended is no error. */
  kill(signal: Deno.Signal): void;
}

/** A program that could not be started, with the code a shell gives for it. */
export class SpawnError extends StateManagerError {
  /** 127: not found; 126: found, but could not be run. */
  readonly exitCode: 126 | 127;
  /** False where the same call may succeed later: the machine is out of processes, memory, files. */
  readonly permanent: boolean;
  /** The machine is out of processes, memory or files: that is no fault of what was to be started. */
  readonly isShortage: boolean;

  constructor(
    message: string,
    exitCode: 126 | 127,
    permanent: boolean,
    cause: unknown,
    isShortage = false,
  ) {
    super("spawn-failed", message, {
      hint: permanent
        ? "check that the program exists in the image, is executable, and was built for this machine"
        : "the machine is short of processes, memory or open files",
      cause,
    });
    this.exitCode = exitCode;
    this.permanent = permanent;
    this.isShortage = isShortage;
  }
}

const EPERM = 1;
const ENOENT = 2;
const ESRCH = 3;
const EACCES = 13;
const ENOTDIR = 20;
/** EAGAIN, ENOMEM, ENFILE, EMFILE. */
const SHORTAGES: ReadonlySet<number> = new Set([11, 12, 23, 24]);
/** A program that is being written just now. */
const ETXTBSY = 26;

function spawnError(options: SpawnOptions, error: unknown): SpawnError {
  const { command, cwd } = options;
  const text = error instanceof Error ? error.message : String(error);
  const errno = errnoOf(error);
  const action = `start ${command}`;
  if (cwd !== undefined && (errno === ENOENT || errno === ENOTDIR) && !isFolder(cwd)) {
    return new SpawnError(`${action}: working folder ${cwd} does not exist`, 126, true, error);
  }
  if (errno === ENOENT) {
    // A script whose interpreter is missing says the same; the path tells the two apart.
    const there = command.includes("/") && exists(resolve(cwd ?? "", command));
    const what = there ? "its interpreter or loader was not found" : "not found";
    return new SpawnError(`${action}: ${what}`, 127, true, error);
  }
  if (errno === EACCES || errno === EPERM) {
    return new SpawnError(`${action}: permission denied`, 126, true, error);
  }
  const isShortage = SHORTAGES.has(errno);
  return new SpawnError(`${action}: ${text}`, 126, !isShortage && errno !== ETXTBSY, error, isShortage);
}

/** 0 where it is not known. */
function errnoOf(error: unknown): number {
  if (error instanceof ErrnoError) return error.errno;
  if (error instanceof Deno.errors.NotFound) return ENOENT;
  if (error instanceof Deno.errors.PermissionDenied) return EACCES;
  return osErrorOf(error) ?? 0;
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

const own = new Set<number>();

/** Pids of the children that we or the runtime wait for. Nobody else may reap or adopt these. */
export function ownChildren(): ReadonlySet<number> {
  return own;
}

/** Starts a process. Throws SpawnError, at once. */
export function spawnChild(options: SpawnOptions): Child {
  const start = options.stdin === "piped" ? null : libcChildren();
  return start === null ? spawnByRuntime(options) : spawnByLibc(start, options);
}

function spawnByLibc(start: StartLibcChild, options: SpawnOptions): Child {
  try {
    const child = start(options, { started: (pid) => own.add(pid), reaped: (pid) => own.delete(pid) });
    const { pid } = child;
    return {
      ...child,
      stdin: null,
      kill(signal) {
        // Its number is somebody else's as soon as its status was taken.
        if (own.has(pid)) sendSignal(pid, signal);
      },
    };
  } catch (error) {
    throw spawnError(options, error);
  }
}

/** The runtime's own ways, where libc does not do it and where we write to the child. Throws SpawnError, at once. */
export function spawnByRuntime(options: SpawnOptions): Child {
  const stdin = options.stdin ?? "null";
  const stdout = options.stdout ?? "null";
  const stderr = options.stderr ?? "null";
  if (options.notify === true) {
    const child = withFileLimitOfChildren(() => spawnNotifyChild(options));
    if (child !== null) {
      const { pid } = child;
      own.add(pid);
      const status = child.status.finally(() => own.delete(pid));
      return { ...child, status, stdin: null, kill: (signal) => void sendSignal(pid, signal) };
    }
  }
  let process: Deno.ChildProcess;
  try {
    const command = new Deno.Command(options.command, {
      args: [...options.args],
      clearEnv: options.clearEnv ?? false,
      detached: options.detached ?? false,
      stdin,
      stdout,
      stderr,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: { ...options.env } }),
    });
    process = withFileLimitOfChildren(() => command.spawn());
  } catch (error) {
    throw spawnError(options, error);
  }
  const { pid } = process;
  own.add(pid);
  if (options.notify === true) {
    // What failed a moment ago, such as a shortage, went away: the next attempt will have the descriptor.
    sendSignal(pid, "SIGKILL");
    process.status.finally(() => own.delete(pid));
    throw new SpawnError(`start ${options.command}: failed, then did not`, 126, false, undefined);
  }
  return {
    pid,
    status: process.status.then(({ code, signal }) => ({ code, signal })).finally(() => own.delete(pid)),
    stdin: stdin === "piped" ? process.stdin : null,
    stdout: stdout === "piped" ? process.stdout : null,
    stderr: stderr === "piped" ? process.stderr : null,
    notify: null,
    kill: (signal) => void sendSignal(pid, signal),
  };
}

/** Signals one process. False when there is none any more; a pid below 2 is a bug and throws. */
export function sendSignal(pid: number, signal: Deno.Signal): boolean {
  guardPid(pid);
  return kill(pid, signal);
}

/** Signals every member of the group. False when it has none any more (zombies count as members). */
export function sendGroupSignal(groupId: number, signal: Deno.Signal): boolean {
  guardPid(groupId);
  return kill(-groupId, signal);
}

/** `-1` is everybody and `-0` our own group: no arithmetic may ever get there. */
function guardPid(pid: number): void {
  if (Number.isInteger(pid) && pid > 1) return;
  throw new StateManagerError("internal", `signal process ${pid}: not a process id above 1`);
}

function kill(target: number, signal: Deno.Signal): boolean {
  try {
    Deno.kill(target, signal);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    if (osErrorOf(error) === ESRCH || /ESRCH/.test(String(error))) return false;
    // EPERM: it lives and is not ours to signal; the caller sees that it does not end.
    if (error instanceof Deno.errors.PermissionDenied) return true;
    throw error;
  }
}

/** Signals every process that we may signal, as PID 1 of a container only; for the very end. */
export function sendSignalToAll(signal: "SIGTERM" | "SIGKILL"): void {
  if (Deno.pid !== 1) return;
  kill(-1, signal);
}
