/**
 * Decompression by libzstd, where the system has it: it takes a sixth less time than the runtime's, for frames of more
 * than a mebibyte two fifths. Whoever asks must be able to do without: not every image has the library.
 */

import { StateManagerError } from "./errors.ts";

const SYMBOLS = {
  ZSTD_createDCtx: { parameters: [], result: "pointer" },
  ZSTD_decompressDCtx: {
    parameters: ["pointer", "buffer", "usize", "buffer", "usize"],
    result: "isize", // of a size_t whose errors are its last values: numbers below zero
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** What FFI takes is the same memory, whatever its type says of being shared. */
type Bytes = Uint8Array<ArrayBuffer>;

/**
 * Unpacks the whole frames that `frame` is to the beginning of `into`: how many bytes these are; null where it is anything
 * else, or more than there is room for.
 */
export type NativeZstd = (frame: Uint8Array, into: Uint8Array) => number | null;

/** With a context of its own; null where there is no such library. */
export function nativeZstd(): NativeZstd | null {
  let library;
  try {
    library = Deno.dlopen("libzstd.so.1", SYMBOLS).symbols;
  } catch {
    return null; // not there, or may not be loaded
  }
  const context = library.ZSTD_createDCtx();
  if (context === null) throw new StateManagerError("internal", "libzstd: no decompression context");
  return (frame, into) => {
    const [from, to] = [frame as Bytes, into as Bytes];
    const count = library.ZSTD_decompressDCtx(context, to, BigInt(to.length), from, BigInt(from.length));
    return count < 0n ? null : Number(count);
  };
}
