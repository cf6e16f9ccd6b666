/**
 * Makes staged trees live, all roots of a restore together. The journal is the commit point: before it is written
 * nothing live has changed, from then on every boot rolls the swap *forward* before anything starts. Each step looks
 * at what is there and does what is left, so a crash at any instruction is repaired by running the same code again.
 * The old content is moved, never deleted here: `finishSwaps` does that when the caller has recorded the new state.
 */

import * as v from "valibot";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import {
  parentOf,
  readTextIfPresent,
  removeIfPresent,
  syncFolder,
  writeFileAtomically,
} from "../platform/files.ts";
import {
  AT_CWD,
  closeFd,
  isErrno,
  LibcError,
  makeFolderAt,
  OPEN,
  openAt,
  type PathBytes,
  pathBytes,
  readAt,
  renameAt,
  setTimesAt,
  statAt,
  statIfPresent,
  syncFilesystemAside,
  unlinkAt,
  withFolder,
} from "../platform/libc_files.ts";
import { bytesOf, byteText, joinPath } from "./byte_text.ts";
import { disposeHolder, findLeftovers } from "./dispose.ts";
import { SQLITE_COMPANIONS } from "./graft.ts";
import { copyAttributes, moveEntries, type MoveOptions } from "./move_entries.ts";
import { isBelow } from "./path_filter.ts";
import {
  anyPresent,
  checkLiveRoot,
  excludedIn,
  followRoot,
  stayingPaths,
  type SwapPlace,
} from "./swap_place.ts";
import type { FilesRoot, FileWarning } from "./types.ts";
import { copyXattrs } from "./xattrs.ts";

const swapRootSchema = v.object({
  name: v.string(),
  /** paths: as entries, but only some. */
  mode: v.picklist(["exchange", "entries", "paths"]),
  live: v.string(),
  holder: v.string(),
  stage: v.string(),
  old: v.string(),
  /** exchange: swap → settle → done. entries, paths: out → in → done. Each is durable before its first rename. */
  phase: v.picklist(["swap", "settle", "out", "in", "done"]),
  /** Byte texts: what stays (entries), or comes back from the old tree (exchange). */
  keep: v.array(v.string()),
  attributes: v.object({ uid: v.number(), gid: v.number(), mode: v.number(), mtimeNs: v.string() }),
  /** Of mode "paths", byte texts: what is replaced, and the folders on the way there, which keep their times. */
  only: v.exactOptional(v.array(v.string())),
  folders: v.exactOptional(v.array(v.object({ path: v.string(), mtimeNs: v.string() }))),
});
const journalSchema = v.object({
  format: v.literal(1),
  id: v.string(),
  roots: v.array(swapRootSchema),
});

type SwapRoot = v.InferOutput<typeof swapRootSchema>;
/** What a crash leaves to do; `id` is the restore's. */
export type SwapJournal = v.InferOutput<typeof journalSchema>;

export interface SwapRequest {
  readonly journalPath: string;
  readonly id: string;
  /** Roots whose stage is complete and durable (`TreeStager.finish`), with nobody writing to the live trees. */
  readonly roots: readonly SwapItem[];
}

export interface SwapItem {
  readonly root: FilesRoot;
  readonly place: SwapPlace;
  /** Byte texts: nothing else of the root is touched. Left out: all of it goes. */
  readonly paths?: readonly string[];
}

export interface SwapOutcome {
  readonly journal: SwapJournal;
  readonly warnings: readonly FileWarning[];
}

