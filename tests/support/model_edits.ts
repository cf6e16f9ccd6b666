/**
 * Edits of a tree, as programs make them, chosen by numbers; and what a tree is then, told by programs that share no code
 * with the product. Databases count by what SQLite reads in them, the log that a killed program left included.
 */

import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { listRows } from "./tree_listing.ts";
import { noise } from "./kept_repository.ts";
import { listXattrLines, python } from "./xattr_model.ts";

export const EDITS = [
  "write",
  "append",
  "rewrite",
  "sparse",
  "remove",
  "rename",
  "hard-link",
  "symlink",
  "mode",
  "folder",
  "xattr",
  "rows",
  "killed-rows",
  "no-database",
] as const;

export interface Edit {
  readonly kind: typeof EDITS[number];
  /** Which file, folder or database of those that there are. */
  readonly which: number;
  readonly where: number;
  readonly size: number;
}

/** Databases are in the root itself, with names of their own, and only their own edits touch them. */
const DATABASE = /^db\d\.db(-wal|-shm)?$/;
const DATABASES = 2;
const COLUMN = { path: 0, type: 1, size: 6, hash: 8, group: 9 } as const;

/** Paths of files and folders whose names are text; Deno shows no others. */
function pathsIn(root: string): { files: string[]; folders: string[] } {
  const [files, folders]: [string[], string[]] = [[], [root]];
  for (const folder of folders) {
    for (
      const { name, isDirectory, isFile } of [...Deno.readDirSync(folder)].sort((a, b) =>
        a.name < b.name ? -1 : 1
      )
    ) {
      if (name.includes("\ufffd") || (folder === root && DATABASE.test(name))) continue;
      if (isDirectory && folder.length < 600) folders.push(`${folder}/${name}`);
      if (isFile) files.push(`${folder}/${name}`);
    }
  }
  return { files, folders };
}

let names = 0;

export async function applyEdit(root: string, edit: Edit): Promise<void> {
  const { files, folders } = pathsIn(root);
  const file = files[edit.which % Math.max(1, files.length)];
  const folder = folders[edit.where % folders.length] ?? root;
  const fresh = `${folder}/e${++names}`;
  if (editDatabase(root, edit)) return;
  if (edit.kind === "write") Deno.writeFileSync(fresh, noise(edit.which, edit.size));
  else if (edit.kind === "folder") Deno.mkdirSync(fresh);
  else if (edit.kind === "symlink") Deno.symlinkSync(["nowhere", "../e1", "/"][edit.which % 3] ?? "", fresh);
  else if (edit.kind === "sparse") makeSparse(fresh, edit);
  else if (edit.kind === "remove" || edit.kind === "rename") {
    moveOrRemove([...files, ...folders.slice(1)], fresh, edit);
  } else if (file !== undefined) await editFile(file, fresh, edit);
}

function makeSparse(path: string, { size, which }: Edit): void {
  using file = Deno.openSync(path, { write: true, create: true });
  file.truncateSync(3_000_000 + size);
  file.seekSync((which % 20) * 131_072, Deno.SeekMode.Start);
  file.writeSync(noise(which, 5000));
}

function moveOrRemove(all: readonly string[], fresh: string, { kind, which }: Edit): void {
  const path = all[which % Math.max(1, all.length)];
  if (path === undefined) return;
  if (kind === "remove") Deno.removeSync(path, { recursive: true });
  else if (!fresh.startsWith(`${path}/`)) Deno.renameSync(path, fresh);
}

async function editFile(file: string, fresh: string, { kind, which, size }: Edit): Promise<void> {
  const { mode, size: before, atime, mtime } = Deno.statSync(file);
  if (kind === "hard-link") return Deno.linkSync(file, fresh);
  if (kind === "mode") return Deno.chmodSync(file, [0o600, 0o644, 0o4755, 0o2710][which % 4] ?? 0o600);
  if (kind === "xattr") return await giveOne(file, size);
  Deno.chmodSync(file, (mode ?? 0) & 0o7777 | 0o600);
  if (kind === "append") return Deno.writeFileSync(file, noise(which, size), { append: true });
  // Of a few bytes, with size and time kept: only ctime tells.
  using open = Deno.openSync(file, { write: true });
  open.writeSync(noise(which, Math.min(before, 100)));
  open.utimeSync(atime ?? 0, mtime ?? 0);
}

