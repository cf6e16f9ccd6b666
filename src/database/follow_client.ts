/**
 * The manager's side of the follower: one child that follows all databases, for as long as the lease is held. It is
 * told things without ever being waited for; one that dies or falls silent is replaced, told everything anew (the
 * newest settings, the deadline, the questions without an answer) and proves its positions by itself. All that is known
 * here is state, so a replacement is never behind.
 *
 * If we die, its stdin closes and it ends; what it had captured stays in its local files for the next one.
 */

import type { Clock } from "../platform/clock.ts";
import { selfCommand } from "../platform/entry.ts";
import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import { type ChildLife, converse, type LineChild } from "../platform/line_child.ts";
import type { Log } from "../platform/log.ts";
import { errorFromWire } from "../platform/wire_error.ts";
import { credentialsToWire, type OpenStoreOptions, storeToWire } from "../storage/mod.ts";
import {
  FOLLOW_LINE_LIMIT_BYTES,
  FOLLOW_PROTOCOL,
  type FollowCommand,
  type FollowedDatabase,
  type FollowedFolder,
  type FollowEvent,
  type FollowQuestion,
  type FollowReply,
  type FollowRequest,
  type Positions,
  type SyncAnswer,
} from "./follow_protocol.ts";
import { Pins } from "./follow_pins.ts";
import { FollowBoard, type FollowStatus, type LinkState } from "./follow_status.ts";

/** Pause before the second try of a replacement, doubled to the longest; the first comes at once. */
const RESTART_FIRST_MS = 50;
const RESTART_LONGEST_MS = 2_000;
/** One that lived this long starts again with no pause. */
const HEALTHY_MS = 10_000;
/** It says every two seconds that it lives; a checkpoint of a huge log on a slow disk may hold it up for long. */
const SILENCE_LIMIT_MS = 2 * 60_000;
/**
 * Its buffers of pages and files come and go each second. Left to itself glibc raises the size from which memory is given
 * back, and keeps some 10 MB of holes.
 */
const CHILD_ENV = { MALLOC_MMAP_THRESHOLD_: "131072" };
/** Callers are requests of the API and the manager's own steps; more than this at once is an error of theirs. */
const QUESTIONS_LIMIT = 1_000;

export interface FollowLinkOptions {
  readonly store: OpenStoreOptions;
  /** Fencing token of the term. */
  readonly token: number;
  /** The manager's data folder, absolute. */
  readonly dataFolder: string;
  readonly databases: readonly FollowedDatabase[];
  readonly folders?: readonly FollowedFolder[];
  readonly clock: Clock;
  readonly log: Log;
  /** Made anew for each child, before its spawn. */
  readonly watchChild?: () => ChildLife;
  /** Somebody with a larger token was there: called once; nothing is followed any more. Must not throw. */
  readonly onFenced: (error: StateManagerError) => void;
  /** Must not throw. */
  readonly onEvent?: (event: FollowEvent) => void;
  /** Called at most a few times a second, when something changed. Must not throw. */
  readonly onStatus?: (status: FollowStatus) => void;
  /** argv of the child; the default is this program. */
  readonly command?: { readonly command: string; readonly args: readonly string[] };
  readonly silenceLimitMs?: number;
}

export interface CallOptions {
  /** Gives up waiting; the child goes on by itself. */
  readonly signal?: AbortSignal;
}

/** `Omit` of each member of a union. */
type WithoutId<T> = T extends unknown ? Omit<T, "id"> : never;

