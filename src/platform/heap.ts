/**
 * Garbage in the heap. The binary lets the old part of each heap grow to 48 MiB before it is collected (tools/compile.ts):
 * who works hard for some seconds is faster by a tenth for it. Who lives long, or has little memory, stays small by this:
 * V8's own rule, that a heap may grow by a part of what lives in it, holds above that size only.
 */

import { getHeapStatistics } from "node:v8";

const MIB = 1024 * 1024;
/** A collection comes when a heap has grown by this share, and by so much, since the last one. */
const GROWTH = 1.4;
const LEAST_GROWTH_BYTES = 4 * MIB;
/** From here on V8 collects by itself, a little at a time: all at once would stand still for too long. */
const MOST_BYTES = 48 * MIB;
/** The programs of a container that has less need what larger heaps would take. */
const SMALL_LIMIT_BYTES = 1024 * MIB;
const LIVING_INTERVAL_MS = 1000;
/** As often as long work gives others their turn. */
const WORKING_INTERVAL_MS = 20;

export interface HeapEffects {
  readonly collect: () => void;
  readonly usedBytes: () => number;
}

export class HeapKeeper {
  readonly #effects: HeapEffects;
  /** Used after the last collection. */
  #livingBytes = 0;

  constructor(effects: HeapEffects) {
    this.#effects = effects;
  }

  /** Collects the heap when it has grown: some milliseconds then, else a few microseconds. */
  look(): void {
    const { collect, usedBytes } = this.#effects;
    const used = usedBytes();
    const wanted = Math.max(this.#livingBytes * GROWTH, this.#livingBytes + LEAST_GROWTH_BYTES);
    if (used < wanted || used > MOST_BYTES) return;
    collect();
    this.#livingBytes = usedBytes();
  }
}

/** Of this thread; null outside of the binary, where nothing lets heaps grow. */
export function openHeapKeeper(): HeapKeeper | null {
  const collect = (globalThis as { gc?: () => void }).gc;
  if (collect === undefined) return null;
  return new HeapKeeper({ collect, usedBytes: () => getHeapStatistics().used_heap_size });
}

/** For who lives long: from here on the heap of this thread is looked at each second. Keeps no process alive. */
export function keepHeapSmall(): void {
  lookEvery(LIVING_INTERVAL_MS);
}

/** For who works hard and ends: the same, and often, where the memory limit says that it matters. */
export function keepHeapSmallBelow(limitBytes: number): void {
  if (limitBytes < SMALL_LIMIT_BYTES) lookEvery(WORKING_INTERVAL_MS);
}

function lookEvery(ms: number): void {
  const keeper = openHeapKeeper();
  if (keeper !== null) Deno.unrefTimer(setInterval(() => keeper.look(), ms));
}
