/** What processes said, read from their log files where no manager runs that could be asked. */

import { loadConfig } from "../config/mod.ts";
import { dataDirAt } from "../manager/data_dir.ts";
import { localFileError } from "../platform/files.ts";
import { parseSince } from "../server/mod.ts";
import { openLogFiles, RING_LIMIT_LINES } from "../supervisor/mod.ts";
import type { Context, Options } from "./context.ts";
import { usageError } from "./context.ts";
import { findDataDirOf } from "./data_dir.ts";
import { configFlags } from "./flags.ts";
import type { Told } from "./logs.ts";

export interface ProcessLogFile {
  readonly name: string;
  readonly path: string;
  readonly maxFiles: number;
  readonly timesFolder: string;
}

/** Log files of the processes that are named, of all when none is; none where the configuration has no such file. */
export async function logFilesOf(
  context: Context,
  options: Options,
  names: readonly string[],
): Promise<ProcessLogFile[]> {
  const dataDir = findDataDirOf(context, options);
  const { environment, folder } = context;
  const flags = configFlags(options.only(["config", "dataDir"]));
  const { config } = await loadConfig({ environment, flags, dataDir, folder });
  const found: ProcessLogFile[] = [];
  for (const [name, { logs }] of Object.entries(config?.processes ?? {})) {
    if (names.length > 0 && !names.includes(name)) continue;
    const { path, maxFiles } = logs;
    if (path !== null) {
      found.push({ name, path, maxFiles, timesFolder: `${dataDirAt(dataDir).logTimes}/${name}` });
    }
  }
  return found;
}

/** As a manager would tell them. Streams are not known there. */
export async function* linesOfFile(
  { name, path, maxFiles, timesFolder }: ProcessLogFile,
  query: URLSearchParams,
  nowMs: number,
): AsyncGenerator<Told> {
  if (query.has("stream")) {
    throw usageError("read --stream: log files do not tell which stream a line came from");
  }
  const since = query.get("since");
  const tail = query.get("tail") ?? (since === null ? String(RING_LIMIT_LINES) : "all");
  const text = query.get("text") ?? "";
  const sinceMs = since === null ? -Infinity : parseSince(since, nowMs);
  if (sinceMs === null) {
    throw usageError("read --since: want a time as in RFC 3339, or a duration such as 10m");
  }
  try {
    using history = await openLogFiles(path, timesFolder, maxFiles);
    const blocks = history?.lines({
      tail: tail === "all" ? Infinity : Number(tail),
      sinceMs,
      matches: text === "" ? null : (line) => line.text.includes(text),
    });
    for await (const lines of blocks ?? []) {
      for (const { wallMs, stream, text, partial, part } of lines) {
        const time = new Date(wallMs).toISOString();
        const pieces = partial || part > 0 ? { partial, part } : {};
        yield { process: name, event: { type: "line", time, stream, text, ...pieces } };
      }
    }
  } catch (error) {
    throw localFileError(`read the log files ${path}`, error);
  }
}
