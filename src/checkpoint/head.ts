/**
 * `head.json`, the one mutable object besides the lease: which checkpoints exist and which is the current state. Every
 * change is a compare-and-swap on the tag of what was read, made under the lease, with an epoch that never falls. Taking
 * the head over writes our token into it: from then on the swaps of every earlier holder fail.
 * If we die before a swap lands, the repository is as before and what was uploaded is garbage; after it, all of it counts.
 */

import { Buffer } from "node:buffer";
import { assert } from "../platform/assert.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import type { ETag, ObjectStore, RequestOptions } from "../storage/object_store.ts";
import { parseCheckpointReference } from "./checkpoint_reference.ts";
import { HEAD_KEY } from "./ids.ts";
import { encodeJson, FORMAT, HEAD_LIMIT_BYTES, parseHead, RECORD_LIMIT_BYTES } from "./records.ts";
import type { CheckpointRecord, Head, RepositoryRecord } from "./types.ts";

/** A head as read, with the tag that the next swap is conditional on. */
export interface HeadState {
  readonly head: Head;
  readonly etag: ETag;
}

/** Times that a take-over reads and swaps again: the former holder can win a few swaps before ours lands, not more. */
const TAKE_OVER_ATTEMPTS = 8;

/** Null when there is none yet. */
export async function readHead(store: ObjectStore, options: RequestOptions = {}): Promise<HeadState | null> {
  try {
    const object = await store.get(HEAD_KEY, options);
    return { head: parseHead(object.body), etag: object.etag };
  } catch (error) {
    if (isError(error, "object-not-found")) return null;
    throw error;
  }
}

export function emptyHead(repo: RepositoryRecord): Head {
  return {
    format: FORMAT,
    repo_id: repo.repo_id,
    epoch: 0,
    seq: 0,
    current: null,
    checkpoints: [],
    indexes: [],
    intent: null,
    on_start_applied: null,
    doomed: [],
  };
}

/** Ordinal of the next checkpoint. The newest is never dropped from the list, so no ordinal comes twice. */
export function nextOrdinal(head: Head): number {
  const all = head.intent === null ? head.checkpoints : [...head.checkpoints, head.intent.record];
  return all.reduce((most, record) => Math.max(most, record.n), 0) + 1;
}

/** What a checkpoint is found in. */
export type CheckpointList = Pick<Head, "checkpoints" | "current">;
export type CheckpointTarget = { readonly checkpoint: string } | { readonly atMs: number };

/**
 * The checkpoint that is meant: an id, an ordinal (`12` or `v12`), "latest" (the current state), or the newest one not
 * after a wall time. Safety checkpoints are found by id or ordinal only. Error: `checkpoint-not-found`.
 */
export function findCheckpoint(head: CheckpointList, target: CheckpointTarget): CheckpointRecord {
  const found = "atMs" in target ? newestAt(head, target.atMs) : named(head, target.checkpoint);
  if (found !== undefined) return found;
  const what = "atMs" in target
    ? `none is as old as ${new Date(target.atMs).toISOString()}`
    : "no such id or ordinal";
  throw new StateManagerError("checkpoint-not-found", `find checkpoint: ${what}`, {
    hint: "list the checkpoints for those that exist; name one by id, by ordinal (3 or v3) or as latest",
  });
}

function named(head: CheckpointList, text: string): CheckpointRecord | undefined {
  const reference = parseCheckpointReference(text);
  const id = reference === "latest" ? head.current : reference;
  return head.checkpoints.find((record) => record.id === id || String(record.n) === id);
}

function newestAt(head: CheckpointList, atMs: number): CheckpointRecord | undefined {
  return head.checkpoints.filter((record) => record.kind !== "safety" && record.time <= atMs)
    .reduce<CheckpointRecord | undefined>(
      (best, record) => best === undefined || record.n > best.n ? record : best,
      undefined,
    );
}

function lost(action: string, what: string, cause?: unknown): StateManagerError {
  return new StateManagerError("lease-lost", `${action}: ${what}`, {
    hint: "another manager has taken over; what it committed stands",
    ...(cause === undefined ? {} : { cause }),
  });
}

/** What must hold between a head and the one that replaces it; a violation is a bug of ours. */
function checkChange(before: Head, after: Head): void {
  assert(
    after.repo_id === before.repo_id && after.format === before.format,
    "the head stays of its repository",
  );
  const ids = new Set(after.checkpoints.map((record) => record.id));
  assert(ids.size === after.checkpoints.length, "each checkpoint is listed once");
  assert(after.current === null || ids.has(after.current), "the current checkpoint is listed");
  assert(before.current === null || after.current !== null, "a head with a state never becomes one without");
  const known = new Set(before.checkpoints.map((record) => record.id));
  for (const record of after.checkpoints) {
    if (known.has(record.id)) continue;
    const bytes = JSON.stringify({ comment: record.comment, labels: record.labels }).length;
    if (bytes <= RECORD_LIMIT_BYTES) continue;
    throw new StateManagerError(
      "invalid-request",
      `commit checkpoint: comment and labels have ${bytes} bytes`,
      {
        hint: `keep them within ${RECORD_LIMIT_BYTES} bytes`,
      },
    );
  }
}

