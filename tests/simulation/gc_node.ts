/** One machine of the simulation: it wants the lease, takes the head over, makes checkpoints and prunes. */

import {
  type HeadEvent,
  type HeadMachine,
  type HeadOutcome,
  initialHead,
  stepHead,
} from "../../src/checkpoint/head_rules.ts";
import { nextOrdinal } from "../../src/checkpoint/head.ts";
import { indexKey, packKey, packName, PACKS_PREFIX, rootKey } from "../../src/checkpoint/ids.ts";
import {
  initialPrune,
  type PruneEffect,
  type PruneEvent,
  stepPrune,
} from "../../src/checkpoint/prune_machine.ts";
import {
  basisOf,
  type CollectionPlan,
  type Doom,
  type IndexedPackUse,
  type Names,
  planCollection,
} from "../../src/checkpoint/prune_rules.ts";
import type { CheckpointRecord, Head } from "../../src/checkpoint/types.ts";
import { changeHead, type HeadChange } from "../../src/manager/head_changes.ts";
import { asStateManagerError } from "../../src/platform/errors.ts";
import { type GcWorld, MARGIN_MS, type SimObject, type SimPack, TTL_MS } from "./gc_world.ts";
import type { Reply } from "./lossy_network.ts";
import { type Procedure, StormyMachine } from "./stormy_machine.ts";

const RENEW_INTERVAL_MS = 2_500;
const LONGEST_PAUSE_MS = 25_000;
const LONGEST_ABSENCE_MS = 10_000;
/** Few enough that old content comes back often, for that is what meets doomed packs. */
const CHUNKS = 10;
const CHUNKS_IN_USE = 4;
const CHUNKS_IN_PACK = 3;
const CHUNK_BYTES = 100;
const PUT_TRIES = 3;
const TAKE_OVERS = 8;
const REPO_ID = "ab".repeat(16);

interface Term {
  readonly token: number;
  /** No checkpoint or collection at the same time. */
  busy: boolean;
}

export class GcNode extends StormyMachine {
  readonly #world: GcWorld;
  readonly #skewMs: number;
  #term: Term | null = null;
  #deadlineMs = 0;
  #machine: HeadMachine | null = null;
  #versions = 0;
  #seen = new Map<string, number>();

  constructor(world: GcWorld, index: number) {
    super(world, index);
    this.#world = world;
    this.#skewMs = world.chance.between(-30_000, 30_000);
  }

  powerOn(): void {
    this.endLife();
    this.spawn(this.#contend());
    if (this.#world.isStormy) this.#scheduleTrouble();
  }

  protected stop(): void {
    this.#term = null;
    this.#machine = null;
    this.#seen = new Map();
  }

  #scheduleTrouble(): void {
    const { chance } = this.#world;
    this.#world.at(this.#world.nowMs + chance.between(2_000, 30_000), () => {
      if (!this.#world.isStormy) return;
      if (chance.happens(0.5)) {
        this.pause(LONGEST_PAUSE_MS);
        this.#scheduleTrouble();
      } else this.crash(LONGEST_ABSENCE_MS);
    });
  }

