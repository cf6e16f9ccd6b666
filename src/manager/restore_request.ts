/**
 * What a request to restore means on a given head: which checkpoint, which files roots, which databases at which TXID.
 * Asked before anything stops or changes, by the manager as by a command that finds none.
 */

import { findCheckpoint } from "../checkpoint/mod.ts";
import type { CheckpointRecord, DatabasePosition, Head } from "../checkpoint/types.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { RestoreRequest } from "./control.ts";
import { currentRecord } from "./lineage.ts";
import type { Positions, RootPaths } from "./term_machine.ts";

export interface RestoreScope {
  readonly head: Head;
  /** Names of the files roots that are configured here. */
  readonly roots: readonly string[];
  /** True where a database of this name is configured here. */
  readonly hasDatabase: (name: string) => boolean;
  /** The newest state of a database that is not after `atMs`, wall clock. Error: `not-found`. */
  readonly positionAt: (name: string, atMs: number, signal?: AbortSignal) => Promise<DatabasePosition>;
  /** Rejects with `not-found` when this state of a database cannot be restored. */
  readonly checkPoint: (name: string, txid: number, signal?: AbortSignal) => Promise<void>;
}

export interface Wanted {
  readonly names: readonly string[];
  /** Of these roots nothing but the paths. Absent: whole roots. */
  readonly paths?: RootPaths;
  readonly databases: Positions;
}

/** Rejects with `invalid-request`, `checkpoint-not-found` or `not-found` when it cannot be done. */
export async function checkRequest(
  request: RestoreRequest,
  scope: RestoreScope,
  signal?: AbortSignal,
): Promise<void> {
  if (!("txid" in request.target)) return void sourceOf(request, scope);
  refuseUnfollowed(request, scope);
  if (!request.safety) currentFor(scope); // else the safety checkpoint is the first
  // What a checkpoint names is kept for it; any other TXID may be a step that was merged away.
  const positions = positionsAt(request, request.target.txid);
  for (const [name, { txid }] of Object.entries(positions)) await scope.checkPoint(name, txid, signal);
}

/** What will come back of databases, as far as it is known before anything stops. Errors as `checkRequest`. */
export async function databasesWanted(request: RestoreRequest, scope: RestoreScope): Promise<Positions> {
  if ("txid" in request.target) return positionsAt(request, request.target.txid);
  return (await wantedOf(sourceOf(request, scope), request, scope)).databases;
}

function positionsAt({ databases }: Pick<RestoreRequest, "databases">, txid: number): Positions {
  return Object.fromEntries((databases ?? []).map((name) => [name, { txid }]));
}

/** The checkpoint whose content comes back; where a TXID is asked for the current one, of which no files do. */
export function sourceOf(request: RestoreRequest, scope: RestoreScope): CheckpointRecord {
  if ("txid" in request.target) {
    refuseUnfollowed(request, scope);
    return currentFor(scope);
  }
  const source = findCheckpoint(scope.head, request.target);
  refuseUnknown(
    source,
    "files",
    request.files,
    Object.keys(source.files),
    (name) => scope.roots.includes(name),
  );
  refuseUnknown(
    source,
    "databases",
    request.databases,
    Object.keys(source.databases ?? {}),
    scope.hasDatabase,
  );
  return source;
}

function refuseUnfollowed({ databases: names }: RestoreRequest, { hasDatabase }: RestoreScope): void {
  const unknown = (names ?? []).filter((name) => !hasDatabase(name));
  if (unknown.length > 0) {
    throw new StateManagerError(
      "invalid-request",
      `restore: no database ${unknown.join(", ")} is followed here`,
      {
        hint:
          "GET /databases lists them; with no manager, name it under databases or with --database NAME=PATH",
        details: unknown.map((name) => ({ pointer: "/databases", detail: `unknown name ${name}` })),
      },
    );
  }
}

function currentFor({ head }: RestoreScope): CheckpointRecord {
  const current = currentRecord(head);
  if (current !== null) return current;
  throw new StateManagerError("wrong-state", "restore to a TXID: there is no checkpoint yet, wanted one", {
    hint: "POST /checkpoint, then ask again",
  });
}

/**
 * What a request brings back of a checkpoint. By time, a database goes back to its own newest state not after it, which
 * may be newer than the checkpoint.
 */
export async function wantedOf(
  source: CheckpointRecord,
  { target, files, paths, databases: only, consistent }: Omit<RestoreRequest, "dryRun" | "safety">,
  { roots, hasDatabase, positionAt }: RestoreScope,
  signal?: AbortSignal,
): Promise<Wanted> {
  if ("txid" in target) return { names: [], databases: positionsAt({ databases: only }, target.txid) };
  const both = files === null && only === null;
  const names = roots.filter((name) =>
    source.files[name] !== undefined && (both || (files ?? []).includes(name))
  );
  if (paths !== null) return { names, paths: pathsIn(names, paths), databases: {} };
  const held = Object.entries(source.databases ?? {})
    .filter(([name]) => hasDatabase(name) && (both || (only ?? []).includes(name)));
  const atMs = "atMs" in target && !consistent ? target.atMs : null;
  const positions = held.map(async ([name, position]) => [
    name,
    atMs === null ? position : await positionAt(name, atMs, signal),
  ]);
  return { names, databases: Object.fromEntries(await Promise.all(positions)) };
}

/** Paths are of one root: where several are held it must be named. */
function pathsIn(names: readonly string[], paths: readonly string[]): RootPaths {
  const [name] = names;
  if (name !== undefined && names.length === 1) return { [name]: paths };
  throw new StateManagerError("invalid-request", "restore paths: say of which files", {
    hint: `name one of ${names.join(", ") || "those that are configured here and in the checkpoint"}`,
    details: [{ pointer: "/files", detail: "must name the one that the paths are of" }],
  });
}

function refuseUnknown(
  source: CheckpointRecord,
  kind: "files" | "databases",
  wanted: readonly string[] | null,
  held: readonly string[],
  isConfigured: (name: string) => boolean,
): void {
  const unknown = (wanted ?? []).filter((name) => !held.includes(name) || !isConfigured(name));
  if (unknown.length === 0) return;
  const what = kind === "files" ? "files root" : "database";
  throw new StateManagerError(
    "invalid-request",
    `restore: no ${what} ${unknown.join(", ")} in checkpoint ${source.id}`,
    {
      hint: unknown.every((name) => held.includes(name))
        ? `it is there, but has no place here: name it under ${kind}`
        : `known there: ${held.join(", ") || "none"}`,
      details: unknown.map((name) => ({ pointer: `/${kind}`, detail: `unknown name ${name}` })),
    },
  );
}
