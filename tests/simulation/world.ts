/**
 * A small world in virtual time for the shipped rules: nodes with clocks of their own that pause, crash and come back,
 * and one store that loses, delays and doubles requests. One seed, one history.
 */

import type { LeaseRecord } from "../../src/lease/types.ts";
import type { Head } from "../../src/checkpoint/types.ts";
import { Chance } from "./chance.ts";
import { Checks } from "./checks.ts";
import { FAULTS, type Faults, type Tallied, type Tally } from "./faults.ts";
import type { Mutant } from "./mutant.ts";
import { SimNode, TTL_MS } from "./node.ts";
import { EMPTY_STORE, land, type Reply, type Request, type StoreState } from "./store.ts";
import { Timeline } from "./timeline.ts";

/** A request may land so long after it was sent. */
const LATEST_LANDING_MS = 20_000;
/** Faults happen until here … */
export const STORM_MS = 90_000;
/** … their last effects (late landings, pauses, restarts, an operator's help) come until here … */
const SETTLED_MS = STORM_MS + 25_000;
/** … and so long after that a program must run: what restarts needs a TTL and drift, then a start with a restore. */
const LIVE_MS = SETTLED_MS + TTL_MS * 1.04 * 1.02 + 1_250 + 2_500 + 10_000;
/** From there to here it must go on running. */
const END_MS = LIVE_MS + 12_000;
const TRACE_LINES = 60;
/** A machine that was stopped as a whole and wakes runs its programs until its guard has looked. */
export const THAW_WINDOW_MS = 200;

export interface Outcome {
  /** What went wrong first; null: all held. */
  readonly violation: string | null;
  readonly tally: Tally;
  readonly trace: readonly string[];
}

export interface Sender {
  readonly node: SimNode;
  readonly life: number;
  readonly diskId: number;
  readonly token: number;
}

export class World {
  readonly chance: Chance;
  readonly faults: Faults;
  readonly mutant: Mutant;
  readonly checks = new Checks();
  readonly tally: Tally = {};
  readonly nodes: SimNode[] = [];
  readonly #timeline = new Timeline();
  readonly #lines: string[] | null;
  nowMs = 0;
  store: StoreState = EMPTY_STORE;
  /** Disks whose programs were the last to run: nobody else has taken the head over since. */
  readonly undisturbed = new Set<number>();
  #ids = 0;
  #outageUntilMs = 0;
  #boots = 0;

  constructor(
    seed: number,
    options: { readonly faults?: Faults; readonly mutant?: Mutant; readonly traced?: boolean } = {},
  ) {
    this.chance = new Chance(seed);
    this.faults = options.faults ?? FAULTS;
    this.mutant = options.mutant ?? {};
    this.#lines = options.traced === true ? [] : null;
    const count = 2 + this.chance.below(2);
    for (let index = 0; index < count; index++) this.nodes.push(new SimNode(this, index));
  }

