/**
 * Puts restored databases in the place of what is there, several together, and moves what is there aside. Nothing local
 * is deleted: the database, its WAL, its shared memory and its rollback journal go into one folder, where SQLite can
 * open them as they were.
 *
 * The danger is a new database beside an old `-wal` or `-journal`: SQLite would take it for the new one's own and
 * destroy it. So the old companions are gone from the live names, durably, before the new file gets its name.
 *
 * The journal is the commit point: before it is written nothing live has changed; from then on every start rolls the
 * swap forward before anything opens the database. Each step looks at what is there and does what is left, so that a
 * crash at any instruction is repaired by running the same code again. For one database, if we die …
 *   after the journal            – the old database is live and whole; the roll begins;
 *   while linking aside          – the same, and the folder aside has second names of some of its files;
 *   after the aside is durable   – the same; all of it is safe, whatever becomes of the live names;
 *   while the live names go      – the database first, so that no part of it is found without the rest; what is left is
 *                                  a companion without a database, whose second name is aside;
 *   after they are gone, durably – no database of that name: a missing one, never a wrong one;
 *   after the new one's rename   – the new database, alone. The stage is gone, by which the roll knows;
 *   before the journal goes      – the same: the roll finds nothing to do.
 * Where the file system has no second names, the old files are renamed instead, the database first.
 */

import * as v from "valibot";
import { osErrorOf } from "../platform/errno.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import {
  ensureFolder,
  localFileError,
  readTextIfPresent,
  removeIfPresent,
  syncFolder,
  writeFileAtomically,
} from "../platform/files.ts";
import { isMissing, type LocalFiles, systemFiles } from "../platform/local_files.ts";

/** The database itself first: see the crash argument above. */
const SUFFIXES = ["", "-wal", "-shm", "-journal"] as const;

const itemSchema = v.object({
  name: v.string(),
  /** Real path of the database file. */
  live: v.string(),
  /** The restored file, on the same file system; null: only move aside what is live. */
  stage: v.nullable(v.string()),
  /** Number of the stage's file: wherever it is found after a crash, that file is the restored one. 0: unknown. */
  inode: v.number(),
  /** Wanted folder for what was live. */
  aside: v.string(),
  /** The caller's own, given back by the roll. */
  note: v.unknown(),
});
const journalSchema = v.object({ format: v.literal(1), id: v.string(), items: v.array(itemSchema) });

type SwapItem = v.InferOutput<typeof itemSchema>;
/** What a crash leaves to do; `id` is the restore's. */
export type DatabaseSwapJournal = v.InferOutput<typeof journalSchema>;

export interface DatabaseSwapItem {
  readonly name: string;
  /** Real path, no symlink in it: SQLite keeps the companions beside the real file. */
  readonly live: string;
  /** Complete and durable, in the folder of `live`; null: nothing takes its place. */
  readonly stage: string | null;
  /** Wanted folder for what was live, new, for this database alone. */
  readonly aside: string;
  /** Plain data that whoever rolls it forward after a crash needs to know. */
  readonly note?: unknown;
}

export interface DatabaseSwapRequest {
  readonly journalPath: string;
  readonly id: string;
  /** Nobody has these databases open. */
  readonly items: readonly DatabaseSwapItem[];
}

export interface DatabaseSwapOutcome {
  readonly journal: DatabaseSwapJournal;
  /** Name → folder with what was live, for those where something was. */
  readonly movedAside: Readonly<Record<string, string>>;
}

/** Where the restored file of the database at `live` is built: one name, so that what a crash leaves is found again. */
export function stagePathOf(live: string): string {
  const { folder, base } = split(live);
  return `${folder}/.sm-swap-database-${base}`;
}

