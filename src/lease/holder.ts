/**
 * Holds the lease in a store: executes what rules.ts decides, one request at a time, each with its own deadline.
 *
 * Give it the *plain* store, not a `retrying` one: a retry inside a put would hide when its bytes were first sent, and
 * that moment is what the term's deadline counts from. The rules have their own read-back and resend.
 */

import { type Clock, notNeeded } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { log } from "../platform/log.ts";
import { type Random, randomHex } from "../platform/random.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { HandOverRunner } from "./hand_over_runner.ts";
import { heldBy, initialLease, isHeld, isInDoubt, isTrusted, nextWakeMs, nonces } from "./machine.ts";
import type { LeaseMachine, LeaseSettings, LeaseTurn, MachineEffect, MachineEvent } from "./machine.ts";
import { clipInfo, LEASE_KEY, MAX_TTL_MS } from "./record.ts";
import { type LeaseRequests, perform, type RequestEffect, withinTime } from "./requests.ts";
import { step } from "./rules.ts";
import type {
  AcquireOptions,
  Lease,
  LeaseEvent,
  LeaseMemory,
  LeaseStatus,
  LeaseTerm,
  ReleaseOptions,
} from "./types.ts";
import { WallClockWatch } from "./wall_clock_watch.ts";

export interface LeaseHolderOptions {
  /** The plain store (see above); `key` is relative to it. */
  readonly store: ObjectStore;
  /** Default "lease.json". */
  readonly key?: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly ttlMs: number;
  readonly renewMs: number;
  /** How long before the TTL's end the holder fences itself; default 3 s, at most a fifth of the TTL. */
  readonly marginMs?: number;
  /** Longest wait for one request; default 2.5 s, at most a sixth of the TTL. */
  readonly requestTimeoutMs?: number;
  /** Between two looks while waiting, and before a retry; default 1 s, at most a tenth of the TTL. */
  readonly pollMs?: number;
  /** For people who read lease.json: host, pid, version. Long ones are cut. */
  readonly info: Readonly<Record<string, string>>;
  /** Highest token found in the data: a record that is gone, or older than the data, starts above it. Default 0. */
  readonly tokenFloor?: number;
  /** Called in order, after the state has changed; "lost" after `signal` has aborted. Must not throw. */
  readonly onEvent: (event: LeaseEvent) => void;
  /**
   * `answer`: the holder looks for requests of others (event "asked"). `ask`: while it waits it asks for each foreign
   * term, once. Read at each use. Default: neither.
   */
  readonly handOver?: { readonly answer: boolean; readonly ask: boolean };
  /** For a fast return after a crash; left out: a restart waits for the TTL. */
  readonly memory?: LeaseMemory;
  /** Gets every turn of the rules, for traces. Must not throw, nor call this lease. */
  readonly onTurn?: (turn: LeaseTurn) => void;
}

/** Time to freeze some hundred processes, with room for a slow timer. */
const LONGEST_MARGIN_MS = 3_000;
/** A small object's put takes 20 to 300 ms; beyond this it is lost, and asking again is quicker. */
const LONGEST_REQUEST_MS = 2_500;
/** One request a second and waiter, which Cloudflare R2 allows on one key. */
const LONGEST_POLL_MS = 1_000;
/** A claim refused so often is not going to be written; with `wait: false` any failure counts. */
const TRIES_OF_THE_IMPATIENT = 3;
/**
 * A small file's write takes under 1 ms; a disk that is slower is not waited for, at most half of the request's time.
 * A memory that comes too late costs a wait after a crash, never more (memory.ts says why).
 */
const LONGEST_REMEMBER_MS = 500;
/** A release is a put, and at worst its read-back, a resend and another read-back. */
const RELEASE_REQUESTS = 4;

interface Acquisition {
  readonly wait: boolean | number;
  readonly resolve: (term: LeaseTerm) => void;
  readonly reject: (error: unknown) => void;
  /** In a row. */
  readsFailed: number;
  writesFailed: number;
  /** True once the store answered: from then on its errors may pass. */
  reached: boolean;
}

