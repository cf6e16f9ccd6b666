/** `state-manager checkpoint list` and `show`: from the manager, or straight from the store. */

import { findCheckpoint, parseCheckpointReference } from "../checkpoint/mod.ts";
import type { CheckpointRecord, Head } from "../checkpoint/types.ts";
import { checkpointView } from "../server/mod.ts";
import { type JsonObject, openClient } from "./client.ts";
import { type Context, type ExitCode, type Options, usageError } from "./context.ts";
import { fromManagerOrStore } from "./manager_or_store.ts";
import { count, fields, json, size, table } from "./text.ts";

interface Listing {
  readonly checkpoints: readonly JsonObject[];
  readonly next_after: string | null;
}

export async function listCheckpoints(context: Context, options: Options): Promise<ExitCode> {
  const checkpoints = await fromManagerOrStore(context, options, listFromManager, listFromStore);
  context.terminal.out(options.flag("json") ? json({ checkpoints }) : listText(checkpoints));
  return 0;
}

export async function showCheckpoint(
  context: Context,
  options: Options,
  [text = "latest"]: readonly string[],
): Promise<ExitCode> {
  const reference = parseCheckpointReference(text);
  if (reference === null) throw usageError("read the checkpoint: want an id, an ordinal (3 or v3) or latest");
  const checkpoint = await fromManagerOrStore(
    context,
    options,
    async () => {
      using client = await openClient(context, options);
      return await client.get(`/checkpoints/${reference}`);
    },
    async () => {
      const { head } = await readHeadOffline(context, options);
      return markedView(findCheckpoint(head, { checkpoint: reference }), head.current);
    },
  );
  context.terminal.out(options.flag("json") ? json(checkpoint) : showText(checkpoint));
  return 0;
}

async function listFromManager(context: Context, options: Options): Promise<readonly JsonObject[]> {
  using client = await openClient(context, options);
  const all: JsonObject[] = [];
  let after: string | null = null;
  do {
    const page: Listing = await client.get(`/checkpoints${after === null ? "" : `?after=${after}`}`);
    all.push(...page.checkpoints);
    after = page.next_after;
  } while (after !== null);
  return all;
}

async function listFromStore(context: Context, options: Options): Promise<readonly JsonObject[]> {
  const { head } = await readHeadOffline(context, options);
  return head.checkpoints.map((record) => markedView(record, head.current));
}

async function readHeadOffline(context: Context, options: Options): Promise<{ readonly head: Head }> {
  const { openRepositoryOffline } = await import("./offline.ts");
  await using repository = await openRepositoryOffline(context, options);
  return { head: repository.head };
}

function markedView(record: CheckpointRecord, currentId: string | null): JsonObject {
  return { ...checkpointView(record), current: record.id === currentId };
}

function totals(checkpoint: JsonObject): { entries: number; bytes: number } {
  const files = Object.values(checkpoint["files"] as Record<string, { entries: number; bytes: number }>);
  return {
    entries: files.reduce((sum, each) => sum + each.entries, 0),
    bytes: files.reduce((sum, each) => sum + each.bytes, 0),
  };
}

function listText(checkpoints: readonly JsonObject[]): string {
  const rows = checkpoints.map((each) => [
    `${each["current"] === true ? "*" : " "}v${each["n"]}`,
    String(each["id"]),
    String(each["time"]),
    String(each["kind"]),
    size(totals(each).bytes),
    String(each["warnings"]),
    String(each["comment"]),
  ]);
  return table([" N", "ID", "TIME", "KIND", "SIZE", "WARNINGS", "COMMENT"], rows);
}

function showText(checkpoint: JsonObject): string {
  const text = (key: string) => checkpoint[key] === null ? "-" : String(checkpoint[key]);
  const files = checkpoint["files"] as Record<string, { entries: number; bytes: number }>;
  const labels = Object.entries(checkpoint["labels"] as Record<string, string>);
  return fields([
    ["checkpoint", `v${text("n")}${checkpoint["current"] === true ? " (current)" : ""}`],
    ["id", text("id")],
    ["time", text("time")],
    ["kind", text("kind")],
    ["comment", text("comment")],
    ["labels", labels.map(([name, value]) => `${name}=${value}`).join(" ")],
    ["parent", text("parent")],
    ["restored from", text("restored_from")],
    ["token", text("token")],
    ["warnings", text("warnings")],
    ...Object.entries(files).map(([name, { entries, bytes }]): [string, string] => [
      `files ${name}`,
      `${count(entries, "file")}, ${size(bytes)}`,
    ]),
  ]);
}
