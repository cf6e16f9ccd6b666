/** The first step of a verification: `repo.json` and `head.json` as the store has them, beside what a manager knows. */

import { isError, StateManagerError } from "../platform/errors.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { Cipher } from "./cipher.ts";
import { readHead } from "./head.ts";
import { HEAD_KEY, REPOSITORY_KEY, ROOTS_PREFIX } from "./ids.ts";
import { problemOf } from "./pack_check.ts";
import { readRepository } from "./repository.ts";
import type { CheckpointRecord, Head } from "./types.ts";
import type { Findings } from "./verify_findings.ts";
import type { KnownHead } from "./verify_types.ts";

interface HeadReading {
  readonly store: ObjectStore;
  readonly cipher: Cipher;
  readonly signal: AbortSignal;
}

export interface HeadInQuestion {
  readonly head: KnownHead;
  /** The listed ones and the one that a restore under way will list. */
  readonly records: readonly CheckpointRecord[];
}

/**
 * What to verify; null when nothing can be, which a finding says, or when nothing was ever kept there. Errors:
 * `object-not-found` where no repository is, `format-too-new`, those of the store.
 */
export async function headInQuestion(
  reading: HeadReading,
  known: KnownHead | null,
  findings: Findings,
): Promise<HeadInQuestion | null> {
  const { store, signal } = reading;
  let repoId: string | null = known?.repo_id ?? null;
  let noRepository: StateManagerError | null = null;
  try {
    repoId = (await readRepository(store, { signal })).repo_id;
  } catch (error) {
    if (isError(error, "object-not-found")) noRepository = error;
    findings.add(REPOSITORY_KEY, problemOf(error));
  }
  const head = await headOf(reading, findings);
  if (head === null) {
    if (findings.has(HEAD_KEY)) return known === null ? null : inQuestion(known);
    if (noRepository !== null && known === null) throw noRepository;
    const page = known === null ? await store.list({ prefix: ROOTS_PREFIX, limit: 1, signal }) : null;
    if (page?.objects.length === 0) return null; // a repository without any checkpoint
    findings.add(HEAD_KEY, { problem: "missing", detail: "the object is not there, but checkpoints are" });
    return known === null ? null : inQuestion(known);
  }
  if (repoId !== null && head.repo_id !== repoId) {
    findings.add(HEAD_KEY, {
      problem: "damaged",
      detail: `it is of repository ${head.repo_id}, not ${repoId}`,
    });
    return known === null ? null : inQuestion(known);
  }
  if (known !== null && head.seq < known.seq) {
    const detail = `it is an older one: version ${head.seq}, ours was ${known.seq}`;
    findings.add(HEAD_KEY, { problem: "damaged", detail });
    return inQuestion(known);
  }
  if (known !== null && head.seq === known.seq && canonical(head) !== canonical(known)) {
    findings.add(HEAD_KEY, { problem: "damaged", detail: "it says other things than the manager wrote" });
    return inQuestion(known);
  }
  return inQuestion(head, head.intent?.record);
}

/** What both say, whatever the order of keys. */
function canonical({ current, checkpoints, indexes }: KnownHead): string {
  return JSON.stringify(
    { current, checkpoints, indexes },
    (_key, value: unknown) =>
      typeof value !== "object" || value === null || Array.isArray(value)
        ? value
        : Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))),
  );
}

async function headOf({ store, cipher, signal }: HeadReading, findings: Findings): Promise<Head | null> {
  try {
    return (await readHead(store, { cipher, signal }))?.head ?? null;
  } catch (error) {
    findings.add(HEAD_KEY, problemOf(error));
    return null;
  }
}

function inQuestion(head: KnownHead, begun?: CheckpointRecord): HeadInQuestion {
  const isListed = head.checkpoints.some(({ id }) => id === begun?.id);
  return { head, records: begun === undefined || isListed ? head.checkpoints : [...head.checkpoints, begun] };
}
