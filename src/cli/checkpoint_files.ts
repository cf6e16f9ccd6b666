/** `state-manager checkpoint files` and `checkpoint cat`: what is in a checkpoint, without restoring it. */

import { findCheckpoint, listFolder, parseCheckpointReference, readFile } from "../checkpoint/mod.ts";
import { folderView } from "../server/mod.ts";
import { type JsonObject, openClient } from "./client.ts";
import { type Context, type ExitCode, type Options, usageError } from "./context.ts";
import { fromManagerOrStore } from "./manager_or_store.ts";
import { openRepositoryOffline, readingOf } from "./offline.ts";
import { json, table } from "./text.ts";

interface Page {
  readonly entries: readonly JsonObject[];
  readonly next_after: string | null;
}

export async function listFiles(
  context: Context,
  options: Options,
  [text = "", path = ""]: readonly string[],
): Promise<ExitCode> {
  const reference = referenceOf(text);
  const recursive = options.flag("recursive");
  const entries = await fromManagerOrStore(
    context,
    options,
    async () => {
      using client = await openClient(context, options);
      const all: JsonObject[] = [];
      for (let after: string | null = "0"; after !== null;) {
        const query = new URLSearchParams({ path, recursive: String(recursive), after });
        const page: Page = await client.get(`/checkpoints/${reference}/files?${query}`, null);
        all.push(...page.entries);
        after = page.next_after;
      }
      return all;
    },
    async () => {
      await using repository = await openRepositoryOffline(context, options);
      const { head } = repository;
      const record = findCheckpoint(head, { checkpoint: reference });
      const request = { record, indexes: head.indexes, path, recursive, skip: 0, limit: Infinity };
      const view = folderView(await listFolder(request, readingOf(context, repository)));
      return view["entries"] as readonly JsonObject[];
    },
  );
  context.terminal.out(options.flag("json") ? json({ entries }) : entriesText(entries));
  return 0;
}

/** The bytes as they are; each chunk is proven before it is printed. */
export async function printFile(
  context: Context,
  options: Options,
  [text = "", path = ""]: readonly string[],
): Promise<ExitCode> {
  const reference = referenceOf(text);
  await using repository = await openRepositoryOffline(context, options);
  const { head } = repository;
  const record = findCheckpoint(head, { checkpoint: reference });
  const pieces = readFile({ record, indexes: head.indexes, path }, readingOf(context, repository));
  for await (const piece of pieces) context.terminal.outBytes(piece);
  return 0;
}

function referenceOf(text: string): string {
  const reference = parseCheckpointReference(text);
  if (reference !== null) return reference;
  throw usageError("read the checkpoint: want an id, an ordinal (3 or v3) or latest");
}

const TYPE_LETTERS: Readonly<Record<string, string>> = { file: "-", directory: "d", symlink: "l", fifo: "p" };

function entriesText(entries: readonly JsonObject[]): string {
  const rows = entries.map((each) => [
    `${TYPE_LETTERS[String(each["type"])] ?? "?"}${each["mode"]}`,
    `${each["uid"]}:${each["gid"]}`,
    String(each["size_bytes"]),
    String(each["mtime"]).slice(0, 19),
    `${each["path"]}${each["target"] === null ? "" : ` -> ${each["target"]}`}`,
  ]);
  return table(["MODE", "OWNER", "SIZE", "TIME", "PATH"], rows);
}
