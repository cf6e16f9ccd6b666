/** A database's history without bytes: what each TXID wrote, and what files of any range hold of it. */

import type { PlannableFile } from "../../src/database/restore_plan.ts";
import type { Random } from "../../src/platform/random.ts";

/** One commit: the pages that it wrote, and the size of the database after it. */
export interface ModelCommit {
  readonly pages: readonly number[];
  readonly commit: number;
}

/** A database: its size, and for each page the TXID that wrote it last. */
export interface ModelState {
  readonly commit: number;
  readonly pages: ReadonlyMap<number, number>;
}

export function timeOf(txid: number): number {
  return 1_700_000_000_000 + txid * 1000;
}

function below(random: Random, limit: number): number {
  return Math.floor(random.float() * limit);
}

/** Grows, shrinks and rewrites; a page that comes into being is always written. */
export function randomHistory(random: Random, length = 5 + below(random, 35)): readonly ModelCommit[] {
  const history: ModelCommit[] = [];
  let size = 0;
  for (let txid = 1; txid <= length; txid++) {
    const commit = 1 + below(random, 12);
    const pages = new Set(Array.from({ length: below(random, 4) }, () => 1 + below(random, commit)));
    for (let page = size + 1; page <= commit; page++) pages.add(page);
    pages.add(1);
    history.push({ pages: [...pages].sort((a, b) => a - b), commit });
    size = commit;
  }
  return history;
}

export function stateAt(history: readonly ModelCommit[], txid: number): ModelState {
  return fileOf(history, { minTxid: 1, maxTxid: txid });
}

/** What a file of this range holds: the newest version of each page that is left at its end. */
export function fileOf(
  history: readonly ModelCommit[],
  { minTxid, maxTxid }: Pick<PlannableFile, "minTxid" | "maxTxid">,
): ModelState {
  const pages = new Map<number, number>();
  let commit = 0;
  for (let txid = minTxid; txid <= maxTxid; txid++) {
    const change = history[txid - 1];
    if (change === undefined) continue;
    for (const page of change.pages) pages.set(page, txid);
    commit = change.commit;
  }
  return { commit, pages: cut(pages, commit) };
}

function cut(pages: ReadonlyMap<number, number>, commit: number): Map<number, number> {
  return new Map([...pages].filter(([page]) => page <= commit).sort(([a], [b]) => a - b));
}

/** File after file, each with its size at the end. */
export function applyFiles(files: readonly ModelState[]): ModelState {
  let state: ModelState = { commit: 0, pages: new Map() };
  for (const file of files) {
    const pages = new Map([...state.pages, ...file.pages]);
    state = { commit: file.commit, pages: cut(pages, file.commit) };
  }
  return state;
}

/** Some of the files that compactions of random sizes make of TXIDs 1 to `length`; the levels agree nowhere. */
export function randomReplica(random: Random, length: number): readonly PlannableFile[] {
  const files: PlannableFile[] = [];
  const add = (level: number, minTxid: number, maxTxid: number) =>
    files.push({ level, minTxid, maxTxid, timestampMs: timeOf(maxTxid) });
  for (let txid = 1; txid <= length; txid++) add(0, txid, txid);
  for (const level of [1, 2, 3]) {
    for (let next = 1 + below(random, 4); next <= length;) {
      const last = Math.min(length, next + below(random, 2 + level * 3));
      add(level, next, last);
      next = last + 1;
    }
  }
  for (let count = below(random, 4); count > 0; count--) add(9, 1, 1 + below(random, length));
  const keptShare = 0.2 + random.float() * 0.8;
  const unique = [
    ...new Map(files.map((each) => [`${each.level}-${each.minTxid}-${each.maxTxid}`, each])).values(),
  ];
  return unique.filter(() => random.float() < keptShare);
}
