/**
 * What must be true after each start, told from what was acknowledged and what was reached: a state is complete, holds
 * all that a finished checkpoint held (and on the same machine all that was on the disk), and nobody ran beside.
 */

import assert from "node:assert/strict";
import { type ChaosMachine, ChaosScene, overlaps, START_LIMIT_MS } from "./chaos_scene.ts";
import type { ManagerProcess } from "./manager_process.ts";

/** Values that a state may have; `greatest` of its slots included. */
export interface Range {
  readonly low: number;
  readonly high: number;
  readonly what: string;
}

export interface Acknowledged extends Range {
  readonly id: string;
}

export interface Started {
  readonly value: number;
  readonly origin: string;
  readonly token: number;
  /** From the manager's start to the program's, milliseconds. */
  readonly tookMs: number;
}

function fits(range: Range, value: number, greatest: number): boolean {
  return value >= range.low && greatest <= range.high;
}

const shown = (ranges: readonly Range[]) =>
  ranges.map(({ low, high, what }) => `${what} ${low}..${high}`).join(" or ");

export class ChaosHistory {
  readonly scene: ChaosScene;
  readonly acknowledged: Acknowledged[] = [];
  /** What a machine without data of its own may find in the bucket. */
  #bucket: Range[] = [{ low: 0, high: Infinity, what: "nothing yet" }];
  /** What is on the disk of each machine whose program ran. */
  readonly #local = new Map<string, { readonly restore: { source: Acknowledged; mark: number } | null }>();
  #lastRunner: string | null = null;
  /** Somebody else was started since the last runner ran, or a restore was under way: the bucket may count as newer. */
  #disputed = false;
  #token = 0;
  #startsSince = 0;

  constructor(scene: ChaosScene) {
    this.scene = scene;
  }

  /** Call with each start of a manager. */
  managerStarted(machine: ChaosMachine): void {
    this.#startsSince++;
    if (this.#lastRunner !== null && this.#lastRunner !== machine.name) this.#disputed = true;
  }

  /** Waits until the program runs and checks what it found. `mark`: length of the journal when the manager started. */
  async running(
    machine: ChaosMachine,
    manager: ManagerProcess,
    mark: number,
    startedMs: number,
  ): Promise<Started> {
    const tail = () => `on ${machine.name}\n${manager.tail()}`;
    const found = await machine.nextLine("found", mark, tail);
    const status = await manager.state("running", START_LIMIT_MS);
    const origin: string = status.files[0].origin;
    const { value, greatest = value, torn = [] } = found;
    const said = `${machine.name} starts with ${value}..${greatest}, ${origin}`;
    assert.deepEqual(torn, [], `${said}: torn\n${manager.tail()}`);
    const own = this.#onDisk(machine, found.pid);
    const isRunner = this.#lastRunner === machine.name;
    if (isRunner && !this.#disputed) {
      assert.equal(origin, "kept", `${said}: nobody else was there\n${manager.tail()}`);
    }
    const allowed = origin === "kept" && isRunner && own !== undefined ? own : this.#bucket;
    assert.ok(
      allowed.some((range) => fits(range, value, greatest)),
      `${said}, wanted ${shown(allowed)}\n${manager.tail()}`,
    );
    if (origin !== "kept" && own !== undefined) {
      const kept = machine.stale();
      assert.ok(
        kept.some((each) => own.some((range) => fits(range, each.value, each.greatest))),
        `${said}: what it had (${shown(own)}) must be moved aside, there is ${JSON.stringify(kept)}`,
      );
    }
    const token: number = status.lease.token;
    assert.ok(
      token > this.#token && token <= this.#token + this.#startsSince,
      `${said}: token ${token} after ${this.#token} and ${this.#startsSince} starts`,
    );
    if (origin !== "kept") {
      // What was found is there: a restore among it did happen.
      this.#bucket = this.#bucket.filter((range) => fits(range, value, greatest))
        .map(({ low, what }) => ({
          low,
          high: Infinity,
          what: what.replace(/^restore of /, "found after "),
        }));
    }
    this.#bucket = this.#bucket.map((range) => ({ ...range, high: Infinity }));
    if (origin === "kept" && isRunner && own !== undefined && own.length > 1) {
      // Both were possible: a restore of which nothing was seen here did not happen, and one that was seen did.
      const seen = own.filter((range) => fits(range, value, greatest)).map(({ what }) => what);
      this.#bucket = this.#bucket.filter(({ what }) => !what.startsWith("restore") || seen.includes(what));
    }
    this.#token = token;
    this.#startsSince = 0;
    this.#lastRunner = machine.name;
    this.#disputed = false;
    this.#local.delete(machine.name);
    return { value, origin, token, tookMs: found.timeMs - startedMs };
  }

  /** A checkpoint became durable that was asked for when the count stood at `low`. */
  acknowledge(id: string, low: number, high: number): Acknowledged {
    const checkpoint = { id, low, high, what: `checkpoint ${this.acknowledged.length + 1}` };
    this.acknowledged.push(checkpoint);
    this.#bucket = [{ ...checkpoint, high: Infinity }];
    return checkpoint;
  }

  /** The restore of `source` was asked for; how it ends is seen at the next start. */
  restoreBegun(source: Acknowledged): void {
    this.#bucket = [...this.#bucket, { ...source, what: `restore of ${source.what}` }];
    this.#disputed = true;
  }

  /** The restore was answered with 200: the bucket has it, and what the program added since may follow. */
  restoreDone(source: Acknowledged): void {
    this.#bucket = [{ ...source, high: Infinity }];
    this.#disputed = false;
  }

  /** The machine's manager was killed and its program is dead or dying; `mark` as for the journal at a restore's begin. */
  killed(
    machine: ChaosMachine,
    restore: { readonly source: Acknowledged; readonly mark: number } | null,
  ): void {
    if (this.#lastRunner !== machine.name) return;
    this.#local.set(machine.name, { restore });
  }

  /** Told only now: a program may count on until the guard has ended it. */
  #onDisk(machine: ChaosMachine, newPid: number): Range[] | undefined {
    const local = this.#local.get(machine.name);
    if (local === undefined) return undefined;
    // One that was killed before it counted has left what it found, perhaps settled.
    const line = machine.journal().findLast(({ pid }) => pid !== newPid);
    const low = line?.value ?? 0;
    const own: Range[] = [{ low, high: (line?.greatest ?? low) + 1, what: "its disk" }];
    if (local.restore === null) return own;
    const { source, mark } = local.restore;
    // Here, not elsewhere: other machines' programs have run since, and say nothing about this disk.
    const began = this.scene.journal().slice(mark).some((line) =>
      line.machine === machine.name && line.event === "start" && line.pid !== newPid
    );
    return began ? own : [...own, { ...source, what: `restore of ${source.what}` }];
  }

  /** A manager that was to be killed before its program ran was too quick: its disk counts as any other. */
  ranUnseen(machine: ChaosMachine, mark: number): void {
    const lines = this.scene.journal().slice(mark).filter((line) => line.machine === machine.name);
    if (lines.length === 0) return;
    this.#lastRunner = machine.name;
    this.#disputed = true;
    this.#bucket = this.#bucket.map((range) => ({ ...range, high: Infinity }));
    this.#local.set(machine.name, { restore: null });
  }

  /** No program shouted, and no two wrote to the journal in turns. */
  assertAlone(): void {
    assert.deepEqual(this.scene.shouts(), [], "a program found another one that runs");
    assert.deepEqual(overlaps(this.scene.journal()), []);
  }
}
