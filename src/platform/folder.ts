/** What a folder holds, for commands that must not mix with what is there. */

import { localFileError } from "./files.ts";

/** True when nothing is at `path`, or a folder with nothing in it. */
export async function isEmptyFolder(path: string): Promise<boolean> {
  try {
    for await (const _entry of Deno.readDir(path)) return false;
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return true;
    if (error instanceof Deno.errors.NotADirectory) return false;
    throw localFileError(`read folder ${path}`, error);
  }
}
