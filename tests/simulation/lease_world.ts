/**
 * A small world in virtual time for the shipped rules of the lease: nodes with drifting clocks that pause and crash,
 * one store that loses, delays and doubles requests, and the checks that must hold in it. One seed, one history.
 */

import { initialLease, isHeld, nextWakeMs } from "../../src/lease/machine.ts";
import type {
  Found,
  LeaseMachine,
  LeaseSettings,
  MachineEvent,
  Step,
  Turn,
} from "../../src/lease/machine.ts";
import { takeOverAfterMs } from "../../src/lease/machine.ts";
import { step } from "../../src/lease/rules.ts";
import type { LeaseRecord } from "../../src/lease/types.ts";
import { StateManagerError } from "../../src/platform/errors.ts";

const REQUEST_TIMEOUT_MS = 2_500;
const SETTINGS = {
  ttlMs: 15_000,
  renewMs: 4_000,
  marginMs: 3_000,
  pollMs: 1_000,
  requestTimeoutMs: REQUEST_TIMEOUT_MS,
  info: {},
};
/** A request may land so long after it was sent. */
const LATEST_LANDING_MS = 20_000;
/** Faults happen until here … */
const STORM_MS = 180_000;
/** … and so long after it somebody must hold the lease: what is late lands, then at most two waits. */
const CALM_MS = LATEST_LANDING_MS + 2 * 1.05 * takeOverAfterMs(SETTINGS.ttlMs) +
  4 * REQUEST_TIMEOUT_MS;

/** How often things go wrong, per request or per second and node. */
export interface Faults {
  readonly lostRequest: number;
  readonly lostReply: number;
  readonly lateLanding: number;
  readonly doubled: number;
  readonly refusedForNow: number;
  readonly pausePerSecond: number;
  readonly crashPerSecond: number;
  readonly releasePerSecond: number;
  readonly longestPauseMs: number;
}

export const FAULTS: Faults = {
  lostRequest: 0.03,
  lostReply: 0.05,
  lateLanding: 0.04,
  doubled: 0.04,
  refusedForNow: 0.04,
  pausePerSecond: 0.012,
  crashPerSecond: 0.008,
  releasePerSecond: 0.012,
  longestPauseMs: 40_000,
};

/** What a mutant may see of the node whose turn it is. */
export interface Local {
  readonly wallMs: number;
  /** Wall time of the writer at the first send of the write with this nonce. */
  readonly writtenWallMs: (nonce: string) => number;
}

type Rules = (
  settings: LeaseSettings,
  state: LeaseMachine,
  event: MachineEvent,
  turn: Turn,
) => Step;

/** One deliberate mistake in the protocol; the checks must find it. */
export interface Mutant {
  readonly rules?: (rules: Rules, local: Local) => Rules;
  readonly storeIgnoresConditions?: true;
}

export interface Outcome {
  /** What went wrong first; null when all held. */
  readonly violation: string | null;
  readonly terms: number;
  readonly turns: number;
}

interface Node {
  readonly name: number;
  readonly rate: number;
  readonly offsetMs: number;
  readonly wallSkewMs: number;
  /** Grows with each crash: what was meant for an earlier life is dropped. */
  life: number;
  settings: LeaseSettings;
  state: LeaseMachine;
  pausedUntilMs: number;
  request: number;
  wake: number;
}

