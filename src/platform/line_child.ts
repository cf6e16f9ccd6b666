/**
 * The parent's side of a child of this program that speaks lines of JSON over its stdio: spawned as leader of its own
 * group, bounded in what it may send and in what it leaves unread, killed when the work is aborted or it falls silent.
 * Secrets go through its stdin only, never by argument or environment.
 */

import { type Child, spawnChild } from "./child_process.ts";
import type { Clock } from "./clock.ts";
import { asStateManagerError, isError, StateManagerError } from "./errors.ts";
import { readLines } from "./line_reader.ts";

/** After its stdin was closed the child has this long to end by itself. */
const KILL_GRACE_MS = 300;
/** How often it is asked whether it said something: at most eight times within its limit, each costs a little. */
const SILENCE_CHECKS = 8;
const SILENCE_CHECK_LEAST_MS = 1_000;
/** The last output of a child that crashed, for the error. */
const STDERR_LIMIT_BYTES = 4096;

/** Who must know of one child: the manager sees to it that none outlives it. */
export interface ChildLife {
  /** Added to the child's environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Called in the turn that spawned it; it leads its own group. */
  started(pid: number): void;
  gone(pid: number): void;
}

const UNWATCHED: ChildLife = { env: {}, started: () => {}, gone: () => {} };

export interface LineChildOptions {
  /** For errors: `archive: the archiver ended early`. */
  readonly action: string;
  readonly name: string;
  readonly command: { readonly command: string; readonly args: readonly string[] };
  /** What its hello must say. */
  readonly protocol: number;
  readonly clock: Clock;
  /** Longest line from it; twice this may wait unread on the way to it. */
  readonly lineLimitBytes: number;
  /** A child that says nothing for this long is stuck (a dead disk, a stopped process). */
  readonly silenceLimitMs: number;
  /** Ends the child; its reason is what the conversation rejects with. */
  readonly signal: AbortSignal;
  /** Made before the spawn. */
  readonly life?: ChildLife | undefined;
}

/** What the talk with a child is made of. */
export interface LineChild {
  readonly pid: number;
  /** Never waited for. A child that died answers by ending its output, and its exit says why. */
  send(line: unknown): void;
  /**
   * What it says after its hello, parsed; the child is this program, so a line is what its types say. `first` makes
   * the lines that answer the hello; what is sent after that call comes after them. Throws when the output ends:
   * whoever has all it wanted leaves the loop before.
   */
  replies(first: () => readonly unknown[]): AsyncGenerator<unknown>;
}

/**
 * One child from its spawn to its end: it is gone when this resolves with what `talk` gives, or rejects with its error,
 * with the signal's reason, or with how the child died.
 */
export async function converse<T>(
  options: LineChildOptions,
  talk: (child: LineChild) => Promise<T>,
): Promise<T> {
  return await new Conversation(options).run(talk);
}

class Conversation {
  readonly #options: LineChildOptions;
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  #lastHeardMs: number;
  #unreadBytes = 0;

  constructor(options: LineChildOptions) {
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#abort.signal]);
    this.#lastHeardMs = options.clock.monotonicMs();
  }

