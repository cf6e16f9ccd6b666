/** A folder where an fsync costs nothing, for tests that wait for thousands of them and let no machine crash. */

import { statfsSync } from "node:fs";

/** Much more than such a test needs; a container's default is less. */
const WANTED_BYTES = 512 * 1024 * 1024;

/** In memory where there is enough, else under the temporary folder. */
export function fastFolder(prefix: string): string {
  try {
    const { bavail, bsize } = statfsSync("/dev/shm");
    if (bavail * bsize >= WANTED_BYTES) return Deno.makeTempDirSync({ dir: "/dev/shm", prefix });
  } catch {
    // no such folder, or not ours to write to
  }
  return Deno.makeTempDirSync({ prefix });
}
