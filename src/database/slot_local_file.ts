/** A commit's local file as the slot writer reads it. */

import { localFileError } from "../platform/files.ts";
import type { LocalFiles } from "../platform/local_files.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { LocalCommitFile } from "./slot_writer.ts";

/** Opens the level-0 file at `path`. */
export async function openCommitFile(files: LocalFiles, path: string): Promise<LocalCommitFile> {
  try {
    const file = await files.open(path);
    return {
      async read(start, end) {
        const bytes = new Uint8Array(end - start);
        try {
          for (let filled = 0; filled < bytes.length;) {
            const count = await file.read(bytes.subarray(filled), start + filled);
            if (count === null) {
              throw new StateManagerError(
                "data-damaged",
                `read ${path}: ends at byte ${start + filled}, wanted ${end}`,
              );
            }
            filled += count;
          }
        } catch (error) {
          throw localFileError(`read ${path}`, error);
        }
        return bytes;
      },
      [Symbol.asyncDispose]() {
        file[Symbol.dispose]();
        return Promise.resolve();
      },
    };
  } catch (error) {
    throw localFileError(`open ${path}`, error);
  }
}