/** Writes the journal and swaps. If it rejects after that, the next `rollSwaps` goes on; call it before anything else. */
export async function swapIn(request: SwapRequest): Promise<SwapOutcome> {
  if (await readJournal(request.journalPath) !== null) {
    throw new StateManagerError("busy", `swap restored files: ${request.journalPath} is there, wanted none`, {
      hint: "an earlier restore is not finished: start the manager again",
    });
  }
  const roots: SwapRoot[] = [];
  for (const item of request.roots) {
    roots.push(
      item.paths === undefined ? await planRoot(item, request.id) : await planPaths(item, item.paths),
    );
  }
  await writeJournal(request.journalPath, { format: 1, id: request.id, roots });
  const outcome = await rollSwaps(request.journalPath);
  if (outcome === null) throw new StateManagerError("internal", "swap restored files: the journal vanished");
  return outcome;
}

/**
 * Rolls an unfinished swap forward; null when there is none. Call it at boot before anything starts. When it
 * resolves, all roots are live and durable; record the new state, then call `finishSwaps`.
 */
export async function rollSwaps(journalPath: string): Promise<SwapOutcome | null> {
  const journal = await readJournal(journalPath);
  if (journal === null) return null;
  const warnings: FileWarning[] = [];
  for (const root of journal.roots) {
    checkLiveRoot(root.live);
    while (root.phase !== "done") {
      const unmoved = await step(root, journal.id);
      for (const path of unmoved) {
        warnings.push({ root: root.name, path, reason: "not restored: a kept path is here" });
      }
      await writeJournal(journalPath, journal);
    }
  }
  return { journal, warnings };
}

/**
 * Ends a swap that rolled to its end: deletes the old content (or leaves it in `.sm-restore-…/old`), then the journal.
 * Before the programs start, since it sets the roots' times. If we die here, the next boot does the rest.
 */
export async function finishSwaps(
  journalPath: string,
  options: { readonly keepOld: boolean },
): Promise<void> {
  const journal = await readJournal(journalPath);
  if (journal === null) return;
  const open = journal.roots.find((root) => root.phase !== "done");
  if (open !== undefined) {
    throw new StateManagerError(
      "wrong-state",
      `finish swap of "${open.name}": it is in phase ${open.phase}`,
      {
        hint: "roll the swap forward first",
      },
    );
  }
  if (!options.keepOld) { for (const root of journal.roots) await dispose(root); }
  await removeIfPresent(journalPath); // if we die before: the next boot disposes the rest
  await syncFolder(parentOf(journalPath));
}

/** In mode "entries" the holder lies in the root: deleting it must not show in the root's time. */
async function dispose(root: SwapRoot): Promise<void> {
  await disposeHolder(root.holder);
  withFolder(pathBytes(root.live), (fd) => setTimesOf(fd, root));
}

async function planRoot({ root, place }: SwapItem, id: string): Promise<SwapRoot> {
  const { mode, live, holder, stage, old } = place;
  const attributes = attributesOf(stage); // the marker would show in its time
  if (mode === "exchange") await makeMarker(stage, id);
  const excluded = await excludedOf(root, live);
  return {
    name: root.name,
    mode,
    live,
    holder,
    stage,
    old,
    phase: mode === "exchange" ? "swap" : "out",
    keep: mode === "exchange" ? excluded : [...new Set([...place.keep, ...excluded])],
    attributes,
  };
}

function attributesOf(folder: string): SwapRoot["attributes"] {
  const { uid, gid, mode, mtimeNs } = statAt(AT_CWD, pathBytes(folder));
  return { uid, gid, mode, mtimeNs: String(mtimeNs) };
}

function excludedOf(root: FilesRoot, live: string): Promise<string[]> {
  return excludedIn({
    ...root,
    path: live,
    excludePaths: root.excludePaths.map((path) => followRoot(root.path, live, path)),
  });
}

/** The live root is there: what stays of it was read a moment ago. Its own attributes, and its neighbours, stay. */
async function planPaths({ root, place }: SwapItem, paths: readonly string[]): Promise<SwapRoot> {
  const { live, holder, stage, old } = place;
  const only = replacedPaths(live, stage, paths);
  const above = new Set(only.flatMap(foldersAbove));
  const folders = [...above].sort().map((path) => {
    const { mtimeNs } = statAt(AT_CWD, joinPath(pathBytes(live), bytesOf(path)));
    return { path, mtimeNs: String(mtimeNs) };
  });
  return {
    name: root.name,
    mode: "paths",
    live,
    holder,
    stage,
    old,
    phase: "out",
    keep: [...new Set([...place.keep, ...await excludedOf(root, live)])],
    attributes: attributesOf(live),
    only,
    folders,
  };
}

