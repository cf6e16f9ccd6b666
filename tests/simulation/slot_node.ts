/** One machine of the simulation: it wants the lease, restores, seals, runs a program, uploads, merges and deletes. */

import { dueLevels, planMerge, planSnapshot } from "../../src/database/compaction_rules.ts";
import { HolderListing } from "../../src/database/replica_listing.ts";
import { planRestore } from "../../src/database/restore_plan.ts";
import { COMMIT_RETENTION_MS, deletableCommits, planRetention } from "../../src/database/retention_rules.ts";
import {
  openSlots,
  type SlotEffect,
  type SlotEvent,
  type SlotMachine,
  type SlotObject,
  stepSlots,
} from "../../src/database/slot_rules.ts";
import {
  type Body,
  MARGIN_MS,
  objectOf,
  PLACE,
  type Reply,
  type SimFile,
  type SimObject,
  type SlotWorld,
  TTL_MS,
} from "./slot_world.ts";
import { type Procedure, StormyMachine } from "./stormy_machine.ts";

const RENEW_INTERVAL_MS = 4_000;
const LONGEST_PAUSE_MS = 40_000;
const LONGEST_ABSENCE_MS = 30_000;
const LEVELS = [{ level: 1, intervalMs: 30_000 }, { level: 2, intervalMs: 90_000 }];
const SNAPSHOT_INTERVAL_MS = 150_000;
const RETENTION_MS = 120_000;
const PINS_KEPT = 6;

/** What is on the machine's disk, and survives a crash. */
interface Term {
  readonly token: number;
}

interface Disk {
  /** Newest state. */
  state: Body | null;
  /** Of the term that wrote last; 0: nothing is there. */
  token: number;
  /** Local level-0 files: the newest durable one, and those after it. */
  files: Body[];
}

export class SlotNode extends StormyMachine {
  readonly #world: SlotWorld;
  /** The term, or what of it this life of the child makes; null: none. */
  #term: Term | null = null;
  #deadlineMs = 0;
  #disk: Disk = { state: null, token: 0, files: [] };
  #machine: SlotMachine | null = null;
  #listing = HolderListing.of(PLACE, []);
  #pins = new Set<number>();
  #isRunning = false;

  constructor(world: SlotWorld, index: number) {
    super(world, index);
    this.#world = world;
  }

  powerOn(): void {
    this.endLife();
    this.spawn(this.#contend());
    if (this.#world.isStormy) this.#scheduleTrouble();
  }

  protected stop(): void {
    this.#term = null;
    this.#machine = null;
    this.#isRunning = false;
  }

  #scheduleTrouble(): void {
    const { chance } = this.#world;
    this.#world.at(this.#world.nowMs + chance.between(5_000, 150_000), () => {
      if (!this.#world.isStormy) return;
      const kind = chance.below(5);
      if (kind < 2) {
        this.pause(LONGEST_PAUSE_MS);
        this.#scheduleTrouble();
      } else if (kind === 2) {
        this.#restartChild();
        this.#scheduleTrouble();
      } else this.crash(LONGEST_ABSENCE_MS);
    });
  }

