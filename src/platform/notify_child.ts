/**
 * Starts a child with one more descriptor, number 3, on which it can tell us something. `Deno.Command` passes none on;
 * the runtime's own node:child_process does, as a socket pair. For machines where libc does not do it (libc_child.ts).
 */

import type { Buffer } from "node:buffer";
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import type { Readable } from "node:stream";
import type { ChildExit, SpawnOptions } from "./child_process.ts";

/** The number that the child finds it under. */
export const NOTIFY_DESCRIPTOR = 3;

export interface NotifyChild {
  readonly pid: number;
  readonly status: Promise<ChildExit>;
  readonly stdout: ReadableStream<Uint8Array<ArrayBuffer>> | null;
  readonly stderr: ReadableStream<Uint8Array<ArrayBuffer>> | null;
  readonly notify: ReadableStream<Uint8Array<ArrayBuffer>>;
}

/** null where it could not be started; why is not known in this turn (the caller asks the other way of starting). */
export function spawnNotifyChild(options: SpawnOptions): NotifyChild | null {
  const kind = (stdio: SpawnOptions["stdout"]) =>
    stdio === "piped" ? "pipe" : stdio === "inherit" ? "inherit" : "ignore";
  // By its own path the runtime would read the arguments as Node's; by this one it is a program like any other.
  const command = options.command === Deno.execPath() ? "/proc/self/exe" : options.command;
  const child = spawn(command, [...options.args], {
    detached: options.detached ?? false,
    stdio: [kind(options.stdin), kind(options.stdout), kind(options.stderr), "pipe"],
    env: options.clearEnv === true ? { ...options.env } : { ...Deno.env.toObject(), ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  // A failure is told here once more; without a listener it would end the manager.
  child.on("error", () => {});
  const { pid } = child;
  const notify = child.stdio[NOTIFY_DESCRIPTOR];
  if (pid === undefined || notify === null || notify === undefined) return null;
  return {
    pid,
    status: exitOf(child),
    stdout: child.stdout === null ? null : byteStream(child.stdout),
    stderr: child.stderr === null ? null : byteStream(child.stderr),
    notify: byteStream(notify as Readable),
  };
}

function exitOf(child: ChildProcess): Promise<ChildExit> {
  return new Promise((resolve) => {
    child.once("exit", (code, signal) => {
      if (signal === null) resolve({ code: code ?? 1, signal: null });
      else resolve({ code: 128 + constants.signals[signal], signal: signal as Deno.Signal });
    });
  });
}

/** A stream that can be read into a buffer of the reader's own, as the runtime's pipes can. */
function byteStream(source: Readable): ReadableStream<Uint8Array<ArrayBuffer>> {
  let over = false;
  return new ReadableStream({
    type: "bytes",
    start(controller) {
      const end = () => {
        if (over) return;
        over = true;
        controller.close();
        controller.byobRequest?.respond(0);
      };
      source.on("data", (bytes: Buffer) => {
        if (over || bytes.length === 0) return;
        controller.enqueue(new Uint8Array(bytes));
        source.pause(); // until it is read
      });
      source.once("end", end);
      source.once("close", end);
      source.once("error", end);
      source.pause();
    },
    pull() {
      source.resume();
    },
    cancel() {
      over = true;
      source.destroy();
    },
  });
}
