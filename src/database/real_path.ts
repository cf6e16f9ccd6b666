/** The file that a database's path means. SQLite follows symlinks and keeps `-wal` and `-shm` beside the real file. */

import { StateManagerError } from "../platform/errors.ts";
import {
  AT_CWD,
  type PathBytes,
  pathBytes,
  readLinkAt,
  realFolder,
  statIfPresent,
} from "../platform/libc_files.ts";

/** As many as the kernel follows. */
const MOST_LINKS = 40;

/** `path` with its symlinks resolved; its folder must be there, the file itself need not be. */
export function realDatabasePath(path: string): string {
  let current = path;
  for (let links = 0; links < MOST_LINKS; links++) {
    const slash = current.lastIndexOf("/");
    const folder = text(realFolder(pathBytes(current.slice(0, slash) || "/")));
    const real = `${folder === "/" ? "" : folder}/${current.slice(slash + 1)}`;
    if (statIfPresent(AT_CWD, pathBytes(real))?.type !== "symlink") return real;
    const target = text(readLinkAt(AT_CWD, pathBytes(real)));
    current = target.startsWith("/") ? target : `${folder}/${target}`;
  }
  throw new StateManagerError("local-io", `resolve ${path}: too many symbolic links`, {
    hint: "check where the link leads",
  });
}

/** SQLite takes paths as text. */
function text(path: PathBytes): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(path);
  } catch {
    throw new StateManagerError(
      "local-io",
      "resolve the database's path: a link leads to a name that is not UTF-8",
      {
        hint: "rename that folder or file",
      },
    );
  }
}
