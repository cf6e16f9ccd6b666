/**
 * `head.json`, the one mutable object besides the lease: which checkpoints exist and which is the current state. Every
 * change is a compare-and-swap on the tag of what was read, made under the lease, with an epoch that never falls. Taking
 * the head over writes our token into it: from then on the swaps of every earlier holder fail.
 * head_rules.ts decides, this executes.
 * If we die before a swap lands, the repository is as before and what was uploaded is garbage; after it, all of it counts.
 */

import { assert } from "../platform/assert.ts";
import { type ErrorCode, isError, StateManagerError } from "../platform/errors.ts";
import { getIfPresent, type ObjectStore, type RequestOptions } from "../storage/object_store.ts";
import {
  emptyHead,
  type HeadEffect,
  type HeadEvent,
  type HeadMachine,
  type HeadOutcome,
  type HeadState,
  initialHead,
  stepHead,
  successor,
} from "./head_rules.ts";
import { parseCheckpointReference } from "./checkpoint_reference.ts";
import { type Cipher, plainCipher } from "./cipher.ts";
import { withSealedNotes } from "./head_notes.ts";
import { HEAD_KEY } from "./ids.ts";
import { encodeJson, HEAD_LIMIT_BYTES, parseHead, RECORD_LIMIT_BYTES } from "./records.ts";
import type { CheckpointRecord, Head, RepositoryRecord } from "./types.ts";

export type { HeadState } from "./head_rules.ts";

export interface ReadHeadOptions extends RequestOptions {
  /** The repository's. Null: comments and labels of an encrypted one stay empty. */
  readonly cipher: Cipher | null;
}

/** Null when there is none yet. */
export async function readHead(
  store: ObjectStore,
  { cipher, ...options }: ReadHeadOptions,
): Promise<HeadState | null> {
  const object = await getIfPresent(store, HEAD_KEY, options);
  return object === null ? null : { head: parseHead(object.body, cipher), etag: object.etag };
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
 * after a wall time. Safety checkpoints are found by id or ordinal only: while one is the current state, since a restore
 * goes on or failed, "latest" is what came before it. Error: `checkpoint-not-found`.
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
  if (reference === "latest") return latest(head);
  return head.checkpoints.find((record) => record.id === reference || String(record.n) === reference);
}

function latest({ checkpoints, current }: CheckpointList): CheckpointRecord | undefined {
  const record = checkpoints.find(({ id }) => id === current);
  if (record?.kind !== "safety") return record;
  // Where nothing came before, it is all that there is.
  return newestOf(checkpoints.filter(({ kind, n }) => kind !== "safety" && n < record.n)) ?? record;
}

function newestAt({ checkpoints }: CheckpointList, atMs: number): CheckpointRecord | undefined {
  return newestOf(checkpoints.filter(({ kind, time }) => kind !== "safety" && time <= atMs));
}

