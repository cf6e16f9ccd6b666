/**
 * Where a restore may build its stage so that it can go live by renames, and what has to stay where it is. Looks at
 * the live root and the mounts; makes only the root's parent folders and our own `.sm-restore-…` folder.
 */

import { StateManagerError } from "../platform/errors.ts";
import { ensureFolder } from "../platform/files.ts";
import {
  AT_CWD,
  closeFd,
  isErrno,
  makeFolderAt,
  OPEN,
  openAt,
  openBeneath,
  type PathBytes,
  pathBytes,
  readAt,
  realFolder,
  setTimesAt,
  statAt,
  statIfPresent,
} from "../platform/libc_files.ts";
import type { Turns } from "../platform/turns.ts";
import { bytesOf, byteText, joinPath } from "./byte_text.ts";
import { CACHE_TAG, isCacheFolder } from "./cache_tag.ts";
import { type Excluder, excluderOf, isOwnName, keptPaths, relativeTo } from "./exclude.ts";
import { disposeHolder } from "./dispose.ts";
import { holderBeside, holderInside, makeHolder, OLD_NAME, reopenHolder, STAGE_NAME } from "./holder.ts";
import { listAllNames, managerTurns } from "./turns.ts";
import type { FilesRoot } from "./types.ts";

/** exchange: the whole folder changes its name at once. entries: one rename per entry, where that is impossible. */
export type SwapMode = "exchange" | "entries";

export interface SwapPlace {
  readonly mode: SwapMode;
  /** The live folder with symlinks resolved; it need not exist in mode "exchange". */
  readonly live: string;
  /** Folder of ours that holds stage and old; it exists, mode 0700. */
  readonly holder: string;
  /** Where TreeStager builds; does not exist yet. */
  readonly stage: string;
  /** Stages of the same restore that a stop or a crash left unfinished, newest first; to be verified before use. */
  readonly former: readonly string[];
  /** Where the old content goes; does not exist yet. */
  readonly old: string;
  /** Paths relative to the root, byte text, that stay: the data dir, a folder store, nested mounts. */
  readonly keep: readonly string[];
}

/** Refuses a root that must never be replaced. `keep` are absolute paths inside or outside of it. */
export function checkLiveRoot(live: string, keep: readonly string[] = []): void {
  const trimmed = live.replace(/\/+$/, "");
  const parts = trimmed.split("/").slice(1);
  const odd = !live.startsWith("/") || trimmed === "" || parts.some((part) => part === "." || part === "..");
  if (odd || keep.some((path) => relativeTo(live, path) === "")) {
    throw new StateManagerError(
      "invalid-request",
      `restore into "${live}": ${
        odd ? "is no folder below / by its plain absolute path" : "is a folder to keep"
      }`,
      { hint: "give the files root a folder of its own" },
    );
  }
}

/**
 * Finds the place for restore `id` of one root, whose `excludePaths` are what must stay. A restore of the same id that
 * was interrupted while it staged has left its holder: it is taken over.
 */
export async function findSwapPlace(root: FilesRoot, id: string): Promise<SwapPlace> {
  const live = await resolvedLive(root.path);
  const excludePaths = root.excludePaths.map((path) => followRoot(root.path, live, path));
  checkLiveRoot(live, excludePaths);
  const inPlace = stayingPaths(live, excludePaths);
  const stat = statIfPresent(AT_CWD, pathBytes(live));
  const cut = live.lastIndexOf("/");
  const parent = live.slice(0, cut) || "/";
  const wholeMoves = stat === null ||
    (!stat.mountRoot && !anyPresent(live, inPlace) && sameDevice(parent, stat.dev));
  if (wholeMoves) {
    const holder = holderBeside(live, id);
    const former = await openHolderIfPermitted(holder);
    if (former !== null) return placeIn("exchange", live, { holder, former, keep: inPlace });
  }
  const holder = holderInside(live, id);
  const former = await openHolder(holder);
  if (stat !== null) keepTime(live, stat.mtimeNs);
  return placeIn("entries", live, { holder, former, keep: inPlace });
}

/** A folder of ours that comes or goes is no change of the root. */
function keepTime(live: string, mtimeNs: bigint): void {
  try {
    setTimesAt(AT_CWD, pathBytes(live), mtimeNs);
  } catch (error) {
    if (!isErrno(error, "EPERM", "EACCES", "EROFS")) throw error;
  }
}

function placeIn(
  mode: SwapMode,
  live: string,
  place: Pick<SwapPlace, "holder" | "former" | "keep">,
): SwapPlace {
  const { holder } = place;
  return { mode, live, stage: `${holder}/${STAGE_NAME}`, old: `${holder}/${OLD_NAME}`, ...place };
}

/** Makes the holder or takes over what is there; the former stages in it. */
async function openHolder(holder: string): Promise<readonly string[]> {
  if (makeHolder(holder)) return [];
  const former = reopenHolder(holder);
  if (former !== null) return former;
  await disposeHolder(holder);
  makeFolderAt(AT_CWD, pathBytes(holder), 0o700);
  return [];
}

