/** The body of `POST /restore`, which a command that finds no manager means, too. */

import type * as v from "valibot";
import type { RestoreRequest } from "../manager/control.ts";
import { check, invalid } from "./body.ts";
import { restoreSchema } from "./schemas.ts";

/** The rules between the fields. Error: `invalid-request`. */
export function toRestoreRequest(body: v.InferOutput<typeof restoreSchema>, nowMs: number): RestoreRequest {
  const { checkpoint, at, txid, files, databases } = body;
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
  const isNothing = (files ?? []).length + (databases ?? []).length === 0;
  if (isNothing && (files !== undefined || databases !== undefined)) {
    throw invalid([{
      pointer: files !== undefined ? "/files" : "/databases",
      detail: "names nothing to restore: name some, or leave it out for all",
    }]);
  }
  if (at !== undefined && at > nowMs) {
    throw invalid([{ pointer: "/at", detail: "must not be in the future" }]);
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
    databases: databases ?? null,
    consistent: body.consistent,
    dryRun: body.dry_run,
    safety: body.safety,
  };
}

/** The request that a body in the public form means. Error: `invalid-request`. */
export function parseRestoreBody(body: unknown, nowMs: number): RestoreRequest {
  return toRestoreRequest(check(restoreSchema, body), nowMs);
}
