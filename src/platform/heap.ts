/**
 * Garbage in the heap. The binary lets the old part of each heap grow to 48 MiB before it is collected (tools/compile.ts):
 * who works hard for some seconds is faster by a tenth for it. Who lives long, or has little memory, stays small by this:
 * V8's own rule, that a heap may grow by a part of what lives in it, holds above that size only.
 */

import { getHeapStatistics } from "node:v8";
import { isMemoryShort } from "./machine.ts";

const MIB = 1024 * 1024;
/** What V8 leaves uncollected in the binary. */
export const FIRST_HEAP_MIB = 48;
/** A collection comes when a heap has grown by this share, and by so much, since the last one. */
const GROWTH = 1.4;
const LEAST_GROWTH_BYTES = 4 * MIB;
/** From here on V8 collects by itself, a little at a time: all at once would stand still for too long. */
const MOST_BYTES = FIRST_HEAP_MIB * MIB;
const QUIET_INTERVAL_MS = 1000;
/** Where the heap has grown by this much since the last look, as at the start, or when very many requests come. */
const BUSY_GROWTH_BYTES = MIB;
const BUSY_INTERVAL_MS = 50;
/** As often as long work gives others their turn. */
const WORKING_INTERVAL_MS = 20;

export interface HeapEffects {
  readonly collect: () => void;
  readonly usedBytes: () => number;
}

export class HeapKeeper {
  readonly #effects: HeapEffects;
  /** Used after the last collection, and at the last look. */
  #livingBytes = 0;
  #seenBytes = 0;

  constructor(effects: HeapEffects) {
    this.#effects = effects;
  }

  /** Collects the heap when it has grown: some milliseconds then, else a few microseconds. True: it is growing fast. */
  look(): boolean {
    const { collect, usedBytes } = this.#effects;
    const used = usedBytes();
    const isBusy = used > this.#seenBytes + BUSY_GROWTH_BYTES;
    this.#seenBytes = used;
    const wanted = Math.max(this.#livingBytes * GROWTH, this.#livingBytes + LEAST_GROWTH_BYTES);
    if (used < wanted || used > MOST_BYTES) return isBusy;
    collect();
    this.#seenBytes = this.#livingBytes = usedBytes();
    return true;
  }
}

/** Of this thread; null outside of the binary, where nothing lets heaps grow. */
export function openHeapKeeper(): HeapKeeper | null {
  const collect = (globalThis as { gc?: () => void }).gc;
  if (collect === undefined) return null;
  return new HeapKeeper({ collect, usedBytes: () => getHeapStatistics().used_heap_size });
}

/** For who lives long: the heap of this thread is looked at from here on, each second or more often. Keeps no process alive. */
export function keepHeapSmall(): void {
  const keeper = openHeapKeeper();
  if (keeper === null) return;
  const look = () => lookIn(keeper.look() ? BUSY_INTERVAL_MS : QUIET_INTERVAL_MS);
  const lookIn = (ms: number) => Deno.unrefTimer(setTimeout(look, ms));
  lookIn(BUSY_INTERVAL_MS);
}

/** For who works hard and ends: the same, and often, where the memory limit says that it matters. */
export function keepHeapSmallWhereShort(): void {
  const keeper = openHeapKeeper();
  if (keeper === null || !isMemoryShort()) return;
  Deno.unrefTimer(setInterval(() => keeper.look(), WORKING_INTERVAL_MS));
}
