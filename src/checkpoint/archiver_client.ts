/**
 * The manager's side of the archiver: one child per operation, bounded in what it may send, killed when the work is
 * aborted or it falls silent. Credentials go through its stdin only, never by argument or environment.
 */

import { type Child, spawnChild } from "../platform/child_process.ts";
import type { Clock } from "../platform/clock.ts";
import { selfCommand } from "../platform/entry.ts";
import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import { readLines } from "../platform/line_reader.ts";
import { errorFromWire } from "../platform/wire_error.ts";
import { storeToWire } from "../storage/mod.ts";
import {
  type ArchiverStore,
  LINE_LIMIT_BYTES,
  type Operation,
  PROTOCOL,
  type ReplyLine,
  type RequestLine,
  type Results,
} from "./archiver_protocol.ts";
import type { ComposeRequest } from "./compose.ts";
import type { CreateRequest, CreateResult, HeadFacts } from "./create.ts";
import { nextOrdinal } from "./head.ts";
import type { StageResult, StageTarget } from "./restore.ts";
import type { ArchiveProgress, ArchiveTotals, CheckpointRecord, Head } from "./types.ts";

/** After its stdin was closed the child has this long to end by itself. */
const KILL_GRACE_MS = 300;
/** The child says something each second; one that is silent for this long is stuck (a dead disk, a stopped process). */
const SILENCE_LIMIT_MS = 10 * 60 * 1000;
/** The last output of a child that crashed, for the error. */
const STDERR_LIMIT_BYTES = 4096;

export interface ArchiverOptions {
  readonly store: ArchiverStore;
  /** Folders in the data dir: `cache` is kept, `scratch` may be emptied at any time by its owner. */
  readonly dir: { readonly cache: string; readonly scratch: string };
  readonly clock: Clock;
  /** argv of the child; the default is this program. */
  readonly command?: { readonly command: string; readonly args: readonly string[] };
  readonly silenceLimitMs?: number;
  /** Made anew for each child, before its spawn. */
  readonly watchChild?: () => ChildLife;
}

/** Who must know of one child: the manager sees to it that none outlives it. */
export interface ChildLife {
  /** Added to the child's environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Called in the turn that spawned it; it leads its own group. */
  started(pid: number): void;
  gone(pid: number): void;
}

const UNWATCHED: ChildLife = { env: {}, started: () => {}, gone: () => {} };

export interface ArchiverWork {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: ArchiveProgress) => void;
  /** With the checkpoint's id, when its content is fixed. */
  readonly onCaptured?: (id: string) => void;
}

/** What the caller says of a new checkpoint; the head's part is taken from `head`. */
export type NewCheckpoint = Omit<CreateRequest, "head" | "devices"> & { readonly head: Head };

function factsOf(head: Head): HeadFacts {
  const current = head.checkpoints.find((record) => record.id === head.current) ?? null;
  return { repo_id: head.repo_id, n: nextOrdinal(head), current, indexes: head.indexes };
}

export class Archiver {
  readonly #options: ArchiverOptions;
  readonly #closed = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  /** Devices of the roots as this manager saw them: one that changes means a volume came or went. */
  #devices: Readonly<Record<string, string>> = {};

  constructor(options: ArchiverOptions) {
    this.#options = options;
  }

  /** Reads and uploads; the caller commits the record with the indexes into the head that it gave. */
  async create(request: NewCheckpoint, work: ArchiverWork = {}): Promise<CreateResult> {
    const full: CreateRequest = { ...request, head: factsOf(request.head), devices: this.#devices };
    const result = await this.#run(
      { op: "create", request: full },
      work,
      () => work.onCaptured?.(request.id),
    );
    this.#devices = { ...this.#devices, ...result.devices };
    return result;
  }

  /** Brings files roots into stages that do not exist yet; `former` ones of the same restore are used up. */
  async stage(
    request: {
      readonly head: Head;
      readonly record: CheckpointRecord;
      readonly roots: readonly StageTarget[];
    },
    work: ArchiverWork = {},
  ): Promise<StageResult> {
    const { head, record, roots } = request;
    const result = await this.#run({ op: "stage", request: { record, indexes: head.indexes, roots } }, work);
    // A restored root may come to lie on another device than the one before it.
    const restored = new Set(roots.map((root) => root.name));
    this.#devices = Object.fromEntries(Object.entries(this.#devices).filter(([name]) => !restored.has(name)));
    return result;
  }

  /** What staging would fetch. */
  async plan(
    request: { readonly head: Head; readonly record: CheckpointRecord; readonly names: readonly string[] },
    work: ArchiverWork = {},
  ): Promise<{ readonly totals: ArchiveTotals }> {
    const { head, record, names } = request;
    return {
      totals: await this.#run({ op: "plan", request: { record, indexes: head.indexes, names } }, work),
    };
  }