interface Question {
  readonly line: FollowQuestion;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class FollowLink implements AsyncDisposable {
  readonly #options: FollowLinkOptions;
  readonly #databases = new Map<string, FollowedDatabase>();
  /** Of files in folders, too. */
  readonly #pins = new Map<string, Pins>();
  /** Also where a folder still has the file. */
  readonly #removed = new Set<string>();
  readonly #closed = new AbortController();
  readonly #questions = new Map<number, Question>();
  readonly #board: FollowBoard;
  #deadlineBootMs: number | null = null;
  #state: LinkState = "starting";
  #child: LineChild | null = null;
  #nextId = 1;
  #life: Promise<void> | null = null;

  constructor(options: FollowLinkOptions) {
    this.#options = options;
    for (const database of options.databases) {
      this.#databases.set(database.name, database);
      this.#pins.set(database.name, new Pins(database.pins));
    }
    this.#board = new FollowBoard(options.clock);
  }

  /** Starts the child; nothing is waited for. Everything may be told and asked from now on, and before. */
  start(): void {
    this.#life ??= this.#keepAlive();
  }

  /**
   * Nothing is sent to the store after `bootMs` on CLOCK_BOOTTIME (this clock's monotonicMs), until a later one is told;
   * null: nothing at all, which is also the state before the first call.
   */
  deadline(bootMs: number | null): void {
    this.#deadlineBootMs = bootMs;
    this.#tell({ type: "deadline", bootMs });
  }

  /** Resolves when everything that was committed in `name` before this call is in the store. */
  sync(name: string, options: CallOptions = {}): Promise<SyncAnswer> {
    // The child is this program: what it says of a result is what its types say.
    return this.#ask({ type: "sync", name }, options) as Promise<SyncAnswer>;
  }

  /**
   * A barrier for all databases at once; gives what is durable then, for a checkpoint. These TXIDs stay restorable until
   * `pins` names later ones.
   */
  async positions(options: CallOptions = {}): Promise<Positions> {
    const result = await this.#ask({ type: "position" }, options) as Positions;
    // As the child does by itself, so that its successor does too.
    for (const [name, txid] of Object.entries(result.positions)) this.#pinsOf(name).hold(txid);
    return result;
  }

  /**
   * Gives each database a TXID of this term. No program may start before it has resolved: then no earlier holder can
   * add a commit to any of them.
   */
  async seal(options: CallOptions = {}): Promise<Positions> {
    const sealed = await this.#ask({ type: "seal" }, options) as Positions;
    // From now on programs write: after a restart of the child the files are no longer what was restored.
    for (const [name, database] of this.#databases) {
      if (name in sealed.positions) this.#databases.set(name, { ...database, baseline: null });
    }
    return sealed;
  }

  /** TXIDs of kept checkpoints, for each name given here, and what a restore is on its way to, in place of all before. */
  pins(
    pins: Readonly<Record<string, readonly number[]>>,
    wanted: Readonly<Record<string, number>> = {},
  ): void {
    for (const [name, kept] of Object.entries(pins)) this.#pinsOf(name).keep(kept);
    for (const known of this.#pins.values()) known.want([]);
    for (const [name, txid] of Object.entries(wanted)) this.#pinsOf(name).want([txid]);
    this.#tell({ type: "pins", pins, wanted });
  }

  add(database: FollowedDatabase): void {
    this.#databases.set(database.name, database);
    this.#pins.set(database.name, new Pins(database.pins));
    this.#removed.delete(database.name);
    this.#tell({ type: "add", database });
  }

  /** Resolves when the child has let go of the file. Its local files stay. */
  async remove(name: string, options: CallOptions = {}): Promise<void> {
    this.#databases.delete(name);
    this.#pins.delete(name);
    this.#removed.add(name);
    await this.#ask({ type: "remove", name }, options);
  }

  /** The store's credentials have changed: the child gets the newest. */
  renewCredentials(): void {
    const { store } = this.#options;
    if (store.kind !== "s3") return;
    this.#tell({ type: "credentials", credentials: credentialsToWire(store.credentials()) });
  }

  /**
   * The programs are stopped: all they committed goes to the store, then the files are let go and the child ends.
   * `signal` is the end of the time there is: then the status says what did not reach the store, and `close` ends it.
   */
  async finish(options: CallOptions = {}): Promise<Positions> {
    const finished = await this.#ask({ type: "finish" }, options) as Positions;
    await this.#close("finished");
    return finished;
  }

  /** Ends the child at once; what it has captured stays in its local files. Questions are rejected. */
  async close(): Promise<void> {
    await this.#close("ended");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  status(): FollowStatus {
    return this.#board.status(this.#state, this.#child?.pid ?? null);
  }

  #ask(question: WithoutId<FollowQuestion>, { signal }: CallOptions): Promise<unknown> {
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    if (this.#closed.signal.aborted) return Promise.reject(this.#closed.signal.reason);
    if (this.#questions.size >= QUESTIONS_LIMIT) {
      return Promise.reject(
        new StateManagerError("overloaded", `follow: ${QUESTIONS_LIMIT} calls wait for an answer already`),
      );
    }
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const line: FollowQuestion = { ...question, id };
    const onAbort = () => {
      this.#questions.delete(id);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#questions.set(id, { line, resolve, reject });
    this.#tell(line);
    return promise.finally(() => signal?.removeEventListener("abort", onAbort));
  }

  #tell(line: FollowCommand): void {
    this.#child?.send(line);
  }

  /** One child after another until the end. Never rejects. */
  async #keepAlive(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#closed;
    let pauseMs = 0;
    while (!signal.aborted) {
      const sinceMs = clock.monotonicMs();
      const error = await this.#oneLife();
      this.#child = null;
      if (signal.aborted) break;
      this.#state = "restarting";
      this.#board.childEnded(error);
      if (clock.monotonicMs() - sinceMs >= HEALTHY_MS) pauseMs = 0;
      log.error("the follower ended, starting another: until then nothing is sent", {
        error,
        inMs: pauseMs,
      });
      if (pauseMs > 0) await clock.sleep(pauseMs, { signal }).catch(() => {});
      pauseMs = Math.min(Math.max(RESTART_FIRST_MS, pauseMs * 2), RESTART_LONGEST_MS);
    }
  }

  /** From spawn to exit; resolves with why it ended. */
  async #oneLife(): Promise<StateManagerError> {
    const { clock, watchChild, command, silenceLimitMs } = this.#options;
    try {
      const life = watchChild?.();
      await converse({
        action: "follow",
        name: "follower",
        command: command ?? selfCommand(["__follow"]),
        protocol: FOLLOW_PROTOCOL,
        clock,
        lineLimitBytes: FOLLOW_LINE_LIMIT_BYTES,
        silenceLimitMs: silenceLimitMs ?? SILENCE_LIMIT_MS,
        signal: this.#closed.signal,
        life: life === undefined ? undefined : { ...life, env: { ...CHILD_ENV, ...life.env } },
      }, async (child) => {
        for await (const reply of child.replies(() => this.#greet(child))) {
          this.#hear(reply as FollowReply);
        }
      });
      return new StateManagerError("internal", "follow: the follower ended");
    } catch (error) {
      return asStateManagerError(error);
    }
  }

  #request(): FollowRequest {
    const { store, token, dataFolder, folders = [] } = this.#options;
    return {
      type: "follow",
      protocol: FOLLOW_PROTOCOL,
      store: storeToWire(store),
      token,
      dataFolder,
      databases: [...this.#databases.values()].map((database) => ({
        ...database,
        pins: this.#pinsOf(database.name).all(),
      })),
      folders: folders.map((folder) => ({ ...folder, pins: this.#pinsIn(folder) })),
      removed: [...this.#removed],
      deadlineBootMs: this.#deadlineBootMs,
      behind: this.#board.behind(),
    };
  }

  #pinsOf(name: string): Pins {
    const pins = this.#pins.get(name) ?? new Pins([]);
    this.#pins.set(name, pins);
    return pins;
  }

  #pinsIn({ name, pins }: FollowedFolder): Readonly<Record<string, readonly number[]>> {
    const prefix = `${name}/`;
    const newer = [...this.#pins].filter(([each]) => each.startsWith(prefix))
      .map(([each, known]) => [each.slice(prefix.length), known.all()] as const);
    return { ...pins, ...Object.fromEntries(newer) };
  }

  #hear(reply: FollowReply): void {
    const { log, onEvent, onStatus } = this.#options;
    this.#board.heard();
    switch (reply.type) {
      case "status":
        this.#board.update(reply.databases, reply.gone);
        return onStatus?.(this.status());
      case "answer":
        return this.#answered(reply);
      case "event": {
        const { level, message, kind, name, hint } = reply.event;
        log[level](message, { kind, database: name, ...(hint === null ? {} : { hint }) });
        return onEvent?.(reply.event);
      }
      case "fenced":
        return this.#fenced(errorFromWire(reply.error));
      default:
        return; // hello, alive: that it was heard is all
    }
  }