/**
 * What goes out and comes in for `paths`: where the folders that lead to one are not there, the topmost of these, with
 * which the path itself comes; and what SQLite kept beside a database that is replaced.
 */
function replacedPaths(live: string, stage: string, paths: readonly string[]): string[] {
  const liveStat = (path: string) => statIfPresent(AT_CWD, joinPath(pathBytes(live), bytesOf(path)));
  const units = new Set<string>();
  for (const path of paths) {
    units.add(foldersAbove(path).find((folder) => liveStat(folder) === null) ?? path);
    if (!isSqliteFile(joinPath(pathBytes(stage), bytesOf(path)))) continue;
    for (const end of SQLITE_COMPANIONS) if (liveStat(path + end) !== null) units.add(path + end);
  }
  return [...units].filter((unit) => !isBelow(unit, [...units].filter((other) => other !== unit))).sort();
}

function isSqliteFile(path: PathBytes): boolean {
  if (statIfPresent(AT_CWD, path)?.type !== "file") return false;
  const fd = openAt(AT_CWD, path, OPEN.read | OPEN.noFollow);
  try {
    const magic = new Uint8Array(SQLITE_MAGIC.length);
    return readAt(fd, magic, 0) === magic.length && byteText(magic) === SQLITE_MAGIC;
  } finally {
    closeFd(fd);
  }
}

const SQLITE_MAGIC = "SQLite format 3\0";

/** Names the new tree from inside: wherever it is found after a crash, that folder is the restored one. */
function markerName(id: string): PathBytes {
  return pathBytes(`.sm-swap-${id}`);
}

async function makeMarker(stage: string, id: string): Promise<void> {
  withFolder(pathBytes(stage), (fd) => closeFd(openAt(fd, markerName(id), OPEN.write | OPEN.create, 0o600)));
  await syncFolder(stage);
}

async function step(root: SwapRoot, id: string): Promise<readonly string[]> {
  switch (root.phase) {
    case "swap":
      await exchange(root, id);
      return [];
    case "settle":
      await settle(root, id);
      root.phase = "done";
      return [];
    case "out":
      await moveOut(root);
      root.phase = "in";
      return [];
    case "in": {
      const unmoved = await moveIn(root);
      root.phase = "done";
      return unmoved;
    }
    case "done":
      return [];
  }
}

function hasMarker(folder: string, id: string): boolean {
  return statIfPresent(AT_CWD, pathBytes(`${folder}/.sm-swap-${id}`)) !== null;
}

/** Sets the phase that follows: "settle", or "out" where this filesystem or mount does not let the folder be renamed. */
async function exchange(root: SwapRoot, id: string): Promise<void> {
  const live = pathBytes(root.live);
  const stage = pathBytes(root.stage);
  if (!hasMarker(root.live, id)) {
    if (!hasMarker(root.stage, id)) throw lostStage(root);
    try {
      if (statIfPresent(AT_CWD, live) === null) renameAt(AT_CWD, stage, AT_CWD, live, "no-replace");
      else exchangeOrTwoRenames(live, stage, pathBytes(root.old));
    } catch (error) {
      if (!isErrno(error, "EBUSY", "EXDEV")) throw error;
      if (statIfPresent(AT_CWD, live) === null) throw error;
      root.mode = "entries";
      root.phase = "out";
      return;
    }
  }
  await syncFolder(parentOf(root.live));
  await syncFolder(root.holder);
  root.phase = "settle";
}