  protected disturb(): boolean {
    // It may be stopped, or die, between any two requests.
    if (this.#world.happens(0.006)) this.pause(LONGEST_PAUSE_MS);
    if (!this.#world.happens(0.003)) return false;
    this.#world.count("crash between two requests");
    this.crash(LONGEST_ABSENCE_MS);
    return true;
  }

  // ---- the lease, as an oracle

  *#contend(): Procedure {
    const world = this.#world;
    for (;;) {
      yield { type: "sleep", ms: 400 + world.chance.between(0, 600) };
      if (this.#term !== null) continue;
      const { lease } = world;
      const early = world.happens(0.1) ? world.leaseErrorMs : 0;
      if (lease.holder !== this.index && world.nowMs < lease.expiresMs - early) continue;
      const term: Term = { token: lease.token + 1, busy: false };
      this.#term = term;
      world.lease = { token: term.token, holder: this.index, expiresMs: world.nowMs + TTL_MS };
      this.#deadlineMs = world.nowMs + TTL_MS - MARGIN_MS;
      world.count("term");
      world.trace(() => `${this.index} holds with token ${term.token}`);
      this.spawn(this.#renew(term));
      this.spawn(this.#hold(term));
    }
  }

  *#renew(term: Term): Procedure {
    const world = this.#world;
    while (this.#term === term) {
      yield { type: "sleep", ms: RENEW_INTERVAL_MS };
      if (this.#term !== term) return;
      if (world.lease.token !== term.token) return this.#end(term, "lost the lease");
      if (world.happens(0.05)) continue;
      world.lease = { ...world.lease, expiresMs: world.nowMs + TTL_MS };
      this.#deadlineMs = world.nowMs + TTL_MS - MARGIN_MS;
    }
  }

  #end(term: Term, why: string): void {
    this.#world.trace(() => `${this.index} ends term ${term.token}: ${why}`);
    if (this.#term === term) this.stop();
  }

  // ---- a term

  *#hold(term: Term): Procedure {
    const world = this.#world;
    // A token may come twice where the lease errs; whose head it is the writer's name tells.
    const writer = `${this.index}.${this.life}.${term.token}.${++this.#versions}`;
    this.#machine = initialHead({ repoId: REPO_ID, token: term.token, writer });
    for (let attempt = 0; this.#machine?.standing !== "ours"; attempt++) {
      if (attempt === TAKE_OVERS) return this.#end(term, "no take-over");
      const looked = yield* this.#head(term, { type: "look" });
      if (looked === "gone") return;
      if (looked.kind === "lost") return this.#end(term, "a later term has the head");
      if (looked.kind !== "done") {
        yield { type: "sleep", ms: 300 };
        if (this.#term !== term) return;
        continue;
      }
      if ((yield* this.#head(term, { type: "take-over" })) === "gone") return;
    }
    for (let turn = 0; this.#term === term; turn++) {
      yield { type: "sleep", ms: world.chance.between(300, world.isStormy ? 2_500 : 3_500) };
      if (this.#term !== term) return;
      // In calm they take turns, so that the end can be judged.
      if (world.isStormy ? world.chance.happens(0.55) : turn % 2 === 0) {
        yield* this.#exclusively(term, this.#checkpoint(term));
      } else if (world.happens(0.1)) yield* this.#pin(term);
      else if (world.mutant.collectsBesideCheckpoint === true) this.spawn(this.#prune(term));
      else yield* this.#exclusively(term, this.#prune(term));
      if (this.#isLost) return this.#end(term, "the head is another's");
    }
  }

  *#exclusively(term: Term, work: Procedure): Procedure {
    if (term.busy) return;
    term.busy = true;
    yield* work;
    term.busy = false;
  }

  /** One thing that is asked of the head. `gone`: the term ended meanwhile. */
  *#head(term: Term, asked: HeadEvent): Procedure<HeadOutcome | "gone"> {
    let event = asked;
    // Of two that run at once, the second waits, as in the shipped session.
    while (this.#term === term && this.#machine?.work !== null) yield { type: "sleep", ms: 50 };
    for (;;) {
      if (this.#term !== term || this.#machine === null) return "gone";
      const { state, effects: [effect] } = stepHead(this.#machine, event);
      this.#machine = state;
      switch (effect?.type) {
        case undefined:
          return "gone";
        case "settled":
          return effect.outcome;
        case "prove":
          event = this.#world.nowMs < this.#deadlineMs
            ? { type: "proven" }
            : { type: "unproven", code: "lease-not-held" };
          break;
        case "get": {
          const reply = yield* this.#ask(() => this.#world.head);
          const found = reply.type === "done" ? reply.value : null;
          event = reply.type !== "done"
            ? { type: "read-failed", code: "store-unreachable" }
            : { type: "read", found: found === null ? null : { head: found, etag: found.nonce ?? "" } };
          break;
        }
        case "put": {
          const { head, base } = effect;
          const reply = yield* this.#ask(() => this.#world.putHead(head, base));
          if (reply.type !== "done") event = { type: "unknown", code: "outcome-unknown" };
          else event = reply.value === null ? { type: "refused" } : { type: "written", etag: reply.value };
        }
      }
    }
  }

  *#commit(term: Term, change: HeadChange): Procedure<HeadOutcome | "gone"> {
    while (this.#term === term && this.#machine?.work !== null) yield { type: "sleep", ms: 50 };
    const base = this.#machine?.base?.head;
    if (this.#term !== term || base === undefined) return "gone";
    let next: Head;
    try {
      next = changeHead(base, change);
    } catch (error) {
      return { kind: "failed", code: asStateManagerError(error).code, reason: "the change does not apply" };
    }
    return yield* this.#head(term, { type: "commit", next });
  }

  get #isLost(): boolean {
    return this.#machine?.standing === "lost";
  }

  get #known(): Head | null {
    return this.#machine?.base?.head ?? null;
  }

  *#ask<T>(apply: () => T): Procedure<Reply<T>> {
    return (yield { type: "request", apply }) as Reply<T>;
  }

  /** An object of its own name. True when the store has it for sure. */
  *#put(term: Term, key: string, object: SimObject): Procedure<boolean> {
    for (let attempt = 0; attempt < PUT_TRIES && this.#term === term; attempt++) {
      const reply = yield* this.#ask(() => this.#world.create(key, object));
      if (reply.type === "done") return true;
    }
    return false;
  }

  // ---- a checkpoint

  *#checkpoint(term: Term): Procedure {
    const world = this.#world;
    const settled = yield* this.#head(term, { type: "settle" });
    const head = this.#known;
    if (settled === "gone" || settled.kind !== "done" || head === null) return;
    const indexes = yield* this.#readIndexes(head);
    if (indexes === null || this.#term !== term) return;
    const stored = this.#stored(head, indexes);
    const files = this.#changed(head);
    const manifest = manifestOf(files);
    const chunks = [...files, ...manifest];
    const packs: SimPack[] = [];
    // Pieces of manifests go into packs of their own.
    for (const kind of [files, manifest]) {
      const created = kind.filter((chunk) => !stored.has(chunk));
      for (let i = 0; i < created.length; i += CHUNKS_IN_PACK) {
        const part = created.slice(i, i + CHUNKS_IN_PACK);
        packs.push({ name: this.#packName(term, part), chunks: part });
      }
    }
    const refs = [...head.indexes];
    const uploads: [string, SimObject][] = packs.map((
      { name, chunks },
    ) => [packKey(name), { kind: "pack", chunks }]);
    if (packs.length > 0) {
      const key = indexKey(term.token, world.freshId());
      uploads.push([key, { kind: "index", packs }]);
      refs.push({ key, sha256: "" });
    }
    const id = `c${world.freshId()}`;
    const root = rootKey(term.token, id);
    uploads.push([root, { kind: "root", chunks }]);
    world.needs.set(id, chunks);
    const record = this.#record(head, term, { id, root });
    const change: HeadChange = { kind: "current", record, indexes: refs };
    if (world.mutant.commitsBeforePuts === true) yield* this.#commit(term, change);
    for (const [key, object] of uploads) {
      if (!(yield* this.#put(term, key, object))) return world.count("upload given up");
    }
    if (this.#term !== term) return;
    if (world.mutant.undooms === true) yield* this.#undoom(term, chunks, indexes);
    const outcome = yield* this.#commit(term, change);
    if (outcome !== "gone" && outcome.kind === "done") world.count("checkpoint");
  }

  #record(
    head: Head,
    term: Term,
    { id, root }: { readonly id: string; readonly root: string },
  ): CheckpointRecord {
    return {
      ...{ id, n: nextOrdinal(head), time: this.#wallMs, token: term.token, parent: head.current },
      ...{ kind: "interval", comment: "", labels: {}, root, root_sha256: "", files: {} },
      warnings: this.#world.chance.happens(0.2) ? 1 : 0,
    };
  }

  /** The program's next state: most of the last one, and something that may have been there long ago. */
  #changed(head: Head): readonly string[] {
    const { chance } = this.#world;
    const last = this.#world.needs.get(head.current ?? "") ?? [];
    const state = last.filter((chunk) => !isPiece(chunk));
    while (state.length < CHUNKS_IN_USE) state.push(`k${chance.below(CHUNKS)}`);
    for (let i = 0; i < 2; i++) state[chance.below(state.length)] = `k${chance.below(CHUNKS)}`;
    return [...new Set(state)];
  }

  #packName(term: Term, chunks: readonly string[]): string {
    if (this.#world.mutant.namesByContent === true) return packName(0, chunks.join(""));
    return packName(term.token, this.#world.freshId());
  }

  *#readIndexes(head: Head): Procedure<ReadonlyMap<string, readonly SimPack[]> | null> {
    const reply = yield* this.#ask(() => head.indexes.map(({ key }) => this.#world.objects.get(key)));
    if (reply.type !== "done") return null;
    const packs = new Map<string, readonly SimPack[]>();
    for (const [i, { key }] of head.indexes.entries()) {
      const object = reply.value[i];
      if (object?.kind !== "index") return null; // somebody has taken over meanwhile
      packs.set(key, object.packs);
    }
    return packs;
  }

  /** Chunk → pack where it is read from. */
  #stored(head: Head, indexes: ReadonlyMap<string, readonly SimPack[]>): Map<string, string> {
    const doomed = new Set(head.doomed.map(({ pack }) => pack));
    const refers = this.#world.mutant.refersToDoomed === true || this.#world.mutant.undooms === true;
    const stored = new Map<string, string>();
    for (const packs of indexes.values()) {
      for (const { name, chunks } of packs) {
        if (doomed.has(name) && !refers) continue;
        for (const chunk of chunks) if (!stored.has(chunk)) stored.set(chunk, name);
      }
    }
    return stored;
  }

  /** The mistake of those who think that a name can be taken back. */
  *#undoom(
    term: Term,
    chunks: readonly string[],
    indexes: ReadonlyMap<string, readonly SimPack[]>,
  ): Procedure {
    const head = this.#known;
    if (head === null) return;
    const stored = this.#stored(head, indexes);
    const packs = chunks.flatMap((chunk) => stored.get(chunk) ?? []);
    yield* this.#commit(term, { kind: "release", names: { packs, objects: [] } });
  }

  *#pin(term: Term): Procedure {
    const checkpoints = this.#known?.checkpoints ?? [];
    const record = checkpoints[this.#world.chance.below(checkpoints.length)];
    if (record === undefined) return;
    const pinned = record.pinned !== true && checkpoints.filter((each) => each.pinned === true).length < 2;
    yield* this.#commit(term, { kind: "annotate", id: record.id, notes: { pinned } });
  }

  // ---- a prune

  get #wallMs(): number {
    return Math.round(this.#world.nowMs + this.#skewMs) + 1_000_000;
  }

  #now() {
    const { doomed = [], doomed_objects = [] } = this.#known ?? {};
    const names = [...doomed.map(({ pack }) => pack), ...doomed_objects.map(({ key }) => key)];
    this.#seen = new Map(names.map((name) => [name, this.#seen.get(name) ?? this.#world.nowMs]));
    const { graceMs, nowMs } = this.#world;
    return {
      wallMs: this.#wallMs,
      stampMs: this.#wallMs,
      monotonicMs: nowMs,
      graceMs,
      seenMs: (name: string) => this.#seen.get(name),
    };
  }

  *#prune(term: Term): Procedure {
    const world = this.#world;
    const rules = {
      last: world.keepLast,
      hourly: 0,
      daily: 0,
      weekly: 0,
      monthly: 0,
      withinMs: 0,
      labels: [],
    };
    const request = { unwanted: { kind: "by-rules", rules }, collect: !world.happens(0.2) } as const;
    const beganMs = world.nowMs;
    let { state, effect } = stepPrune(initialPrune(request), { type: "begin" }, this.#now());
    while (effect.type !== "ended") {
      const event = yield* this.#perform(term, effect);
      if (event === "gone" || this.#term !== term) return;
      ({ state, effect } = stepPrune(state, event, this.#now()));
    }
    world.count(effect.failure === null ? "prune" : "prune that failed");
    if (effect.failure === null && request.collect) world.collected(beganMs);
    world.tally["name released"] = (world.tally["name released"] ?? 0) + state.deleted.packs.length;
  }

  *#perform(term: Term, effect: Exclude<PruneEffect, { type: "ended" }>): Procedure<PruneEvent | "gone"> {
    switch (effect.type) {
      case "settle":
        return this.#heard(yield* this.#head(term, { type: "settle" }));
      case "swap":
        return this.#heard(yield* this.#commit(term, effect.change));
      case "collect": {
        const doom = yield* this.#collect(term, effect.head);
        if (doom === null) return { type: "failed", code: "store-unreachable" };
        return { type: "done", learned: { doom } };
      }
      case "sweep":
        return { type: "done", learned: { swept: yield* this.#sweep(term, effect.names) } };
    }
  }

  #heard(outcome: HeadOutcome | "gone"): PruneEvent | "gone" {
    const head = this.#known;
    if (outcome === "gone" || head === null) return "gone";
    if (outcome.kind === "done") return { type: "done", learned: { head } };
    return { type: "failed", code: outcome.kind === "lost" ? "lease-lost" : outcome.code };
  }

  *#collect(term: Term, head: Head): Procedure<Doom | null> {
    const world = this.#world;
    const indexes = yield* this.#readIndexes(head);
    if (indexes === null) return null;
    const live = yield* this.#mark(head);
    if (live === null) return null;
    const listing = yield* this.#ask(() => world.list());
    if (listing.type !== "done" || this.#term !== term) return null;
    const stored = this.#stored(head, indexes);
    for (const chunk of live) if (!stored.has(chunk)) return null; // damaged: nothing is deleted
    const packs = usesOf(head, indexes, stored, live);
    const listedPacks = new Map<string, number>();
    const listedObjects: string[] = [];
    for (const [key, object] of listing.value) {
      if (object.kind === "pack") listedPacks.set(key.slice(PACKS_PREFIX.length), sizeOf(object.chunks));
      else listedObjects.push(key);
    }
    const roots = head.checkpoints.map(({ root }) => root);
    const plan = planCollection({ token: term.token, head, roots, packs, listedPacks, listedObjects });
    if (plan.missing.length > 0) return null;
    return yield* this.#rewrite(term, head, { plan, indexes, stored, live });
  }

  /** Chunks that kept checkpoints need. */
  *#mark(head: Head): Procedure<ReadonlySet<string> | null> {
    const { mutant } = this.#world;
    const records = mutant.marksNewestOnly === true ? head.checkpoints.slice(-1) : head.checkpoints;
    const live = new Set<string>();
    const reply = yield* this.#ask(() => records.map(({ root }) => this.#world.objects.get(root)));
    const roots = reply.type === "done" ? reply.value : records.map(() => undefined);
    for (const found of roots) {
      if (found?.kind !== "root") {
        if (mutant.ignoresFailedReads === true) continue;
        return null;
      }
      for (const chunk of found.chunks) {
        if (mutant.forgetsManifests !== true || !isPiece(chunk)) live.add(chunk);
      }
    }
    if (mutant.keepsManifests === true) this.#markAllManifests(live);
    return live;
  }

  #markAllManifests(live: Set<string>): void {
    for (const object of this.#world.objects.values()) {
      if (object.kind === "pack") { for (const chunk of object.chunks) if (isPiece(chunk)) live.add(chunk); }
    }
  }

  *#rewrite(
    term: Term,
    head: Head,
    { plan, indexes, stored, live }: {
      readonly plan: CollectionPlan;
      readonly indexes: ReadonlyMap<string, readonly SimPack[]>;
      readonly stored: ReadonlyMap<string, string>;
      readonly live: ReadonlySet<string>;
    },
  ): Procedure<Doom | null> {
    const world = this.#world;
    const { mutant } = world;
    const gone = new Set([...plan.dead, ...plan.repack]);
    const refs: Head["indexes"][number][] = [];
    const doomed = new Set(head.doomed.map(({ pack }) => pack));
    const keepsDoomed = mutant.refersToDoomed === true || mutant.undooms === true;
    for (const [i, packs] of [...indexes.values()].entries()) {
      const ref = head.indexes[i];
      const rest = keepsDoomed ? packs : packs.filter(({ name }) => !gone.has(name) && !doomed.has(name));
      if (ref !== undefined && rest.length === packs.length) refs.push(ref);
      else if (rest.length > 0) {
        const key = indexKey(term.token, world.freshId());
        if (!(yield* this.#put(term, key, { kind: "index", packs: rest }))) return null;
        refs.push({ key, sha256: "" });
      }
    }
    const moved = [...live].filter((chunk) => plan.repack.includes(stored.get(chunk) ?? ""));
    if (moved.length > 0) {
      world.count("repack");
      const name = this.#packName(term, moved);
      if (!(yield* this.#put(term, packKey(name), { kind: "pack", chunks: moved }))) return null;
      const key = indexKey(term.token, world.freshId());
      if (!(yield* this.#put(term, key, { kind: "index", packs: [{ name, chunks: moved }] }))) return null;
      refs.push({ key, sha256: "" });
    }
    if (plan.orphans.length > 0) world.count("orphans found");
    const packs = [...gone, ...plan.orphans];
    if (mutant.deletesUncommitted === true) yield* this.#sweep(term, { packs, objects: [] });
    return { packs, objects: plan.objects, indexes: refs, basis: basisOf(head) };
  }

  *#sweep(term: Term, { packs, objects }: Names) {
    const deleted: { packs: string[]; objects: string[] } = { packs: [], objects: [] };
    for (const name of packs) {
      const reply = yield* this.#ask(() => this.#world.remove(packKey(name), term.token));
      if (reply.type !== "done") return { names: deleted, failure: "store-unreachable" as const };
      deleted.packs.push(name);
    }
    for (const key of objects) {
      const reply = yield* this.#ask(() => this.#world.remove(key, term.token));
      if (reply.type !== "done") return { names: deleted, failure: "store-unreachable" as const };
      deleted.objects.push(key);
    }
    return { names: deleted, failure: null };
  }
}

/** Two pieces, each of half of the files: one that did not change is the same chunk. */
function manifestOf(files: readonly string[]): string[] {
  const half = Math.ceil(files.length / 2);
  return [files.slice(0, half), files.slice(half)].map((part) => `manifest ${part.join(" ")}`);
}

function isPiece(chunk: string): boolean {
  return chunk.startsWith("manifest ");
}

function sizeOf(chunks: readonly string[]): number {
  return chunks.length * CHUNK_BYTES;
}

function usesOf(
  head: Head,
  indexes: ReadonlyMap<string, readonly SimPack[]>,
  stored: ReadonlyMap<string, string>,
  live: ReadonlySet<string>,
): IndexedPackUse[] {
  const doomed = new Set(head.doomed.map(({ pack }) => pack));
  return [...indexes.values()].flat().filter(({ name }) => !doomed.has(name)).map(({ name, chunks }) => ({
    name,
    sizeBytes: sizeOf(chunks),
    liveBytes: CHUNK_BYTES * chunks.filter((chunk) => live.has(chunk) && stored.get(chunk) === name).length,
  }));
}
