/**
 * One node: a machine with its clocks, its disk and its boot; on it at most one manager with the shipped lease, a guard
 * and one program. Managers die, stop and start again; what session.ts decides is dropped with its life.
 */

import { initialLease, isHeld, isInDoubt, killAtMs, nextWakeMs, nonces } from "../../src/lease/machine.ts";
import type { LeaseMachine, LeaseSettings, MachineEvent } from "../../src/lease/machine.ts";
import { nextHandOverMs, NO_HAND_OVER, standing, stepHandOver } from "../../src/lease/hand_over.ts";
import type { HandOver, HandOverEvent } from "../../src/lease/hand_over.ts";
import { step } from "../../src/lease/rules.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { type Disk, EMPTY_DISK } from "./disk.ts";
import { Session } from "./session.ts";
import { SimGuard } from "./sim_guard.ts";
import type { Reply, Request } from "./store.ts";
import type { World } from "./world.ts";

export const TTL_MS = 15_000;
const REQUEST_TIMEOUT_MS = 2_500;
const SETTINGS = {
  ttlMs: TTL_MS,
  renewMs: 4_000,
  marginMs: 3_000,
  pollMs: 1_000,
  requestTimeoutMs: REQUEST_TIMEOUT_MS,
};
const UNREACHABLE = new StateManagerError("store-unreachable", "simulated");
/** Whatever was stopped in the storm goes on by then. */
const LAST_WAKING_MS = 110_000;
const LONGEST_CLOCK_STEP_MS = 60_000;

export class SimNode {
  readonly world: World;
  readonly index: number;
  rate = 1;
  #offsetMs = 0;
  wallSkewMs = 0;
  boot = 0;
  disk: Disk = EMPTY_DISK;
  /** Another one where the disk is. */
  diskId = 0;
  /** Grows with each start and end of a manager: what was meant for an earlier one is dropped. */
  life = 0;
  alive = false;
  managerStoppedUntilMs = 0;
  suspendedUntilMs = 0;
  /** When the machine last woke after it was stopped as a whole. */
  wokenMs = -Infinity;
  settings: LeaseSettings;
  lease: LeaseMachine = initialLease(0);
  handOver: HandOver = NO_HAND_OVER;
  /** One that has yielded does not ask back. */
  mayAsk: boolean;
  onConflict: "refuse" | "bucket" = "refuse";
  session: Session | null = null;
  guard: SimGuard | null = null;
  program: { frozen: boolean; readonly who: string } | null = null;
  /** The program wrote since this was last asked. */
  #writes = 0;
  #leaseRequest = 0;
  #handOverRequest = 0;
  #wake = 0;
  #handOverWake = 0;
  #poweredOn = 0;
  readonly #writtenWallMs: Map<string, number>;

  constructor(world: World, index: number) {
    this.world = world;
    this.index = index;
    this.settings = { ...SETTINGS, holder: "", info: {} };
    this.mayAsk = world.chance.happens(0.3);
    this.#writtenWallMs = writtenWallMs(world);
    this.#newMachine();
    // Some machines begin with data of their own, which the bucket knows nothing of.
    if (world.chance.happens(0.15)) this.disk = { ...EMPTY_DISK, content: `/own${index}` };
  }

  get name(): string {
    return this.settings.holder;
  }