  /** The record of a restore to the past: items of `source` for `names`, the current ones for all else. */
  composeRestore(
    request: Omit<ComposeRequest, "head" | "comment" | "labels"> & {
      readonly head: Head;
      readonly comment?: string;
      readonly labels?: Readonly<Record<string, string>>;
    },
    work: ArchiverWork = {},
  ): Promise<CheckpointRecord> {
    const { comment = "", labels = {}, ...rest } = request;
    return this.#run(
      { op: "compose", request: { ...rest, comment, labels, head: factsOf(request.head) } },
      work,
    );
  }

  /** Ends what runs; no call may follow. */
  async close(): Promise<void> {
    this.#closed.abort(new StateManagerError("cancelled", "archive: the manager stops"));
    await Promise.allSettled(this.#running);
  }

  #run<Op extends Operation["op"]>(
    operation: Extract<Operation, { op: Op }>,
    work: ArchiverWork,
    onCaptured: () => void = () => {},
  ): Promise<Results[Op]> {
    const signals = [this.#closed.signal, ...(work.signal === undefined ? [] : [work.signal])];
    const listeners = { onProgress: work.onProgress ?? (() => {}), onCaptured };
    const run = new Conversation(this.#options, AbortSignal.any(signals), listeners).run(operation);
    const tracked = run.finally(() => this.#running.delete(tracked));
    this.#running.add(tracked);
    // The child is this program: what it says of a result is what its types say.
    return tracked as Promise<Results[Op]>;
  }
}

interface Listeners {
  readonly onProgress: (progress: ArchiveProgress) => void;
  readonly onCaptured: () => void;
}

/** One child from its start to its end. */
class Conversation {
  readonly #options: ArchiverOptions;
  readonly #listeners: Listeners;
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  #lastHeardMs: number;

  constructor(options: ArchiverOptions, signal: AbortSignal, listeners: Listeners) {
    this.#options = options;
    this.#listeners = listeners;
    this.#signal = AbortSignal.any([signal, this.#abort.signal]);
    this.#lastHeardMs = options.clock.monotonicMs();
  }

  async run(operation: Operation): Promise<unknown> {
    this.#signal.throwIfAborted();
    const argv = this.#options.command ?? selfCommand(["__archive"]);
    // Detached: a Ctrl-C on the terminal is for the manager, which ends the archiver in its own time.
    const life = this.#options.watchChild?.() ?? UNWATCHED;
    const pipes = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
    const child = spawnChild({ ...argv, ...pipes, env: life.env, detached: true });
    life.started(child.pid);
    const errors = lastText(child.stderr);
    const input = child.stdin?.getWriter();
    const end = () => this.#end(child, input);
    this.#signal.addEventListener("abort", end, { once: true });
    const watch = setInterval(() => this.#checkSilence(), 1000);
    try {
      const result = await this.#converse(child, input, operation);
      this.#signal.throwIfAborted();
      return result;
    } catch (error) {
      if (this.#signal.aborted) throw abortReason(this.#signal);
      if (!isError(error, "internal") || !(error instanceof ChildEnded)) throw error;
      throw await died(child, errors);
    } finally {
      clearInterval(watch);
      this.#signal.removeEventListener("abort", end);
      this.#end(child, input);
      await child.status;
      life.gone(child.pid);
      await errors;
    }
  }

  async #converse(
    child: Child,
    input: WritableStreamDefaultWriter<Uint8Array> | undefined,
    operation: Operation,
  ): Promise<unknown> {
    if (child.stdout === null || input === undefined) throw new ChildEnded();
    const { store, dir } = this.#options;
    let asked = false;
    for await (const text of readLines(child.stdout, { limitBytes: LINE_LIMIT_BYTES })) {
      this.#lastHeardMs = this.#options.clock.monotonicMs();
      const line: ReplyLine = parseReply(text);
      if (line.type === "hello") {
        if (line.protocol !== PROTOCOL) throw otherProtocol(line);
        if (asked) continue;
        asked = true;
        const request: RequestLine = {
          ...operation,
          protocol: PROTOCOL,
          store: storeToWire(store),
          cacheFolder: dir.cache,
          scratchFolder: dir.scratch,
        };
        // Not awaited: a child that died answers by ending its output, and its exit says why.
        input.write(new TextEncoder().encode(JSON.stringify(request) + "\n")).catch(() => {});
      } else if (line.type === "progress") this.#listeners.onProgress(line.progress);
      else if (line.type === "captured") this.#listeners.onCaptured();
      else if (line.type === "error") throw errorFromWire(line.error);
      else return line.result;
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
    const limitMs = this.#options.silenceLimitMs ?? SILENCE_LIMIT_MS;
    if (this.#options.clock.monotonicMs() - this.#lastHeardMs < limitMs) return;
    this.#abort.abort(
      new StateManagerError("timeout", `archive: the archiver said nothing for ${limitMs} ms`, {
        hint: "a disk that does not answer is the usual cause",
      }),
    );
  }
}

/** The output ended with no result. */
class ChildEnded extends StateManagerError {
  constructor() {
    super("internal", "archive: the archiver ended without an answer");
  }
}

function parseReply(text: string): ReplyLine {
  try {
    return JSON.parse(text);
  } catch {
    throw new StateManagerError(
      "internal",
      "archive: the archiver said something that is not a line of JSON",
    );
  }
}

function otherProtocol(hello: { readonly protocol: number; readonly build: string }): StateManagerError {
  return new StateManagerError(
    "wrong-state",
    `archive: the archiver (build ${hello.build}) speaks protocol ${hello.protocol}, wanted ${PROTOCOL}`,
    { hint: "the program was replaced while it ran: restart the manager" },
  );
}

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

async function died(child: Child, errors: Promise<string>): Promise<StateManagerError> {
  const { code, signal } = await child.status;
  const how = signal === null ? `exit code ${code}` : signal;
  const text = await errors;
  return new StateManagerError(
    "internal",
    `archive: the archiver ended early (${how})${text === "" ? "" : `: ${text}`}`,
    {
      hint: signal === "SIGKILL"
        ? "if memory is short, raise the container's limit"
        : "try again; the log has more",
    },
  );
}
