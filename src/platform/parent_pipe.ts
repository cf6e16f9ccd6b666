/**
 * The child's side of a conversation with the manager: JSON lines in on stdin, out on stdout. When the manager goes
 * away its end of stdin closes, and the child must end.
 */

import { readLines } from "./line_reader.ts";

export interface ParentPipe {
  readonly lines: AsyncGenerator<string>;
  /** Resolves when the line is in the pipe; lines go out in order. */
  send(message: unknown): Promise<void>;
}

export function openParentPipe(limitBytes: number): ParentPipe {
  const encoder = new TextEncoder();
  let last: Promise<void> = Promise.resolve();
  const write = async (bytes: Uint8Array) => {
    for (let written = 0; written < bytes.length;) {
      written += await Deno.stdout.write(bytes.subarray(written));
    }
  };
  return {
    lines: readLines(Deno.stdin.readable, { limitBytes }),
    send(message) {
      const bytes = encoder.encode(JSON.stringify(message) + "\n");
      last = last.then(() => write(bytes));
      return last;
    },
  };
}

/** Ends this process at once. */
export function exitNow(code: number): never {
  Deno.exit(code);
}