function encodeHead(head: Head): Uint8Array<ArrayBuffer> {
  const bytes = encodeJson(head);
  if (bytes.length >= HEAD_LIMIT_BYTES) {
    throw new StateManagerError(
      "store-full",
      `commit head.json: ${bytes.length} bytes, wanted less than ${HEAD_LIMIT_BYTES}`,
      { hint: "delete checkpoints that are not needed, and shorten comments" },
    );
  }
  return bytes;
}

async function swap(
  store: ObjectStore,
  etag: ETag | null,
  next: Head,
  options: RequestOptions = {},
): Promise<HeadState> {
  const condition = etag === null ? { absent: true } as const : { etag };
  const stored = await store.put(HEAD_KEY, encodeHead(next), { ...options, condition });
  return { head: next, etag: stored.etag };
}

export interface TakeOverOptions extends RequestOptions {
  readonly repo: RepositoryRecord;
  /** Fencing token of our term. */
  readonly token: number;
  /** Throws unless the lease is ours with margin; called right before every put. */
  readonly assertHeld: () => void;
}

/**
 * Writes our token into the head. Errors: `lease-lost` when a later term did so already; `repository-mismatch` when the
 * head is another repository's.
 */
export async function takeOverHead(store: ObjectStore, options: TakeOverOptions): Promise<HeadSession> {
  const { repo, token, assertHeld } = options;
  for (let attempt = 1;; attempt++) {
    const before = await readHead(store, options);
    if (before !== null && before.head.repo_id !== repo.repo_id) {
      throw new StateManagerError(
        "repository-mismatch",
        `take over head.json: it belongs to repository ${before.head.repo_id}, wanted ${repo.repo_id}`,
        { hint: "repo.json and head.json come from different repositories: put the right pair back" },
      );
    }
    const head = before?.head ?? emptyHead(repo);
    if (head.epoch > token) throw lost("take over head.json", `term ${head.epoch} has it, ours is ${token}`);
    assertHeld();
    try {
      const next = { ...head, epoch: token, seq: head.seq + 1 };
      const state = await swap(store, before?.etag ?? null, next, options);
      return new HeadSession({ store, token, assertHeld, state, previous: before?.head ?? null });
    } catch (error) {
      // The former holder swapped between our read and our put: read again, its work counts.
      if (!isError(error, "precondition-failed") || attempt === TAKE_OVER_ATTEMPTS) throw error;
    }
  }
}

/** The head during one term. Changes go one after the other. */
export class HeadSession {
  readonly token: number;
  /** The head as the former holder left it; null: there was none. */
  readonly previous: Head | null;
  readonly #store: ObjectStore;
  readonly #assertHeld: () => void;
  #state: HeadState;
  #last: Promise<unknown> = Promise.resolve();
  #lost: StateManagerError | null = null;
  /** Bodies of puts since the last known state whose outcome is not known; a late one of these is not a loss. */
  #unsettled: Uint8Array<ArrayBuffer>[] = [];

  /** Use `takeOverHead`. */
  constructor(options: {
    readonly store: ObjectStore;
    readonly token: number;
    readonly assertHeld: () => void;
    readonly state: HeadState;
    readonly previous: Head | null;
  }) {
    this.#store = options.store;
    this.#assertHeld = options.assertHeld;
    this.#state = options.state;
    this.token = options.token;
    this.previous = options.previous;
  }

  get head(): Head {
    return this.#state.head;
  }

  /**
   * Swaps the head for `change(head)`; epoch and seq are set here. `lease-lost` when somebody else changed it: nobody
   * but the holder may, so we are not it any more, and every later commit fails the same way. After any other error
   * `head` says what is known to be there: read it before the next try.
   */
  commit(change: (head: Head) => Head, options: RequestOptions = {}): Promise<void> {
    const run = this.#last.then(() => this.#commit(change, options));
    this.#last = run.catch(() => {});
    return run;
  }

  async #commit(change: (head: Head) => Head, options: RequestOptions): Promise<void> {
    if (this.#lost !== null) throw this.#lost;
    const before = this.#state.head;
    assert(before.epoch === this.token, "the head is ours");
    const next = { ...change(before), epoch: this.token, seq: before.seq + 1 };
    checkChange(before, next);
    const bytes = encodeHead(next);
    this.#assertHeld();
    try {
      const condition = { etag: this.#state.etag };
      const { etag } = await this.#store.put(HEAD_KEY, bytes, { ...options, condition });
      this.#state = { head: next, etag };
      this.#unsettled = [];
    } catch (error) {
      this.#unsettled.push(bytes);
      if (await this.#settle(error, options) !== bytes) throw error;
    }
  }

  /**
   * A put failed and may have landed, or may land yet. Reads back what is there: one of ours (which is returned and
   * becomes the state), still the former one, or somebody else's (`lease-lost`).
   */
  async #settle(error: unknown, options: RequestOptions): Promise<Uint8Array | null> {
    const { signal: _ended, ...rest } = options;
    const now = await this.#store.get(HEAD_KEY, rest).catch(() => null);
    if (now === null) {
      if (isError(error, "precondition-failed")) throw this.#lose(error);
      return null;
    }
    const ours = this.#unsettled.find((bytes) => equalBytes(bytes, now.body));
    if (ours !== undefined) {
      this.#state = { head: parseHead(ours), etag: now.etag };
      this.#unsettled = [];
      return ours;
    }
    if (now.etag !== this.#state.etag) throw this.#lose(error);
    return null;
  }

  #lose(cause: unknown): StateManagerError {
    this.#lost = lost("commit head.json", "it was changed by another writer", cause);
    return this.#lost;
  }
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}