  /** A new child: the settings as they are now, and all that is still open. What is told from here on comes after. */
  #greet(child: LineChild): readonly (FollowRequest | FollowCommand)[] {
    this.#child = child;
    this.#state = "following";
    this.#board.childStarted();
    return [this.#request(), ...[...this.#questions.values()].map(({ line }) => line)];
  }

  #answered({ id, result, error }: Extract<FollowReply, { type: "answer" }>): void {
    const question = this.#questions.get(id);
    if (question === undefined) return; // given up
    this.#questions.delete(id);
    if (error === null) question.resolve(result);
    else question.reject(errorFromWire(error));
  }

  #fenced(error: StateManagerError): void {
    if (this.#closed.signal.aborted) return;
    this.#end("fenced", error);
    this.#options.onFenced(error);
  }

  async #close(state: "finished" | "ended"): Promise<void> {
    if (!this.#closed.signal.aborted) {
      this.#end(state, new StateManagerError("cancelled", "follow: the manager has ended it"));
    }
    await this.#life;
    this.#child = null;
  }

  #end(state: LinkState, reason: StateManagerError): void {
    this.#state = state;
    this.#closed.abort(reason);
    for (const { reject } of this.#questions.values()) reject(reason);
    this.#questions.clear();
  }
}

/** True when `error` says that the term is over for its databases. */
export function isFenced(error: unknown): boolean {
  return isError(error, "lease-lost");
}
