/**
 * SQLite's own check of a restored file. The file is opened as immutable: SQLite takes no locks, makes no `-wal` or
 * `-shm` beside it and cannot change a byte, also where its header says WAL.
 */

import { DatabaseSync } from "node:sqlite";
import { StateManagerError } from "../platform/errors.ts";

/** quick: structure of all pages. full: also that indexes agree with their tables; takes several times as long. */
export type CheckMode = "none" | "quick" | "full";

/** not-run: SQLite here lacks what the database's schema needs; the pages themselves have their own checksums. */
export type CheckResult =
  | { readonly outcome: "passed" | "skipped" }
  | { readonly outcome: "not-run"; readonly reason: string };

/** Findings told in the error; the first ones say enough. */
const MOST_FINDINGS = 10;

/** What SQLite says where a schema needs what only the application's own connections have. */
const OWN_TO_APPLICATION = /(no such|unknown) (collation|function|module|tokenizer)/i;

/** One synchronous call that reads the whole file. Error: `data-damaged` with SQLite's findings. */
export function checkDatabase(path: string, mode: CheckMode): CheckResult {
  if (mode === "none") return { outcome: "skipped" };
  let findings: string[];
  try {
    const database = new DatabaseSync(immutableUrl(path), { readOnly: true });
    try {
      const pragma = mode === "quick" ? "quick_check" : "integrity_check";
      const rows = database.prepare(`PRAGMA ${pragma}(${MOST_FINDINGS})`).all();
      findings = rows.map((row) => String(Object.values(row)[0]));
    } finally {
      database.close();
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    // A collation or function of the application's own is missing here: that says nothing about the file.
    if (OWN_TO_APPLICATION.test(reason)) return { outcome: "not-run", reason };
    findings = [reason];
  }
  if (findings.length === 1 && findings[0] === "ok") return { outcome: "passed" };
  throw new StateManagerError(
    "data-damaged",
    `check restored database: SQLite says "${findings[0] ?? "nothing"}"` +
      (findings.length > 1 ? ` and ${findings.length - 1} more` : ""),
    {
      hint: "restore to an earlier point; the database may have been broken before it was replicated",
      details: findings.map((detail, index) => ({ pointer: `/${index}`, detail })),
    },
  );
}

function immutableUrl(path: string): URL {
  return new URL(`file://${path.split("/").map(encodeURIComponent).join("/")}?immutable=1&mode=ro`);
}