/** Writes the journal and swaps. If it rejects after that, the next `rollDatabaseSwaps` goes on; call that before all else. */
export async function swapDatabases(
  request: DatabaseSwapRequest,
  files: LocalFiles = systemFiles,
): Promise<DatabaseSwapOutcome> {
  const { journalPath, id } = request;
  if (await readTextIfPresent(journalPath, files) !== null) {
    throw new StateManagerError("busy", `swap restored databases: ${journalPath} is there, wanted none`, {
      hint: "an earlier restore is not finished: start the manager again",
    });
  }
  const items: SwapItem[] = [];
  for (const item of request.items) items.push(await planItem(item, files));
  const journal: DatabaseSwapJournal = { format: 1, id, items };
  await writeFileAtomically(journalPath, JSON.stringify(journal, null, 2) + "\n", { files });
  return await roll(journal, files);
}

/** Rolls an unfinished swap forward; null when there is none. Record the new state, then call `finishDatabaseSwaps`. */
export async function rollDatabaseSwaps(
  journalPath: string,
  files: LocalFiles = systemFiles,
): Promise<DatabaseSwapOutcome | null> {
  const journal = await readJournal(journalPath, files);
  return journal === null ? null : await roll(journal, files);
}

/** Ends a swap that rolled to its end. Before programs start: from then on the live names are theirs. */
export async function finishDatabaseSwaps(
  journalPath: string,
  files: LocalFiles = systemFiles,
): Promise<void> {
  await removeIfPresent(journalPath, files);
  await syncFolder(split(journalPath).folder, files);
}

async function roll(journal: DatabaseSwapJournal, files: LocalFiles): Promise<DatabaseSwapOutcome> {
  const movedAside: Record<string, string> = {};
  for (const item of journal.items) {
    try {
      if (item.stage === null || await isPresent(item.stage, files)) {
        await moveAside(item, files);
        if (item.stage !== null) await place(item, item.stage, files);
      } else {
        await checkPlaced(item, files);
      }
      for (const aside of asideFolders(item)) {
        if (await hasNames(aside, files)) movedAside[item.name] = aside;
      }
    } catch (error) {
      throw swapError(item, error);
    }
  }
  return { journal, movedAside };
}

function swapError({ name, live }: SwapItem, error: unknown): StateManagerError {
  if ([16, 18].includes(osErrorOf(error) ?? 0)) { // EBUSY, EXDEV
    return new StateManagerError("local-io", `swap restored database "${name}": ${live} cannot be moved`, {
      hint: "a database file that is mounted by itself can't be replaced: mount its folder",
      cause: error,
    });
  }
  return localFileError(`swap restored database "${name}"`, error);
}

async function planItem(item: DatabaseSwapItem, files: LocalFiles): Promise<SwapItem> {
  const { name, stage } = item;
  const note = item.note ?? null;
  if (stage === null) return { ...item, note, inode: 0 };
  try {
    return { ...item, note, inode: (await files.stat(stage)).inode };
  } catch (error) {
    throw localFileError(`swap restored database "${name}": stat ${stage}`, error);
  }
}

/** Where the old content may go: as wanted, or on the file system of the database. */
function asideFolders({ live, aside }: SwapItem): readonly [string, string] {
  const timeAndName = aside.split("/").slice(-2).join("/");
  return [aside, `${split(live).folder}/.sm-stale/${timeAndName}`];
}

interface AsidePlace {
  readonly folder: string;
  readonly how: "link" | "rename";
}

async function findAside(item: SwapItem, files: LocalFiles): Promise<AsidePlace> {
  for (const folder of asideFolders(item)) {
    await ensureFolder(folder, 0o700, files);
    const how = await probeAside(split(item.live).folder, folder, files);
    if (how !== null) return { folder, how };
    await files.remove(folder).catch(() => {}); // an empty folder would only puzzle people
  }
  throw new StateManagerError(
    "local-io",
    `swap restored database "${item.name}": nothing can be moved within its folder`,
    { hint: `check that ${split(item.live).folder} is one writable file system` },
  );
}

/** Left by a crash, it is found under the same name again. */
const PROBE = ".sm-swap-database-probe";

