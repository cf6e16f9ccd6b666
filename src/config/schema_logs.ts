/** The part of the schema that says what becomes of a process's output. */

import * as v from "valibot";
import {
  booleanSchema,
  choiceSchema,
  described,
  integerSchema,
  pathSchema,
  requiredKey,
  sizeSchema,
} from "./schema_values.ts";

/** Smaller files would be rotated several times a second by a talkative program. */
const LEAST_FILE_BYTES = 64 * 1024;
const MOST_LINES = 10_000_000;

const rateLimitSchema = v.strictObject({
  lines_per_second: requiredKey("Lines", "So many lines a second.", integerSchema(1, MOST_LINES, "lines")),
  burst: described(
    "Burst",
    "So many at once after a quiet time. Default: ten seconds' worth.",
    integerSchema(1, MOST_LINES, "lines"),
  ),
}, "an object");

export const logsSchema = v.strictObject({
  path: described(
    "Log file",
    "Its output, both streams, as it is. Rotated by renaming; SIGUSR1 to the manager opens it anew. Default: no file.",
    pathSchema("a file"),
  ),
  max_size: described(
    "Largest size",
    "The file is renamed to .1 before it grows beyond this. 0: never. Default: 10MiB.",
    sizeSchema(LEAST_FILE_BYTES, "10MiB"),
  ),
  max_files: described(
    "Number of files",
    "In all, the one that is written among them. Default: 5.",
    integerSchema(1, 1000, "files"),
  ),
  compression: described(
    "Compression",
    "Of files that are renamed away: none, or zstd (.1.zst; zstdcat reads them), after the renaming and behind other work. Default: none.",
    choiceSchema(["none", "zstd"]),
  ),
  policy: described(
    "Policy",
    "block: it waits while the disk, or for up to 5s the reader of the manager's output, is slow. drop: lines are dropped and counted. Default: block.",
    choiceSchema(["block", "drop"]),
  ),
  rate_limit: described(
    "Rate limit",
    "More lines than this are dropped, with a summary. Default: none.",
    rateLimitSchema,
  ),
  pass_through: described(
    "Pass through",
    "Also to the manager's own output. Default: true without a log file, false with one.",
    booleanSchema,
  ),
  format: described(
    "Format of what is passed through",
    "plain: as it is. prefix: with its name before each line. json: an object a line. Default: prefix; for the command of `run` plain.",
    choiceSchema(["plain", "prefix", "json"]),
  ),
}, "an object");

export type ParsedLogs = v.InferOutput<typeof logsSchema>;
