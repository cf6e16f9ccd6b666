/**
 * What must hold in every simulated history: each slot holds one commit for good, each made on the one before it, by
 * holders in order; what was called durable stays; a restore sees nothing else, and every kept checkpoint is reachable.
 */

import { planRestore, restorePoints, type RestoreTarget } from "../../src/database/restore_plan.ts";
import type { Body, SimFile, SimObject, SlotWorld } from "./slot_world.ts";

export class SlotChecks {
  violation: string | null = null;
  /** What landed first in each slot. */
  readonly truth: (Body | undefined)[] = [];
  readonly #durable = new Map<number, Body>();
  readonly #world: SlotWorld;
  #mostDurable = 0;
  #durableWhenCalm = 0;

  constructor(world: SlotWorld) {
    this.#world = world;
  }

  fail(what: string): void {
    this.violation ??= what;
  }

  landed(object: SimObject): void {
    const [body] = object.bodies;
    if (body === undefined) return;
    const { txid } = body;
    this.#world.trace(() =>
      `commit ${body.id} of token ${body.token} lands in slot ${txid}, made on ${body.parent?.id}`
    );
    const first = this.truth[txid];
    if (first !== undefined) {
      if (first !== body) this.fail(`slot ${txid} was written again, by token ${body.token}`);
      else this.fail(`slot ${txid} was written twice`);
      return;
    }
    const before = this.truth[txid - 1] ?? null;
    if (txid > 1 && before === null) return this.fail(`slot ${txid} was written before slot ${txid - 1}`);
    if (body.parent !== before) return this.fail(`the commit in slot ${txid} was made on another one`);
    if (before !== null && before.token > body.token) {
      return this.fail(`slot ${txid} has token ${body.token}, the one before it ${before.token}`);
    }
    this.truth[txid] = body;
  }

  durable(body: Body | undefined): void {
    if (body === undefined) return this.fail("a commit without a local file is called durable");
    if (this.truth[body.txid] !== body) {
      this.fail(`TXID ${body.txid} is called durable, another is in its slot`);
    }
    this.#durable.set(body.txid, body);
    this.#mostDurable = Math.max(this.#mostDurable, body.txid);
  }

  /** What restores would give at this moment. */
  restores(): void {
    const world = this.#world;
    const files = world.list(true);
    if (files.length === 0) return;
    this.#restore(files, { kind: "newest" }, this.#mostDurable);
    for (const pin of world.pins) this.#restore(files, { kind: "txid", txid: pin }, pin);
    const stale = world.list();
    if (stale.length > 0) this.#restore(stale, { kind: "newest" }, null);
  }

  /** Faults have stopped, and holders had time to be elected. */
  calm(): void {
    this.#durableWhenCalm = this.#mostDurable;
  }

  end(): void {
    const files = this.#world.list(true);
    for (const { txid } of restorePoints(files)) {
      this.#restore(files, { kind: "txid", txid }, txid);
    }
    this.restores();
    for (const [txid, body] of this.#durable) {
      if (this.truth[txid] !== body) this.fail(`TXID ${txid} was durable and is another commit now`);
    }
    if (this.#mostDurable <= this.#durableWhenCalm) this.fail("nothing became durable after the storm");
    this.#world.tally["commits"] = (this.#world.tally["commits"] ?? 0) + this.#mostDurable;
  }

  /** `wantedTxid`: must be reached at least; null: by a stale listing, an error is no violation, wrong content is. */
  #restore(files: readonly SimFile[], target: RestoreTarget, wantedTxid: number | null): void {
    let plan: readonly SimFile[];
    const what = target.kind === "txid" ? `to ${target.txid}` : "to the newest";
    try {
      plan = planRestore(files, target);
    } catch (error) {
      if (wantedTxid !== null) this.fail(`a restore ${what} finds no way: ${error}`);
      return;
    }
    let reached = 0;
    for (const { key, minTxid, maxTxid } of plan) {
      const object = this.#world.objects.get(key);
      if (object === undefined) return; // a stale listing: the restore plans again
      for (let txid = Math.max(reached + 1, minTxid); txid <= maxTxid; txid++) {
        if (object.bodies[txid - minTxid] !== this.truth[txid]) {
          return this.fail(`a restore ${what} sees another commit at TXID ${txid}`);
        }
      }
      reached = maxTxid;
    }
    if (wantedTxid !== null && reached < wantedTxid) {
      this.fail(`a restore ${what} reaches ${reached}, wanted ${wantedTxid}`);
    }
  }
}
