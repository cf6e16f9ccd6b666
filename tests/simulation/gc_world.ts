/**
 * One repository, one store and two or three machines that want to hold it, in virtual time, with the shipped rules of
 * the head and of pruning. The store loses, delays and doubles requests and shows stale listings; machines stop for longer
 * than their lease in the middle of anything and go on; the lease itself may be given away too early: that no kept
 * checkpoint loses a chunk must not depend on it. One seed, one history.
 */

import { INDEX_PREFIX, packKey, PACKS_PREFIX, ROOTS_PREFIX } from "../../src/checkpoint/ids.ts";
import type { Head } from "../../src/checkpoint/types.ts";
import { GcNode } from "./gc_node.ts";
import { StormyWorld } from "./stormy_world.ts";

export const TTL_MS = 8_000;
export const MARGIN_MS = 2_000;
/** A listing may be so old, each key by itself. */
const STALE_MS = 10_000;
const STORM_MS = 40_000;
/** Faults have stopped, the last of their effects (late landings, pauses) have come. */
const CALM_MS = STORM_MS + 22_000;
const END_MS = CALM_MS + 36_000;
/** In calm, what became garbage before this must be gone at the end: a grace and two prunes later. */
const GARBAGE_LIMIT_MS = 30_000;
/**
 * How many collections must have run from start to end in calm, or the end says nothing of garbage: before holders took
 * turns then, about one history in twenty thousand had none (seed 5279: its only prune in calm did not collect, the next was
 * cut off by the end) and its orphan of the storm looked like garbage for ever.
 */
const CALM_COLLECTIONS = 3;
const TRACE_LINES = 120;

export type SimObject =
  | { readonly kind: "pack"; readonly chunks: readonly string[] }
  | { readonly kind: "index"; readonly packs: readonly SimPack[] }
  | { readonly kind: "root"; readonly chunks: readonly string[] };

export interface SimPack {
  readonly name: string;
  readonly chunks: readonly string[];
}

/** One deliberate mistake; the checks must find it. */
export interface GcMutant {
  /** Rule A: doomed packs stay in the indexes, and new checkpoints refer to what is in them. */
  readonly refersToDoomed?: true;
  /** Rule B: what a collection found is deleted before a head of ours says so. */
  readonly deletesUncommitted?: true;
  /** Rule C: a collection runs beside a checkpoint of the same process. */
  readonly collectsBesideCheckpoint?: true;
  /** A doomed pack that is wanted again comes off the list. */
  readonly undooms?: true;
  /** Pack names are made of their content, so one comes twice. */
  readonly namesByContent?: true;
  /** A root object that could not be read counts as one that needs nothing. */
  readonly ignoresFailedReads?: true;
  /** Only the newest checkpoint's chunks count as needed. */
  readonly marksNewestOnly?: true;
  /** Pieces of manifests do not count as needed. */
  readonly forgetsManifests?: true;
  /** Pieces of manifests count as needed for ever. */
  readonly keepsManifests?: true;
  /** The head names new packs before the store has them. */
  readonly commitsBeforePuts?: true;
  readonly putsUnconditionally?: true;
}

export interface GcOutcome {
  readonly violation: string | null;
  readonly tally: Readonly<Record<string, number>>;
  readonly trace: readonly string[];
}

export class GcWorld extends StormyWorld {
  readonly mutant: GcMutant;
  readonly objects = new Map<string, SimObject>();
  readonly nodes: GcNode[] = [];
  violation: string | null = null;
  head: Head | null = null;
  lease = { token: 0, holder: -1, expiresMs: 0 };
  /** How much too early the lease may be taken in this history. */
  readonly leaseErrorMs: number;
  readonly graceMs: number;
  readonly keepLast: number;
  /** Chunks of each checkpoint, as the program had them. */
  readonly needs = new Map<string, readonly string[]>();
  readonly #recent = new Map<string, { readonly atMs: number; readonly before: SimObject | undefined }>();
  /** When each object came. */
  readonly #born = new Map<string, number>();
  /** Keys that the head names, directly or by its indexes. */
  #named = new Set<string>();
  /** Packs that the head names and of which no checkpoint needs a chunk, and since when. */
  readonly #useless = new Map<string, number>();
  #ids = 0;
  #calmCheckpoints = 0;
  #calmCollections = 0;

