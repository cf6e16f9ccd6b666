/**
 * The immutable objects of a repository, from one store into another: those that are missing there or have another
 * size. Whatever interrupts it leaves objects that nothing names yet, and the next copy goes on after them.
 */

import { INDEX_PREFIX, PACKS_PREFIX, ROOTS_PREFIX } from "../checkpoint/mod.ts";
import {
  compareForCopy,
  DATABASES_PREFIX,
  parseAnyReplicaKey,
  replicaKeyIn,
  type ReplicaLayout,
  replicaMetadata,
  type ReplicaObject,
} from "../database/mod.ts";
import { isError } from "../platform/errors.ts";
import { settleAll } from "../platform/settle.ts";
import {
  getIfPresent,
  LARGE_PART_BYTES,
  listAll,
  type ObjectStore,
  type StoredObject,
} from "../storage/mod.ts";

/** Of immutable objects, all that is copied. */
const PREFIXES = ["checkpoints/", DATABASES_PREFIX] as const;
const CHECKPOINT_PREFIXES = [PACKS_PREFIX, INDEX_PREFIX, ROOTS_PREFIX] as const;
/** A pack is up to 16 MiB and a chunk: one request. Eight of these at a time are in memory. */
const WHOLE_LIMIT_BYTES = 20 * 1024 * 1024;
const CONCURRENCY = 8;
/** A large object whose connection ends, or of whose put nobody knows, is begun anew so often: nothing below repeats it. */
const LARGE_TRIES = 3;

export interface CopyPlace {
  readonly store: ObjectStore;
  readonly layout: ReplicaLayout;
}

export interface CopyItem {
  readonly from: string;
  readonly to: string;
  readonly sizeBytes: number;
  /** Null: of a checkpoint. */
  readonly replica: ReplicaObject | null;
}

/** Sizes of what is there, by key. */
export async function sizesIn({ store }: CopyPlace, signal: AbortSignal): Promise<Map<string, number>> {
  const sizes = new Map<string, number>();
  for (const prefix of PREFIXES) {
    for await (const { key, sizeBytes } of listAll(store, prefix, { signal })) sizes.set(key, sizeBytes);
  }
  return sizes;
}

/** All that a copy holds, as the source is now. */
export async function itemsOf(
  source: CopyPlace,
  layout: ReplicaLayout,
  signal: AbortSignal,
): Promise<CopyItem[]> {
  const items: CopyItem[] = [];
  const replicas: (CopyItem & { readonly replica: ReplicaObject })[] = [];
  for (const [key, sizeBytes] of await sizesIn(source, signal)) {
    if (CHECKPOINT_PREFIXES.some((prefix) => key.startsWith(prefix))) {
      items.push({ from: key, to: key, sizeBytes, replica: null });
      continue;
    }
    const replica = parseAnyReplicaKey(key);
    if (replica === null) continue; // none of ours
    replicas.push({ from: key, to: replicaKeyIn(layout, replica), sizeBytes, replica });
  }
  // What a tool copied may lie in the other layout: it counts where there is nothing in the usual one, as for a reader.
  const usual = new Set(
    replicas.flatMap(({ replica: { place } }) => place.layout === source.layout ? [place.name] : []),
  );
  const counts = ({ layout, name }: ReplicaObject["place"]) => layout === source.layout || !usual.has(name);
  return [...items, ...replicas.filter(({ replica }) => counts(replica.place))];
}

/**
 * What is copied beside each other; one after the other within each. Where nobody can read the target yet that is every
 * object by itself, else a database is one chain, so that a copy that is interrupted leaves no gap.
 */
export function chainsOf(
  items: readonly CopyItem[],
  { isReadable }: { readonly isReadable: boolean },
): CopyItem[][] {
  if (!isReadable) return items.map((item) => [item]);
  const alone = items.filter(({ replica }) => replica === null).map((item) => [item]);
  const databases = Map.groupBy(
    items.filter(({ replica }) => replica !== null),
    ({ replica }) => replica?.place.name,
  );
  const inOrder = (chain: CopyItem[]) =>
    chain.sort((a, b) =>
      a.replica === null || b.replica === null ? 0 : compareForCopy(a.replica.name, b.replica.name)
    );
  return [...alone, ...[...databases.values()].map(inOrder)];
}

export interface CopyRun {
  readonly source: CopyPlace;
  readonly target: CopyPlace;
  /** Of the target; what is copied is added. */
  readonly present: Map<string, number>;
  readonly signal: AbortSignal;
  readonly onBytes: (bytes: number) => void;
  readonly onObject: () => void;
}

