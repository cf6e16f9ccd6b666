/**
 * `state-manager db restore NAME`: in place by the running manager, or with `--to FILE` straight from the store into a new
 * file, on any machine. The latter takes
 * no lease and changes nothing in the store; if it is interrupted, an unfinished file under another name is left, which
 * the next one to the same place removes.
 */

import { planDatabaseRestore, restoreDatabaseTo } from "../database/mod.ts";
import type {
  CheckMode,
  RestorePlan,
  RestoreProgress,
  RestoreResult,
  RestoreTarget,
} from "../database/mod.ts";
import { checkFree } from "../database/restore_database.ts";
import { parseTime } from "../server/mod.ts";
import type { JsonObject } from "./client.ts";
import { type Context, type ExitCode, type Options, usageError } from "./context.ts";
import { findDatabase, openDatabaseStore } from "./db_store.ts";
import { showProgress } from "./progress.ts";
import { restoreByManager } from "./restore.ts";
import { namesStore } from "./store_options.ts";
import { count, printable, size, table } from "./text.ts";

/** A copy of what a program kept private is private. */
const FILE_MODE = 0o600;

export async function restoreOneDatabase(
  context: Context,
  options: Options,
  args: readonly string[],
): Promise<ExitCode> {
  const target = targetOf(options);
  if (options.text("to") === undefined) return await restoreInPlace(context, options, args, target);
  const file = fileOf(context, options);
  const check = checkOf(options);
  checkFree(file); // before anything is asked of the store
  await using opened = await openDatabaseStore(context, options);
  const place = await findDatabase(opened, args);
  const progress = showProgress(context, options);
  const environment = {
    store: opened.store,
    clock: context.clock,
    signal: new AbortController().signal, // an interrupt ends the process
    onProgress: ({ phase, files, bytes, totalBytes }: RestoreProgress) =>
      progress.onEvent({ type: "progress", phase, entries: files, bytes, total_bytes: totalBytes }),
  };
  if (options.flag("dryRun")) {
    const plan = await planDatabaseRestore({ place, target }, environment);
    return tellPlan(context, options, { database: place.name, file }, plan);
  }
  let result: RestoreResult;
  try {
    const request = { place, target, file, owner: null, mode: FILE_MODE, check };
    result = await restoreDatabaseTo(request, environment);
  } finally {
    progress.done();
  }
  return tellResult(context, options, { database: place.name, file }, result);
}

/** Through the running manager, which holds the lease: the old state becomes the next TXID. */
async function restoreInPlace(
  context: Context,
  options: Options,
  [name]: readonly string[],
  target: RestoreTarget,
): Promise<ExitCode> {
  if (name === undefined) throw usageError("say which database", '"state-manager db list" shows their names');
  if (namesStore(options)) {
    throw usageError(
      "db restore: in place only the manager can, as it holds the lease",
      "add --to FILE to restore into a file, or leave the store's options out",
    );
  }
  if (target.kind === "newest") {
    throw usageError(
      "db restore: in place say which state: --txid N or --at TIME",
      "the newest one is there already; add --to FILE to have it elsewhere",
    );
  }
  const state = target.kind === "txid" ? { txid: target.txid } : { at: options.text("at") ?? "" };
  return await restoreByManager(context, options, { ...state, databases: [name] }, name);
}

function targetOf(options: Options): RestoreTarget {
  const [txid, at] = [options.text("txid"), options.text("at")];
  if (txid !== undefined && at !== undefined) throw usageError("db restore: give --txid or --at, not both");
  if (txid !== undefined) return { kind: "txid", txid: parseTxid(txid) };
  if (at === undefined) return { kind: "newest" };
  const atMs = parseTime(at);
  if (atMs === null) {
    throw usageError("read --at: want a time as in RFC 3339, with its zone: 2026-01-31T12:00:00Z");
  }
  return { kind: "before", beforeMs: atMs + 1 }; // "not after": commit times are whole milliseconds
}

/** As `db points` prints it, or as Litestream does: 16 hexadecimal digits. */
function parseTxid(text: string): number {
  const txid = /^[0-9a-f]{16}$/.test(text) ? parseInt(text, 16) : /^[0-9]+$/.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(txid) && txid > 0) return txid;
  throw usageError(
    "read --txid: want a number from 1 on, or 16 hexadecimal digits",
    '"db points" lists them',
  );
}

function fileOf(context: Context, options: Options): string {
  const to = options.text("to");
  if (to === undefined || to === "" || to.endsWith("/")) {
    throw usageError("db restore: say where: --to FILE", "the file must not exist; its folder is made");
  }
  return to.startsWith("/") ? to : `${context.folder}/${to}`;
}

function checkOf(options: Options): CheckMode {
  const check = options.text("check") ?? "quick";
  return check === "none" || check === "full" ? check : "quick";
}

interface Subject {
  readonly database: string;
  readonly file: string;
}

function tellPlan(context: Context, options: Options, subject: Subject, plan: RestorePlan): ExitCode {
  const { out } = context.terminal;
  const { txid, timestampMs, databaseBytes, fetchBytes } = plan;
  if (options.flag("json")) {
    const files = plan.files.map(({ key, level, minTxid, maxTxid, sizeBytes }) => ({
      key,
      level,
      min_txid: minTxid,
      max_txid: maxTxid,
      bytes: sizeBytes,
    }));
    out(
      jsonLine({
        ...subject,
        dry_run: true,
        txid,
        timestampMs,
        bytes: databaseBytes,
        fetched: fetchBytes,
        files,
      }),
    );
    return 0;
  }
  out(
    `would restore ${printable(subject.database)} at TXID ${txid} of ${timeText(timestampMs)}, ` +
      `${size(databaseBytes)}, from ${count(plan.files.length, "object")} with ${size(fetchBytes)}\n`,
  );
  const rows = plan.files.map(({ key, level, minTxid, maxTxid, sizeBytes }) => [
    String(level),
    String(minTxid),
    String(maxTxid),
    size(sizeBytes),
    key,
  ]);
  out(table(["LEVEL", "FROM", "TO", "SIZE", "KEY"], rows));
  return 0;
}

function tellResult(context: Context, options: Options, subject: Subject, result: RestoreResult): ExitCode {
  const { txid, timestampMs, databaseBytes, fetchBytes, fileCount, check, warnings } = result;
  if (options.flag("json")) {
    context.terminal.out(jsonLine({
      ...subject,
      dry_run: false,
      txid,
      timestampMs,
      bytes: databaseBytes,
      fetched: fetchBytes,
      objects: fileCount,
      check,
      warnings,
    }));
  } else {
    context.terminal.out(
      `restored ${printable(subject.database)} at TXID ${txid} of ${timeText(timestampMs)}, ` +
        `${size(databaseBytes)}, into ${printable(subject.file)}\n`,
    );
    for (const warning of warnings) context.terminal.err(`warning: ${printable(warning)}\n`);
  }
  return warnings.length === 0 ? 0 : PARTIAL;
}

/** All is there, but something that was asked for was not done. */
const PARTIAL = 2;

function jsonLine(
  { timestampMs, fetched, ...rest }: JsonObject & { readonly timestampMs: number; readonly fetched: number },
): string {
  return JSON.stringify({ type: "complete", ...rest, time: timeText(timestampMs), fetched_bytes: fetched }) +
    "\n";
}

function timeText(ms: number): string {
  return new Date(ms).toISOString();
}
