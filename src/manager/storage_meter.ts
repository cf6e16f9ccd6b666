/**
 * How much is in the store, by what it is for. A store can only be asked by listing all of it, so an answer is kept for a
 * while, whoever asks meanwhile waits for the same listing, and each is told as an event: growth is against an earlier one.
 */

import { HEAD_KEY, INDEX_PREFIX, PACKS_PREFIX, REPOSITORY_KEY, ROOTS_PREFIX } from "../checkpoint/mod.ts";
import { type CatalogEvent, DATABASES_PREFIX } from "../database/mod.ts";
import { HAND_OVER_KEY, LEASE_KEY } from "../lease/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { listAll, type ObjectStore } from "../storage/mod.ts";
import type { EventRecord } from "./event_hub.ts";

/** A listing of a million objects is a thousand requests: not for each look at a page. */
const FRESH_MS = 60 * 60_000;
/** For a million objects and more. */
const LISTING_LIMIT_MS = 10 * 60_000;
/** Replicated databases told by name, the largest ones. */
const MOST_DATABASES = 1000;
const DAY_MS = 24 * 3600_000;

export interface StoredAmount {
  readonly objects: number;
  readonly bytes: number;
}

/** packs, indexes and roots are of checkpoints. other: nothing of ours. */
export const STORED_KINDS = ["packs", "indexes", "roots", "databases", "repository", "other"] as const;

export type StoredKind = typeof STORED_KINDS[number];

export interface StorageUsage extends StoredAmount {
  /** Wall time of the listing. */
  readonly atMs: number;
  readonly kinds: Readonly<Record<StoredKind, StoredAmount>>;
  /** Of `databases`, by name; the largest where there are very many. */
  readonly databases: Readonly<Record<string, StoredAmount>>;
}

/** Since an earlier listing. Negative: it shrank. */
export interface StorageGrowth extends StoredAmount {
  readonly sinceMs: number;
  readonly bytesPerDay: number;
}

export interface StorageMeterOptions {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly record: (event: CatalogEvent) => void;
}

export class StorageMeter {
  readonly #options: StorageMeterOptions;
  readonly #stopped = new AbortController();
  #last: StorageUsage | null = null;
  #lastMonotonicMs = 0;
  #running: Promise<StorageUsage> | null = null;

  constructor(options: StorageMeterOptions) {
    this.#options = options;
  }

  /** The last one where it is fresh enough, unless `refresh`. One listing at a time; nobody who leaves ends it. */
  async usage({ refresh }: { readonly refresh: boolean }): Promise<StorageUsage> {
    const { clock } = this.#options;
    const isFresh = clock.monotonicMs() - this.#lastMonotonicMs < FRESH_MS;
    if (this.#last !== null && isFresh && !refresh) return this.#last;
    this.#running ??= this.#measure().finally(() => this.#running = null);
    return await this.#running;
  }

  stop(): void {
    this.#stopped.abort(new StateManagerError("cancelled", "list the store: the session ends"));
  }

  async #measure(): Promise<StorageUsage> {
    const { store, clock, record } = this.#options;
    const signal = AbortSignal.any([this.#stopped.signal, AbortSignal.timeout(LISTING_LIMIT_MS)]);
    const usage = await measureStorage(store, { clock, signal });
    this.#last = usage;
    this.#lastMonotonicMs = clock.monotonicMs();
    record(usageEvent(usage));
    return usage;
  }
}

/** Lists all of it. */
export async function measureStorage(
  store: ObjectStore,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<StorageUsage> {
  const atMs = clock.wallMs();
  const kinds = new Map<StoredKind, { objects: number; bytes: number }>();
  const databases = new Map<string, { objects: number; bytes: number }>();
  for await (const { key, sizeBytes } of listAll(store, "", { signal })) {
    const kind = kindOf(key);
    add(kinds, kind, sizeBytes);
    if (kind === "databases") add(databases, databaseOf(key), sizeBytes);
  }
  const amounts = [...kinds.values()];
  const largest = [...databases].sort(([, a], [, b]) => b.bytes - a.bytes).slice(0, MOST_DATABASES);
  return {
    atMs,
    objects: amounts.reduce((sum, { objects }) => sum + objects, 0),
    bytes: amounts.reduce((sum, { bytes }) => sum + bytes, 0),
    kinds: Object.fromEntries(
      STORED_KINDS.map((kind) => [kind, kinds.get(kind) ?? { objects: 0, bytes: 0 }]),
    ) as StorageUsage["kinds"],
    databases: Object.fromEntries(largest),
  };
}

function add<Key>(amounts: Map<Key, { objects: number; bytes: number }>, key: Key, bytes: number): void {
  const amount = amounts.get(key) ?? { objects: 0, bytes: 0 };
  amounts.set(key, { objects: amount.objects + 1, bytes: amount.bytes + bytes });
}

function kindOf(key: string): StoredKind {
  if (key.startsWith(PACKS_PREFIX)) return "packs";
  if (key.startsWith(INDEX_PREFIX)) return "indexes";
  if (key.startsWith(ROOTS_PREFIX)) return "roots";
  if (key.startsWith(DATABASES_PREFIX)) return "databases";
  return [REPOSITORY_KEY, HEAD_KEY, LEASE_KEY, HAND_OVER_KEY].includes(key) ? "repository" : "other";
}

/** A database that a pattern found has a name with a slash; the layout goes on with a level, or with `ltx`. */
function databaseOf(key: string): string {
  const rest = key.slice(DATABASES_PREFIX.length);
  return /^(.*?)\/(?:ltx\/\d{1,4}|[0-9a-f]{4})\/[^/]*$/.exec(rest)?.[1] ?? rest.split("/")[0] ?? rest;
}

function usageEvent({ objects, bytes, kinds }: StorageUsage): CatalogEvent {
  const summary = `the store has ${objects} objects with ${bytes} bytes`;
  return { kind: "storage", subject: "storage", summary, detail: { objects, bytes, kinds } };
}

/** Against the oldest of these events, newest first, that is at least a day older, else the oldest; null: there is none. */
export function growthOf(usage: StorageUsage, events: readonly EventRecord[]): StorageGrowth | null {
  const earlier = events.filter(({ timeMs }) => timeMs < usage.atMs);
  const event = earlier.find(({ timeMs }) => timeMs <= usage.atMs - DAY_MS) ?? earlier.at(-1);
  const { objects, bytes } = { ...(event?.detail as Partial<StoredAmount> | undefined) };
  if (event === undefined || typeof objects !== "number" || typeof bytes !== "number") return null;
  const grown = usage.bytes - bytes;
  return {
    sinceMs: event.timeMs,
    objects: usage.objects - objects,
    bytes: grown,
    bytesPerDay: Math.round(grown * DAY_MS / (usage.atMs - event.timeMs)),
  };
}
