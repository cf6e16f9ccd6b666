/**
 * What a request to restore means on a given head: which checkpoint, which files roots, which databases at which TXID.
 * Asked before anything stops or changes, by the manager as by a command that finds none.
 */

import { type CheckpointTarget, findCheckpoint } from "../checkpoint/mod.ts";
import type { CheckpointRecord, DatabasePosition, Head } from "../checkpoint/types.ts";
import { assert } from "../platform/assert.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
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
  sourceOf(request, scope);
  if (!("txid" in request.target)) return;
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

/**
 * The checkpoint whose content comes back. Databases alone have a history of their own: where they go back by TXID or by
 * time it is the one that was current, of which no files do; null where there is none at all.
 */
export function sourceOf(request: RestoreRequest, scope: RestoreScope): CheckpointRecord | null {
  const { target } = request;
  if ("txid" in target) {
    refuseUnfollowed(request, scope);
    return currentRecord(scope.head);
  }
  if (!isByOwnTime(request)) return checkpointOf(request, target, scope);
  refuseUnfollowed(request, scope);
  try {
    return findCheckpoint(scope.head, target);
  } catch (error) {
    if (!isError(error, "checkpoint-not-found")) throw error;
    return currentRecord(scope.head);
  }
}

/** Databases alone, each to its own newest state not after a time. */
function isByOwnTime(
  { target, files, paths, databases, consistent }: Omit<RestoreRequest, "dryRun" | "safety">,
): boolean {
  return "atMs" in target && !consistent && databases !== null && files === null && paths === null;
}

function checkpointOf(
  { files, databases }: RestoreRequest,
  target: CheckpointTarget,
  scope: RestoreScope,
): CheckpointRecord {
  const source = findCheckpoint(scope.head, target);
  refuseUnknown(
    source,
    "files",
    files,
    Object.keys(source.files),
    (name) => scope.roots.includes(name),
  );
  refuseUnknown(
    source,
    "databases",
    databases,
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

/**
 * What a request brings back of a checkpoint. By time, a database goes back to its own newest state not after it, which
 * may be newer than the checkpoint.
 */
export async function wantedOf(
  source: CheckpointRecord | null,
  request: Omit<RestoreRequest, "dryRun" | "safety">,
  { roots, hasDatabase, positionAt }: RestoreScope,
  signal?: AbortSignal,
): Promise<Wanted> {
  const { target, files, paths, databases: only, consistent } = request;
  if ("txid" in target) return { names: [], databases: positionsAt({ databases: only }, target.txid) };
  const allAt = async (names: readonly string[], atMs: number): Promise<Positions> => {
    const positions = names.map(async (name) => [name, await positionAt(name, atMs, signal)]);
    return Object.fromEntries(await Promise.all(positions));
  };
  const atMs = "atMs" in target && !consistent ? target.atMs : null;
  if (atMs !== null && isByOwnTime(request)) return { names: [], databases: await allAt(only ?? [], atMs) };
  assert(source !== null, "files and positions come from a checkpoint");
  const both = files === null && only === null;
  const names = roots.filter((name) =>
    source.files[name] !== undefined && (both || (files ?? []).includes(name))
  );
  if (paths !== null) return { names, paths: pathsIn(names, paths), databases: {} };
  const held = Object.entries(source.databases ?? {})
    .filter(([name]) => hasDatabase(name) && (both || (only ?? []).includes(name)));
  if (atMs === null) return { names, databases: Object.fromEntries(held) };
  return { names, databases: await allAt(held.map(([name]) => name), atMs) };
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
