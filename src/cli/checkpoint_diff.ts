/** `state-manager checkpoint diff`: from the manager, or straight from the store. */

import {
  type ChangeKind,
  diffCheckpoints,
  findCheckpoint,
  parseCheckpointReference,
} from "../checkpoint/mod.ts";
import { diffView } from "../server/mod.ts";
import { type JsonObject, openClient } from "./client.ts";
import { type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { fromManagerOrStore } from "./manager_or_store.ts";
import { readingOf } from "./offline.ts";
import { json, printable, size } from "./text.ts";

const MARKS: Readonly<Record<ChangeKind, string>> = { added: "+", removed: "-", changed: "M", metadata: "U" };
/** As the API's largest page. */
const PAGE = 1000;

interface Page {
  readonly differences: readonly JsonObject[];
  readonly next_after: string | null;
}

type ReadPage = (after: string) => Promise<Page & JsonObject>;

export async function diff(
  context: Context,
  options: Options,
  [first = "", second = "latest"]: readonly string[],
): Promise<ExitCode> {
  const [before, after] = [first, second].map(parseCheckpointReference);
  if (before === null || after === null || before === undefined || after === undefined) {
    throw usageError("read the checkpoints: want ids, ordinals (3 or v3) or latest");
  }
  const result = await fromManagerOrStore(
    context,
    options,
    async () => {
      using client = await openClient(context, options);
      const path = `/checkpoints/${before}/diff/${after}`;
      return await allPages((from) => client.get(`${path}?after=${from}`, null));
    },
    async () => {
      const { openRepositoryOffline } = await import("./offline.ts");
      await using repository = await openRepositoryOffline(context, options);
      const { head } = repository;
      const records = {
        before: findCheckpoint(head, { checkpoint: before }),
        after: findCheckpoint(head, { checkpoint: after }),
      };
      const request = { ...records, indexes: head.indexes, skip: 0, limit: Infinity };
      return diffView(await diffCheckpoints(request, readingOf(context, repository)));
    },
  );
  if (options.flag("json")) {
    const { next_after: _page, ...document } = result;
    context.terminal.out(json(document));
    return 0;
  }
  if (!options.flag("stat")) context.terminal.out(linesText(result["differences"] as readonly JsonObject[]));
  const summary = summaryText(result);
  if (options.flag("stat")) context.terminal.out(summary + "\n");
  else say(context, options, summary);
  return 0;
}

async function allPages(read: ReadPage): Promise<JsonObject> {
  const first = await read("0");
  const differences = [...first.differences];
  for (let after = first.next_after; after !== null;) {
    const page = await read(after);
    differences.push(...page.differences);
    after = page.next_after;
    if (page.differences.length > PAGE) break; // not a page of ours
  }
  return { ...first, differences };
}

function linesText(differences: readonly JsonObject[]): string {
  return differences.map((each) => {
    const side = (key: string) => (each[key] as { size_bytes: number } | null)?.size_bytes ?? null;
    const [before, after] = [side("before"), side("after")];
    const isChanged = each["change"] === "changed" && before !== after;
    const sizes = isChanged ? `  (${size(before ?? 0)} -> ${size(after ?? 0)})` : "";
    return `${MARKS[each["change"] as ChangeKind]} ${printable(String(each["path"]))}${sizes}\n`;
  }).join("");
}

function summaryText(result: JsonObject): string {
  const totals = result["totals"] as Record<ChangeKind, number>;
  const databases = Object.entries(
    result["databases"] as Record<string, { before: unknown; after: unknown }>,
  );
  const moved = databases.map(([name, { before, after }]) =>
    `; database ${printable(name)}: TXID ${before ?? "none"} -> ${after ?? "none"}`
  );
  return `${totals.added} added, ${totals.removed} removed, ${totals.changed} changed, ` +
    `${totals.metadata} in their metadata alone; ${size(Number(result["bytes_before"]))} -> ` +
    `${size(Number(result["bytes_after"]))}${moved.join("")}`;
}
