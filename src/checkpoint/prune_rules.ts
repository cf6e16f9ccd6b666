/**
 * What may be deleted from a repository, and when: pure. There is one fenced writer, so no lock and no clock decides.
 *
 * Rule A: a new checkpoint refers to no doomed pack. No live index names one, since the swap that dooms a pack also takes
 *   it out of the indexes; and who looks for stored chunks leaves doomed packs out besides (index_store.ts).
 * Rule B: nothing is deleted that a head which *we* committed does not doom. A name is never taken back off the list for
 *   use, and never given a second time. So a delete of ours that arrives late, after others have taken over, hits only
 *   what their head, which descends from ours, gave up as well.
 * Rule C: no name of a later term than ours is doomed, and none that is under way. The latter is not tested but arranged:
 *   a collection and a checkpoint of one manager never run at the same time (checkpointer.ts), what a killed archiver has
 *   sent is never committed, and the collection begins by settling every earlier swap.
 *
 * When a name leaves the list: after its delete was acknowledged. No index names it then, so no deduplication finds it. A
 * put of a killed archiver that lands even later brings back an object that nothing names: the next listing dooms it anew.
 * A crash before a doomed list is committed leaves objects that nothing names, which a listing finds; after it, names that
 * the next sweep deletes, again if need be.
 */

import { assert } from "../platform/assert.ts";
import { StateManagerError } from "../platform/errors.ts";
import { expired, type KeepRules, planKeep } from "./keep_rules.ts";
import type { CheckpointRecord, Head } from "./types.ts";

/**
 * Time between dooming and deleting, for readers alone: a restore elsewhere that has read the head before goes on for so
 * long without meeting a hole; later it reads the head again. Nothing's safety depends on it.
 */
export const GC_GRACE_MS = 3_600_000;
/** Names on each list, about 70 bytes each: they keep head.json small. What is over waits for the next run. */
export const DOOMED_LIMIT = 10_000;
/** A pack with a smaller share of live bytes is written anew: what is freed is then more than what is sent. */
const REPACK_BELOW_SHARE = 0.5;
/** Old packs that one run writes anew, so that it ends in minutes; the rest waits for the next. */
const REPACK_LIMIT_BYTES = 2 * 1024 ** 3;

/** Fencing token in the name of a pack or the key of an index or root object. */
export function tokenOfName(name: string): number {
  const digits = /(?:^|\/)([0-9a-f]{8,14})[-/]/.exec(name)?.[1];
  assert(digits !== undefined, "an object's name carries its token");
  return parseInt(digits, 16);
}

// ---- forgetting

/** What the caller wants to go: what the rules say, certain ones, or nothing but garbage. */
export type Unwanted =
  | { readonly kind: "by-rules"; readonly rules: KeepRules }
  | { readonly kind: "listed"; readonly ids: readonly string[] }
  | { readonly kind: "none" };

/** Of the head as it is now; what must stay is never in it. */
export function recordsToForget(head: Head, unwanted: Unwanted, nowMs: number): readonly CheckpointRecord[] {
  switch (unwanted.kind) {
    case "by-rules":
      return expired(planKeep(head, unwanted.rules, nowMs));
    case "listed":
      return head.checkpoints.filter(({ id }) => unwanted.ids.includes(id) && whyItStays(head, id) === null);
    case "none":
      return [];
  }
}

/** Why a checkpoint can in no case be deleted; null: it can. */
export function whyItStays(head: Head, id: string): string | null {
  if (id === head.current) return "it is the current state";
  const { intent } = head;
  if (intent !== null && [intent.record.id, intent.record.restored_from].includes(id)) {
    return "a restore of it is not finished";
  }
  // Ordinals go on from the newest one: without it the next checkpoint would get its number.
  const newest = head.checkpoints.reduce((most, record) => Math.max(most, record.n), 0);
  if (head.checkpoints.some((record) => record.id === id && record.n === newest)) {
    return "it is the newest one";
  }
  return null;
}

/** The head without these checkpoints, their root objects doomed. */
export function forget(head: Head, ids: readonly string[], nowMs: number): Head {
  for (const id of ids) assert(whyItStays(head, id) === null, "what must stay is not forgotten");
  const gone = head.checkpoints.filter((record) => ids.includes(record.id));
  const checkpoints = head.checkpoints.filter((record) => !ids.includes(record.id));
  // Over the limit: nothing names them, so the next listing finds them.
  return withDoomedObjects({ ...head, checkpoints }, gone.map(({ root }) => root), nowMs);
}

// ---- dooming

/** A pack that a live index names. */
export interface IndexedPackUse {
  readonly name: string;
  readonly sizeBytes: number;
  /** Stored bytes of the chunks that kept checkpoints need and that are read from here. */
  readonly liveBytes: number;
}

