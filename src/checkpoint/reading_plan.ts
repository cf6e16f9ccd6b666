/**
 * How a checkpoint is read: with how many threads and how large packs. Pure: what the machine allows and what there is
 * to read in, numbers out.
 */

import { PACK_TARGET_BYTES } from "./pack.ts";

export interface Machine {
  readonly cores: number;
  readonly memoryLimitBytes: number;
  /** True where a put takes no memory beside its pack, as on a disk; left out: a request copies it. */
  readonly putsInPlace?: boolean;
}

export interface ReadingPlan {
  /** 0: the archiver's own thread reads. */
  readonly workers: number;
  readonly packBytes: number;
  /** Packs of one thread: one that is filled, the others on their way. */
  readonly packsPerWorker: number;
}

const MIB = 1024 * 1024;
/** More threads than this wait for each other's disk and for the store. */
const MOST_WORKERS = 4;
/** Of the whole archiver, wherever there is more. */
const MEMORY_BYTES = 350 * MIB;
/** The rest of a small container is for the programs in it. */
const MEMORY_SHARE = 0.4;
/** The runtime, the scan and the puts. */
const BASE_BYTES = 110 * MIB;
/** A thread without its packs: its own heap, window and code. */
const WORKER_BYTES = 40 * MIB;
/** One that is filled, one on its way. */
export const PACKS_PER_WORKER = 2;
/** What does not compress fills packs faster than a disk takes them, for a while: with more of them nobody waits. */
const MOST_PACKS_PER_WORKER = 4;
const LEAST_PACK_BYTES = 4 * MIB;

/** Less than this is read sooner than a thread has started. */
const LEAST_BYTES = 24 * MIB;
const LEAST_FILES = 1500;

export interface ReadingNeed {
  readonly bytes: number;
  readonly files: number;
}

export function planReading(machine: Machine, need: ReadingNeed): ReadingPlan {
  const budget = Math.min(MEMORY_BYTES, machine.memoryLimitBytes * MEMORY_SHARE);
  const isSmall = need.bytes < LEAST_BYTES && need.files < LEAST_FILES;
  const most = isSmall ? 0 : Math.min(machine.cores, MOST_WORKERS);
  // One thread beside the archiver's own is no gain on one core.
  for (let workers = most; workers > 1; workers--) {
    const memoryBytes = (budget - BASE_BYTES) / workers - WORKER_BYTES;
    const packBytes = packSize(memoryBytes);
    if (packBytes < LEAST_PACK_BYTES) continue;
    const mostPacks = machine.putsInPlace === true ? MOST_PACKS_PER_WORKER : PACKS_PER_WORKER;
    const packsPerWorker = Math.min(mostPacks, Math.floor(memoryBytes / packBytes));
    return { workers, packBytes, packsPerWorker };
  }
  const packBytes = Math.max(LEAST_PACK_BYTES, packSize(budget / 4));
  return { workers: 0, packBytes, packsPerWorker: PACKS_PER_WORKER };
}

/** The largest power of two that fits, up to the target. */
function packSize(memoryBytes: number): number {
  let size = PACK_TARGET_BYTES;
  while (size > 0 && size * PACKS_PER_WORKER > memoryBytes) size = Math.floor(size / 2);
  return size;
}