  constructor(seed: number, options: { readonly mutant?: GcMutant; readonly traced?: boolean } = {}) {
    super(seed, { stormMs: STORM_MS, traceLines: options.traced === true ? TRACE_LINES : null });
    this.mutant = options.mutant ?? {};
    this.leaseErrorMs = this.chance.happens(0.5) ? this.chance.between(0, TTL_MS + 4_000) : 0;
    this.graceMs = [0, 1_000, 8_000][this.chance.below(3)] ?? 0;
    this.keepLast = 1 + this.chance.below(3);
    const count = 2 + this.chance.below(2);
    for (let index = 0; index < count; index++) this.nodes.push(new GcNode(this, index));
  }

  run(): GcOutcome {
    for (const node of this.nodes) node.powerOn();
    this.pass(END_MS, () => this.violation === null);
    if (this.violation === null) this.#checkEnd();
    return { violation: this.violation, tally: this.tally, trace: this.lines };
  }

  freshId(): string {
    return String(++this.#ids).padStart(4, "0");
  }

  fail(what: string): void {
    this.violation ??= what;
  }

  /** A collection of garbage that began at `beganMs` has ended without a failure. */
  collected(beganMs: number): void {
    if (beganMs >= CALM_MS) this.#calmCollections++;
  }

  // ---- the store

  /** Null: refused. */
  putHead(head: Head, base: string | null): string | null {
    const before = this.head;
    const tag = before?.nonce ?? null;
    if (tag !== base && this.mutant.putsUnconditionally !== true) return null;
    this.head = head;
    if (before !== null && head.epoch < before.epoch) {
      this.fail(`a head of term ${head.epoch} in term ${before.epoch}`);
    }
    this.trace(() =>
      `head ${head.nonce}: ${head.checkpoints.map(({ n }) => n)}, doomed ${
        head.doomed.map(({ pack }) => pack)
      }`
    );
    if (before !== null && head.current !== before.current && !this.isStormy) this.#calmCheckpoints++;
    this.#lookThrough(head);
    return head.nonce ?? "";
  }

  create(key: string, object: SimObject): void {
    const before = this.objects.get(key);
    if (before !== undefined) return; // ours, by its name: an earlier copy of the request
    this.#remember(key, before);
    this.objects.set(key, object);
    this.#born.set(key, this.nowMs);
    if (this.isStormy && this.#deleted.has(key)) this.count("put after its delete");
  }

  readonly #deleted = new Set<string>();

  remove(key: string, token: number): void {
    this.#deleted.add(key);
    if ((this.head?.epoch ?? 0) > token) this.count("delete of an earlier term");
    const before = this.objects.get(key);
    if (before === undefined) return;
    this.#remember(key, before);
    this.objects.delete(key);
    this.count("object deleted");
    this.trace(() => `${key} is deleted by term ${token}`);
    if (this.#named.has(key)) this.fail(`${key} is deleted by term ${token}, the head names it`);
  }

  #remember(key: string, before: SimObject | undefined): void {
    const known = this.#recent.get(key);
    if (known !== undefined && known.atMs > this.nowMs - STALE_MS) return;
    this.#recent.set(key, { atMs: this.nowMs, before });
  }

  /** What a listing shows: in a storm each recent change may be missing from it. */
  list(): ReadonlyMap<string, SimObject> {
    if (!this.happens(0.3)) return new Map(this.objects);
    this.count("stale listing");
    const shown = new Map(this.objects);
    for (const [key, { atMs, before }] of this.#recent) {
      if (atMs < this.nowMs - STALE_MS) this.#recent.delete(key);
      else if (this.chance.happens(0.5)) {
        if (before === undefined) shown.delete(key);
        else shown.set(key, before);
      }
    }
    return shown;
  }

  // ---- what must hold

  /** Where a broken rule leaves doomed packs in the indexes, only chunks that are needed count. */
  get #namesWhatIsGone(): boolean {
    return this.mutant.refersToDoomed === true || this.mutant.undooms === true;
  }

  /**
   * Everything that the head promises is there: all packs that it does not doom, and each chunk of each checkpoint. Where
   * only a doomed pack has one (a broken rule), that pack must not go.
   */
  #lookThrough(head: Head): void {
    const named = new Set<string>();
    const chunks = new Set<string>();
    const onlyDoomed = new Map<string, string>();
    const doomed = new Set(head.doomed.map(({ pack }) => pack));
    for (const { key } of head.indexes) {
      const index = this.objects.get(key);
      named.add(key);
      if (index?.kind !== "index") return this.fail(`the head names index ${key}, which is not there`);
      for (const pack of index.packs) {
        const place = packKey(pack.name);
        const isThere = this.objects.get(place)?.kind === "pack";
        if (doomed.has(pack.name)) {
          if (isThere) { for (const chunk of pack.chunks) onlyDoomed.set(chunk, place); }
          continue;
        }
        if (!isThere && this.#namesWhatIsGone) continue;
        named.add(place);
        if (!isThere) return this.fail(`index ${key} names pack ${pack.name}, which is not there`);
        for (const chunk of pack.chunks) chunks.add(chunk);
      }
    }
    for (const { id, root } of head.checkpoints) {
      named.add(root);
      if (!this.objects.has(root)) return this.fail(`the root object of ${id} is not there`);
      for (const chunk of this.needs.get(id) ?? []) {
        if (chunks.has(chunk)) continue;
        const place = onlyDoomed.get(chunk);
        if (place === undefined) return this.fail(`checkpoint ${id} has lost chunk ${chunk}`);
        named.add(place);
      }
    }
    this.#named = named;
    this.#lookForUseless(head, doomed);
  }

  #lookForUseless({ indexes, checkpoints }: Head, doomed: ReadonlySet<string>): void {
    const needed = new Set(checkpoints.flatMap(({ id }) => this.needs.get(id) ?? []));
    const before = new Map(this.#useless);
    this.#useless.clear();
    for (const { key } of indexes) {
      const index = this.objects.get(key);
      if (index?.kind !== "index") continue;
      for (const { name, chunks } of index.packs) {
        if (doomed.has(name) || chunks.some((chunk) => needed.has(chunk))) continue;
        this.#useless.set(name, before.get(name) ?? this.nowMs);
      }
    }
  }

  #checkEnd(): void {
    const { head } = this;
    if (head === null || this.#calmCheckpoints < 3) {
      return this.fail("hardly a checkpoint was made after the storm");
    }
    if (this.#calmCollections < CALM_COLLECTIONS) {
      return this.fail("hardly a collection of garbage ended after the storm");
    }
    const waiting = new Set([
      ...head.doomed.map(({ pack }) => packKey(pack)),
      ...(head.doomed_objects ?? []).map(({ key }) => key),
    ]);
    for (const key of this.objects.keys()) {
      const old = (this.#born.get(key) ?? 0) < END_MS - GARBAGE_LIMIT_MS;
      if (old && !this.#named.has(key) && !waiting.has(key)) return this.fail(`${key} is garbage for ever`);
    }
    for (const [pack, sinceMs] of this.#useless) {
      if (sinceMs < END_MS - GARBAGE_LIMIT_MS) {
        return this.fail(`pack ${pack} is kept for ever and needed by none`);
      }
    }
    if (waiting.size > 200) this.fail(`${waiting.size} names are doomed for ever`);
    const kinds = [PACKS_PREFIX, INDEX_PREFIX, ROOTS_PREFIX];
    for (const key of waiting) {
      if (!kinds.some((prefix) => key.startsWith(prefix))) this.fail(`doomed: ${key}`);
    }
  }
}

export function simulateGc(
  seed: number,
  options: { readonly mutant?: GcMutant; readonly traced?: boolean } = {},
): GcOutcome {
  const outcome = new GcWorld(seed, options).run();
  if (outcome.violation === null || options.traced === true) return outcome;
  return new GcWorld(seed, { ...options, traced: true }).run();
}