const logger = log("lease");

export class LeaseHolder implements Lease {
  readonly #options: LeaseHolderOptions;
  readonly #settings: LeaseSettings;
  readonly #requests: LeaseRequests;
  readonly #handOver: HandOverRunner;
  readonly #wallClock: WallClockWatch;
  #state: LeaseMachine;
  #term = new AbortController();
  #acquisition: Acquisition | null = null;
  /** The request under way; a result that comes for another one is dropped. */
  #request: AbortController | null = null;
  #timer: AbortController | null = null;
  /** Nonce of the last write that was begun; a resend has the same. */
  #lastNonce = "";
  /** True until a memory that failed works again, so that it is said once. */
  #forgetful = false;
  #forgetting: Promise<void> = Promise.resolve();
  /** Resolves with the next turn. */
  #turned = Promise.withResolvers<void>();
  /** Resolves when the machine has come to rest. */
  #resting = Promise.withResolvers<void>();

  constructor(options: LeaseHolderOptions) {
    const { ttlMs, renewMs } = options;
    const marginMs = options.marginMs ?? Math.min(LONGEST_MARGIN_MS, ttlMs / 5);
    const requestTimeoutMs = options.requestTimeoutMs ?? Math.min(LONGEST_REQUEST_MS, ttlMs / 6);
    if (!(ttlMs > 0 && ttlMs <= MAX_TTL_MS && marginMs > 0 && renewMs > 0)) {
      throw new StateManagerError(
        "config-invalid",
        "set up lease: times must be positive, the TTL at most 24 h",
      );
    }
    if (renewMs + requestTimeoutMs > ttlMs - marginMs) {
      throw new StateManagerError(
        "config-invalid",
        `set up lease: a renewal each ${renewMs} ms leaves no time for one request before a TTL of ${ttlMs} ms ends`,
        { hint: "set lease.renew to a third of lease.ttl or less" },
      );
    }
    this.#options = options;
    const { store, clock, key = LEASE_KEY } = options;
    this.#requests = { store, clock, key, timeoutMs: requestTimeoutMs };
    this.#settings = {
      holder: randomHex(options.random),
      ttlMs: Math.ceil(ttlMs),
      renewMs,
      marginMs,
      pollMs: options.pollMs ?? Math.min(LONGEST_POLL_MS, ttlMs / 10),
      requestTimeoutMs,
      info: clipInfo(options.info),
    };
    this.#handOver = new HandOverRunner({
      store,
      clock,
      random: options.random,
      lease: this.#settings,
      handOver: () => this.#options.handOver,
      onAsked: (by) => this.#options.onEvent({ type: "asked", by }),
    });
    this.#wallClock = new WallClockWatch(clock);
    this.#state = initialLease(options.tokenFloor ?? 0, options.memory?.inherited ?? []);
    this.#term.abort(notHeld("the lease was not acquired yet"));
    this.#resting.resolve();
  }

  get term(): LeaseTerm | null {
    const state = this.#state;
    return state.phase === "owning" && state.announced && !state.ending ? state.term : null;
  }

  get signal(): AbortSignal {
    return this.#term.signal;
  }

  get status(): LeaseStatus {
    const state = this.#state;
    const token = state.phase === "owning" && state.announced ? state.term.token : null;
    return {
      state: this.#stateName(),
      token,
      holder: this.#settings.holder,
      remainingMs: this.term === null ? null : this.#remainingMs(),
      heldBy: heldBy(state),
      lastError: state.lastError,
    };
  }

  assertHeld(minimumMs = 0): void {
    this.#watchWallClock();
    const state = this.#state;
    const nowMs = this.#now();
    if (isHeld(state, nowMs) && this.#remainingMs() >= minimumMs) return;
    const why = isInDoubt(state, nowMs)
      ? "the wall clock jumped ahead, the store has not proven since that the lease is still ours"
      : `the lease is ${this.#stateName()}, ${Math.floor(this.#remainingMs())} ms remain`;
    throw this.#loss() ?? notHeld(why);
  }

  async confirmHeld(minimumMs = 0): Promise<void> {
    this.#watchWallClock();
    // Ends at the deadline at the latest: the rules suspend the term then, in a turn of their own.
    while (isInDoubt(this.#state, this.#now())) await this.#turned.promise;
    this.assertHeld(minimumMs);
  }

  async acquire(options: AcquireOptions): Promise<LeaseTerm> {
    const { wait, signal } = options;
    signal?.throwIfAborted();
    if (this.#acquisition !== null || this.term !== null) {
      throw new StateManagerError("wrong-state", `acquire lease: it is ${this.#stateName()} already`);
    }
    const { promise, resolve, reject } = Promise.withResolvers<LeaseTerm>();
    const acquisition: Acquisition = {
      wait,
      resolve,
      reject,
      readsFailed: 0,
      writesFailed: 0,
      reached: false,
    };
    this.#acquisition = acquisition;
    const over = new AbortController();
    const onAbort = () => this.#abandon(acquisition, signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    if (typeof wait === "number") {
      this.#options.clock.sleep(wait, { signal: over.signal }).then(
        () => this.#abandon(acquisition, this.#waitedInVain(acquisition)),
        () => {}, // acquired, or given up before
      );
    }
    try {
      // A release, or the clean-up of an acquire that was given up, may still be under way: it has its own deadline.
      await Promise.race([this.#resting.promise, promise]);
      if (this.#acquisition === acquisition) this.#dispatch({ type: "acquire" });
      return await promise;
    } finally {
      over.abort(notNeeded());
      signal?.removeEventListener("abort", onAbort);
    }
  }

  async release(options: ReleaseOptions = {}): Promise<void> {
    const timeoutMs = options.timeoutMs ?? RELEASE_REQUESTS * this.#requests.timeoutMs;
    if (this.#acquisition !== null) {
      this.#abandon(this.#acquisition, cancelled());
    }
    if (this.#state.phase === "resting") return;
    this.#dispatch({ type: "release", ...(options.to === undefined ? {} : { to: options.to }) });
    const ended = await this.#settle(timeoutMs);
    if (!ended) {
      throw new StateManagerError("timeout", `release lease: not confirmed within ${timeoutMs} ms`, {
        hint: `the next holder waits until the TTL of ${this.#settings.ttlMs} ms has passed`,
      });
    }
    const error = this.#loss();
    if (error !== null) throw error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release().catch(() => {}); // the TTL covers what a release could not do
    await this.#resting.promise;
    await this.#forgetting;
  }

  #loss(): StateManagerError | null {
    const state = this.#state;
    return state.phase === "resting" && state.as === "lost" ? leaseLost(state.lastError) : null;
  }

  #now(): number {
    return this.#options.clock.monotonicMs();
  }

  #remainingMs(): number {
    const state = this.#state;
    return state.phase === "owning" && isTrusted(state) ? Math.max(0, state.deadlineMs - this.#now()) : 0;
  }

  #stateName(): LeaseStatus["state"] {
    const state = this.#state;
    if (state.phase === "resting") return state.as;
    if (state.phase === "contending") return state.abandoned ? "releasing" : "waiting";
    if (state.ending) return "releasing";
    if (!state.announced) return "waiting";
    return isHeld(state, this.#now()) ? "held" : "suspended";
  }

  #watchWallClock(): void {
    if (this.#wallClock.jumped() && this.#state.phase !== "resting") this.#turn({ type: "doubt" });
  }

  #dispatch(event: MachineEvent): void {
    this.#watchWallClock();
    this.#turn(event);
  }

  /** One turn: the new state first, then the timer and the request, and at last the news, whose hearers may call us. */
  #turn(event: MachineEvent): void {
    const { random } = this.#options;
    const settings = this.#settings;
    const before = this.#state;
    const turn = { nowMs: this.#now(), nonce: randomHex(random), jitter: random.float() };
    const after = step(settings, before, event, turn);
    this.#options.onTurn?.({ settings, state: before, event, turn, after });
    const { state, effects } = after;
    const started = before.phase === "resting" && state.phase !== "resting";
    const ended = before.phase !== "resting" && state.phase === "resting";
    this.#state = state;
    if (started) this.#resting = Promise.withResolvers();
    if (state.phase === "resting" || state.request === "none") this.#endRequest();
    for (const effect of effects) this.#startRequest(effect);
    this.#armTimer();
    const renewed = effects.some((effect) => effect.type === "tell" && effect.event.type === "renewed");
    if (renewed) this.#wallClock.proven();
    for (const effect of effects) this.#tell(effect);
    this.#judgeWait(event);
    this.#handOver.leaseMoved(this.#state, renewed);
    // Given up, or not ours to know: what we wrote, or a predecessor, may still stand there.
    if (ended && before.phase === "owning" && event.type !== "give-up") this.#forget();
    if (ended) this.#resting.resolve();
    const { resolve } = this.#turned;
    this.#turned = Promise.withResolvers();
    resolve();
  }

  #armTimer(): void {
    this.#timer?.abort(notNeeded());
    this.#timer = null;
    const wakeMs = nextWakeMs(this.#state);
    if (wakeMs === null) return;
    const timer = this.#timer = new AbortController();
    this.#options.clock.sleep(Math.max(0, wakeMs - this.#now()), { signal: timer.signal }).then(
      () => {
        if (this.#timer === timer) this.#dispatch({ type: "tick" });
      },
      () => {}, // superseded
    );
  }

  #endRequest(): void {
    this.#request?.abort(cancelled());
    this.#request = null;
  }

  #startRequest(effect: MachineEffect): void {
    if (effect.type !== "get" && effect.type !== "put") return;
    const request = this.#request = new AbortController();
    this.#send(effect, request.signal).then((event) => {
      if (event === null || this.#request !== request) return; // the machine has moved on
      this.#request = null;
      this.#dispatch(event);
    });
  }

  /** Null: not sent, nobody wants it any more. */
  #send(effect: RequestEffect, signal: AbortSignal): Promise<MachineEvent | null> {
    if (effect.type === "get" || effect.record.nonce === this.#lastNonce) {
      return perform(this.#requests, effect, signal);
    }
    this.#lastNonce = effect.record.nonce;
    this.#wallClock.sent();
    // A released record is anybody's: it needs no memory.
    if (this.#options.memory === undefined || effect.record.state === "released") {
      return perform(this.#requests, effect, signal);
    }
    return this.#rememberAndSend(effect, signal);
  }

  /** If we die before the put, the memory names what stands there; after it, what stands there or comes. */
  async #rememberAndSend(effect: RequestEffect, signal: AbortSignal): Promise<MachineEvent | null> {
    const { timeoutMs } = this.#requests;
    const sinceMs = this.#now();
    await this.#remember(nonces(this.#state), Math.min(LONGEST_REMEMBER_MS, timeoutMs / 2), signal);
    if (signal.aborted) return null; // a put that left now would be a claim that nobody follows up
    const leftMs = Math.max(timeoutMs / 2, timeoutMs - (this.#now() - sinceMs));
    return await perform({ ...this.#requests, timeoutMs: leftMs }, effect, signal);
  }

  /** Bounded, and never rejects: without a memory a restart waits for the TTL. */
  async #remember(kept: readonly string[], timeoutMs: number, signal: AbortSignal): Promise<void> {
    const { memory, clock } = this.#options;
    if (memory === undefined) return;
    const failure = await withinTime<string | null>(
      { clock, timeoutMs },
      signal,
      () => memory.remember(kept).then(() => null, (error) => asStateManagerError(error).message),
      () => `not written within ${timeoutMs} ms`,
    );
    if (failure !== null && !this.#forgetful) {
      logger.warn("lease not noted in the data folder: after a crash this one waits for the TTL", {
        error: failure,
      });
    }
    this.#forgetful = failure !== null;
  }

  #forget(): void {
    this.#forgetting = this.#remember([], LONGEST_REMEMBER_MS, NEVER);
  }

  #tell(effect: MachineEffect): void {
    if (effect.type === "fail") return this.#acquisitionFailed(effect.error);
    if (effect.type !== "tell") return;
    const { event } = effect;
    if (event.type === "acquired") this.#term = new AbortController();
    if (event.type === "lost") this.#term.abort(leaseLost(event.error));
    this.#options.onEvent(event);
    if (event.type !== "acquired") return;
    this.#acquisition?.resolve(event.term);
    this.#acquisition = null;
  }

  /** Decides whether an acquire goes on waiting after what just happened. */
  #judgeWait(event: MachineEvent): void {
    const acquisition = this.#acquisition;
    const state = this.#state;
    if (acquisition === null || state.phase !== "contending") return;
    const impatient = acquisition.wait === false;
    switch (event.type) {
      case "read":
        acquisition.reached = true;
        acquisition.readsFailed = 0;
        break;
      case "read-failed": {
        acquisition.readsFailed++;
        // Refused before the first answer: a wrong configuration. Later it may pass, credentials rotate.
        const misconfigured = !acquisition.reached && !event.error.retryable;
        if (misconfigured || (impatient && acquisition.readsFailed >= TRIES_OF_THE_IMPATIENT)) {
          return this.#abandon(acquisition, event.error);
        }
        break;
      }
      case "unknown":
        acquisition.writesFailed++;
        if ((impatient || !event.error.retryable) && acquisition.writesFailed >= TRIES_OF_THE_IMPATIENT) {
          return this.#abandon(acquisition, event.error);
        }
        break;
    }
    if (impatient && state.attempt === null && heldBy(state) !== null) {
      this.#abandon(acquisition, this.#heldElsewhere());
    }
  }

  #acquisitionFailed(error: unknown): void {
    this.#acquisition?.reject(error);
    this.#acquisition = null;
  }

  /** The acquire ends now; what it may have left under way in the store is settled behind it, within a deadline. */
  #abandon(acquisition: Acquisition, reason: unknown): void {
    if (this.#acquisition !== acquisition) return;
    this.#acquisitionFailed(reason);
    if (this.#state.phase === "resting") return;
    this.#dispatch({ type: "release" });
    this.#settle(RELEASE_REQUESTS * this.#requests.timeoutMs);
  }

  /** Waits until the machine rests; at the deadline it is told to give up. True when it came to rest by itself. */
  async #settle(timeoutMs: number): Promise<boolean> {
    if (this.#state.phase === "resting") return true;
    const over = new AbortController();
    const resting = this.#resting.promise.then(() => true);
    const tooLate = this.#options.clock.sleep(timeoutMs, { signal: over.signal }).then(
      () => false,
      () => true,
    );
    const ended = await Promise.race([resting, tooLate]);
    over.abort(notNeeded());
    if (!ended) this.#dispatch({ type: "give-up" });
    return ended;
  }

  #waitedInVain(acquisition: Acquisition): StateManagerError {
    if (acquisition.reached) return this.#heldElsewhere();
    const reason = this.#state.lastError ?? "no answer yet";
    return new StateManagerError("store-unreachable", `acquire lease: ${reason}`);
  }

  #heldElsewhere(): StateManagerError {
    const other = heldBy(this.#state);
    const who = other === null
      ? "somebody else"
      : [other.holder, ...Object.entries(other.info).map(([name, value]) => `${name} ${value}`)].join(", ");
    return new StateManagerError("lease-held-elsewhere", `acquire lease: it is held by ${who}`, {
      hint: "stop the other one, or let this one wait (lease.wait)",
    });
  }
}

const NEVER = new AbortController().signal;

function notHeld(why: string): StateManagerError {
  return new StateManagerError("lease-not-held", `use lease: ${why}`);
}

function leaseLost(why: string | null): StateManagerError {
  return new StateManagerError("lease-lost", `use lease: it was lost, ${why ?? "somebody else has it"}`, {
    hint: "nothing more is written here; the new holder carries on from the last state in the store",
  });
}

function cancelled(): StateManagerError {
  return new StateManagerError("cancelled", "acquire lease: cancelled");
}