/** How a file gets from one folder to the other; null when it cannot without being copied. */
async function probeAside(
  fromFolder: string,
  toFolder: string,
  files: LocalFiles,
): Promise<AsidePlace["how"] | null> {
  const [from, to] = [`${fromFolder}/${PROBE}`, `${toFolder}/${PROBE}`];
  await removeIfPresent(from, files);
  await removeIfPresent(to, files);
  (await files.create(from, 0o600))[Symbol.dispose]();
  try {
    for (const how of ["link", "rename"] as const) {
      try {
        await files[how](from, to);
        return how;
      } catch {
        // The other way, or the other folder; what is wrong with the disk itself shows again at once.
      }
    }
    return null;
  } finally {
    await removeIfPresent(from, files);
    await removeIfPresent(to, files);
  }
}

async function moveAside(item: SwapItem, files: LocalFiles): Promise<void> {
  const present: string[] = [];
  for (const suffix of SUFFIXES) if (await isPresent(item.live + suffix, files)) present.push(suffix);
  if (present.length === 0) return;
  const { folder, how } = await findAside(item, files);
  const path = await freeName(item, folder, present, files);
  for (const suffix of present) {
    if (how === "rename") await files.rename(item.live + suffix, path + suffix);
    else if (!await isPresent(path + suffix, files)) await files.link(item.live + suffix, path + suffix);
  }
  await files.syncFolder(folder); // from here on the old content is safe
  if (how === "link") { for (const suffix of present) await files.remove(item.live + suffix); }
  // and from here on no old companion can come back beside the new database
  await files.syncFolder(split(item.live).folder);
}

/**
 * The database's path aside, one for it and its companions: each name is free, or is the second name that an earlier
 * roll gave the same file. A program that was started by hand after a crash may have made a database anew: then
 * `app.db.1`, and so on.
 */
async function freeName(
  item: SwapItem,
  folder: string,
  suffixes: readonly string[],
  files: LocalFiles,
): Promise<string> {
  const { base } = split(item.live);
  for (let number = 0;; number++) {
    const path = `${folder}/${base}${number === 0 ? "" : `.${number}`}`;
    let free = true;
    for (const suffix of suffixes) free &&= await isFreeOrSame(item.live + suffix, path + suffix, files);
    if (free) return path;
  }
}

async function isFreeOrSame(from: string, to: string, files: LocalFiles): Promise<boolean> {
  if (!await isPresent(to, files)) return true;
  const { inode } = await files.stat(from);
  return inode !== 0 && (await files.stat(to)).inode === inode;
}

/** Nothing has the live names any more. */
async function place(item: SwapItem, stage: string, files: LocalFiles): Promise<void> {
  await files.rename(stage, item.live);
  await files.syncFolder(split(item.live).folder);
}

/** The stage is gone: the live file must be it, and its companions, if any, are its own. */
async function checkPlaced(item: SwapItem, files: LocalFiles): Promise<void> {
  if (await isPresent(item.live, files)) {
    const { inode } = await files.stat(item.live);
    if (inode === item.inode || item.inode === 0) {
      // Its name may be there without being durable: the process died between the rename and the sync.
      return await files.syncFolder(split(item.live).folder);
    }
  }
  throw new StateManagerError(
    "data-damaged",
    `swap restored database "${item.name}": the restored file is neither ${item.stage} nor ${item.live}`,
    {
      hint:
        `what was there before is in ${item.aside}; move what you need, then remove the journal of the swap`,
    },
  );
}

async function hasNames(folder: string, files: LocalFiles): Promise<boolean> {
  try {
    return (await files.list(folder)).length > 0;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

async function isPresent(path: string, files: LocalFiles): Promise<boolean> {
  try {
    await files.stat(path);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

async function readJournal(path: string, files: LocalFiles): Promise<DatabaseSwapJournal | null> {
  const text = await readTextIfPresent(path, files);
  if (text === null) return null;
  try {
    return v.parse(journalSchema, JSON.parse(text));
  } catch (error) {
    throw new StateManagerError("data-damaged", `read swap journal ${path}: not a journal of this version`, {
      hint:
        "use the version that wrote it; the restored files are beside the databases, as .sm-swap-database-…",
      cause: asStateManagerError(error),
    });
  }
}

function split(path: string): { readonly folder: string; readonly base: string } {
  const slash = path.lastIndexOf("/");
  return { folder: path.slice(0, slash) || "/", base: path.slice(slash + 1) };
}