export interface Sighting {
  readonly token: number;
  readonly head: Pick<Head, "doomed" | "doomed_objects" | "indexes">;
  /** Keys of the root objects that the head names. */
  readonly roots: readonly string[];
  /** Of the live indexes, doomed ones left out. */
  readonly packs: readonly IndexedPackUse[];
  /** Names of all packs in the store with their sizes, and keys of all index and root objects. */
  readonly listedPacks: ReadonlyMap<string, number>;
  readonly listedObjects: readonly string[];
}

export interface CollectionPlan {
  /** Packs that no kept checkpoint needs. */
  readonly dead: readonly string[];
  /** Packs whose live chunks go into new ones; doomed with the swap that names the new ones. */
  readonly repack: readonly string[];
  /** Packs that no index names: what killed archivers and earlier terms left. */
  readonly orphans: readonly string[];
  /** Index and root objects that nothing names. */
  readonly objects: readonly string[];
  /** Packs that kept checkpoints need and that the listing does not show. Then nothing may be deleted. */
  readonly missing: readonly string[];
}

export function planCollection(seen: Sighting): CollectionPlan {
  const { head, listedPacks, packs, token } = seen;
  const doomed = new Set(head.doomed.map(({ pack }) => pack));
  const indexed = new Set(packs.map(({ name }) => name));
  // Rule C.
  const ofOurs = (name: string) => tokenOfName(name) <= token;
  const missing = packs.filter(({ name, liveBytes }) => liveBytes > 0 && !listedPacks.has(name));
  const dead = packs.filter(({ liveBytes, name }) => liveBytes === 0 && ofOurs(name));
  const orphans = [...listedPacks.keys()].filter((name) =>
    !indexed.has(name) && !doomed.has(name) && ofOurs(name)
  );
  const repack: string[] = [];
  let repackBytes = 0;
  for (const { name, sizeBytes, liveBytes } of packs) {
    const worth = liveBytes > 0 && liveBytes < sizeBytes * REPACK_BELOW_SHARE && ofOurs(name);
    if (!worth || repackBytes + sizeBytes > REPACK_LIMIT_BYTES) continue;
    repack.push(name);
    repackBytes += sizeBytes;
  }
  let room = Math.max(0, DOOMED_LIMIT - head.doomed.length);
  const within = (names: readonly string[]) => {
    const taken = names.slice(0, room);
    room -= taken.length;
    return taken;
  };
  return {
    dead: within(dead.map(({ name }) => name)),
    repack: within(repack),
    orphans: within(orphans.sort()),
    objects: unnamedObjects(seen, ofOurs),
    missing: missing.map(({ name }) => name),
  };
}

function unnamedObjects(
  { head, listedObjects, roots }: Sighting,
  ofOurs: (key: string) => boolean,
): string[] {
  const doomed = head.doomed_objects ?? [];
  const known = new Set([
    ...roots,
    ...head.indexes.map(({ key }) => key),
    ...doomed.map(({ key }) => key),
  ]);
  const room = Math.max(0, DOOMED_LIMIT - doomed.length);
  return listedObjects.filter((key) => !known.has(key) && ofOurs(key)).sort().slice(0, room);
}

/** What a collection wants committed, made from the head that `basis` describes. */
export interface Doom {
  readonly packs: readonly string[];
  readonly objects: readonly string[];
  /** All live indexes from now on: they name none of `packs`. */
  readonly indexes: Head["indexes"];
  readonly basis: DoomBasis;
}

export interface DoomBasis {
  /** Ids of the checkpoints whose chunks were marked, that of an intent with them. */
  readonly marked: readonly string[];
  readonly indexes: Head["indexes"];
}

export function basisOf(head: Head): DoomBasis {
  const { checkpoints, indexes, intent } = head;
  const records = intent === null ? checkpoints : [...checkpoints, intent.record];
  return { marked: records.map(({ id }) => id), indexes };
}

/**
 * The swap that dooms. Error: `wrong-state` when the head lists a checkpoint whose chunks were not looked for, or other
 * indexes: nothing of what was found out holds then.
 */
export function doom(head: Head, { packs, objects, indexes, basis }: Doom, nowMs: number): Head {
  const marked = new Set(basis.marked);
  const same = basis.indexes.length === head.indexes.length &&
    basis.indexes.every(({ key }, i) => head.indexes[i]?.key === key);
  if (!same || basisOf(head).marked.some((id) => !marked.has(id))) {
    throw new StateManagerError(
      "wrong-state",
      "prune: the head has changed since its objects were looked at",
      {
        hint: "run it again",
      },
    );
  }
  const kept = new Set(indexes.map(({ key }) => key));
  const replaced = head.indexes.filter(({ key }) => !kept.has(key)).map(({ key }) => key);
  const known = new Set(head.doomed.map(({ pack }) => pack));
  const added = packs.filter((pack) => !known.has(pack)).map((pack) => ({ pack, since: nowMs }));
  assert(head.doomed.length + added.length <= DOOMED_LIMIT, "the list of doomed packs is bounded");
  const next = { ...head, indexes, doomed: [...head.doomed, ...added] };
  return withDoomedObjects(next, [...replaced, ...objects], nowMs);
}