function exchangeOrTwoRenames(live: PathBytes, stage: PathBytes, old: PathBytes): void {
  try {
    renameAt(AT_CWD, stage, AT_CWD, live, "exchange");
  } catch (error) {
    if (!isErrno(error, "EINVAL", "ENOSYS")) throw error;
    // A filesystem without exchange. If we die between the two, the live name is missing and the roll goes on.
    renameAt(AT_CWD, live, AT_CWD, old, "replace");
    renameAt(AT_CWD, stage, AT_CWD, live, "replace");
  }
}

function lostStage(root: SwapRoot): StateManagerError {
  return new StateManagerError(
    "data-damaged",
    `swap files "${root.name}": the restored tree is neither in ${root.stage} nor in ${root.live}`,
    {
      hint:
        `the old content is in ${root.holder} or ${root.live}; move what you need, then remove the journal`,
    },
  );
}

/** After an exchange the old tree has the stage's name. Brings back what the root's patterns leave out. */
async function settle(root: SwapRoot, id: string): Promise<void> {
  const stage = pathBytes(root.stage);
  const old = pathBytes(root.old);
  if (statIfPresent(AT_CWD, stage) !== null) renameAt(AT_CWD, stage, AT_CWD, old, "no-replace");
  for (const kept of root.keep) carryBack(old, pathBytes(root.live), kept);
  withFolder(pathBytes(root.live), (fd) => {
    if (statIfPresent(fd, markerName(id)) !== null) unlinkAt(fd, markerName(id));
    setTimesOf(fd, root);
  });
  await syncFolder(root.live);
  await syncFolder(root.holder);
}

function setTimesOf(fd: number, root: SwapRoot): void {
  setTimesIfPermitted(fd, pathBytes("."), root.attributes.mtimeNs);
}

function setTimesIfPermitted(fd: number, path: PathBytes, mtimeNs: string): void {
  try {
    setTimesAt(fd, path, BigInt(mtimeNs));
  } catch (error) {
    if (!isErrno(error, "EPERM", "EACCES")) throw error;
  }
}

/** With the folders that lead to it, where the restored tree does not have them. What it has in that place stays old. */
function carryBack(old: PathBytes, live: PathBytes, path: string): void {
  withFolder(old, (oldFd) =>
    withFolder(live, (liveFd) => {
      try {
        if (statIfPresent(oldFd, bytesOf(path)) === null) return; // carried back before a crash
        const made = foldersAbove(path).filter((folder) => makeFolderOnce(liveFd, bytesOf(folder)))
          .map((folder) => ({ name: bytesOf(folder), stat: statAt(oldFd, bytesOf(folder)) }));
        renameAt(oldFd, bytesOf(path), liveFd, bytesOf(path), "no-replace");
        // The innermost first. If we die before: a folder of ours alone, with what was left out of the checkpoint.
        for (const { name, stat } of made.reverse()) {
          copyXattrs({ folderFd: oldFd, name }, { folderFd: liveFd, name });
          copyAttributes(liveFd, name, stat);
        }
      } catch (error) {
        if (!isErrno(error, "ENOENT", "ENOTDIR", "EEXIST", "EXDEV", "EBUSY")) throw error;
      }
    }));
}

