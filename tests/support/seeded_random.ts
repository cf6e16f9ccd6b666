/** Randomness from a seed, as the port gives it. */

import type { Random } from "../../src/platform/random.ts";
import { seededRandom } from "./tree_model.ts";

export function randomOf(seed: number): Random {
  const float = seededRandom(seed);
  return { float, bytes: (count) => Uint8Array.from({ length: count }, () => Math.floor(float() * 256)) };
}
