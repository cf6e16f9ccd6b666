/** Damaged local files are moved aside, never deleted at once: an operator may want to look at them. */

/** A second look needs one or two; a disk that damages files again and again must not fill itself. */
const KEPT = 2;

const LABEL = ".damaged-";

function split(path: string): { folder: string; name: string } {
  const slash = path.lastIndexOf("/");
  return { folder: path.slice(0, slash) || "/", name: path.slice(slash + 1) };
}

/** True when something is there. */
export function isPresent(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/**
 * Renames `path` and its companions (`path` + suffix) to `path.damaged-<stamp>…`, keeps the newest two of these.
 * Companions first: if we die in between, a database without its WAL is found damaged or old again and moved next time.
 */
export function setAside(path: string, suffixes: readonly string[], stamp: string): void {
  const { folder, name } = split(path);
  for (const suffix of [...suffixes, ""]) {
    if (isPresent(path + suffix)) Deno.renameSync(path + suffix, `${path}${LABEL}${stamp}${suffix}`);
  }
  const stamps = new Set<string>();
  const old = [...Deno.readDirSync(folder)].map((entry) => entry.name).filter((each) =>
    each.startsWith(name + LABEL)
  );
  const stampOf = (each: string) => each.slice((name + LABEL).length).replace(/-(wal|shm|journal)$/, "");
  for (const each of old) stamps.add(stampOf(each));
  const doomed = new Set([...stamps].sort().slice(0, -KEPT));
  for (const each of old) if (doomed.has(stampOf(each))) Deno.removeSync(`${folder}/${each}`);
}
