/** `state-manager checkpoint list` and `show`: from the manager, or straight from the store. */

import {
  CHECKPOINT_KINDS,
  type CheckpointFilter,
  findCheckpoint,
  isCheckpointKind,
  matchesFilter,
  parseCheckpointReference,
  parseLabelFilter,
} from "../checkpoint/mod.ts";
import type { Head } from "../checkpoint/types.ts";
import { listedView, listFacts } from "../server/mod.ts";
import { type JsonObject, openClient } from "./client.ts";
import { type Context, type ExitCode, type Options, usageError } from "./context.ts";
import { fromManagerOrStore } from "./manager_or_store.ts";
import { count, fields, json, size, table } from "./text.ts";

interface Listing {
  readonly checkpoints: readonly JsonObject[];
  readonly next_after: string | null;
}

export async function listCheckpoints(context: Context, options: Options): Promise<ExitCode> {
  const wanted = wantedOf(options);
  const checkpoints = await fromManagerOrStore(
    context,
    options,
    () => listFromManager(context, options, wanted),
    () => listFromStore(context, options, wanted),
  );
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
      return listedView(
        findCheckpoint(head, { checkpoint: reference }),
        listFacts(head.checkpoints, head.current),
      );
    },
  );
  context.terminal.out(options.flag("json") ? json(checkpoint) : showText(checkpoint));
  return 0;
}

/** Which checkpoints are wanted, in the words of the API and of the store. */
interface Wanted {
  readonly query: readonly (readonly [string, string])[];
  readonly filter: CheckpointFilter;
}

function wantedOf(options: Options): Wanted {
  const kinds = options.list("kind");
  if (!kinds.every(isCheckpointKind)) throw usageError(`read --kind: want ${CHECKPOINT_KINDS.join(", ")}`);
  const labels = options.list("label");
  const pinned = options.flag("pinned") ? true : null;
  return {
    query: [
      ...kinds.map((kind) => ["kind", kind] as const),
      ...labels.map((label) => ["label", label] as const),
      ...(pinned === null ? [] : [["pinned", "true"] as const]),
    ],
    filter: { kinds, labels: labels.map(parseLabelFilter), pinned },
  };
}

async function listFromManager(
  context: Context,
  options: Options,
  { query }: Wanted,
): Promise<readonly JsonObject[]> {
  using client = await openClient(context, options);
  const all: JsonObject[] = [];
  let after: string | null = null;
  do {
    const pairs: [string, string][] = query.map(([name, value]) => [name, value]);
    if (after !== null) pairs.push(["after", after]);
    const search = new URLSearchParams(pairs).toString();
    const page: Listing = await client.get(`/checkpoints${search === "" ? "" : `?${search}`}`);
    all.push(...page.checkpoints);
    after = page.next_after;
  } while (after !== null);
  return all;
}

async function listFromStore(
  context: Context,
  options: Options,
  { filter }: Wanted,
): Promise<readonly JsonObject[]> {
  const { head } = await readHeadOffline(context, options);
  const facts = listFacts(head.checkpoints, head.current);
  return head.checkpoints.filter((record) => matchesFilter(record, filter))
    .map((record) => listedView(record, facts));
}

async function readHeadOffline(context: Context, options: Options): Promise<{ readonly head: Head }> {
  const { openRepositoryOffline } = await import("./offline.ts");
  await using repository = await openRepositoryOffline(context, options);
  return { head: repository.head };
}

function totals(checkpoint: JsonObject): { entries: number; bytes: number } {
  const files = Object.values(checkpoint["files"] as Record<string, { entries: number; bytes: number }>);
  return {
    entries: files.reduce((sum, each) => sum + each.entries, 0),
    bytes: files.reduce((sum, each) => sum + each.bytes, 0),
  };
}

function labelsText(checkpoint: JsonObject): string {
  const labels = Object.entries(checkpoint["labels"] as Record<string, string>);
  return labels.map(([name, value]) => `${name}=${value}`).join(" ");
}

function listText(checkpoints: readonly JsonObject[]): string {
  const rows = checkpoints.map((each) => [
    `${each["current"] === true ? "*" : " "}v${each["n"]}${each["pinned"] === true ? " (pinned)" : ""}`,
    String(each["id"]),
    String(each["time"]),
    String(each["kind"]),
    size(totals(each).bytes),
    String(each["warnings"]),
    labelsText(each),
    String(each["comment"]),
  ]);
  return table([" N", "ID", "TIME", "KIND", "SIZE", "WARNINGS", "LABELS", "COMMENT"], rows);
}

function showText(checkpoint: JsonObject): string {
  const text = (key: string) => checkpoint[key] === null ? "-" : String(checkpoint[key]);
  const files = checkpoint["files"] as Record<string, { entries: number; bytes: number }>;
  // The ordinal beside the id, as long as it is listed.
  const other = (key: string) =>
    typeof checkpoint[`${key}_n`] === "number" ? `v${checkpoint[`${key}_n`]} ${text(key)}` : text(key);
  return fields([
    ["checkpoint", `v${text("n")}${checkpoint["current"] === true ? " (current)" : ""}`],
    ["id", text("id")],
    ["time", text("time")],
    ["kind", text("kind")],
    ["comment", text("comment")],
    ["labels", labelsText(checkpoint)],
    ["pinned", checkpoint["pinned"] === true ? "yes" : "no"],
    ["parent", other("parent")],
    ["restored from", other("restored_from")],
    ["token", text("token")],
    ["warnings", text("warnings")],
    ...Object.entries(files).map(([name, { entries, bytes }]): [string, string] => [
      `files ${name}`,
      `${count(entries, "file")}, ${size(bytes)}`,
    ]),
    ...Object.entries(checkpoint["databases"] as Record<string, { txid: number }>).map((
      [name, { txid }],
    ): [string, string] => [`database ${name}`, `TXID ${txid}`]),
  ]);
}
