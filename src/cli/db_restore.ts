/**
 * `state-manager db restore NAME`: in place (restore_in_place.ts), or with `--to FILE` straight from the store into a new
 * file, on any machine. The latter takes no lease and changes nothing in the store; if it is interrupted, an unfinished
 * file under another name is left, which the next one to the same place removes.
 */

import { findCheckpoint, parseCheckpointReference, readHead } from "../checkpoint/mod.ts";
import { planDatabaseRestore, restoreDatabaseTo } from "../database/mod.ts";
import type {
  CheckMode,
  RestorePlan,
  RestoreProgress,
  RestoreResult,
  RestoreTarget,
} from "../database/mod.ts";
import { checkFree } from "../database/restore_database.ts";
import { StateManagerError } from "../platform/errors.ts";
import { parseTime } from "../server/mod.ts";
import type { JsonObject } from "./client.ts";
import { type Context, type ExitCode, type Options, usageError } from "./context.ts";
import { type DatabaseStore, findDatabase, openDatabaseStore } from "./db_store.ts";
import { namedPath } from "./flags.ts";
import { showProgress } from "./progress.ts";
import { restoreInPlace } from "./restore_in_place.ts";
import { tellIfToCome } from "./restore_target.ts";
import { count, printable, size, table } from "./text.ts";

/** A copy of what a program kept private is private. */
const FILE_MODE = 0o600;

export async function restoreOneDatabase(
  context: Context,
  options: Options,
  args: readonly string[],
): Promise<ExitCode> {
  const wanted = targetOf(options);
  if (options.text("to") === undefined) return await inPlace(context, options, args, wanted);
  const file = fileOf(context, options);
  const check = checkOf(options);
  if (wanted.kind === "before") tellIfToCome(context, options, wanted.beforeMs - 1);
  checkFree(file); // before anything is asked of the store
  await using opened = await openDatabaseStore(context, options);
  const place = await findDatabase(opened, args);
  const target = await replicaTarget(opened, place.name, wanted);
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

/** The old state becomes the next TXID, under the lease. */
async function inPlace(
  context: Context,
  options: Options,
  [name]: readonly string[],
  target: Target,
): Promise<ExitCode> {
  if (name === undefined) throw usageError("say which database", '"state-manager db list" shows their names');
  if (target.kind === "newest") {
    throw usageError(
      "db restore: in place say which state: --txid N, --at TIME or --checkpoint ID",
      "the newest one is there already; add --to FILE to have it elsewhere",
    );
  }
  const state = target.kind === "txid"
    ? { txid: target.txid }
    : target.kind === "checkpoint"
    ? { checkpoint: target.checkpoint }
    : { at: options.text("at") ?? "" };
  const database = options.list("database").map((text) => namedPath(text, "--database"));
  return await restoreInPlace(context, options, {
    body: { ...state, databases: [name] },
    what: name,
    places: database.length === 0 ? {} : { database },
  });
}

type Target = RestoreTarget | { readonly kind: "checkpoint"; readonly checkpoint: string };

/** What is asked of the replica: a checkpoint names the TXID that it holds. */
async function replicaTarget(
  { store }: DatabaseStore,
  name: string,
  target: Target,
): Promise<RestoreTarget> {
  if (target.kind !== "checkpoint") return target;
  const state = await readHead(store, { cipher: null }); // positions are not encrypted
  const record = findCheckpoint(state?.head ?? { checkpoints: [], current: null }, target);
  const position = record.databases?.[name];
  if (position !== undefined) return { kind: "txid", txid: position.txid };
  throw new StateManagerError(
    "not-found",
    `restore: checkpoint ${record.id} holds no database of that name`,
    {
      hint: `it holds ${Object.keys(record.databases ?? {}).join(", ") || "none"}`,
    },
  );
}

function targetOf(options: Options): Target {
  const [txid, at, checkpoint] = [options.text("txid"), options.text("at"), options.text("checkpoint")];
  if ([txid, at, checkpoint].filter((given) => given !== undefined).length > 1) {
    throw usageError("db restore: give one of --txid, --at and --checkpoint, not two");
  }
  if (checkpoint !== undefined) {
    const reference = parseCheckpointReference(checkpoint);
    if (reference !== null) return { kind: "checkpoint", checkpoint: reference };
    throw usageError("read the checkpoint: want an id, an ordinal (3 or v3) or latest");
  }
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
