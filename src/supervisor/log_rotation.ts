/**
 * Rotation by renaming: `app.log` becomes `app.log.1`, that one `app.log.2`. All state is in the names, so a crash at any
 * step leaves at most a hole in the numbers, and the next rotation moves files up to that hole before it gives up any.
 * Never by copying and truncating: what is written meanwhile would be lost.
 */

import type { AppendFiles } from "../platform/append_file.ts";

/** Numbers beyond the configured ones that are looked for, after the limit was lowered. */
const LOOK_BEYOND = 100;

export interface RotationLimits {
  /** Files in all, the one that is written among them; at least 1. */
  readonly maxFiles: number;
}

/** Frees the name `path`; nobody has it open. The oldest file goes when all numbers are taken. */
export async function rotateAway(
  path: string,
  { maxFiles }: RotationLimits,
  files: AppendFiles,
): Promise<void> {
  const oldest = maxFiles - 1;
  for (let number = maxFiles; number < maxFiles + LOOK_BEYOND; number++) {
    if (!await files.exists(`${path}.${number}`)) break;
    await files.remove(`${path}.${number}`);
  }
  if (oldest === 0) return await files.remove(path);
  let free = 1;
  while (free < oldest && await files.exists(`${path}.${free}`)) free++;
  for (let number = free; number > 1; number--) {
    await files.rename(`${path}.${number - 1}`, `${path}.${number}`);
  }
  await files.rename(path, `${path}.1`);
}
