/** One guard child and the two pipes to it: lines go out in order and are never waited for, within a bound. */

import type { Child, ChildExit } from "../platform/child_process.ts";
import { readLines } from "../platform/line_reader.ts";
import { GUARD_LINE_LIMIT_BYTES, type GuardLine, type GuardReport } from "./guard_protocol.ts";

/** Some thousand units; more waiting than this means that it does not read. */
const QUEUE_LIMIT_BYTES = 1 << 20;
/** The last words of one that failed. */
const ERROR_LIMIT_CHARACTERS = 2_000;

export class GuardLink {
  readonly pid: number;
  readonly status: Promise<ChildExit>;
  /** The end of what it wrote to its stderr, when it has ended. Never rejects. */
  readonly errors: Promise<string>;
  readonly #child: Child;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #onOverflow: () => void;
  #queue: string[] = [];
  #queuedBytes = 0;
  #writing: Promise<void> | null = null;
  #isBroken = false;

  /** `child` has its three pipes. `onOverflow`: it does not read; nothing more is queued. */
  constructor(child: Child & { readonly stdin: NonNullable<Child["stdin"]> }, onOverflow: () => void) {
    this.#child = child;
    this.#onOverflow = onOverflow;
    this.pid = child.pid;
    this.status = child.status;
    this.errors = lastText(child.stderr);
    this.#writer = child.stdin.getWriter();
  }

  send(line: GuardLine): void {
    const text = JSON.stringify(line) + "\n";
    if (this.#queuedBytes + text.length > QUEUE_LIMIT_BYTES) return this.#onOverflow();
    this.#queue.push(text);
    this.#queuedBytes += text.length;
    this.#writing ??= this.#write();
  }

  /** Resolves when all that was sent so far is in the pipe (true), or the child is gone (false). */
  async written(): Promise<boolean> {
    await this.#writing;
    return !this.#isBroken;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** What it says, until it ends. */
  async *reports(): AsyncGenerator<GuardReport> {
    if (this.#child.stdout === null) return;
    for await (const text of readLines(this.#child.stdout, { limitBytes: GUARD_LINE_LIMIT_BYTES })) {
      yield JSON.parse(text);
    }
  }

  async #write(): Promise<void> {
    // An end and the start that follows it in the same step are one write, after both.
    await null;
    try {
      while (this.#queue.length > 0) {
        const text = this.#queue.splice(0).join("");
        await this.#writer.write(new TextEncoder().encode(text));
        this.#queuedBytes -= text.length;
      }
      this.#writing = null;
    } catch {
      // It has ended: its exit is what counts. Still marked as writing, so that nothing is written any more.
      this.#isBroken = true;
    }
  }
}

async function lastText(stream: Child["stderr"]): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const bytes of stream ?? []) {
      text = (text + decoder.decode(bytes, { stream: true })).slice(-ERROR_LIMIT_CHARACTERS);
    }
  } catch {
    // The pipe broke: what came so far is what there is.
  }
  return text.trim();
}