/** Copies all of `chains`; the number of objects that were gone from the source meanwhile. */
export async function copyChains(chains: readonly (readonly CopyItem[])[], run: CopyRun): Promise<number> {
  const failed = new AbortController();
  const signal = AbortSignal.any([run.signal, failed.signal]);
  const queue = chains.values();
  let gone = 0;
  const worker = async () => {
    try {
      for (const chain of queue) {
        for (const item of chain) {
          signal.throwIfAborted();
          if (!await copyItem(item, { ...run, signal })) gone++;
        }
      }
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  };
  try {
    await settleAll(Array.from({ length: CONCURRENCY }, worker));
  } catch (error) {
    run.signal.throwIfAborted();
    throw failed.signal.aborted ? failed.signal.reason : error;
  }
  return gone;
}

/** False: it is gone from the source. */
async function copyItem(item: CopyItem, run: CopyRun): Promise<boolean> {
  const { present, onObject } = run;
  const sizeBytes = item.sizeBytes <= WHOLE_LIMIT_BYTES
    ? await copyWhole(item, run)
    : await copyLarge(item, run);
  if (sizeBytes === null) return false;
  present.set(item.to, sizeBytes);
  onObject();
  return true;
}

/** The size; null: gone. */
async function copyWhole(item: CopyItem, run: CopyRun): Promise<number | null> {
  const { source, target, signal, onBytes } = run;
  const object = await getIfPresent(source.store, item.from, { signal });
  if (object === null) return null;
  const { body } = object;
  const metadata = metadataOf(item, target.layout, object);
  await put(item, run, async (condition) => {
    await target.store.put(item.to, body, { ...condition, metadata, signal });
  });
  onBytes(body.length);
  return body.length;
}

/** What an earlier try may still make of it is the same object: both are of the same immutable bytes. */
async function copyLarge(item: CopyItem, run: CopyRun): Promise<number | null> {
  for (let tries = 1;; tries++) {
    let bytes = 0;
    try {
      const counted = (more: number) => {
        bytes += more;
        run.onBytes(more);
      };
      const sizeBytes = await copyInPieces(item, { ...run, onBytes: counted });
      if (sizeBytes === null) run.onBytes(-bytes);
      return sizeBytes;
    } catch (error) {
      run.onBytes(-bytes);
      run.signal.throwIfAborted();
      if (!isError(error, "store-unreachable", "outcome-unknown", "timeout") || tries === LARGE_TRIES) {
        throw error;
      }
    }
  }
}

async function copyInPieces(item: CopyItem, run: CopyRun): Promise<number | null> {
  const { source, target, signal, onBytes } = run;
  const { from, to, sizeBytes } = item;
  const piece = (start: number) =>
    getIfPresent(source.store, from, {
      signal,
      range: { start, end: Math.min(start + LARGE_PART_BYTES, sizeBytes) },
    });
  const first = await piece(0);
  if (first === null) return null;
  const metadata = metadataOf(item, target.layout, first);
  let gone = false;
  async function* pieces(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    for (let start = 0; start < sizeBytes;) {
      const object: StoredObject | null = start === 0 ? first : await piece(start);
      if (object === null) {
        gone = true;
        return; // fewer bytes than were announced: nothing is written
      }
      const { length } = object.body;
      yield object.body;
      start += length;
      onBytes(length);
    }
  }
  try {
    await put(item, run, async (condition) => {
      await target.store.putLarge(to, pieces(), { ...condition, metadata, sizeBytes, signal });
    });
  } catch (error) {
    if (gone) return null;
    throw error;
  }
  return sizeBytes;
}

type Condition = { readonly condition?: { readonly absent: true }; readonly mayComeTwice?: true };

/** Only where nothing is, unless what is there has another size; an outcome that is not known is looked at. */
async function put(
  { to, sizeBytes }: CopyItem,
  { target, present, signal }: CopyRun,
  send: (condition: Condition) => Promise<void>,
): Promise<void> {
  try {
    await send(present.has(to) ? {} : { condition: { absent: true }, mayComeTwice: true });
  } catch (error) {
    if (!isError(error, "precondition-failed", "outcome-unknown")) throw error;
    const found = await target.store.head(to, { signal }).catch((failure) => {
      if (isError(failure, "object-not-found")) return null;
      throw failure;
    });
    if (found?.sizeBytes !== sizeBytes) throw error;
  }
}

function metadataOf(
  { replica }: CopyItem,
  layout: ReplicaLayout,
  { metadata, body }: StoredObject,
): Readonly<Record<string, string>> {
  return replica === null ? {} : replicaMetadata(layout, replica, { metadata, start: body });
}
