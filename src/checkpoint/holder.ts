/**
 * Folders of ours, `.sm-restore-<id>…`, in which a restore builds the new tree (`new`) and leaves the old one (`old`).
 * A restore that was stopped or killed while it staged leaves its holder behind; the next one of the same id goes on
 * with it: what was `new` becomes `former-<k>`, whose content counts only after it was read back and verified.
 */

import { StateManagerError } from "../platform/errors.ts";
import {
  AT_CWD,
  closeFd,
  isErrno,
  listNames,
  makeFolderAt,
  OPEN,
  openAt,
  ownUid,
  pathBytes,
  renameAt,
  showPath,
  statFd,
} from "../platform/libc_files.ts";

export const HOLDER_PREFIX = ".sm-restore-";
export const FORMER_PREFIX = "former-";
export const STAGE_NAME = "new";
export const OLD_NAME = "old";

/** Each start that is stopped before it has taken over the former stages adds one; more than this is a crash loop. */
const FORMER_MAX = 16;

/** Where the live folder can be renamed, the holder is its neighbour. `live` is absolute and no `/`. */
export function holderBeside(live: string, id: string): string {
  const cut = live.lastIndexOf("/");
  return `${live.slice(0, cut)}/${HOLDER_PREFIX}${id}-${live.slice(cut + 1)}`;
}

export function holderInside(live: string, id: string): string {
  return `${live}/${HOLDER_PREFIX}${id}`;
}

/** Id in the name of a holder beside the folder named `base`; null when it is none of that folder's. Ids have no dash. */
export function idBeside(name: string, base: string): string | null {
  const id = idInside(name)?.split("-", 1)[0] ?? null;
  return id !== null && name === `${HOLDER_PREFIX}${id}-${base}` ? id : null;
}

export function idInside(name: string): string | null {
  return name.startsWith(HOLDER_PREFIX) ? name.slice(HOLDER_PREFIX.length) : null;
}

/** Makes the holder. False: it is there already. Other failures are the caller's to judge. */
export function makeHolder(holder: string): boolean {
  try {
    makeFolderAt(AT_CWD, pathBytes(holder), 0o700);
    return true;
  } catch (error) {
    if (isErrno(error, "EEXIST")) return false;
    throw error;
  }
}

/**
 * Makes room for a new stage in a holder that is there: paths of the former stages in it, newest first. Null: it is not
 * a holder that staging alone left, or somebody else could have written into it, so it must be deleted as a whole.
 */
export function reopenHolder(holder: string): string[] | null {
  let fd: number;
  try {
    fd = openAt(AT_CWD, pathBytes(holder), OPEN.read | OPEN.directory | OPEN.noFollow);
  } catch (error) {
    if (isErrno(error, "ELOOP", "ENOTDIR", "EACCES")) return null;
    throw error;
  }
  try {
    const { uid, mode, mountRoot } = statFd(fd);
    if (uid !== ownUid() || (mode & 0o777) !== 0o700 || mountRoot) return null;
    const names = listNames(fd).map(showPath);
    const formers = names.flatMap((name) => /^former-([1-9]\d{0,2})$/.exec(name)?.[1] ?? []).map(Number);
    const staged = names.includes(STAGE_NAME);
    if (names.length !== formers.length + (staged ? 1 : 0) || formers.length >= FORMER_MAX) return null;
    formers.sort((a, b) => b - a);
    if (staged) {
      const next = (formers[0] ?? 0) + 1;
      const to = pathBytes(FORMER_PREFIX + next);
      renameAt(fd, pathBytes(STAGE_NAME), fd, to, "no-replace");
      formers.unshift(next);
    }
    return formers.map((number) => `${holder}/${FORMER_PREFIX}${number}`);
  } finally {
    closeFd(fd);
  }
}

/** Refuses to touch what is not ours. Returns the folder around `path` and its name in it. */
export function splitOwnPath(
  path: string,
  prefix: string,
): { readonly parent: string; readonly name: string } {
  const cut = path.lastIndexOf("/");
  const name = path.slice(cut + 1);
  if (name.startsWith(prefix)) return { parent: path.slice(0, cut) || "/", name };
  throw new StateManagerError("internal", `delete ${path}: not a folder of ours, wanted ${prefix}…`);
}
