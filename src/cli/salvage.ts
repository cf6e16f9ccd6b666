/** `state-manager restore --to DIR --salvage`: what can still be read of a damaged checkpoint, and a list of what cannot. */

import { salvageTo } from "../checkpoint/mod.ts";
import { checkpointView, totalsView } from "../server/mod.ts";
import { type Context, type ExitCode, type Options, say } from "./context.ts";
import type { Target } from "./restore_target.ts";
import { openSource } from "./restore_offline.ts";
import { count, printable, size } from "./text.ts";

/** Something is lost: what is left is there. */
const PARTIAL = 2;

export async function salvage(
  context: Context,
  options: Options,
  target: Target,
  to: string,
): Promise<ExitCode> {
  await using source = await openSource(context, options, target, to);
  const { record, head, names, folder } = source;
  const { progress, environment } = source.begin();
  let result: Awaited<ReturnType<typeof salvageTo>>;
  try {
    result = await salvageTo({ record, head, indexes: head.indexes, names, folder }, environment);
  } finally {
    progress.done();
  }
  const { totals, warnings, lost, lostTotal, lostLists } = result;
  if (options.flag("json")) {
    const document = {
      type: "complete",
      source: checkpointView(record),
      files: names,
      folder,
      totals: totalsView(totals),
      file_warnings: warnings,
      lost_files: lost.map(({ root, path, sizeBytes, lostBytes, ranges }) => ({
        root,
        path,
        size_bytes: sizeBytes,
        lost_bytes: lostBytes,
        ranges,
      })),
      lost_files_total: lostTotal,
      lost_lists: lostLists,
    };
    context.terminal.out(JSON.stringify(document) + "\n");
  } else {
    for (const { root, path, sizeBytes, lostBytes } of lost) {
      context.terminal.out(
        printable(`lost ${size(lostBytes)} of ${size(sizeBytes)}: ${root}/${path}`) + "\n",
      );
    }
    if (lostTotal > lost.length) context.terminal.out(`and ${lostTotal - lost.length} more\n`);
    for (const { root, known, entries } of lostLists) {
      context.terminal.out(`lost a part of the list of files of ${root}: ${known} of ${entries} are known\n`);
    }
  }
  say(
    context,
    options,
    `v${record.n} ${record.id}: ${size(totals.bytes)} into ${folder}, ${count(lostTotal, "file")} incomplete`,
  );
  return lostTotal + lostLists.length === 0 ? 0 : PARTIAL;
}
