/**
 * Makes staged trees live, all roots of a restore together. The journal is the commit point: before it is written
 * nothing live has changed, from then on every boot rolls the swap *forward* before anything starts. Each step looks
 * at what is there and does what is left, so a crash at any instruction is repaired by running the same code again.
 * The old content is moved, never deleted here: `finishSwaps` does that when the caller has recorded the new state.
 */

import * as v from "valibot";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { readTextIfPresent, removeIfPresent, syncFolder, writeFileAtomically } from "../platform/files.ts";
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
  renameAt,
  setTimesAt,
  statAt,
  statIfPresent,
  syncFilesystemAside,
  unlinkAt,
  withFolder,
} from "../platform/libc_files.ts";
import { bytesOf } from "./byte_text.ts";
import { disposeHolder, findLeftovers } from "./dispose.ts";
import { copyAttributes, moveEntries } from "./move_entries.ts";
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
  mode: v.picklist(["exchange", "entries"]),
  live: v.string(),
  holder: v.string(),
  stage: v.string(),
  old: v.string(),
  /** exchange: swap → settle → done. entries: out → in → done. Each is durable before its first rename. */
  phase: v.picklist(["swap", "settle", "out", "in", "done"]),
  /** Byte texts: what stays (entries), or comes back from the old tree (exchange). */
  keep: v.array(v.string()),
  attributes: v.object({ uid: v.number(), gid: v.number(), mode: v.number(), mtimeNs: v.string() }),
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
  readonly roots: readonly { readonly root: FilesRoot; readonly place: SwapPlace }[];
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
  for (const { root, place } of request.roots) roots.push(await planRoot(root, place, request.id));
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

async function planRoot(root: FilesRoot, place: SwapPlace, id: string): Promise<SwapRoot> {
  const { mode, live, holder, stage, old } = place;
  const stagePath = pathBytes(stage);
  const { uid, gid, mode: bits, mtimeNs } = statAt(AT_CWD, stagePath);
  if (mode === "exchange") await makeMarker(stage, id);
  const excluded = await excludedIn({
    ...root,
    path: live,
    excludePaths: root.excludePaths.map((path) => followRoot(root.path, live, path)),
  });
  return {
    name: root.name,
    mode,
    live,
    holder,
    stage,
    old,
    phase: mode === "exchange" ? "swap" : "out",
    keep: mode === "exchange" ? excluded : [...new Set([...place.keep, ...excluded])],
    attributes: { uid, gid, mode: bits, mtimeNs: String(mtimeNs) },
  };
}

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
  for (const kept of root.keep) carryBack(old, pathBytes(root.live), bytesOf(kept));
  withFolder(pathBytes(root.live), (fd) => {
    if (statIfPresent(fd, markerName(id)) !== null) unlinkAt(fd, markerName(id));
    setTimesOf(fd, root);
  });
  await syncFolder(root.live);
  await syncFolder(root.holder);
}

function setTimesOf(fd: number, root: SwapRoot): void {
  try {
    setTimesAt(fd, pathBytes("."), BigInt(root.attributes.mtimeNs));
  } catch (error) {
    if (!isErrno(error, "EPERM", "EACCES")) throw error;
  }
}

/** What a restored entry has replaced, or whose folder is gone, stays in the old tree. */
function carryBack(old: PathBytes, live: PathBytes, path: PathBytes): void {
  try {
    withFolder(
      old,
      (oldFd) => withFolder(live, (liveFd) => renameAt(oldFd, path, liveFd, path, "no-replace")),
    );
  } catch (error) {
    if (!isErrno(error, "ENOENT", "ENOTDIR", "EEXIST", "EXDEV", "EBUSY")) throw error;
  }
}

async function moveOut(root: SwapRoot): Promise<void> {
  makeFolderIfMissing(pathBytes(root.old));
  const options = { keep: new Set(root.keep), displacedTo: null };
  await moveEntries(pathBytes(root.live), pathBytes(root.old), options);
  // All of it is durable before the journal says "in": a roll of "out" after that would move new entries out.
  await syncFilesystemOf(root.live);
}

async function moveIn(root: SwapRoot): Promise<readonly string[]> {
  const live = pathBytes(root.live);
  const options = { keep: new Set(root.keep), displacedTo: pathBytes(root.old) };
  const unmoved = await moveEntries(pathBytes(root.stage), live, options);
  withFolder(live, (fd) => {
    withFolder(pathBytes(root.stage), (stageFd) => copyXattrs(stageFd, fd));
    const attributes = { ...root.attributes, mtimeNs: BigInt(root.attributes.mtimeNs) };
    copyAttributes(fd, new Uint8Array(0), attributes);
  });
  await syncFilesystemOf(root.live);
  return unmoved;
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
  try {
    makeFolderAt(AT_CWD, path, 0o700);
  } catch (error) {
    if (!isErrno(error, "EEXIST")) throw error;
  }
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/")) || "/";
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
