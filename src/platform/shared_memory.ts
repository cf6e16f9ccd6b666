/**
 * Memory outside of the runtime's heap that all threads of this process see at one place. A buffer that is handed from
 * thread to thread counts as a new one where it comes to, and each hundred megabytes that come so make the collector look
 * at every object there: a fifth of the work of a large checkpoint. Nothing here guards it: the messages that name a
 * block say whose it is. A block is never unmapped, since a request that was given up may still read it; it is used
 * again when its holder gives it back, and else stays as it is, as address space, to the end of the process.
 */

import { assert } from "./assert.ts";
import { StateManagerError } from "./errors.ts";

/** What a message tells of one: where it begins, on the border of a page. */
export interface MemoryBlock {
  readonly address: bigint;
  readonly sizeBytes: number;
}

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const NO_FILE = -1;
const MADV_HUGEPAGE = 14;
/** Of all processors that we run on; with others a block has small pages. */
export const LARGE_PAGE_BYTES = 2 * 1024 * 1024;
/** mmap's word for an error, all ones. */
const FAILED = (1n << 64n) - 1n;

const SYMBOLS = {
  madvise: { parameters: ["pointer", "usize", "i32"], result: "i32" },
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

let opened: Deno.DynamicLibrary<typeof SYMBOLS> | undefined;

/** All that this thread took, by where they begin. */
const taken = new Map<bigint, MemoryBlock>();
/** Given back, in this thread. */
const free = new Map<bigint, MemoryBlock>();
/** One view of each place: views count as memory of the thread's own, each time they are made. */
const views = new Map<bigint, Uint8Array<ArrayBuffer>>();

/** A block of `sizeBytes`, new or given back; what is in it is of no meaning. It takes memory where it is written. */
export function takeMemory(sizeBytes: number): MemoryBlock {
  return takeAt(1, sizeBytes);
}

/**
 * The same in large pages where the system has them, for what is written again and again: the first touch of each small
 * one costs more than what is written there, and a disk's driver has to find each of them. But a large one is emptied as
 * a whole, and out of the processor's caches before it is filled.
 */
export function takeLargePages(sizeBytes: number): MemoryBlock {
  return takeAt(LARGE_PAGE_BYTES, sizeBytes);
}

/** One that was given back is taken as it is. */
function takeAt(alignment: number, sizeBytes: number): MemoryBlock {
  const given = [...free.values()].findLast((block) => block.sizeBytes === sizeBytes);
  if (given === undefined) return map(sizeBytes, alignment);
  free.delete(given.address);
  return given;
}

/**
 * Nobody else reads or writes it any more. Once for each time that it was taken, in the thread that took it; a block is
 * known by its address, since one that comes in a message is a copy of what tells of it.
 */
export function returnMemory({ address }: MemoryBlock): void {
  const block = taken.get(address);
  assert(block !== undefined && !free.has(address), "memory is returned once, where it was taken");
  free.set(address, block);
}

/** Its bytes, in whatever thread. */
export function bytesOfMemory({ address, sizeBytes }: MemoryBlock): Uint8Array<ArrayBuffer> {
  const known = views.get(address);
  if (known?.length === sizeBytes) return known;
  const pointer = Deno.UnsafePointer.create(address);
  if (pointer === null) throw failure(sizeBytes);
  const view = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, sizeBytes));
  views.set(address, view);
  return view;
}

/** The block of this thread that `bytes` are a part of, from its beginning on or not; null for any other memory. */
export function memoryOf({ buffer }: Uint8Array<ArrayBuffer>): MemoryBlock | null {
  const whole = new Uint8Array(buffer);
  const block = taken.get(BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(whole))));
  if (block === undefined) return null;
  views.set(block.address, whole); // a stream that filled it may have moved it to another buffer
  return block;
}

function map(sizeBytes: number, alignment: number): MemoryBlock {
  opened ??= Deno.dlopen("libc.so.6", SYMBOLS);
  const pointer = opened.symbols.mmap(
    null,
    BigInt(sizeBytes + alignment - 1),
    PROT_READ_WRITE,
    MAP_PRIVATE_ANONYMOUS,
    NO_FILE,
    0n,
  );
  const begin = BigInt(Deno.UnsafePointer.value(pointer));
  if (begin === 0n || begin === FAILED) throw failure(sizeBytes);
  const address = begin + (-begin & BigInt(alignment - 1));
  const block = { address, sizeBytes };
  // Large pages begin at their own borders. A wish: what comes of it is as good.
  if (alignment > 1) {
    opened.symbols.madvise(Deno.UnsafePointer.create(address), BigInt(sizeBytes), MADV_HUGEPAGE);
  }
  taken.set(address, block);
  return block;
}

function failure(sizeBytes: number): StateManagerError {
  return new StateManagerError("internal", `take ${sizeBytes} bytes of memory: the system has none`, {
    hint: "give the container more memory",
  });
}