function newestOf(records: readonly CheckpointRecord[]): CheckpointRecord | undefined {
  return records.reduce<CheckpointRecord | undefined>(
    (best, record) => best === undefined || record.n > best.n ? record : best,
    undefined,
  );
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
  const given = new Set(
    [...before.doomed_objects ?? [], ...after.doomed_objects ?? []].map(({ key }) => key),
  );
  assert(
    after.indexes.every(({ key }) => !given.has(key)) &&
      after.checkpoints.every(({ root }) => !given.has(root)),
    "nothing that is listed is doomed, or was",
  );
  const known = new Map(before.checkpoints.map((record) => [record.id, record]));
  for (const record of after.checkpoints) {
    const same = known.get(record.id);
    if (same?.comment === record.comment && same.labels === record.labels) continue;
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

function encodeHead(head: Head, cipher: Cipher): Uint8Array<ArrayBuffer> {
  const bytes = encodeJson(withSealedNotes(head, cipher));
  if (bytes.length >= HEAD_LIMIT_BYTES) {
    throw new StateManagerError(
      "store-full",
      `commit head.json: ${bytes.length} bytes, wanted less than ${HEAD_LIMIT_BYTES}`,
      { hint: "delete checkpoints that are not needed, and shorten comments" },
    );
  }
  return bytes;
}

export interface HeadOptions extends RequestOptions {
  readonly repo: RepositoryRecord;
  /** Fencing token of our term. */
  readonly token: number;
  /** Tells our swaps apart from those of any other term or process; the default is enough where tokens are unique. */
  readonly writer?: string;
  /** Throws, or rejects, unless the lease is ours with margin; called right before every put. */
  readonly assertHeld: () => void | Promise<void>;
  /** Of the repository, where it is encrypted. */
  readonly cipher?: Cipher;
}

/** The head during one term: looked at, taken over, then changed. One thing after the other. */
export class HeadSession {
  readonly token: number;
  readonly #store: ObjectStore;
  readonly #assertHeld: () => void | Promise<void>;
  readonly #options: RequestOptions;
  readonly #cipher: Cipher;
  #machine: HeadMachine;
  #last: Promise<unknown> = Promise.resolve();

  constructor(store: ObjectStore, options: HeadOptions) {
    const { repo, token, writer, assertHeld, cipher = plainCipher, ...requests } = options;
    // Notes of an encrypted repository must not be written in clear text because somebody forgot the cipher.
    assert(cipher.seals === (repo.enc !== undefined), "the cipher is the repository's");
    this.token = token;
    this.#cipher = cipher;
    this.#store = store;
    this.#assertHeld = assertHeld;
    this.#options = requests;
    this.#machine = initialHead({ repoId: repo.repo_id, token, writer: writer ?? `term-${token}` });
  }

  /** What is known to be there; before anything was, the empty head. */
  get head(): Head {
    return this.#machine.base?.head ?? emptyHead(this.#machine.term.repoId);
  }

  /** The head as the former holder left it; null: there was none. */
  get previous(): Head | null {
    return this.#machine.previous;
  }

  /** True while a swap of ours may still land that is not in `head`. */
  get unsettled(): boolean {
    return this.#machine.unsettled.length > 0;
  }

  /**
   * Reads the head before it is taken over; null: there is none yet. Errors: `lease-lost` when a
   * later term took it over already, `repository-mismatch` when it is another repository's.
   */
  look(): Promise<Head | null> {
    return this.#queue(async () => {
      if (this.#machine.standing !== "ours") await this.#run({ type: "look" }, "take over", this.#options);
      return this.#machine.standing === "ours" ? this.previous : this.#machine.base?.head ?? null;
    });
  }

  /**
   * Swaps our token into what `look` found. `precondition-failed` when there was another version by then: look again,
   * for what was decided may not hold for it.
   */
  takeOver(): Promise<void> {
    return this.#queue(() => this.#run({ type: "take-over" }, "take over", this.#options));
  }

  /**
   * Swaps the head for `change(head)`; epoch and seq are set here. `lease-lost` when somebody else changed it: nobody
   * but the holder may, so we are not it any more, and every later commit fails the same way. After any other error
   * `head` says what is known to be there: read it before the next try, and `settle` where it must not change any more.
   */
  commit(change: (head: Head) => Head, options: RequestOptions = {}): Promise<void> {
    return this.#queue(() => {
      if (this.#machine.standing === "lost") return this.#run({ type: "settle" }, "commit", options);
      const before = this.head;
      const next = change(before);
      const made = successor(this.#machine, next);
      checkChange(before, made);
      encodeHead(made, this.#cipher); // too large fails here, before anything is sent
      return this.#run({ type: "commit", next }, "commit", options);
    });
  }

  /**
   * When it resolves, `head` is what is there and no earlier swap of ours can land any more. Needed after a commit of
   * unknown outcome before anything is begun that relies on its having failed.
   */
  settle(options: RequestOptions = {}): Promise<void> {
    return this.#queue(() => this.#run({ type: "settle" }, "settle", options));
  }

  #queue<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#last.then(work);
    this.#last = run.catch(() => {});
    return run;
  }

  /** From what is asked for to its outcome: one effect at a time. */
  async #run(asked: HeadEvent, verb: string, options: RequestOptions): Promise<void> {
    const errors: unknown[] = [];
    let event = asked;
    while (true) {
      const { state, effects } = stepHead(this.#machine, event);
      this.#machine = state;
      const [effect] = effects;
      assert(effect !== undefined && effects.length === 1, "a turn of the head has one effect");
      if (effect.type === "settled") return conclude(effect.outcome, `${verb} head.json`, errors);
      const answer = await this.#perform(effect, asked.type === "look", options);
      if (answer.error !== undefined) errors.push(answer.error);
      event = answer.event;
    }
  }

  async #perform(
    effect: Exclude<HeadEffect, { type: "settled" }>,
    mayEnd: boolean,
    options: RequestOptions,
  ): Promise<{ readonly event: HeadEvent; readonly error?: unknown }> {
    // What became of a put is looked up even when the wait for it was ended.
    const { signal: _ended, ...rest } = options;
    switch (effect.type) {
      case "get":
        try {
          const cipher = this.#cipher;
          const found = await readHead(this.#store, { ...(mayEnd ? options : rest), cipher });
          return { event: { type: "read", found } };
        } catch (error) {
          return { event: { type: "read-failed", code: codeOf(error) }, error };
        }
      case "prove":
        try {
          await this.#assertHeld();
          return { event: { type: "proven" } };
        } catch (error) {
          return { event: { type: "unproven", code: codeOf(error) }, error };
        }
      case "put":
        try {
          const condition = effect.base === null ? { absent: true } as const : { etag: effect.base };
          const body = encodeHead(effect.head, this.#cipher);
          const { etag } = await this.#store.put(HEAD_KEY, body, { ...options, condition });
          return { event: { type: "written", etag } };
        } catch (error) {
          const refused = isError(error, "precondition-failed");
          return { event: refused ? { type: "refused" } : { type: "unknown", code: codeOf(error) }, error };
        }
    }
  }
}

/** Anything that is not ours is the reason of an abort. */
function codeOf(error: unknown): ErrorCode {
  return isError(error) ? error.code : "cancelled";
}

/** Throws unless the outcome is good; an error of the store is thrown as it came. */
function conclude(outcome: HeadOutcome, action: string, errors: readonly unknown[]): void {
  switch (outcome.kind) {
    case "done":
      return;
    case "lost":
      throw new StateManagerError("lease-lost", `${action}: ${outcome.reason}`, {
        hint: "another manager has taken over; what it committed stands",
        ...(errors.length === 0 ? {} : { cause: errors.at(-1) }),
      });
    case "failed": {
      const told = errors.findLast((error) => codeOf(error) === outcome.code);
      if (outcome.reason === null && told !== undefined) throw told;
      throw new StateManagerError(
        outcome.code,
        `${action}: ${outcome.reason ?? "its outcome is not known"}`,
        {
          ...(outcome.code === "repository-mismatch" ? { hint: MISMATCH_HINT } : {}),
          ...(errors.length === 0 ? {} : { cause: errors.at(-1) }),
        },
      );
    }
  }
}

const MISMATCH_HINT = "repo.json and head.json come from different repositories: put the right pair back";
