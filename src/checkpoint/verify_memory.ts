/**
 * Which packs were read when, so that many verifications of a few percent read all. Kept in the cache folder: when it is
 * lost, the round begins anew and nothing else happens.
 */

import * as v from "valibot";
import { ensureFolder, readTextIfPresent, writeFileAtomically } from "../platform/files.ts";
import type { Random } from "../platform/random.ts";
import { isPackName } from "./ids.ts";

export interface PackMemory {
  /** Name → wall time of its last whole reading. */
  readonly readMs: ReadonlyMap<string, number>;
  /** Found damaged when it was last read: read again each time, until it is right or gone. */
  readonly bad: ReadonlySet<string>;
}

export const NOTHING_READ: PackMemory = { readMs: new Map(), bad: new Set() };

const time = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const memorySchema = v.object({
  packs: v.record(v.pipe(v.string(), v.check(isPackName)), time),
  bad: v.array(v.pipe(v.string(), v.check(isPackName))),
});

function memoryPath(cacheFolder: string, repoId: string): string {
  return `${cacheFolder}/verified-${repoId}.json`;
}

/** What cannot be read is nothing. */
export async function loadPackMemory(cacheFolder: string | null, repoId: string): Promise<PackMemory> {
  if (cacheFolder === null) return NOTHING_READ;
  try {
    const text = await readTextIfPresent(memoryPath(cacheFolder, repoId));
    const { packs, bad } = v.parse(memorySchema, JSON.parse(text ?? ""));
    return { readMs: new Map(Object.entries(packs)), bad: new Set(bad) };
  } catch {
    return NOTHING_READ;
  }
}

/** Failing to keep it costs a second reading. */
export async function savePackMemory(
  cacheFolder: string | null,
  repoId: string,
  memory: PackMemory,
): Promise<void> {
  if (cacheFolder === null) return;
  const text = JSON.stringify({ packs: Object.fromEntries(memory.readMs), bad: [...memory.bad] });
  try {
    await ensureFolder(cacheFolder, 0o700);
    await writeFileAtomically(memoryPath(cacheFolder, repoId), text);
  } catch {
    // a full disk is somebody else's to tell
  }
}

/**
 * The packs to read now: `percent` of them, rounded up, those first whose last reading is longest ago; and besides all
 * that were found damaged. Without a memory the choice is random, so that runs differ.
 */
export function choosePacks(
  names: readonly string[],
  memory: PackMemory,
  options: { readonly percent: number; readonly random: Random; readonly isKept: boolean },
): string[] {
  const { percent, random, isKept } = options;
  const bad = names.filter((name) => memory.bad.has(name));
  const rest = names.filter((name) => !memory.bad.has(name))
    .map((name) => ({ name, at: memory.readMs.get(name) ?? -1, by: isKept ? 0 : random.float() }))
    .sort((a, b) => a.at - b.at || a.by - b.by || (a.name < b.name ? -1 : 1));
  const wanted = Math.ceil((names.length * percent) / 100);
  return [...bad, ...rest.slice(0, wanted).map(({ name }) => name)];
}

/** Since when every one of `names` was read, null when one never was. */
export function allReadSince(names: readonly string[], memory: PackMemory): number | null {
  let oldest = Infinity;
  for (const name of names) {
    const at = memory.readMs.get(name);
    if (at === undefined) return null;
    oldest = Math.min(oldest, at);
  }
  return oldest === Infinity ? null : oldest;
}
