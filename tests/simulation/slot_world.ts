/**
 * One database, one store and several machines that want to hold it, in virtual time, with the shipped rules of the slot
 * fence, of compaction and of retention. The store loses, delays and doubles requests and shows stale listings; machines
 * stop for longer than their lease, and the lease itself may be given away too early: what a restore sees must not
 * depend on it. One seed, one history.
 */

import { replicaKey } from "../../src/database/replica_layout.ts";
import type { ReplicaFile } from "../../src/database/replica_listing.ts";
import { SlotChecks } from "./slot_checks.ts";
import { SlotNode } from "./slot_node.ts";
import { StormyWorld } from "./stormy_world.ts";

export const PLACE = { layout: "bucket", name: "app" } as const;
export const TTL_MS = 15_000;
export const MARGIN_MS = 3_000;
/** A listing may be so old, each key by itself. */
const STALE_MS = 10_000;
const STORM_MS = 430_000;
const END_MS = STORM_MS + 110_000;
const CHECK_INTERVAL_MS = 60_000;
const TRACE_LINES = 80;

/** One commit, known apart from every other one. */
export interface Body {
  readonly txid: number;
  readonly token: number;
  readonly id: number;
  /** The commit that it was made on; null: an empty database. */
  readonly parent: Body | null;
}

/** As a listing shows it; times of commits are of no interest here. */
export type SimFile = ReplicaFile & { readonly timestampMs: number };

export interface SimObject {
  readonly file: SimFile;
  readonly token: number;
  /** One for each TXID. */
  readonly bodies: readonly Body[];
}

/** One deliberate mistake; the checks must find it. */
export interface SlotMutant {
  /** A refused put counts as ours. */
  readonly believesRefusals?: true;
  readonly putsUnconditionally?: true;
  /** Programs start right after the restore. */
  readonly startsUnsealed?: true;
  /** Another commit goes where one of unknown outcome may land, and the token alone says what is ours. */
  readonly resendsOtherBytes?: true;
  /** Local files up to the newest TXID of the listing count as uploaded. */
  readonly countsByTxid?: true;
  readonly ignoresPins?: true;
  /** After an absorbed commit the next slot is taken without a restore to it. */
  readonly skipsAbsorbed?: true;
  /** The token of the base is not looked at. */
  readonly ignoresBaseToken?: true;
  /** Commits are deleted as soon as they are merged. */
  readonly emptiesSlotsAtOnce?: true;
  /** Merges leave the last commit of their inputs out. */
  readonly mergesWithoutLast?: true;
  /** A lost reply counts as success. */
  readonly believesSilence?: true;
}

export type { Reply } from "./lossy_network.ts";

export interface SlotOutcome {
  readonly violation: string | null;
  readonly tally: Readonly<Record<string, number>>;
  readonly trace: readonly string[];
}

export class SlotWorld extends StormyWorld {
  readonly mutant: SlotMutant;
  readonly checks: SlotChecks;
  readonly objects = new Map<string, SimObject>();
  readonly nodes: SlotNode[] = [];
  /** TXIDs of kept checkpoints. */
  readonly pins = new Set<number>();
  readonly #recent = new Map<string, { readonly atMs: number; readonly before: SimObject | undefined }>();
  lease = { token: 0, holder: -1, expiresMs: 0 };
  /** How much too early the lease may be taken in this history. */
  readonly leaseErrorMs: number;
  #ids = 0;

  constructor(seed: number, options: { readonly mutant?: SlotMutant; readonly traced?: boolean } = {}) {
    super(seed, { stormMs: STORM_MS, traceLines: options.traced === true ? TRACE_LINES : null });
    this.mutant = options.mutant ?? {};
    this.checks = new SlotChecks(this);
    this.leaseErrorMs = this.chance.happens(0.5) ? this.chance.between(0, TTL_MS + 10_000) : 0;
    const count = 2 + this.chance.below(2);
    for (let index = 0; index < count; index++) this.nodes.push(new SlotNode(this, index));
  }

  run(): SlotOutcome {
    for (const node of this.nodes) node.powerOn();
    for (let atMs = CHECK_INTERVAL_MS; atMs < END_MS; atMs += CHECK_INTERVAL_MS) {
      this.at(atMs + this.chance.between(0, 40_000), () => this.checks.restores());
    }
    this.at(STORM_MS + 75_000, () => this.checks.calm());
    this.pass(END_MS, () => this.checks.violation === null);
    if (this.checks.violation === null) this.checks.end();
    return { violation: this.checks.violation, tally: this.tally, trace: this.lines };
  }

  newBody(txid: number, token: number, parent: Body | null): Body {
    return { txid, token, parent, id: ++this.#ids };
  }

  /** Lands a put that is only to create. */
  create(object: SimObject): "written" | "refused" {
    const { key } = object.file;
    const before = this.objects.get(key);
    if (before !== undefined && this.mutant.putsUnconditionally !== true) return "refused";
    this.#remember(key, before);
    this.objects.set(key, { ...object, file: { ...object.file, modifiedMs: this.nowMs } });
    if (object.file.level === 0) this.checks.landed(object);
    return "written";
  }

  remove(key: string): void {
    const before = this.objects.get(key);
    if (before === undefined) return;
    this.#remember(key, before);
    this.objects.delete(key);
  }

  #remember(key: string, before: SimObject | undefined): void {
    const known = this.#recent.get(key);
    if (known !== undefined && known.atMs > this.nowMs - STALE_MS) return;
    this.#recent.set(key, { atMs: this.nowMs, before });
  }

  /** What a listing shows: in a storm each recent change may be missing from it. */
  list(isExact = false): SimFile[] {
    if (isExact || !this.happens(0.3)) return Array.from(this.objects.values(), ({ file }) => file);
    this.count("stale listing");
    const shown = new Map(this.objects);
    for (const [key, { atMs, before }] of this.#recent) {
      if (atMs < this.nowMs - STALE_MS) this.#recent.delete(key);
      else if (this.chance.happens(0.5)) {
        if (before === undefined) shown.delete(key);
        else shown.set(key, before);
      }
    }
    return Array.from(shown.values(), ({ file }) => file);
  }
}

export function objectOf(level: number, bodies: readonly Body[], token: number): SimObject {
  const minTxid = bodies[0]?.txid ?? 0;
  const maxTxid = bodies.at(-1)?.txid ?? 0;
  const key = replicaKey(PLACE, { level, minTxid, maxTxid });
  const file = { level, minTxid, maxTxid, key, sizeBytes: 200, timestampMs: 0, modifiedMs: 0 };
  return { file, token, bodies };
}

export function simulateSlots(
  seed: number,
  options: { readonly mutant?: SlotMutant; readonly traced?: boolean } = {},
): SlotOutcome {
  const outcome = new SlotWorld(seed, options).run();
  if (outcome.violation === null || options.traced === true) return outcome;
  return new SlotWorld(seed, { ...options, traced: true }).run();
}