function withDoomedObjects(head: Head, keys: readonly string[], nowMs: number): Head {
  const before = head.doomed_objects ?? [];
  const known = new Set(before.map(({ key }) => key));
  const added = keys.filter((key) => !known.has(key)).map((key) => ({ key, since: nowMs }));
  const all = [...before, ...added].slice(0, Math.max(before.length, DOOMED_LIMIT));
  return all.length === 0 ? head : { ...head, doomed_objects: all };
}

// ---- deleting

export interface Names {
  /** Names of packs. */
  readonly packs: readonly string[];
  /** Keys of index and root objects. */
  readonly objects: readonly string[];
}

export const NO_NAMES: Names = { packs: [], objects: [] };

export function isEmptyNames({ packs, objects }: Names): boolean {
  return packs.length === 0 && objects.length === 0;
}

export interface GraceFacts {
  /** Of the machine's clock and the store's the earlier one: neither alone makes names old. */
  readonly wallMs: number;
  readonly monotonicMs: number;
  readonly graceMs: number;
  /** When this process first saw the name on the list, by its monotonic clock. */
  readonly seenMs: (name: string) => number | undefined;
}

/**
 * The names on the lists of a head of ours whose grace is over: by the wall clock since they were doomed, or, where that
 * clock was set or another machine's is ahead, by our own watch since we first saw them. So no clock keeps them for ever.
 */
export function dueNames(head: Pick<Head, "doomed" | "doomed_objects">, facts: GraceFacts): Names {
  const { wallMs, monotonicMs, graceMs, seenMs } = facts;
  const isDue = (name: string, since: number) =>
    wallMs - since >= graceMs || monotonicMs - (seenMs(name) ?? monotonicMs) >= graceMs;
  return {
    packs: head.doomed.filter(({ pack, since }) => isDue(pack, since)).map(({ pack }) => pack),
    objects: (head.doomed_objects ?? []).filter(({ key, since }) => isDue(key, since)).map(({ key }) => key),
  };
}

/** The head without names whose deletes were acknowledged. */
export function release(head: Head, { packs, objects }: Names): Head {
  const gone = new Set([...packs, ...objects]);
  const { doomed_objects = [], ...rest } = head;
  const left = doomed_objects.filter(({ key }) => !gone.has(key));
  return {
    ...rest,
    doomed: head.doomed.filter(({ pack }) => !gone.has(pack)),
    ...(left.length === 0 ? {} : { doomed_objects: left }),
  };
}

// ---- by itself

/** After so many expired checkpoints it is run at once: short lives that make many must not let them pile up. */
const MANY_EXPIRED = 64;
/** A life begins with work of its own; what expired while nothing ran is in no hurry. */
const FIRST_COLLECTION_MS = 15 * 60_000;
/** Each reads the manifests of all kept checkpoints, as far as they differ: seconds to minutes, in the archiver. */
const COLLECTION_INTERVAL_MS = 6 * 3_600_000;
/** Also with nothing expired: killed archivers leave packs that nothing names. */
const LONGEST_COLLECTION_INTERVAL_MS = 24 * 3_600_000;
const SWEEP_INTERVAL_MS = 15 * 60_000;

export interface AutomaticFacts {
  readonly expired: number;
  readonly due: Names;
  /** By the monotonic clock: now, when this life began, and when each was last tried in it; null: not yet. */
  readonly nowMs: number;
  readonly startedMs: number;
  readonly collectedMs: number | null;
  readonly sweptMs: number | null;
}

/** What is worth doing now that a checkpoint has just ended well. */
export function automaticPrune(facts: AutomaticFacts): "nothing" | "sweep" | "collect" {
  const { expired, nowMs, startedMs, collectedMs, sweptMs } = facts;
  const sinceMs = nowMs - (collectedMs ?? startedMs);
  const waitMs = collectedMs === null ? FIRST_COLLECTION_MS : COLLECTION_INTERVAL_MS;
  const many = expired >= MANY_EXPIRED && (collectedMs === null || sinceMs >= FIRST_COLLECTION_MS);
  if (many || (expired > 0 && sinceMs >= waitMs)) return "collect";
  if (sinceMs >= LONGEST_COLLECTION_INTERVAL_MS) return "collect";
  const sweeps = !isEmptyNames(facts.due) && (sweptMs === null || nowMs - sweptMs >= SWEEP_INTERVAL_MS);
  return sweeps ? "sweep" : "nothing";
}