  #newMachine(): void {
    const { chance } = this.world;
    this.rate = 1 + chance.between(-0.02, 0.02);
    this.#offsetMs = chance.between(0, 1e6);
    this.wallSkewMs = chance.between(-60_000, 60_000);
    this.boot = this.world.freshBoot();
    this.diskId = this.boot;
  }

  // ---- clocks and waits

  get bootMs(): number {
    return this.#offsetMs + this.world.nowMs * this.rate;
  }

  /** True time of a moment of this machine's clock. */
  trueMs(bootMs: number): number {
    return (bootMs - this.#offsetMs) / this.rate;
  }

  get wallMs(): number {
    return this.world.nowMs + this.wallSkewMs;
  }

  /** Runs for this life of the manager, once neither it nor its machine is stopped. */
  onManager(life: number, atMs: number, run: () => void): void {
    this.world.at(atMs, () => {
      if (this.life !== life) return;
      const untilMs = Math.max(this.managerStoppedUntilMs, this.suspendedUntilMs);
      if (untilMs > this.world.nowMs) this.onManager(life, untilMs + this.world.chance.between(0, 20), run);
      else run();
    });
  }

  later(delayMs: number, run: () => void): void {
    this.onManager(this.life, this.world.nowMs + delayMs, run);
  }

  /** Runs once the machine is not stopped, whatever became of the manager. */
  onMachine(atMs: number, run: () => void): void {
    const { boot } = this;
    this.world.at(atMs, () => {
      if (this.boot !== boot) return;
      if (this.suspendedUntilMs > this.world.nowMs) this.onMachine(this.suspendedUntilMs + 1, run);
      else run();
    });
  }

  send(request: Request, timeoutMs: number, token: number, done: (reply: Reply | null) => void): void {
    this.world.send({ node: this, life: this.life, diskId: this.diskId, token }, request, timeoutMs, done);
  }

  // ---- the manager's life

  powerOn(): void {
    this.#schedulePower(this.world.chance.between(0, 3_000));
    this.#weather();
  }

  #schedulePower(delayMs: number): void {
    const power = ++this.#poweredOn;
    this.world.at(this.world.nowMs + delayMs, () => {
      if (power !== this.#poweredOn || this.alive) return;
      if (this.suspendedUntilMs > this.world.nowMs) {
        this.#schedulePower(this.suspendedUntilMs - this.world.nowMs);
      } else this.#start();
    });
  }

  #start(): void {
    this.alive = true;
    this.life++;
    this.managerStoppedUntilMs = 0;
    this.settings = { ...this.settings, holder: `${"ABC"[this.index]}${this.life}` };
    this.lease = initialLease(0);
    this.handOver = NO_HAND_OVER;
    this.world.trace(() => `${this.name}: starts`);
    this.#awaitPredecessor();
  }

  /** The guard's lock is free only when all programs of the manager before are dead. */
  #awaitPredecessor(): void {
    if (this.guard !== null && this.world.mutant.returnsWithoutProof !== true) {
      this.later(20, () => this.#awaitPredecessor());
      return;
    }
    const { memory } = this.disk;
    const mine = memory !== null &&
      (memory.boot === this.boot || this.world.mutant.inheritsElsewhere === true);
    this.session = new Session(this, mine ? memory.nonces : []);
    this.session.begin();
  }

  /** The manager ends by itself. */
  exit(restartAfterMs: number): void {
    this.world.trace(() => `${this.name}: ends`);
    this.#managerGone();
    this.#schedulePower(restartAfterMs);
  }

  #managerGone(): void {
    this.life++;
    this.alive = false;
    this.session = null;
    this.#leaseRequest = 0;
    this.guard?.managerGone();
  }

  /** kill -9 of the manager, or worse. */
  crash(where: string): void {
    const { world } = this;
    const { faults, chance } = world;
    const kind = chance.float();
    world.trace(() => `${this.name}: is killed ${where}`);
    this.touch();
    this.session?.countCrash();
    const lost = kind < faults.machineLost + faults.cloned;
    const rebooted = !lost && kind < faults.machineLost + faults.cloned + faults.reboot;
    const whole = lost || rebooted || chance.happens(faults.wholeContainer);
    world.count(
      lost ? "machine lost" : rebooted ? "machine rebooted" : whole ? "container crashed" : "manager crashed",
    );
    if (whole) {
      this.program = null;
      this.guard = null;
    }
    this.#managerGone();
    if (lost) this.#replaceMachine(kind < faults.cloned);
    else if (rebooted) this.boot = world.freshBoot();
    this.#schedulePower(chance.happens(0.5) ? chance.between(20, 1_000) : chance.between(1_000, 10_000));
  }

  #replaceMachine(cloned: boolean): void {
    const source = this.world.nodes[this.world.chance.below(this.world.nodes.length)];
    this.disk = EMPTY_DISK;
    this.#newMachine();
    this.suspendedUntilMs = 0;
    this.onConflict = "refuse";
    if (!cloned || source === undefined || source === this) return;
    this.world.count("disk cloned");
    this.world.trace(() => `${this.name}: comes back with a copy of ${source.name}'s disk`);
    source.touch();
    this.disk = source.disk;
  }

  /** An operator looks at a start that was refused, and lets the bucket win. */
  helpWithConflict(): void {
    this.onConflict = "bucket";
    this.exit(this.world.chance.between(2_000, 8_000));
  }

  // ---- what befalls it

  #weather(): void {
    const { faults, chance } = this.world;
    const perSecond = faults.pauseManagerPerSecond + faults.suspendPerSecond + faults.crashPerSecond +
      faults.clockStepPerSecond + faults.stopPerSecond + faults.restorePerSecond;
    const delayMs = perSecond === 0 ? Infinity : -Math.log(1 - chance.float()) / perSecond * 1_000;
    if (delayMs === Infinity) return;
    this.world.at(this.world.nowMs + delayMs, () => {
      if (!this.world.stormy) return;
      this.#befall(chance.float() * perSecond);
      this.#weather();
    });
  }

  #befall(dice: number): void {
    const { world } = this;
    const { faults, chance } = world;
    let left = dice;
    const isIt = (share: number) => (left -= share) < 0;
    const awake = this.alive && this.suspendedUntilMs <= world.nowMs &&
      this.managerStoppedUntilMs <= world.nowMs;
    if (isIt(faults.pauseManagerPerSecond)) {
      if (this.alive) this.#stopManager(chance.between(100, faults.longestPauseMs));
    } else if (isIt(faults.suspendPerSecond)) this.#suspend(chance.between(100, faults.longestPauseMs));
    else if (isIt(faults.crashPerSecond)) {
      if (this.alive) this.crash("from outside");
    } else if (isIt(faults.clockStepPerSecond)) {
      this.#stepClock(chance.between(-1, 1) * LONGEST_CLOCK_STEP_MS);
    } else if (isIt(faults.stopPerSecond)) {
      if (awake) this.session?.requestStop();
    } else if (awake) this.session?.requestRestore();
  }

  #stopManager(ms: number): void {
    if (ms > TTL_MS) this.world.count("manager paused beyond the TTL");
    this.world.trace(() => `${this.name}: its manager is stopped for ${ms.toFixed(0)} ms`);
    this.managerStoppedUntilMs = Math.min(this.world.nowMs + ms, LAST_WAKING_MS);
  }

  #suspend(ms: number): void {
    if (ms > TTL_MS) this.world.count("machine suspended beyond the TTL");
    this.touch();
    this.world.trace(() => `${this.name}: its machine is suspended for ${ms.toFixed(0)} ms`);
    this.suspendedUntilMs = Math.min(Math.max(this.suspendedUntilMs, this.world.nowMs + ms), LAST_WAKING_MS);
    const { boot } = this;
    this.world.at(this.suspendedUntilMs, () => {
      if (this.boot !== boot || this.suspendedUntilMs > this.world.nowMs) return;
      this.wokenMs = this.world.nowMs;
      this.world.trace(() => `${this.name}: its machine wakes`);
      if (this.programActive) this.world.programActive(this);
    });
  }

  #stepClock(ms: number): void {
    this.world.count("wall clock stepped");
    this.wallSkewMs += ms;
    if (ms < 1_000 || !this.alive) return;
    this.later(this.world.chance.between(0, 1_000), () => {
      if (this.lease.phase === "owning") this.world.count("lease in doubt");
      this.leaseTurn({ type: "doubt" });
    });
  }

  // ---- program

  get programActive(): boolean {
    return this.program !== null && !this.program.frozen && this.suspendedUntilMs <= this.world.nowMs;
  }

  /** What a running program wrote since the last look is on the disk. */
  touch(): void {
    if (!this.programActive || this.program === null) return;
    this.disk = { ...this.disk, content: `${this.disk.content}/${this.program.who}.${++this.#writes}` };
  }

  startProgram(token: number): void {
    const { world } = this;
    const held = isHeld(this.lease, this.bootMs);
    if (this.program !== null) {
      world.checks.fail(`${this.name} starts its program while that of ${this.program.who} still runs`);
    }
    world.checks.programStarts({ who: this.name, token, held, disk: this.disk, head: world.store.head });
    this.guard ??= new SimGuard(this);
    world.undisturbed.add(this.diskId);
    this.passDeadline();
    this.program = { frozen: false, who: this.name };
    this.guard.watch();
    world.trace(() => `${this.name}: its program runs`);
    world.programActive(this);
  }

  passDeadline(): void {
    const { lease, settings } = this;
    if (lease.phase === "owning") this.guard?.deadline(killAtMs(settings, lease.deadlineMs));
  }

  killProgram(why: string): void {
    if (this.program === null) return;
    this.touch();
    this.program = null;
    this.guard?.forget();
    this.world.trace(() => `${this.name}: its program is killed, ${why}`);
  }

  freezeProgram(): void {
    if (this.program === null) return;
    this.touch();
    this.program.frozen = true;
    this.guard?.deadline(null);
    this.world.trace(() => `${this.name}: its program is frozen`);
  }

  thawProgram(): void {
    if (this.program === null || !this.program.frozen) return;
    this.program.frozen = false;
    this.world.trace(() => `${this.name}: its program goes on`);
    this.world.programActive(this);
  }

  // ---- the lease

  leaseTurn(event: MachineEvent): void {
    const { world } = this;
    const { chance, mutant } = world;
    const rules = mutant.lease?.(step, {
      wallMs: this.wallMs,
      writtenWallMs: (nonce) => this.#writtenWallMs.get(nonce) ?? 0,
    }) ??
      step;
    const turn = { nowMs: this.bootMs, nonce: world.freshId("n"), jitter: chance.float() };
    const before = this.lease;
    const { state, effects } = rules(this.settings, before, event, turn);
    this.lease = state;
    const { life } = this;
    if (state.phase === "resting" || state.request === "none") this.#leaseRequest = 0;
    for (const effect of effects) {
      if (effect.type === "get") this.#askLease({ type: "get", cell: "lease" });
      if (effect.type === "put") {
        const { record, base } = effect;
        if (!this.#writtenWallMs.has(record.nonce)) this.#writtenWallMs.set(record.nonce, this.wallMs);
        this.disk = { ...this.disk, memory: { boot: this.boot, nonces: nonces(state) } };
        const crashes = world.happens(world.faults.crashAtEffect / 4);
        if (crashes && chance.happens(0.5)) return this.#crashAtPut("before a put of the lease");
        this.#askLease({ type: "put", cell: "lease", body: record, base: base?.etag ?? null });
        if (crashes) return this.#crashAtPut("after a put of the lease was sent");
      }
    }
    this.#armLease();
    for (const effect of effects) {
      if (effect.type === "fail") world.checks.fail(`${this.name} failed: ${effect.error.message}`);
      if (effect.type !== "tell") continue;
      if (effect.event.type === "renewed" && this.program?.frozen !== true) {
        this.guard?.deadline(effect.event.killAtMs);
      }
      this.session?.onLease(effect.event, state);
      if (this.life !== life) return;
    }
    const renewed = effects.some((effect) => effect.type === "tell" && effect.event.type === "renewed");
    this.handOverTurn(standing(this.lease, this.bootMs, renewed));
    if (before.phase !== "resting" && state.phase === "resting") this.session?.onResting();
  }

  #crashAtPut(where: string): void {
    this.world.count("crash before or after a put");
    this.crash(where);
  }

  #askLease(request: Request): void {
    const id = this.#leaseRequest = ++this.#wake;
    const { lease } = this;
    const token = lease.phase === "owning"
      ? lease.term.token
      : lease.phase === "contending"
      ? lease.attempt?.record.token ?? 0
      : 0;
    this.send(request, REQUEST_TIMEOUT_MS, token, (reply) => {
      if (this.#leaseRequest !== id) return;
      this.#leaseRequest = 0;
      this.leaseTurn(leaseEvent(request, reply));
    });
  }

  #armLease(): void {
    const wake = this.#wake = this.#wake + 1;
    this.#leaseWake = wake;
    const wakeMs = nextWakeMs(this.lease);
    if (wakeMs === null) return;
    this.onManager(this.life, this.trueMs(wakeMs) + 0.01, () => {
      if (this.#leaseWake === wake) this.leaseTurn({ type: "tick" });
    });
  }
  #leaseWake = 0;

  /** Proof that the lease is ours: at once, or after the doubt is over. */
  proveHeld(done: (held: boolean) => void): void {
    if (isHeld(this.lease, this.bootMs)) return done(true);
    if (!isInDoubt(this.lease, this.bootMs)) return done(false);
    this.later(100, () => this.proveHeld(done));
  }

  // ---- hand-over on request

  handOverTurn(event: HandOverEvent): void {
    const settings = {
      holder: this.name,
      pollMs: SETTINGS.pollMs,
      info: {},
      answer: true,
      ask: this.mayAsk && this.world.stormy,
    };
    const nonce = this.world.freshId("n");
    const { state, effects } = stepHandOver(settings, this.handOver, event, { nowMs: this.bootMs, nonce });
    this.handOver = state;
    if (state.request === "none") this.#handOverRequest = 0;
    for (const effect of effects) {
      if (effect.type === "get") this.#askHandOver({ type: "get", cell: "hand-over" });
      if (effect.type === "put") {
        this.#askHandOver({ type: "put", cell: "hand-over", body: effect.request, base: effect.base });
      }
      if (effect.type === "asked") this.session?.requestStop(effect.by.holder);
    }
    const wake = ++this.#handOverWake;
    const wakeMs = nextHandOverMs(this.handOver);
    if (wakeMs === null) return;
    this.onManager(this.life, this.trueMs(wakeMs) + 0.01, () => {
      if (this.#handOverWake === wake) this.handOverTurn({ type: "tick" });
    });
  }

  #askHandOver(request: Request): void {
    const id = this.#handOverRequest = ++this.#wake;
    this.send(request, REQUEST_TIMEOUT_MS, 0, (reply) => {
      if (this.#handOverRequest !== id) return;
      this.#handOverRequest = 0;
      this.handOverTurn(handOverEvent(reply));
    });
  }

  describe(): string {
    const program = this.program === null ? "none" : this.program.frozen ? "frozen" : "runs";
    return `${this.name} ${
      this.alive ? this.session?.phase ?? "waits for its guard" : "down"
    }, lease ${this.lease.phase}, program ${program}`;
  }
}

/** One map for each world, since a record may be another node's. */
const WALLS = new WeakMap<World, Map<string, number>>();
function writtenWallMs(world: World): Map<string, number> {
  const known = WALLS.get(world) ?? new Map<string, number>();
  WALLS.set(world, known);
  return known;
}

function leaseEvent(request: Request, reply: Reply | null): MachineEvent {
  if (reply === null) {
    return { type: request.type === "get" ? "read-failed" : "unknown", error: UNREACHABLE };
  }
  switch (reply.type) {
    case "absent":
      return { type: "read", found: null };
    case "read":
      return "state" in reply.body
        ? { type: "read", found: { etag: reply.etag, record: reply.body } }
        : { type: "read-failed", error: UNREACHABLE };
    case "written":
      return { type: "written", etag: reply.etag };
    case "refused":
      return { type: "refused" };
  }
}

function handOverEvent(reply: Reply | null): HandOverEvent {
  if (reply === null || reply.type === "refused") return { type: "failed" };
  if (reply.type === "written") return { type: "written" };
  if (reply.type === "absent") return { type: "read", found: null };
  return "asker" in reply.body
    ? { type: "read", found: { etag: reply.etag, request: reply.body } }
    : { type: "failed" };
}
