/**
 * Whether a repository may be copied to a place, pure. A copy is made under the place's own lease, whose record says
 * what it is a copy of (`info.copy_of`): so a copy that was interrupted is known again, and so is a place where a manager
 * has run since, which has a history of its own.
 */

import type { Head, RepositoryRecord } from "../checkpoint/types.ts";
import type { LeaseRecord } from "../lease/mod.ts";
import { StateManagerError } from "../platform/errors.ts";

/** In the lease's `info`: id of the repository that its holder copied. */
export const COPY_OF = "copy_of";

/** What is to be copied. */
export interface CopySource {
  readonly repo: RepositoryRecord;
  /** Null: no manager has ever run on it. */
  readonly head: Head | null;
}

/** What is there. */
export interface CopyTarget {
  /** For messages. */
  readonly description: string;
  readonly repo: RepositoryRecord | null;
  readonly head: Head | null;
  readonly lease: LeaseRecord | null;
  /** An object that is neither of these nor harmless; null: none. */
  readonly other: string | null;
}

/** Throws where it must not be copied there: `repository-mismatch`, or `lease-held-elsewhere` by a manager. */
export function assertTarget(source: CopySource, target: CopyTarget): void {
  const { description, repo, head, lease, other } = target;
  const id = source.repo.repo_id;
  const isCopy = lease?.info[COPY_OF] === id;
  const found = repo?.repo_id ?? head?.repo_id ?? id;
  if (found !== id) {
    throw mismatch(`${description} holds repository ${found}, wanted ${id} or nothing`, EMPTY_PREFIX);
  }
  if (repo === null && !isCopy && (other !== null || head !== null)) {
    throw mismatch(`${description} is not empty (${other ?? "head.json"}) and no copy of it`, EMPTY_PREFIX);
  }
  if (lease?.state === "held" && !isCopy) {
    throw new StateManagerError(
      "lease-held-elsewhere",
      `copy repository: the lease of ${description} is held`,
      { hint: "a manager runs there, or died there: a copy goes to an empty prefix" },
    );
  }
  if (repo !== null && lease !== null && !isCopy) {
    throw mismatch(`a manager has run on ${description}, which has a history of its own since`, EMPTY_PREFIX);
  }
  if (head !== null && !isEarlier(head, source.head)) {
    throw mismatch(
      `${description} is newer (version ${versionOf(head)}) than what would be copied ` +
        `(${source.head === null ? "none" : versionOf(source.head)})`,
      "make sure that source and target were not mixed up",
    );
  }
}

const EMPTY_PREFIX = "choose an empty prefix, or that of an earlier copy on which no manager has run";

/** Earlier than `other`, or the same. */
function isEarlier(head: Head, other: Head | null): boolean {
  if (other === null || head.epoch > other.epoch) return false;
  if (head.epoch < other.epoch) return true;
  return head.seq < other.seq || (head.seq === other.seq && head.nonce === other.nonce);
}

function versionOf({ epoch, seq }: Head): string {
  return `${epoch}.${seq}`;
}

function mismatch(what: string, hint: string): StateManagerError {
  return new StateManagerError("repository-mismatch", `copy repository: ${what}`, { hint });
}
