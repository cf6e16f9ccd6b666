/** The body of `POST /restore`, which a command that finds no manager means, too. */

import type * as v from "valibot";
import { parseInnerPath } from "../checkpoint/mod.ts";
import type { RestoreRequest } from "../manager/control.ts";
import { check, invalid } from "./body.ts";
import { restoreSchema } from "./schemas.ts";

/** The rules between the fields. Error: `invalid-request`. */
export function toRestoreRequest(body: v.InferOutput<typeof restoreSchema>, nowMs: number): RestoreRequest {
  const { checkpoint, at, txid, files, databases, paths } = body;
  if (checkpoint !== undefined && at !== undefined) {
    throw invalid([{
      pointer: "/at",
      detail: "must be left out where checkpoint is given",
    }]);
  }
  if (txid !== undefined && (checkpoint !== undefined || at !== undefined)) {
    throw invalid([{ pointer: "/txid", detail: "must be left out where checkpoint or at is given" }]);
  }
  if (txid !== undefined && (databases?.length !== 1 || files !== undefined)) {
    throw invalid([{
      pointer: "/databases",
      detail: "must name the one database that the TXID is of, and no files",
    }]);
  }
  if (paths !== undefined) checkPathsBody(body);
  const isNothing = (files ?? []).length + (databases ?? []).length === 0;
  if (isNothing && (files !== undefined || databases !== undefined)) {
    throw invalid([{
      pointer: files !== undefined ? "/files" : "/databases",
      detail: "names nothing to restore: name some, or leave it out for all",
    }]);
  }
  if (at !== undefined && at > nowMs) {
    throw invalid(
      [{ pointer: "/at", detail: "is a time that is yet to come" }],
      "name a time that has been; the newest state is the checkpoint latest",
    );
  }
  const target = checkpoint !== undefined
    ? { checkpoint }
    : at !== undefined
    ? { atMs: at }
    : txid !== undefined
    ? { txid }
    : null;
  if (target === null) {
    throw invalid([{
      pointer: "/checkpoint",
      detail: "must be given, or at: say which state to bring back",
    }]);
  }
  return {
    target,
    files: files ?? null,
    paths: paths?.map(parseInnerPath) ?? null,
    databases: databases ?? null,
    consistent: body.consistent,
    dryRun: body.dry_run,
    safety: body.safety,
  };
}

/** What stays of the root is taken out of the safety checkpoint; databases are no part of a tree. */
function checkPathsBody({ txid, files, databases, safety }: v.InferOutput<typeof restoreSchema>): void {
  const refuse = (pointer: string, detail: string) => invalid([{ pointer, detail }]);
  if (txid !== undefined || databases !== undefined) {
    throw refuse("/paths", "must be left out where databases or txid are given");
  }
  if (files !== undefined && files.length !== 1) {
    throw refuse("/files", "must name the one that the paths are of");
  }
  if (!safety) {
    throw refuse("/safety", "must not be false where paths are given: the rest is taken out of it");
  }
}

/** The request that a body in the public form means. Error: `invalid-request`. */
export function parseRestoreBody(body: unknown, nowMs: number): RestoreRequest {
  return toRestoreRequest(check(restoreSchema, body), nowMs);
}