async function giveOne(file: string, size: number): Promise<void> {
  if (python === null) return;
  const script = `import os, sys\nos.setxattr(sys.argv[1], "user.edit", b"x" * ${size % 200})`;
  const { success, stderr } = await new Deno.Command(python, { args: ["-c", script, file] }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

/** True when it was one of a database. */
function editDatabase(root: string, { kind, which, size }: Edit): boolean {
  const path = `${root}/db${which % DATABASES}.db`;
  if (kind === "no-database") { for (const end of ["-wal", "-shm", ""]) removeIfThere(path + end); }
  else if (kind === "rows") addRows(path, size, which);
  else if (kind === "killed-rows") {
    // What a program that is killed in the middle of its life leaves: committed rows in the log, the log not folded in.
    const copy = `${Deno.makeTempDirSync({ prefix: "sm-model-" })}/x.db`;
    for (const end of ["", "-wal"]) copyIfThere(path + end, copy + end);
    addRows(copy, size, which, () => {
      removeIfThere(`${path}-shm`);
      for (const end of ["", "-wal"]) copyIfThere(copy + end, path + end);
    });
    Deno.removeSync(copy.slice(0, -"/x.db".length), { recursive: true });
  } else return false;
  return true;
}

function addRows(path: string, size: number, seed: number, before: () => void = () => {}): void {
  const database = new DatabaseSync(path);
  try {
    database.exec(
      "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)",
    );
    const insert = database.prepare("INSERT INTO t(body) VALUES (?)");
    for (let i = 0; i < 3; i++) insert.run(noise(seed + i, size % 20_000));
    before();
  } finally {
    database.close();
  }
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function copyIfThere(from: string, to: string): void {
  removeIfThere(to);
  try {
    Deno.copyFileSync(from, to);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Rows and integrity, by a copy of the files: an original that is opened is changed. */
function contentOf(path: string): string {
  const folder = Deno.makeTempDirSync({ prefix: "sm-model-" });
  try {
    for (const end of ["", "-wal"]) copyIfThere(path + end, `${folder}/x.db${end}`);
    const database = new DatabaseSync(`${folder}/x.db`);
    try {
      const hash = createHash("sha256");
      const check = database.prepare("PRAGMA integrity_check").get()?.["integrity_check"];
      for (const row of database.prepare("SELECT id, body FROM t ORDER BY id").all()) {
        hash.update(`${row["id"]} `).update(row["body"] as Uint8Array);
      }
      return `${check} ${hash.digest("hex")}`;
    } finally {
      database.close();
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** One line for each entry (JSON of its columns) and for each extended attribute. */
export async function modelOf(root: string): Promise<readonly string[]> {
  const rows = (await listRows(root)).filter(([path = ""]) => !/^db\d\.db-(wal|shm)$/.test(path));
  for (const row of rows) {
    const path = row[COLUMN.path] ?? "";
    if (!DATABASE.test(path)) continue;
    row[COLUMN.size] = "";
    row[COLUMN.hash] = contentOf(`${root}/${path}`);
  }
  const xattrs = python === null
    ? []
    : (await listXattrLines(root)).filter((line) => !/^\('db\d\.db-/.test(line));
  return [...rows.map((row) => JSON.stringify(row)), ...xattrs];
}

/** The rows of a model without its extended attributes. */
export function rowsOf(model: readonly string[]): string[][] {
  return model.filter((line) => line.startsWith("[")).map((line) => JSON.parse(line));
}

/** Rows as they are whatever they are hard links of. */
export function withoutGroups(rows: readonly string[][]): string[][] {
  return rows.map((row) => row.toSpliced(COLUMN.group, 1, ""));
}

/** The rows at and below `path`, with the folders above it; groups of hard links are of those that are left. */
export function rowsAt(rows: readonly string[][], path: string): string[] {
  const taken = rows.filter(([each = ""]) => {
    return each === path || each === "" || each.startsWith(`${path}/`) || path.startsWith(`${each}/`);
  });
  const sizes = new Map<string, string[]>();
  const groupOf = (row: readonly string[]) => row[COLUMN.group] ?? "";
  for (const row of taken) {
    if (groupOf(row) !== "") {
      sizes.set(groupOf(row), [...sizes.get(groupOf(row)) ?? [], row[COLUMN.path] ?? ""]);
    }
  }
  return taken.map((row) => {
    const members = sizes.get(groupOf(row)) ?? [];
    const copy = [...row];
    copy[COLUMN.group] = members.length > 1 ? members[0] ?? "" : "";
    return JSON.stringify(copy);
  });
}
