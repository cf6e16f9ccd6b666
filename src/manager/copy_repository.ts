/**
 * `storage copy`: a whole repository into another store, beside a manager that writes it or without one. The target's
 * lease is held meanwhile, so no manager starts on half of a copy, and `repo.json` comes last of all, so none can later.
 *
 * The source's head is read first, then all is listed and copied, then the head is read again: where it stands as it
 * stood, all that it names was there to be listed. If we die, the target has objects that its head does not name.
 */

import { HEAD_KEY, mayPrecede, REPOSITORY_KEY } from "../checkpoint/mod.ts";
import { parseHead, parseRepository } from "../checkpoint/records.ts";
import { decodeLease, LEASE_KEY, LeaseHolder, type LeaseRecord } from "../lease/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { equalBytes } from "../platform/equal_bytes.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import type { Random } from "../platform/random.ts";
import { getIfPresent, listAll, type ObjectStore } from "../storage/mod.ts";
import { chainsOf, copyChains, type CopyItem, type CopyPlace, itemsOf, sizesIn } from "./copy_objects.ts";
import { assertTarget, COPY_OF, type CopySource, type CopyTarget } from "./copy_rules.ts";

/** Of the same objects: a manager's head moves with its checkpoints, and what is new since is soon copied. */
const MOST_ROUNDS = 10;
/** The defaults of `lease.ttl` and `lease.renew`. */
const LEASE = { ttlMs: 30_000, renewMs: 8_000 };
/** For an earlier copy that was killed: its lease ends by itself. */
const WAIT_FOR_COPY_MS = 40_000;
const RELEASE_TIMEOUT_MS = 10_000;
/** Between two tellings of progress. */
const PROGRESS_MS = 500;

export interface CopyAmount {
  readonly objects: number;
  readonly bytes: number;
}

export interface CopyOptions {
  readonly source: CopyPlace;
  /** `plain` is for the lease. */
  readonly target: CopyPlace & { readonly plain: ObjectStore };
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** Only says what would be copied. */
  readonly dryRun: boolean;
  /** For people who read the target's lease. */
  readonly info: Readonly<Record<string, string>>;
  readonly onProgress: (done: CopyAmount, of: CopyAmount) => void;
  /** An earlier copy may still be under way. */
  readonly onWaiting: () => void;
}

export interface CopyResult {
  readonly source: CopySource;
  /** All that the copy is made of, but `repo.json` and `head.json`. */
  readonly all: CopyAmount;
  /** Of these, what was not there yet. */
  readonly copied: CopyAmount;
  /** Times that the source was listed. */
  readonly rounds: number;
}

interface SourceState extends CopySource {
  readonly repoBytes: Uint8Array<ArrayBuffer>;
  readonly headBytes: Uint8Array<ArrayBuffer> | null;
}

/**
 * Errors: those of `assertTarget`, `object-not-found` where the source has no repository, `wrong-state` when it changed
 * all the time, the stores' own, the signal's reason.
 */
export async function copyRepository(options: CopyOptions): Promise<CopyResult> {
  const { source, target, signal, dryRun } = options;
  const first = await readSource(source, signal);
  const found = await lookAt(target, signal);
  assertTarget(first, found);
  const present = await sizesIn(target, signal);
  if (dryRun) {
    const items = await itemsOf(source, target.layout, signal);
    return {
      source: first,
      all: amountOf(items),
      copied: amountOf(missing(items, present)),
      rounds: 1,
    };
  }
  const lease = await takeLease(options, first, found.lease);
  try {
    // Between the look and the lease somebody may have been there.
    assertTarget(first, { ...await lookAt(target, signal), lease: found.lease });
    return await copyUnderLease(options, { first, present, lease });
  } finally {
    await lease.release({ timeoutMs: RELEASE_TIMEOUT_MS }).catch(() => {}); // the TTL covers what it could not do
    await lease[Symbol.asyncDispose]();
  }
}

async function copyUnderLease(
  options: CopyOptions,
  { first, present, lease }: {
    readonly first: SourceState;
    readonly present: Map<string, number>;
    readonly lease: LeaseHolder;
  },
): Promise<CopyResult> {
  const { source, target } = options;
  const signal = AbortSignal.any([options.signal, lease.signal]);
  const isReadable = await getIfPresent(target.store, REPOSITORY_KEY, { signal }) !== null;
  const progress = new Progress(options);
  for (let rounds = 1, state = first; rounds <= MOST_ROUNDS; rounds++) {
    const items = await itemsOf(source, target.layout, signal);
    const wanted = missing(items, present);
    progress.plan(wanted);
    const gone = await copyChains(chainsOf(wanted, { isReadable }), {
      source,
      target,
      present,
      signal,
      onBytes: (bytes) => progress.bytes(bytes),
      onObject: () => progress.object(),
    });
    const after = await readSource(source, signal);
    if (after.repo.repo_id !== first.repo.repo_id) throw changed("another repository is there now");
    const same = state.headBytes === null
      ? after.headBytes === null
      : after.headBytes !== null && equalBytes(state.headBytes, after.headBytes);
    state = after;
    if (!same || gone > 0) continue;
    await assertAllThere(items, target, signal);
    await nameThem(options, state, lease);
    return { source: state, all: amountOf(items), copied: progress.done, rounds };
  }
  throw changed(`it changed in each of ${MOST_ROUNDS} rounds`);
}