  async run<T>(talk: (child: LineChild) => Promise<T>): Promise<T> {
    this.#signal.throwIfAborted();
    // Detached: a Ctrl-C on the terminal is for the manager, which ends its children in its own time.
    const life = this.#options.life ?? UNWATCHED;
    const pipes = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
    const child = spawnChild({ ...this.#options.command, ...pipes, env: life.env, detached: true });
    life.started(child.pid);
    const errors = lastText(child.stderr);
    const input = child.stdin?.getWriter();
    const end = () => this.#end(child, input);
    this.#signal.addEventListener("abort", end, { once: true });
    const watch = setInterval(
      () => this.#checkSilence(),
      Math.max(SILENCE_CHECK_LEAST_MS, this.#options.silenceLimitMs / SILENCE_CHECKS),
    );
    try {
      const result = await talk({
        pid: child.pid,
        send: (line) => this.#send(input, line),
        replies: (first) => this.#replies(child, input, first),
      });
      this.#signal.throwIfAborted();
      return result;
    } catch (error) {
      if (this.#signal.aborted) throw abortReason(this.#signal);
      if (!(error instanceof ChildEnded)) throw error;
      throw await this.#died(child, errors);
    } finally {
      clearInterval(watch);
      this.#signal.removeEventListener("abort", end);
      this.#end(child, input);
      await child.status;
      life.gone(child.pid);
      await errors;
    }
  }

  #send(input: WritableStreamDefaultWriter<Uint8Array> | undefined, line: unknown): void {
    const bytes = new TextEncoder().encode(JSON.stringify(line) + "\n");
    this.#unreadBytes += bytes.length;
    if (this.#unreadBytes > 2 * this.#options.lineLimitBytes) {
      const { action, name } = this.#options;
      this.#abort.abort(
        new StateManagerError("timeout", `${action}: the ${name} does not read what it is told`),
      );
      return;
    }
    input?.write(bytes).then(() => this.#unreadBytes -= bytes.length, () => {});
  }

  async *#replies(
    child: Child,
    input: WritableStreamDefaultWriter<Uint8Array> | undefined,
    first: () => readonly unknown[],
  ): AsyncGenerator<unknown> {
    if (child.stdout === null || input === undefined) throw new ChildEnded();
    let greeted = false;
    for await (const text of readLines(child.stdout, { limitBytes: this.#options.lineLimitBytes })) {
      this.#lastHeardMs = this.#options.clock.monotonicMs();
      const line = this.#parse(text);
      if (!isHello(line)) yield line;
      else {
        if (line.protocol !== this.#options.protocol) throw this.#otherProtocol(line);
        if (!greeted) { for (const answer of first()) this.#send(input, answer); }
        greeted = true;
      }
    }
    throw new ChildEnded();
  }

  /** Closing its stdin ends it; one that is busy or stopped is killed. */
  #end(child: Child, input: WritableStreamDefaultWriter<Uint8Array> | undefined): void {
    input?.close().catch(() => {});
    const timer = setTimeout(() => child.kill("SIGKILL"), KILL_GRACE_MS);
    child.status.finally(() => clearTimeout(timer)).catch(() => {});
  }

  #checkSilence(): void {
    const { action, name, clock, silenceLimitMs } = this.#options;
    if (clock.monotonicMs() - this.#lastHeardMs < silenceLimitMs) return;
    this.#abort.abort(
      new StateManagerError("timeout", `${action}: the ${name} said nothing for ${silenceLimitMs} ms`, {
        hint: "a disk that does not answer is the usual cause",
      }),
    );
  }

  #parse(text: string): unknown {
    try {
      return JSON.parse(text);
    } catch {
      const { action, name } = this.#options;
      throw new StateManagerError(
        "internal",
        `${action}: the ${name} said something that is not a line of JSON`,
      );
    }
  }

  #otherProtocol(hello: Hello): StateManagerError {
    const { action, name, protocol } = this.#options;
    return new StateManagerError(
      "wrong-state",
      `${action}: the ${name} (build ${hello.build}) speaks protocol ${hello.protocol}, wanted ${protocol}`,
      { hint: "the program was replaced while it ran: restart the manager" },
    );
  }

  async #died(child: Child, errors: Promise<string>): Promise<StateManagerError> {
    const { action, name } = this.#options;
    const { code, signal } = await child.status;
    const how = signal === null ? `exit code ${code}` : signal;
    const text = await errors;
    return new StateManagerError(
      "internal",
      `${action}: the ${name} ended early (${how})${text === "" ? "" : `: ${text}`}`,
      {
        hint: signal === "SIGKILL"
          ? "if memory is short, raise the container's limit"
          : "try again; the log has more",
      },
    );
  }
}

interface Hello {
  readonly type: "hello";
  readonly protocol: number;
  readonly build: string;
}

function isHello(line: unknown): line is Hello {
  return typeof line === "object" && line !== null && "type" in line && line.type === "hello";
}

/** The output ended before the talk did. */
class ChildEnded extends Error {}

function abortReason(signal: AbortSignal): unknown {
  const reason: unknown = signal.reason;
  return isError(reason) ? reason : asStateManagerError(reason, "cancelled");
}

/** Never rejects: the last bytes that the child wrote to its stderr. */
async function lastText(stream: Child["stderr"]): Promise<string> {
  let last = new Uint8Array(0);
  try {
    for await (const bytes of stream ?? []) {
      const joined = new Uint8Array(last.length + bytes.length);
      joined.set(last);
      joined.set(bytes, last.length);
      last = joined.slice(-STDERR_LIMIT_BYTES);
    }
  } catch {
    // The pipe broke: what came so far is what there is.
  }
  return new TextDecoder().decode(last).trim();
}