  run(): Outcome {
    for (const node of this.nodes) node.powerOn();
    this.at(this.chance.between(5_000, STORM_MS), () => this.#outage());
    while (this.checks.violation === null) {
      const next = this.#timeline.next();
      if (next === undefined || next.atMs > END_MS) break;
      if (next.atMs >= LIVE_MS && this.nowMs < END_MS) this.#checkAlive(next.atMs);
      this.nowMs = next.atMs;
      next.run();
    }
    this.tally["clean stop"] = this.checks.cleanStops;
    return { violation: this.checks.violation, tally: this.tally, trace: this.#lines ?? [] };
  }

  get stormy(): boolean {
    return this.nowMs < STORM_MS;
  }

  happens(probability: number): boolean {
    return this.nowMs < STORM_MS && this.chance.float() < probability;
  }

  at(atMs: number, run: () => void): void {
    this.#timeline.add(Math.max(this.nowMs, atMs), run);
  }

  count(what: Tallied): void {
    this.tally[what] = (this.tally[what] ?? 0) + 1;
  }

  freshId(prefix: string): string {
    return `${prefix}${this.#ids++}`;
  }

  freshBoot(): number {
    return ++this.#boots;
  }

  trace(line: () => string): void {
    if (this.#lines === null) return;
    this.#lines.push(`${this.nowMs.toFixed(0).padStart(7)} ${line()}`);
    if (this.#lines.length > TRACE_LINES) this.#lines.shift();
  }

  // ---- programs, in true time

  /** A program begins or goes on: nobody else's may be running. */
  programActive(node: SimNode): void {
    const others = this.nodes.filter((other) => other !== node && other.programActive);
    for (const other of others) {
      const woken = [node, other].filter((each) => this.nowMs < each.wokenMs + THAW_WINDOW_MS);
      if (woken.length === 0) this.checks.fail(`programs of ${node.name} and ${other.name} run at once`);
      else {
        // The window that no local means closes; it is short.
        const until = Math.max(...woken.map((each) => each.wokenMs)) + THAW_WINDOW_MS + 1;
        this.at(until, () => {
          if (node.programActive && other.programActive) {
            this.checks.fail(`programs of ${node.name} and ${other.name} run at once, long after the thaw`);
          }
        });
      }
    }
  }

  #checkAlive(atMs: number): void {
    if (this.nodes.some((node) => node.programActive)) return;
    // A job stops the program for a moment; nobody asks for one this late.
    const states = this.nodes.map((node) => node.describe()).join("; ");
    this.checks.fail(`nobody runs at ${atMs.toFixed(0)} ms, long after the faults have stopped: ${states}`);
  }

  // ---- the store

  #outage(): void {
    if (!this.stormy) return;
    if (this.chance.happens(0.3)) {
      this.count("store outage");
      this.#outageUntilMs = this.nowMs + this.chance.between(3_000, 3 * TTL_MS);
      if (this.#outageUntilMs > STORM_MS) this.#outageUntilMs = STORM_MS;
      this.trace(() => `store: out of reach until ${this.#outageUntilMs.toFixed(0)}`);
    }
  }

  #travelMs(): number {
    return !this.stormy || this.chance.float() < 0.9
      ? this.chance.between(2, 100)
      : this.chance.between(100, 2_600);
  }

  /** Sends one request; `done` hears once, on that life of the node: the reply, or null when it is not known. */
  send(sender: Sender, request: Request, timeoutMs: number, done: (reply: Reply | null) => void): void {
    const { node } = sender;
    let answered = false;
    const answer = (atMs: number, reply: Reply | null) =>
      node.onManager(sender.life, atMs, () => {
        if (answered) return;
        answered = true;
        done(reply);
      });
    const giveUpMs = this.nowMs + timeoutMs / node.rate;
    const lost = this.happens(this.faults.lostRequest);
    if (lost || this.nowMs < this.#outageUntilMs) {
      if (lost) this.count("request lost");
      return answer(giveUpMs, null);
    }
    const put = request.type === "put" || request.type === "put-object";
    const copies = put && this.happens(this.faults.doubled) ? 2 : 1;
    if (copies === 2) this.count("request twice");
    let inTime = false;
    for (let copy = 0; copy < copies; copy++) {
      const late = put && this.happens(this.faults.lateLanding);
      if (late) this.count("request late");
      const travelMs = late ? this.chance.between(1_000, LATEST_LANDING_MS) : this.#travelMs();
      const backMs = this.#travelMs();
      inTime ||= travelMs + backMs < giveUpMs - this.nowMs;
      this.at(this.nowMs + travelMs, () => {
        const reply = this.#arrive(sender, request);
        if (this.happens(this.faults.lostReply)) {
          this.count("reply lost");
          answer(giveUpMs, null);
        } else answer(this.nowMs + backMs, reply);
      });
    }
    // Without it, the reply is what is heard: a lost one asks for its own giving up.
    if (!inTime) answer(giveUpMs, null);
  }

  /** Null: an error that says nothing of what was done. */
  #arrive(sender: Sender, request: Request): Reply | null {
    const put = request.type === "put" || request.type === "put-object";
    if (put) this.#countLate(sender);
    if (this.happens(this.faults.unavailable)) {
      this.count("503");
      return null;
    }
    if (put && this.happens(this.faults.conflict)) {
      this.count("409");
      return null;
    }
    const reply = this.#land(sender, request);
    if (reply.type === "refused") this.count("412");
    if (put && this.happens(this.faults.failsAfter)) {
      this.count("500 after it was carried out");
      return null;
    }
    return reply;
  }

  #countLate(sender: Sender): void {
    const { lease, head } = this.store;
    if (
      Math.max(lease?.token ?? 0, head?.epoch ?? 0) > sender.token && (head?.epoch ?? 0) > sender.token &&
      sender.token > 0
    ) {
      this.count("put of an earlier term reaches the store after the successor's first write");
    }
    if (sender.node.life !== sender.life) this.count("late put after its sender's death");
  }

  #land(sender: Sender, request: Request): Reply {
    if (request.type === "put-object") {
      this.checks.objectStored(request.name);
      return { type: "written", etag: request.name };
    }
    if (request.type === "get-object") {
      return this.checks.has(request.name) ? { type: "written", etag: request.name } : { type: "absent" };
    }
    const before = this.store;
    const { state, reply } = land(before, request, this.mutant.storeIgnoresConditions === true);
    this.store = state;
    if (request.type === "put") {
      this.trace(() =>
        `store: ${sender.node.name}'s ${describe(request)} ${
          reply.type === "refused" ? "is refused" : "lands"
        }`
      );
    }
    if (state.lease !== null && state.lease !== before.lease) {
      this.checks.leaseWritten(before.lease, state.lease);
    }
    if (state.head !== null && state.head !== before.head) {
      if (state.head.epoch !== before.head?.epoch && !this.undisturbed.has(sender.diskId)) {
        this.undisturbed.clear();
      }
      this.checks.headWritten(before.head, state.head, state.lease?.token ?? 0);
    }
    return reply;
  }
}

function describe(request: Extract<Request, { readonly type: "put" }>): string {
  switch (request.cell) {
    case "lease":
      return leaseText(request.body);
    case "head":
      return headText(request.body);
    case "hand-over":
      return `request for term ${request.body.token}`;
  }
}

function leaseText({ token, state, nonce }: LeaseRecord): string {
  return `lease (token ${token}, ${state}, ${nonce})`;
}

function headText({ epoch, seq, current, intent }: Head): string {
  return `head (term ${epoch}, version ${seq}, current ${current}${
    intent === null ? "" : `, intent ${intent.record.id}`
  })`;
}

/** Runs one history to its end or its first violation; on a violation once more, for the trace. */
export function simulate(
  seed: number,
  options: { readonly faults?: Faults; readonly mutant?: Mutant } = {},
): Outcome {
  const outcome = new World(seed, options).run();
  return outcome.violation === null ? outcome : new World(seed, { ...options, traced: true }).run();
}