/** What makes a repository of the objects, `repo.json` last. */
async function nameThem({ target }: CopyOptions, state: SourceState, lease: LeaseHolder): Promise<void> {
  const pairs = [[HEAD_KEY, state.headBytes], [REPOSITORY_KEY, state.repoBytes]] as const;
  for (const [key, bytes] of pairs) {
    if (bytes === null) continue;
    const signal = lease.signal; // an interrupt lets these two be written
    const there = await getIfPresent(target.store, key, { signal });
    if (there !== null && equalBytes(there.body, bytes)) continue;
    await lease.confirmHeld();
    lease.assertHeld();
    const condition = there === null ? { absent: true } as const : { etag: there.etag };
    try {
      await target.store.put(key, bytes, { condition, signal });
    } catch (error) {
      if (!isError(error, "precondition-failed", "outcome-unknown")) throw error;
      const now = await getIfPresent(target.store, key, { signal });
      if (now === null || !equalBytes(now.body, bytes)) throw error;
    }
  }
}

async function assertAllThere(
  items: readonly CopyItem[],
  target: CopyPlace,
  signal: AbortSignal,
): Promise<void> {
  const lost = missing(items, await sizesIn(target, signal));
  const [example] = lost;
  if (example === undefined) return;
  throw new StateManagerError(
    "data-damaged",
    `copy repository: of what was copied ${lost.length} objects are not there, or have another size: ${example.to}`,
    { hint: "make sure that nobody else changes the target, then copy again" },
  );
}

async function takeLease(
  { target, clock, random, signal, info, onWaiting }: CopyOptions,
  { repo, head }: CopySource,
  before: LeaseRecord | null,
): Promise<LeaseHolder> {
  const tokenFloor = head?.epoch ?? 0;
  const lease = new LeaseHolder({
    store: target.plain,
    clock,
    random,
    ...LEASE,
    tokenFloor,
    info: { ...info, [COPY_OF]: repo.repo_id },
    onEvent: () => {},
  });
  const isHeld = before?.state === "held";
  if (isHeld) onWaiting();
  const term = await lease.acquire({ wait: isHeld ? WAIT_FOR_COPY_MS : false, signal });
  if (term.token === Math.max(tokenFloor, before?.token ?? 0) + 1) return lease;
  await lease[Symbol.asyncDispose]();
  throw new StateManagerError("busy", "copy repository: somebody else had the target's lease meanwhile", {
    hint: "make sure that nobody uses the target, then copy again",
  });
}

async function readSource({ store }: CopyPlace, signal: AbortSignal): Promise<SourceState> {
  const repo = await getIfPresent(store, REPOSITORY_KEY, { signal });
  if (repo === null) {
    throw new StateManagerError("object-not-found", `copy repository: no repo.json in ${store.description}`, {
      hint: "check bucket, endpoint and key prefix: there is no repository at that place",
    });
  }
  const head = await getIfPresent(store, HEAD_KEY, { signal });
  return {
    repo: parseRepository(repo.body),
    head: head === null ? null : parseHead(head.body, null),
    repoBytes: repo.body,
    headBytes: head?.body ?? null,
  };
}

async function lookAt({ store }: CopyPlace, signal: AbortSignal): Promise<CopyTarget> {
  const repo = await getIfPresent(store, REPOSITORY_KEY, { signal });
  const head = await getIfPresent(store, HEAD_KEY, { signal });
  const lease = await getIfPresent(store, LEASE_KEY, { signal });
  let other: string | null = null;
  for await (const { key } of listAll(store, "", { signal })) {
    if (mayPrecede(key)) continue;
    other = key;
    break;
  }
  return {
    description: store.description,
    repo: repo === null ? null : parseRepository(repo.body),
    head: head === null ? null : parseHead(head.body, null),
    lease: lease === null ? null : decodeLease(lease.body),
    other,
  };
}

function missing(items: readonly CopyItem[], present: ReadonlyMap<string, number>): CopyItem[] {
  return items.filter(({ to, sizeBytes }) => present.get(to) !== sizeBytes);
}

function amountOf(items: readonly CopyItem[]): CopyAmount {
  return { objects: items.length, bytes: items.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) };
}

function changed(what: string): StateManagerError {
  return new StateManagerError("wrong-state", `copy repository: the source changes all the time: ${what}`, {
    hint: "stop the manager that writes it, or try again: what was copied stays",
  });
}

/** What is done, of what is known to be wanted. */
class Progress {
  readonly #options: Pick<CopyOptions, "clock" | "onProgress">;
  #done = { objects: 0, bytes: 0 };
  #total = { objects: 0, bytes: 0 };
  #nextMs = 0;

  constructor(options: Pick<CopyOptions, "clock" | "onProgress">) {
    this.#options = options;
  }

  get done(): CopyAmount {
    return this.#done;
  }

  plan(wanted: readonly CopyItem[]): void {
    const { objects, bytes } = amountOf(wanted);
    this.#total = { objects: this.#done.objects + objects, bytes: this.#done.bytes + bytes };
    this.#tell();
  }

  bytes(bytes: number): void {
    this.#done.bytes += bytes;
    this.#tell();
  }

  object(): void {
    this.#done.objects++;
  }

  #tell(): void {
    const now = this.#options.clock.monotonicMs();
    if (now < this.#nextMs) return;
    this.#nextMs = now + PROGRESS_MS;
    this.#options.onProgress({ ...this.#done }, this.#total);
  }
}
