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

/** What a compressed file has behind its number. */
export const COMPRESSED = ".zst";

/** The forms in which the file of this number is there: two only after a crash, of the same content. */
async function formsOf(path: string, number: number, files: AppendFiles): Promise<string[]> {
  const forms = ["", COMPRESSED];
  const there = await Promise.all(forms.map((form) => files.exists(`${path}.${number}${form}`)));
  return forms.filter((_, index) => there[index]);
}

async function removeAll(path: string, number: number, files: AppendFiles): Promise<boolean> {
  const forms = await formsOf(path, number, files);
  for (const form of forms) await files.remove(`${path}.${number}${form}`);
  return forms.length > 0;
}

/** Frees the name `path`; nobody has it open. The oldest file goes when all numbers are taken. */
export async function rotateAway(
  path: string,
  { maxFiles }: RotationLimits,
  files: AppendFiles,
): Promise<void> {
  const oldest = maxFiles - 1;
  for (let number = maxFiles; number < maxFiles + LOOK_BEYOND; number++) {
    if (!await removeAll(path, number, files)) break;
  }
  if (oldest === 0) return await files.remove(path);
  let free = 1;
  while (free < oldest && (await formsOf(path, free, files)).length > 0) free++;
  // Its other form must not stay beside the one that comes.
  if (free === oldest) await removeAll(path, oldest, files);
  for (let number = free; number > 1; number--) {
    for (const form of await formsOf(path, number - 1, files)) {
      await files.rename(`${path}.${number - 1}${form}`, `${path}.${number}${form}`);
    }
  }
  await files.rename(path, `${path}.1`);
}

/**
 * The newest rotated file that is not compressed, null where there is none. Before it no number is free: so a rotation
 * moves it up by one.
 */
export async function nextToCompress(
  path: string,
  { maxFiles }: RotationLimits,
  files: AppendFiles,
): Promise<number | null> {
  for (let number = 1; number < maxFiles; number++) {
    const forms = await formsOf(path, number, files);
    if (forms.length === 0) return null;
    if (forms.includes("")) return number;
  }
  return null;
}

/** Inodes of all files that were rotated away. */
export async function rotatedInodes(
  path: string,
  { maxFiles }: RotationLimits,
  files: AppendFiles,
): Promise<number[]> {
  const inodes: number[] = [];
  for (let number = 1, holes = 0; number < maxFiles && holes < 2; number++) {
    const forms = await formsOf(path, number, files);
    holes = forms.length === 0 ? holes + 1 : 0;
    for (const form of forms) inodes.push(await files.inode(`${path}.${number}${form}`) ?? 0);
  }
  return inodes;
}