  /** The process that uploads dies and comes back in the same term, beside a program that goes on. */
  #restartChild(): void {
    if (this.#term === null || !this.#isRunning) return;
    this.#world.count("child restart");
    this.#world.trace(() => `${this.index} loses its child`);
    const term = { token: this.#term.token };
    this.#term = term;
    this.#machine = null;
    this.spawn(this.#renew(term));
    this.spawn(this.#hold(term, true, true));
  }

  protected disturb(): boolean {
    // It may be stopped between its look at the clock and the send.
    if (this.#world.happens(0.004)) this.pause(LONGEST_PAUSE_MS);
    return false;
  }

  // ---- the lease, as an oracle

  *#contend(): Procedure {
    const world = this.#world;
    for (;;) {
      yield { type: "sleep", ms: 500 + world.chance.between(0, 1_000) };
      if (this.#term !== null) continue;
      const { lease } = world;
      const isReturn = lease.holder === this.index;
      const early = world.happens(0.05) ? world.leaseErrorMs : 0;
      if (!isReturn && world.nowMs < lease.expiresMs - early) continue;
      const keeps = isReturn && this.#disk.token === lease.token && this.#disk.token !== 0;
      const term = { token: lease.token + 1 };
      this.#term = term;
      world.lease = { token: term.token, holder: this.index, expiresMs: world.nowMs + TTL_MS };
      this.#deadlineMs = world.nowMs + TTL_MS - MARGIN_MS;
      world.count(keeps ? "return" : "take-over");
      world.trace(() => `${this.index} holds with token ${term.token}${keeps ? ", keeps its data" : ""}`);
      this.spawn(this.#renew(term));
      this.spawn(this.#hold(term, keeps));
    }
  }

  *#renew(term: Term): Procedure {
    const world = this.#world;
    while (this.#term === term) {
      yield { type: "sleep", ms: RENEW_INTERVAL_MS };
      if (this.#term !== term) return;
      if (world.lease.token !== term.token) return this.#end("lost the lease");
      if (world.happens(0.05)) continue;
      world.lease = { ...world.lease, expiresMs: world.nowMs + TTL_MS };
      this.#deadlineMs = world.nowMs + TTL_MS - MARGIN_MS;
    }
  }

  #end(why: string): void {
    this.#world.trace(() => `${this.index} ends its term: ${why}`);
    this.stop();
  }

  // ---- a term

  *#hold(term: Term, keeps: boolean, wasRunning = false): Procedure {
    let keepsLocal = keeps;
    while (this.#term === term) {
      const reply = yield { type: "request", apply: () => this.#world.list() };
      if (this.#term !== term) return;
      if (reply.type !== "done") {
        yield { type: "sleep", ms: 1_000 };
        continue;
      }
      const files = reply.value as SimFile[];
      const base = this.#baseOf(files);
      if (base === null) {
        yield { type: "sleep", ms: 1_000 };
        continue;
      }
      if (!keepsLocal) this.#disk = { state: base.state, token: this.#disk.token, files: [] };
      // Of local files only the bytes prove that they are what is in the store: all of them go through their slots again.
      const oldest = this.#world.mutant.countsByTxid === true && base.state !== null
        ? base.state.txid + 1
        : 0;
      this.#disk.files = this.#disk.files.filter((body) => body.txid >= oldest);
      const txid = (this.#disk.files[0]?.txid ?? (this.#disk.state?.txid ?? 0) + 1) - 1;
      this.#disk.token = term.token;
      this.#world.trace(() => `${this.index} begins at ${txid}, its state is ${this.#disk.state?.txid}`);
      const absorbed = yield* this.#write(term, files, { txid, token: base.token }, wasRunning);
      if (!absorbed) return;
      keepsLocal = false;
      this.#world.count("absorbed");
    }
  }

  /** What a restore to the newest state of a listing gives; null when it fails, as by a stale listing. */
  #baseOf(files: readonly SimFile[]): { readonly state: Body | null; readonly token: number } | null {
    if (files.length === 0) return { state: null, token: 0 };
    try {
      const plan = planRestore(files, { kind: "newest" });
      const objects = plan.map(({ key }) => this.#world.objects.get(key));
      if (objects.includes(undefined)) return null;
      const token = objects.reduce((most, object) => Math.max(most, object?.token ?? 0), 0);
      return {
        state: objects.at(-1)?.bodies.at(-1) ?? null,
        token: this.#world.mutant.ignoresBaseToken === true ? 0 : token,
      };
    } catch {
      return null;
    }
  }

  /** Seals, then runs the program and everything beside it; true when a former holder's commit has to be restored first. */
  *#write(
    term: Term,
    files: readonly SimFile[],
    base: { readonly txid: number; readonly token: number },
    wasRunning: boolean,
  ): Procedure<boolean> {
    const world = this.#world;
    const { token } = term;
    this.#listing = HolderListing.of(PLACE, files);
    this.#pins = new Set(world.pins);
    this.#machine = openSlots(token, base, this.#deadlineMs);
    if (this.#machine.end !== null) {
      this.#end("a larger token in the base");
      return false;
    }
    this.#commit(token); // the seal
    let isStarted = false;
    if (world.mutant.startsUnsealed === true || wasRunning) {
      isStarted = true;
      this.#start(term);
    }
    let effect: SlotEffect | null = null;
    while (this.#term === term) {
      if (!isStarted && this.#machine?.sealed === true) {
        isStarted = true;
        this.#start(term);
      }
      if (effect === null) {
        const body = this.#waiting();
        if (body === undefined) {
          yield { type: "sleep", ms: 250 };
          continue;
        }
        const listed = this.#listing.get(objectOf(0, [body], 0).file.key) !== null;
        effect = this.#step({ type: "wanted", upload: { ...uploadOf(body), sizeBytes: 200 }, listed });
        continue;
      }
      const body = this.#waiting() ?? this.#disk.files[0];
      if (body === undefined) throw new Error("an effect without a commit");
      switch (effect.type) {
        case "durable": {
          const { txid } = effect.upload;
          this.#disk.files = this.#disk.files.filter((each) => each.txid >= txid);
          world.checks.durable(this.#disk.files[0]);
          this.#listing.added({ level: 0, minTxid: txid, maxTxid: txid, ...own(world) });
          effect = null;
          break;
        }
        case "ended":
          if (effect.end.kind === "absorbed" && world.mutant.skipsAbsorbed === true) {
            this.#disk.state = world.newBody(body.txid + 1, token, body.parent);
            this.#disk.files = [this.#disk.state];
            this.#machine = openSlots(token, { txid: body.txid, token: 0 }, this.#deadlineMs);
            effect = null;
            break;
          }
          return this.#ended(term, effect.end, isStarted);
        case "hold":
          yield { type: "sleep", ms: 500 };
          if (this.#term !== term) return false;
          effect = this.#step({ type: "renewed", deadlineMs: this.#deadlineMs });
          break;
        case "pause":
          yield { type: "sleep", ms: 100 * 2 ** Math.min(6, effect.failures) };
          if (this.#term !== term) return false;
          if (world.mutant.resendsOtherBytes === true) this.#replaceOldest(token);
          effect = this.#step({ type: "paused" });
          break;
        case "put": {
          const reply = yield* this.#ask(() => world.create(objectOf(0, [body], body.token)));
          if (this.#term !== term) return false;
          effect = this.#step(this.#heard(reply));
          break;
        }
        case "read": {
          const reply = yield* this.#ask(() => world.objects.get(objectOf(0, [body], 0).file.key));
          if (this.#term !== term) return false;
          effect = this.#step(this.#read(reply, body));
        }
      }
    }
    return false;
  }

  /** The oldest commit that is not known to be durable. */
  #waiting(): Body | undefined {
    const durableTxid = this.#machine?.durableTxid ?? 0;
    return this.#disk.files.find((body) => body.txid > durableTxid);
  }

  *#ask<T>(apply: () => T): Procedure<Reply<T>> {
    return (yield { type: "request", apply }) as Reply<T>;
  }

  #step(event: SlotEvent): SlotEffect | null {
    if (this.#machine === null) return null; // the term ended meanwhile
    const current = { ...this.#machine, deadlineMs: this.#deadlineMs };
    const { machine, effects } = stepSlots(current, event, this.#world.nowMs);
    this.#machine = machine;
    return effects[0] ?? null;
  }

  #heard(reply: Reply<"written" | "refused">): SlotEvent {
    const { mutant } = this.#world;
    if (reply.type === "done") {
      return {
        type: reply.value === "refused" && mutant.believesRefusals === true ? "written" : reply.value,
      };
    }
    return { type: reply.type === "unknown" && mutant.believesSilence === true ? "written" : reply.type };
  }

  #read(reply: Reply<SimObject | undefined>, body: Body): SlotEvent {
    if (reply.type !== "done") return { type: "read-failed" };
    const [there] = reply.value?.bodies ?? [];
    if (there === undefined) return { type: "found", object: null };
    const isOursByToken = this.#world.mutant.resendsOtherBytes === true && there.token === body.token;
    const object: SlotObject = { ...uploadOf(isOursByToken ? body : there), sizeBytes: 200 };
    return { type: "found", object };
  }

  #ended(term: Term, end: NonNullable<SlotMachine["end"]>, isStarted: boolean): boolean {
    const world = this.#world;
    const { token } = term;
    this.#machine = null;
    if (end.kind === "fenced") {
      world.count("fenced");
      // Where nobody came after us only a commit of ours, or of a holder before us, can be in the slot.
      if (world.lease.token === token) {
        world.checks.fail(`the holder with token ${token} is fenced: ${end.reason}`);
      }
      this.#end(`fenced in slot ${end.txid}, ${end.reason}`);
      return false;
    }
    if (isStarted) world.checks.fail(`programs of token ${token} ran on a state that was not the newest`);
    return true;
  }

  /** A later commit in the place of the oldest that waits. */
  #replaceOldest(token: number): void {
    const oldest = this.#waiting();
    if (oldest === undefined || this.#machine?.work === undefined || this.#machine?.work === null) return;
    let body = this.#world.newBody(oldest.txid, token, oldest.parent);
    const files = [body];
    for (const next of this.#disk.files.filter((each) => each.txid > oldest.txid)) {
      body = this.#world.newBody(next.txid, token, body);
      files.push(body);
    }
    this.#disk.files = files;
    this.#disk.state = body;
    const upload = { ...uploadOf(files[0] ?? body), sizeBytes: 200 };
    this.#machine = { ...this.#machine, work: { ...this.#machine.work, upload } };
  }

  // ---- the program and what goes on beside it

  #commit(token: number): void {
    const state = this.#disk.state;
    const body = this.#world.newBody((state?.txid ?? 0) + 1, token, state);
    this.#disk.state = body;
    this.#disk.files.push(body);
  }

  #start(term: Term): void {
    this.#isRunning = true;
    this.#world.trace(() => `${this.index} runs its program on ${this.#machine?.durableTxid}`);
    this.spawn(this.#program(term));
    this.spawn(this.#pinning(term));
    this.spawn(this.#compaction(term));
  }

  *#program(term: Term): Procedure {
    while (this.#term === term && this.#isRunning) {
      yield { type: "sleep", ms: this.#world.chance.between(200, 6_000) };
      if (this.#term !== term || this.#world.nowMs >= this.#deadlineMs) continue;
      this.#commit(term.token);
    }
  }

  *#pinning(term: Term): Procedure {
    const world = this.#world;
    for (;;) {
      yield { type: "sleep", ms: world.chance.between(10_000, 60_000) };
      // A checkpoint is committed by the head's own fence: only the newest holder can.
      if (this.#term !== term || world.lease.token !== term.token || this.#machine === null) return;
      const pin = this.#machine.durableTxid;
      world.pins.add(pin);
      this.#pins.add(pin);
      if (this.#pins.size <= PINS_KEPT) continue;
      const dropped = [...this.#pins][world.chance.below(PINS_KEPT)] ?? pin;
      world.pins.delete(dropped);
      this.#pins.delete(dropped);
    }
  }

  *#compaction(term: Term): Procedure {
    const world = this.#world;
    let times: Record<number, number> = {};
    while (this.#term === term) {
      yield { type: "sleep", ms: world.chance.between(3_000, 12_000) };
      if (this.#term !== term) return;
      for (const level of dueLevels(times, SNAPSHOT_INTERVAL_MS, world.nowMs, LEVELS)) {
        const atMs = world.nowMs;
        if (!(yield* this.#compact(term, level))) {
          const again = yield* this.#ask(() => world.list());
          if (again.type === "done") this.#listing = HolderListing.of(PLACE, again.value);
          break;
        }
        times = { ...times, [level]: atMs };
      }
    }
  }

  /** One level: merge, put, delete; false when anything failed. */
  *#compact(term: Term, level: number): Procedure<boolean> {
    const world = this.#world;
    const pins = world.mutant.ignoresPins === true ? new Set<number>() : this.#pins;
    for (;;) {
      const { files } = this.#listing;
      let merge;
      try {
        merge = level === 9 ? planSnapshot(files) : planMerge(files, level, pins, LEVELS).merge;
      } catch {
        return false;
      }
      if (merge === null) break;
      if (world.nowMs >= this.#deadlineMs) return false;
      const { inputs } = merge;
      const read = yield* this.#ask(() => inputs.map(({ key }) => world.objects.get(key)));
      if (this.#term !== term || read.type !== "done" || world.nowMs >= this.#deadlineMs) return false;
      const bodies: Body[] = [];
      for (const object of read.value) {
        if (object === undefined) return false;
        bodies.push(...object.bodies.filter((body) => body.txid >= (bodies.at(-1)?.txid ?? 0) + 1));
      }
      if (world.mutant.mergesWithoutLast === true && bodies.length > 1) {
        const last = bodies.pop();
        const before = bodies.at(-1);
        if (last !== undefined && before !== undefined) bodies.push({ ...last, id: before.id });
      }
      const output = objectOf(level, bodies, term.token);
      const put = yield* this.#ask(() => world.create(output));
      if (this.#term !== term || put.type !== "done") return false;
      world.count(level === 9 ? "snapshot" : "merge");
      const { minTxid, maxTxid } = output.file;
      this.#listing.added({ level, minTxid, maxTxid, ...own(world) });
    }
    return yield* this.#expire(term, level, [...pins]);
  }

  *#expire(term: Term, level: number, pins: readonly number[]): Procedure<boolean> {
    const world = this.#world;
    const { files } = this.#listing;
    const nowMs = world.nowMs + (world.mutant.emptiesSlotsAtOnce === true ? COMMIT_RETENTION_MS : 0);
    const deletable = level === 1
      ? deletableCommits(files, { pins, nowMs })
      : level === 9
      ? planRetention(files, { pins, nowMs: world.nowMs, retentionMs: RETENTION_MS }).deletable
      : [];
    for (const { key } of deletable) {
      if (this.#term !== term || world.nowMs >= this.#deadlineMs) return false;
      this.#listing.removed(key);
      world.count("delete");
      const reply = yield* this.#ask(() => world.remove(key));
      if (reply.type !== "done") return false;
    }
    return true;
  }
}

function own(world: SlotWorld) {
  return { sizeBytes: 200, timestampMs: null, modifiedMs: world.nowMs };
}

function uploadOf(body: Body) {
  return { txid: body.txid, token: body.token, identity: String(body.id) };
}
