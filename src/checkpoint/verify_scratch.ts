/**
 * The last level of a verification: one checkpoint is restored to scratch as a restore would do it, and SQLite reads
 * each database in it. What is left of a run that was killed is removed by the next one.
 */

import { DatabaseSync } from "node:sqlite";
import { ensureFolder, removeTreeIfPresent } from "../platform/files.ts";
import { showPath } from "../platform/libc_files.ts";
import { stageCheckpoint, type StageRequest } from "./restore.ts";
import type { CheckpointRecord, TreeEntry } from "./types.ts";

export interface ScratchOptions {
  readonly record: CheckpointRecord;
  readonly indexes: StageRequest["indexes"];
  /** Made and removed here. */
  readonly folder: string;
  readonly environment: Parameters<typeof stageCheckpoint>[1];
  /** The SQLite databases of a files root. */
  readonly databasesOf: (root: string) => Promise<readonly TreeEntry[]>;
}

export interface DatabaseProblem {
  readonly root: string;
  readonly path: string;
  readonly detail: string;
}

/** Errors: those of a restore, `data-damaged` among them. */
export async function tryRestore(
  options: ScratchOptions,
): Promise<{ readonly databases: number; readonly problems: readonly DatabaseProblem[] }> {
  const { record, indexes, folder, environment, databasesOf } = options;
  const problems: DatabaseProblem[] = [];
  let databases = 0;
  await removeTreeIfPresent(folder);
  await ensureFolder(folder, 0o700);
  try {
    const names = Object.keys(record.files);
    const roots = names.map((name) => ({ name, stage: `${folder}/${name}` }));
    await stageCheckpoint({ record, indexes, roots }, environment);
    for (const { name, stage } of roots) {
      for (const { path } of await databasesOf(name)) {
        const text = showPath(path);
        databases++;
        const detail = integrityProblem(`${stage}/${text}`);
        if (detail !== null) problems.push({ root: name, path: text, detail });
      }
    }
  } finally {
    await removeTreeIfPresent(folder);
  }
  return { databases, problems };
}

/** What a schema may need that only the application's own connections have: it says nothing about the file. */
const OWN_TO_APPLICATION = /(no such|unknown) (collation|function|module|tokenizer)/i;
const MOST_FINDINGS = 5;

/** What SQLite's `integrity_check` finds wrong; null: nothing. Opened as immutable, so that not a byte changes. */
export function integrityProblem(path: string): string | null {
  const url = new URL(`file://${path.split("/").map(encodeURIComponent).join("/")}?immutable=1&mode=ro`);
  try {
    const database = new DatabaseSync(url, { readOnly: true });
    try {
      const rows = database.prepare(`PRAGMA integrity_check(${MOST_FINDINGS})`).all();
      const found = rows.map((row) => String(Object.values(row)[0]));
      return found.length === 1 && found[0] === "ok" ? null : `SQLite says: ${found.join("; ")}`;
    } finally {
      database.close();
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return OWN_TO_APPLICATION.test(reason) ? null : `SQLite says: ${reason}`;
  }
}
