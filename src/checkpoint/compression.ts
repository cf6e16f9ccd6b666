/** How strongly chunks of files are compressed. What is stored can be read whatever it was; manifests always are. */

import { FAST_LEVEL, MAX_LEVEL, SLOW_STORE_LEVEL } from "./codec.ts";

export type Compression = "auto" | "fast" | "max" | "off";

/**
 * Level of zstd; null stores the bytes as they are. `auto` spends more on a chunk while reading has to wait for the
 * store anyway.
 */
export function levelOf(compression: Compression, now: { readonly storeIsSlow: boolean }): number | null {
  switch (compression) {
    case "auto":
      return now.storeIsSlow ? SLOW_STORE_LEVEL : FAST_LEVEL;
    case "fast":
      return FAST_LEVEL;
    case "max":
      return MAX_LEVEL;
    case "off":
      return null;
  }
}
