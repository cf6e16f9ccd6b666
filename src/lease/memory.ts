/**
 * A lease memory in a file, for the fast return: a manager that crashed and starts again on the same data folder need
 * not wait for its own TTL. It holds the nonces of ours that may stand in `lease.json`, and which boot and which lock
 * file they were written under.
 *
 * Why it is safe to believe it. The reader holds the lock of the folder, so the writer is dead; its caller knows that
 * the writer's programs are dead too. The boot id and the identity of the lock file are the writer's: so the writer
 * was on this very machine and under this very lock (a cloned volume comes up under another boot id, a copied folder
 * has another inode). A nonce is random and written by one process only, so a record that carries one of these is
 * nobody's. And the claim on it is a compare-and-swap like any other.
 *
 * Why every order of crash, late memory and late put is safe: the holder has the memory written before a new nonce is
 * sent, and gives it both the last nonce known to have landed and the new one. Whichever of them the successor finds,
 * it knows it. Does the new one land after that look, the successor's swap fails, it looks again, and knows this one
 * too; after that swap, it fails itself. Was the memory late, or never written, the store may hold a nonce that is not
 * in it: then the successor waits for the TTL, as anybody would. A wrong yes is not possible, only a wrong no.
 *
 * Written by rename without fsync: a process that dies leaves the page cache alive, and after a machine that died the
 * boot id differs.
 */

import { readTextIfPresent, replaceFileUnsynced } from "../platform/files.ts";
import type { LeaseMemory } from "./types.ts";

/** Where a memory was written, and where alone it may be believed. */
export interface MemoryPlace {
  /** `readBootId` of platform/proc.ts. */
  readonly bootId: string;
  /** Identity of the folder's lock, which the caller holds (platform/folder_lock.ts). */
  readonly lockIdentity: string;
}

export interface LeaseMemoryOptions {
  readonly path: string;
  /** For people who read the file: which manager wrote it. Never decided by. */
  readonly holder: string;
  /** Null where it cannot be told: nothing is inherited, and nothing written that a later one might believe. */
  readonly place: MemoryPlace | null;
  /** The manager before on this folder and all its programs are proven dead. Else nothing is inherited. */
  readonly predecessorIsDead: boolean;
}

/** Each crash before anything landed adds one; the oldest are dropped, which only costs a wait. */
const MOST_NONCES = 16;
const LONGEST_FILE = 16 * 1024;
const LONGEST_NONCE = 128;

/** Reads what a predecessor left. Never fails: a file that is damaged, foreign or unreadable is no memory. */
export async function openLeaseMemory(options: LeaseMemoryOptions): Promise<LeaseMemory> {
  const { place, predecessorIsDead } = options;
  if (place === null) return { inherited: [], remember: () => Promise.resolve() };
  const text = predecessorIsDead ? await readTextIfPresent(options.path).catch(() => null) : null;
  const inherited = text === null ? [] : inheritedFrom(text, place);
  return { inherited, remember: serialWriter((nonces) => write(options, place, nonces)) };
}

function write(options: LeaseMemoryOptions, place: MemoryPlace, nonces: readonly string[]): Promise<void> {
  const record = {
    v: 1,
    boot_id: place.bootId,
    lock: place.lockIdentity,
    holder: options.holder,
    nonces: nonces.slice(-MOST_NONCES),
  };
  return replaceFileUnsynced(options.path, JSON.stringify(record) + "\n");
}

/** The nonces in `text`; none when it is not a memory of this boot and this lock. */
function inheritedFrom(text: string, place: MemoryPlace): readonly string[] {
  if (text.length > LONGEST_FILE) return [];
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return [];
  }
  if (typeof value !== "object" || value === null) return [];
  const { v, boot_id, lock, nonces } = value as Record<string, unknown>;
  if (v !== 1 || boot_id !== place.bootId || lock !== place.lockIdentity) return [];
  if (!Array.isArray(nonces) || nonces.length > MOST_NONCES) return [];
  const isNonce = (nonce: unknown): nonce is string =>
    typeof nonce === "string" && nonce.length > 0 && nonce.length <= LONGEST_NONCE;
  return nonces.every(isNonce) ? nonces : [];
}

/** One write at a time; of those that wait behind it only the newest is carried out, and stands for all of them. */
function serialWriter<T>(carryOut: (value: T) => Promise<void>): (value: T) => Promise<void> {
  let running: Promise<void> | null = null;
  let next: { value: T; done: Promise<void> } | null = null;
  const start = (value: T): Promise<void> => {
    const done = carryOut(value);
    running = done;
    return done.finally(() => {
      if (running === done) running = null;
    });
  };
  return (value) => {
    if (next !== null) {
      next.value = value;
      return next.done;
    }
    if (running === null) return start(value);
    const waiting = { value, done: Promise.resolve() };
    next = waiting;
    waiting.done = running.catch(() => {}).then(() => {
      next = null;
      return start(waiting.value);
    });
    return waiting.done;
  };
}