/** Mulberry32. */
function generator(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

class World {
  readonly #chance: () => number;
  readonly #faults: Faults;
  readonly #mutant: Mutant;
  readonly #nodes: Node[] = [];
  readonly #queue: { atMs: number; order: number; run: () => void }[] = [];
  readonly #writtenWallMs = new Map<string, number>();
  readonly #termOf = new Map<number, string>();
  #nowMs = 0;
  #count = 0;
  #record: LeaseRecord | null = null;
  #violation: string | null = null;
  #terms = 0;
  #turns = 0;

  constructor(seed: number, faults: Faults, mutant: Mutant) {
    this.#chance = generator(seed);
    this.#faults = faults;
    this.#mutant = mutant;
    for (let name = 0; name < 3; name++) this.#nodes.push(this.#newNode(name));
  }

  run(): Outcome {
    for (const node of this.#nodes) {
      this.#schedule(this.#between(0, 2_000), () => this.#begin(node));
      this.#schedule(this.#between(0, 1_000), () => this.#weather(node));
    }
    while (this.#violation === null) {
      const next = this.#pop();
      if (next === undefined || next.atMs > STORM_MS + CALM_MS) break;
      this.#nowMs = next.atMs;
      next.run();
    }
    if (
      this.#violation === null && !this.#nodes.some((node) => this.#holds(node))
    ) {
      this.#violation = "nobody holds the lease long after the faults have stopped";
    }
    return {
      violation: this.#violation,
      terms: this.#terms,
      turns: this.#turns,
    };
  }

  #newNode(name: number): Node {
    return {
      name,
      rate: 1 + this.#between(-0.02, 0.02),
      offsetMs: this.#between(0, 1e6),
      wallSkewMs: this.#between(-60_000, 60_000),
      life: 0,
      settings: { ...SETTINGS, holder: `${name}.0` },
      state: initialLease(0),
      pausedUntilMs: 0,
      request: 0,
      wake: 0,
    };
  }

  #between(low: number, high: number): number {
    return low + (high - low) * this.#chance();
  }

  #happens(probability: number): boolean {
    return this.#nowMs < STORM_MS && this.#chance() < probability;
  }

  #local(node: Node): number {
    return node.offsetMs + this.#nowMs * node.rate;
  }

  #holds(node: Node): boolean {
    return isHeld(node.state, this.#local(node));
  }

  /** A binary heap by time, then by order of scheduling. */
  #schedule(delayMs: number, run: () => void): void {
    const entry = {
      atMs: this.#nowMs + Math.max(0, delayMs),
      order: this.#count++,
      run,
    };
    const queue = this.#queue;
    let i = queue.push(entry) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const above = queue[parent];
      if (above === undefined || !isBefore(entry, above)) break;
      queue[i] = above;
      i = parent;
    }
    queue[i] = entry;
  }

  #pop(): { atMs: number; run: () => void } | undefined {
    const queue = this.#queue;
    const first = queue[0];
    const last = queue.pop();
    if (first === undefined || last === undefined || queue.length === 0) {
      return first;
    }
    let i = 0;
    while (true) {
      let child = 2 * i + 1;
      const left = queue[child];
      const right = queue[child + 1];
      if (left === undefined) break;
      if (right !== undefined && isBefore(right, left)) child++;
      const least = queue[child];
      if (least === undefined || !isBefore(least, last)) break;
      queue[i] = least;
      i = child;
    }
    queue[i] = last;
    return first;
  }

  /** Runs for this life of the node, once it is not paused. */
  #onNode(node: Node, delayMs: number, run: () => void): void {
    const { life } = node;
    const deliver = () => {
      if (node.life !== life) return;
      if (node.pausedUntilMs > this.#nowMs) {
        this.#schedule(node.pausedUntilMs - this.#nowMs, deliver);
      } else run();
    };
    this.#schedule(delayMs, deliver);
  }

  /** Each second of a node: go on, pause, crash, or hand over. */
  #weather(node: Node): void {
    if (this.#nowMs >= STORM_MS) return;
    if (this.#happens(this.#faults.pausePerSecond)) {
      node.pausedUntilMs = this.#nowMs +
        this.#between(100, this.#faults.longestPauseMs);
    } else if (this.#happens(this.#faults.crashPerSecond)) {
      node.life++;
      node.pausedUntilMs = 0;
      node.settings = { ...node.settings, holder: `${node.name}.${node.life}` };
      node.state = initialLease(0);
      this.#onNode(node, this.#between(50, 10_000), () => this.#begin(node));
    } else if (
      this.#happens(this.#faults.releasePerSecond) &&
      node.pausedUntilMs <= this.#nowMs
    ) {
      this.#turn(node, { type: "release" });
    }
    this.#schedule(1_000, () => this.#weather(node));
  }

  #begin(node: Node): void {
    this.#turn(node, { type: "acquire" });
  }

  #turn(node: Node, event: MachineEvent): void {
    const wallMs = this.#nowMs + node.wallSkewMs;
    const local: Local = {
      wallMs,
      writtenWallMs: (nonce) => this.#writtenWallMs.get(nonce) ?? 0,
    };
    const rules = this.#mutant.rules?.(step, local) ?? step;
    const turn = {
      nowMs: this.#local(node),
      nonce: `n${this.#count++}`,
      jitter: this.#chance(),
    };
    const wasResting = node.state.phase === "resting";
    const { state, effects } = rules(node.settings, node.state, event, turn);
    this.#turns++;
    node.state = state;
    if (state.phase === "resting" || state.request === "none") node.request = 0;
    for (const effect of effects) {
      if (effect.type === "fail") {
        this.#violation = `a node failed: ${effect.error.message}`;
      }
      if (effect.type === "get") this.#get(node);
      if (effect.type === "put") {
        if (!this.#writtenWallMs.has(effect.record.nonce)) {
          this.#writtenWallMs.set(effect.record.nonce, wallMs);
        }
        this.#put(node, effect.record, effect.base);
      }
      if (effect.type === "tell" && effect.event.type === "acquired") {
        this.#acquired(node, effect.event.term.token);
      }
    }
    this.#arm(node);
    this.#check();
    if (state.phase === "resting" && !wasResting) {
      this.#onNode(node, this.#between(0, 5_000), () => this.#begin(node));
    }
  }

  #arm(node: Node): void {
    const wake = node.wake = ++this.#count;
    const wakeMs = nextWakeMs(node.state);
    if (wakeMs === null) return;
    const delayMs = Math.max(0, (wakeMs - this.#local(node)) / node.rate) +
      0.001;
    this.#onNode(node, delayMs, () => {
      if (node.wake === wake) this.#turn(node, { type: "tick" });
    });
  }

  /** Starts a request: its answer counts only until its time is up or the node has moved on. */
  #request(
    node: Node,
    tooLate: MachineEvent,
  ): (delayMs: number, event: () => MachineEvent) => void {
    const request = node.request = ++this.#count;
    const settle = (event: MachineEvent) => {
      if (node.request !== request) return;
      node.request = 0;
      this.#turn(node, event);
    };
    this.#onNode(node, REQUEST_TIMEOUT_MS / node.rate, () => settle(tooLate));
    return (delayMs, event) => {
      if (this.#happens(this.#faults.lostReply)) return;
      const answer = event();
      this.#onNode(node, delayMs, () => settle(answer));
    };
  }

  #travelMs(): number {
    return this.#chance() < 0.9 ? this.#between(2, 100) : this.#between(100, 2_600);
  }

  #get(node: Node): void {
    const reply = this.#request(node, {
      type: "read-failed",
      error: UNREACHABLE,
    });
    if (this.#happens(this.#faults.lostRequest)) return;
    this.#schedule(this.#travelMs(), () => {
      const refused = this.#happens(this.#faults.refusedForNow);
      const record = this.#record;
      const found = record === null ? null : { etag: JSON.stringify(record), record };
      reply(
        this.#travelMs(),
        () => refused ? { type: "read-failed", error: UNREACHABLE } : { type: "read", found },
      );
    });
  }

  #put(node: Node, record: LeaseRecord, base: Found | null): void {
    const reply = this.#request(node, { type: "unknown", error: UNREACHABLE });
    if (this.#happens(this.#faults.lostRequest)) return;
    const copies = this.#happens(this.#faults.doubled) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const late = this.#happens(this.#faults.lateLanding);
      this.#schedule(
        late ? this.#between(1_000, LATEST_LANDING_MS) : this.#travelMs(),
        () => {
          const refusedBefore = this.#happens(this.#faults.refusedForNow);
          const answer = refusedBefore ? null : this.#land(record, base);
          const refusedAfter = this.#happens(this.#faults.refusedForNow);
          reply(
            this.#travelMs(),
            () => answer === null || refusedAfter ? { type: "unknown", error: UNREACHABLE } : answer,
          );
        },
      );
    }
  }

  /** The store's side of a put: linearizable, tags made of the content as MinIO's are. */
  #land(record: LeaseRecord, base: Found | null): MachineEvent {
    const before = this.#record;
    const tag = before === null ? null : JSON.stringify(before);
    if (
      tag !== (base?.etag ?? null) &&
      this.#mutant.storeIgnoresConditions !== true
    ) return { type: "refused" };
    const sameTerm = before?.holder === record.holder &&
      before.token === record.token;
    if (!sameTerm && record.token !== (before?.token ?? 0) + 1) {
      this.#violation = `token ${record.token} follows ${before?.token ?? 0}`;
    }
    this.#record = record;
    return { type: "written", etag: JSON.stringify(record) };
  }

  #acquired(node: Node, token: number): void {
    this.#terms++;
    const other = this.#termOf.get(token);
    if (other !== undefined) {
      this.#violation = `token ${token} given to ${node.settings.holder} and ${other}`;
    }
    this.#termOf.set(token, node.settings.holder);
  }

  #check(): void {
    const holders = this.#nodes.filter((node) => this.#holds(node));
    if (holders.length < 2) return;
    const names = holders.map((node) => node.settings.holder).join(" and ");
    this.#violation ??= `${names} hold the lease together at ${this.#nowMs.toFixed(0)} ms`;
  }
}

const UNREACHABLE = new StateManagerError("store-unreachable", "simulated");

function isBefore(
  a: { atMs: number; order: number },
  b: { atMs: number; order: number },
): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** Runs one history to its end or its first violation. */
export function simulate(
  seed: number,
  faults: Faults = FAULTS,
  mutant: Mutant = {},
): Outcome {
  return new World(seed, faults, mutant).run();
}
