/**
 * Deletes what a committed head dooms: packs first, then index and root objects, so that as long as bytes are there what
 * tells of them may still be. If we die in between, the names are still on the list and are deleted again.
 */

import { asStateManagerError, type ErrorCode } from "../platform/errors.ts";
import { settleAll } from "../platform/settle.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { packKey } from "./ids.ts";
import type { Names } from "./prune_rules.ts";

/** Deletes at one time: thousands take seconds, and other requests of the store still get their turn. */
const DELETES_IN_FLIGHT = 8;

export interface SweepResult {
  /** Whose deletes were acknowledged. */
  readonly names: Names;
  /** What ended it early; null: all are gone. */
  readonly failure: { readonly code: ErrorCode; readonly message: string } | null;
}

export async function sweepNames(
  names: Names,
  { store, signal, onDeleted = () => {} }: {
    readonly store: ObjectStore;
    readonly signal: AbortSignal;
    readonly onDeleted?: (count: number) => void;
  },
): Promise<SweepResult> {
  const packs: string[] = [];
  const objects: string[] = [];
  try {
    await deleteAll(names.packs, async (name) => {
      await store.delete(packKey(name), { signal });
      packs.push(name);
      onDeleted(1);
    });
    await deleteAll(names.objects, async (key) => {
      await store.delete(key, { signal });
      objects.push(key);
      onDeleted(1);
    });
    return { names: { packs, objects }, failure: null };
  } catch (error) {
    const { code, message } = asStateManagerError(error, "store-unreachable");
    return { names: { packs, objects }, failure: { code, message } };
  }
}

/** Several at a time; after the first failure no further one begins. Rejects with it when those under way have ended. */
async function deleteAll(
  names: readonly string[],
  deleteOne: (name: string) => Promise<void>,
): Promise<void> {
  const queue = [...names];
  let failed = false;
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined && !failed; next = queue.shift()) {
      try {
        await deleteOne(next);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  await settleAll(Array.from({ length: DELETES_IN_FLIGHT }, worker));
}