async function resolvedLive(path: string): Promise<string> {
  checkLiveRoot(path);
  const trimmed = path.replace(/\/+$/, "");
  const cut = trimmed.lastIndexOf("/");
  try {
    return textOf(realFolder(pathBytes(trimmed)));
  } catch (error) {
    if (!isErrno(error, "ENOENT")) throw error;
  }
  const parent = trimmed.slice(0, cut) || "/";
  await ensureFolder(parent);
  const real = textOf(realFolder(pathBytes(parent)));
  return `${real === "/" ? "" : real}/${trimmed.slice(cut + 1)}`;
}

/** `path` as it is below the resolved root. */
export function followRoot(configured: string, live: string, path: string): string {
  const inside = relativeTo(configured, path);
  return inside === null ? path : inside === "" ? live : `${live}/${inside}`;
}

function textOf(path: PathBytes): string {
  return new TextDecoder().decode(path);
}

function sameDevice(path: string, dev: bigint): boolean {
  return statAt(AT_CWD, pathBytes(path)).dev === dev;
}

/** Null where this user may not write in the parent: then the stage lies inside the root. */
async function openHolderIfPermitted(holder: string): Promise<readonly string[] | null> {
  try {
    return await openHolder(holder);
  } catch (error) {
    if (isErrno(error, "EACCES", "EPERM", "EROFS")) return null;
    throw error;
  }
}

/** Everything below `live` that must stay where it is, relative, as byte text: `keep`, nested mounts, lost+found. */
export function stayingPaths(live: string, keep: readonly string[]): string[] {
  const kept = keptPaths(live, keep).map((path) => byteText(pathBytes(path)));
  const mounted = statIfPresent(AT_CWD, pathBytes(live))?.mountRoot === true;
  return [...kept, ...nestedMounts(live), ...(mounted ? ["lost+found"] : [])];
}

/** Kept paths that are not there (a database's log, say) are no reason against moving the folder as a whole. */
export function anyPresent(live: string, paths: readonly string[]): boolean {
  return paths.some((path) => statIfPresent(AT_CWD, joinPath(pathBytes(live), bytesOf(path))) !== null);
}

/** Paths below `live` (byte text, relative) where something else is mounted; bind mounts of the same device, too. */
function nestedMounts(live: string): string[] {
  const unescaped = (path: string) =>
    path.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(parseInt(octal, 8)));
  return readProcText("/proc/self/mountinfo").split("\n").map((line) => unescaped(line.split(" ")[4] ?? ""))
    .map((mount) => relativeTo(byteText(pathBytes(live)), mount))
    .filter((path): path is string => path !== null && path !== "");
}

const PROC_READ_BYTES = 64 * 1024;

/** A file of /proc as byte text; it has no size, so it is read until nothing comes. */
function readProcText(path: string): string {
  const fd = openAt(AT_CWD, pathBytes(path), OPEN.read);
  try {
    const buffer = new Uint8Array(PROC_READ_BYTES);
    let text = "";
    for (let count = -1; count !== 0;) {
      count = readAt(fd, buffer, text.length);
      text += byteText(buffer.subarray(0, count));
    }
    return text;
  } finally {
    closeFd(fd);
  }
}

/** Topmost paths below the root (byte text) that its patterns leave out, and our own stale folder: none may be lost. */
export async function excludedIn(root: FilesRoot): Promise<string[]> {
  const walk = {
    excluded: excluderOf(root),
    caches: root.excludeCaches === true,
    deep: root.exclude.length > 0 || root.excludeCaches === true,
    found: [],
    turns: managerTurns(),
  };
  let rootFd: number;
  try {
    rootFd = openAt(AT_CWD, pathBytes(root.path), OPEN.read | OPEN.directory);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return []; // no live root: nothing to keep
    throw error;
  }
  try {
    await collectExcluded(rootFd, "", walk);
  } finally {
    closeFd(rootFd);
  }
  return walk.found;
}

interface ExcludedWalk {
  readonly excluded: Excluder;
  readonly caches: boolean;
  /** False without patterns: then only names at the top can be left out. */
  readonly deep: boolean;
  readonly found: string[];
  readonly turns: Turns;
}

async function collectExcluded(rootFd: number, folder: string, walk: ExcludedWalk): Promise<void> {
  const { excluded, caches, deep, found, turns } = walk;
  const fd = openBeneath(rootFd, bytesOf(folder), OPEN.read | OPEN.directory);
  const folders: string[] = [];
  try {
    const isCache = caches && folder !== "" && isCacheFolder(fd);
    for (const name of await listAllNames(fd, turns)) {
      const text = byteText(name);
      const path = folder === "" ? text : `${folder}/${text}`;
      if (isOwnName(text)) {
        if (text.startsWith(".sm-stale")) found.push(path);
        continue;
      }
      const stat = statIfPresent(fd, name);
      const isDirectory = stat?.type === "directory";
      if (isCache && text !== CACHE_TAG) found.push(path);
      else if (stat !== null && excluded(textOf(bytesOf(path)), isDirectory)) found.push(path);
      else if (isDirectory && !stat.mountRoot && deep) folders.push(path);
      const pause = turns.next();
      if (pause !== null) await pause;
    }
  } finally {
    closeFd(fd);
  }
  for (const path of folders) await collectExcluded(rootFd, path, walk);
}
