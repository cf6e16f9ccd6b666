/**
 * Executes what hand_over.ts decides. Its requests, timer and failures are its own: nothing here may delay or end a
 * request of the lease itself.
 */

import { type Clock, notNeeded } from "../platform/clock.ts";
import { isError } from "../platform/errors.ts";
import { log } from "../platform/log.ts";
import { type Random, randomHex } from "../platform/random.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { NO_HAND_OVER, standing, stepHandOver } from "./hand_over.ts";
import { type HandOver, type HandOverEffect, type HandOverEvent, nextHandOverMs } from "./hand_over.ts";
import type { LeaseMachine, LeaseSettings } from "./machine.ts";
import { decodeHandOver, encodeHandOver, HAND_OVER_KEY, MAX_HAND_OVER_BYTES } from "./record.ts";
import { withinTime } from "./requests.ts";
import type { Asker } from "./types.ts";

export interface HandOverRunnerOptions {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly lease: LeaseSettings;
  /** Read at each use; undefined: neither. */
  readonly handOver: () => { readonly answer: boolean; readonly ask: boolean } | undefined;
  readonly onAsked: (by: Asker) => void;
}

const logger = log("lease");

export class HandOverRunner {
  readonly #options: HandOverRunnerOptions;
  #state: HandOver = NO_HAND_OVER;
  /** The request under way; a result that comes for another one is dropped. */
  #request: AbortController | null = null;
  #timer: AbortController | null = null;

  constructor(options: HandOverRunnerOptions) {
    this.#options = options;
  }

  /** The lease has moved; to be called after each of its turns, also after the last one. */
  leaseMoved(lease: LeaseMachine, renewed: boolean): void {
    this.#dispatch(standing(lease, this.#options.clock.monotonicMs(), renewed));
  }

  #dispatch(event: HandOverEvent): void {
    const { clock, random, lease, handOver } = this.#options;
    const { answer, ask } = handOver() ?? NEITHER;
    const settings = { holder: lease.holder, pollMs: lease.pollMs, info: lease.info, answer, ask };
    const turn = { nowMs: clock.monotonicMs(), nonce: randomHex(random) };
    const { state, effects } = stepHandOver(settings, this.#state, event, turn);
    const moved = state.task?.type !== this.#state.task?.type ||
      state.task?.token !== this.#state.task?.token;
    this.#state = state;
    if (moved || state.request === "none") this.#endRequest();
    for (const effect of effects) this.#startRequest(effect);
    this.#armTimer();
    for (const effect of effects) {
      if (effect.type === "note") logger.warn("hand-over", { note: effect.text });
      if (effect.type === "asked") this.#options.onAsked(effect.by);
    }
  }

  #armTimer(): void {
    this.#timer?.abort(notNeeded());
    this.#timer = null;
    const wakeMs = nextHandOverMs(this.#state);
    if (wakeMs === null) return;
    const { clock } = this.#options;
    const timer = this.#timer = new AbortController();
    clock.sleep(Math.max(0, wakeMs - clock.monotonicMs()), { signal: timer.signal }).then(
      () => {
        if (this.#timer === timer) this.#dispatch({ type: "tick" });
      },
      () => {}, // superseded
    );
  }

  #endRequest(): void {
    this.#request?.abort();
    this.#request = null;
  }

  #startRequest(effect: HandOverEffect): void {
    if (effect.type !== "get" && effect.type !== "put") return;
    const { clock, lease } = this.#options;
    const request = this.#request = new AbortController();
    withinTime<HandOverEvent>(
      { clock, timeoutMs: lease.requestTimeoutMs },
      request.signal,
      (signal) => this.#send(effect, signal),
      () => ({ type: "failed" }),
    ).then((event) => {
      if (this.#request !== request) return; // another task meanwhile
      this.#request = null;
      this.#dispatch(event);
    });
  }

  /** Never rejects. */
  async #send(
    effect: Extract<HandOverEffect, { readonly type: "get" | "put" }>,
    signal: AbortSignal,
  ): Promise<HandOverEvent> {
    const { store, lease } = this.#options;
    const options = { signal, timeoutMs: lease.requestTimeoutMs };
    try {
      if (effect.type === "put") {
        const condition = effect.base === null ? { absent: true } as const : { etag: effect.base };
        await store.put(HAND_OVER_KEY, encodeHandOver(effect.request), { ...options, condition });
        return { type: "written" };
      }
      // A little more than is ever believed: whatever somebody put there, no more of it is loaded.
      const range = { start: 0, end: MAX_HAND_OVER_BYTES + 1 };
      const { etag, body } = await store.get(HAND_OVER_KEY, { ...options, range });
      return { type: "read", found: { etag, request: decodeHandOver(body) } };
    } catch (error) {
      return isError(error, "object-not-found") ? { type: "read", found: null } : { type: "failed" };
    }
  }
}

const NEITHER = { answer: false, ask: false };