/** Topmost first. */
function foldersAbove(path: string): string[] {
  return [...path.matchAll(/\//g)].map(({ index }) => path.slice(0, index));
}

/** False: something is there. */
function makeFolderOnce(folderFd: number, path: PathBytes): boolean {
  try {
    makeFolderAt(folderFd, path, 0o700);
    return true;
  } catch (error) {
    if (isErrno(error, "EEXIST")) return false;
    throw error;
  }
}

async function moveOut(root: SwapRoot): Promise<void> {
  makeFolderIfMissing(pathBytes(root.old));
  const options = { ...scopeOf(root), displacedTo: null };
  await moveEntries(pathBytes(root.live), pathBytes(root.old), options);
  // All of it is durable before the journal says "in": a roll of "out" after that would move new entries out.
  await syncFilesystemOf(root.live);
}

async function moveIn(root: SwapRoot): Promise<readonly string[]> {
  const live = pathBytes(root.live);
  const options = { ...scopeOf(root), displacedTo: pathBytes(root.old) };
  const unmoved = await moveEntries(pathBytes(root.stage), live, options);
  withFolder(live, (fd) => {
    if (root.mode === "paths") return keepTimes(fd, root);
    withFolder(pathBytes(root.stage), (stageFd) => copyXattrs(stageFd, fd));
    const attributes = { ...root.attributes, mtimeNs: BigInt(root.attributes.mtimeNs) };
    copyAttributes(fd, new Uint8Array(0), attributes);
  });
  await syncFilesystemOf(root.live);
  return unmoved;
}

function scopeOf({ keep, only }: SwapRoot): Pick<MoveOptions, "keep" | "only"> {
  return { keep: new Set(keep), ...(only === undefined ? {} : { only }) };
}

/** Moving things out of and into a folder changed its time; nothing else of it is other than before. */
function keepTimes(fd: number, root: SwapRoot): void {
  for (const { path, mtimeNs } of root.folders ?? []) setTimesIfPermitted(fd, bytesOf(path), mtimeNs);
  setTimesOf(fd, root);
}

async function syncFilesystemOf(folder: string): Promise<void> {
  const path = pathBytes(folder);
  const fd = openAt(AT_CWD, path, OPEN.read | OPEN.directory);
  try {
    await syncFilesystemAside(fd, path);
  } finally {
    closeFd(fd);
  }
}

function makeFolderIfMissing(path: PathBytes): void {
  makeFolderOnce(AT_CWD, path);
}

async function readJournal(path: string): Promise<SwapJournal | null> {
  const text = await readTextIfPresent(path);
  if (text === null) return null;
  try {
    return v.parse(journalSchema, JSON.parse(text));
  } catch (error) {
    throw new StateManagerError("data-damaged", `read swap journal ${path}: not a journal of this version`, {
      hint: "use the version that wrote it, or look into the folders .sm-restore-… and remove the journal",
      cause: asStateManagerError(error),
    });
  }
}

function writeJournal(path: string, journal: SwapJournal): Promise<void> {
  return writeFileAtomically(path, JSON.stringify(journal, null, 2) + "\n");
}

/**
 * Moves the whole live content aside without deleting anything: to `aside` by one rename where that works, else
 * entry by entry into `<live>/.sm-stale/<time>` on the same filesystem. Returns where it is now.
 */
export async function moveAside(
  options: {
    readonly live: string;
    readonly aside: string;
    readonly time: string;
    readonly keep: readonly string[];
  },
): Promise<string> {
  const { live, aside, time } = options;
  checkLiveRoot(live, options.keep);
  const livePath = pathBytes(live);
  const kept = stayingPaths(live, options.keep);
  // A stage of ours inside must stay reachable, too.
  const staged = (await findLeftovers(live)).some((path) => path.startsWith(`${live}/`));
  if (!staged && !anyPresent(live, kept)) {
    try {
      renameAt(AT_CWD, livePath, AT_CWD, pathBytes(aside), "no-replace");
      return aside;
    } catch (error) {
      // EINVAL: the target lies inside the live root. ENOTDIR and the like are real.
      if (
        !(error instanceof LibcError) ||
        !["EXDEV", "EBUSY", "EINVAL", "EACCES", "EPERM"].includes(error.errno)
      ) {
        throw error;
      }
    }
  }
  const stale = `${live}/.sm-stale`;
  makeFolderIfMissing(pathBytes(stale));
  const target = `${stale}/${time}`;
  makeFolderIfMissing(pathBytes(target));
  await moveEntries(livePath, pathBytes(target), { keep: new Set(kept), displacedTo: null });
  await syncFilesystemOf(live);
  return target;
}
