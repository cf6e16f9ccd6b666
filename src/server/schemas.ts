/**
 * What request bodies and queries look like. Every message is written here: a library's default would repeat what was
 * sent, and that may hold a secret.
 */

import * as v from "valibot";
import { durationSchema, secretSchema, signalSchema as signalNameSchema } from "../config/mod.ts";
import { LABELS_LIMIT, parseCheckpointReference, parseInnerPath } from "../checkpoint/mod.ts";
import { isError } from "../platform/errors.ts";
import { parseTime } from "./times.ts";

/** Room for a sentence or two; the comment is in every listing. */
const MAX_COMMENT_LENGTH = 1000;
const MAX_LABEL_NAME_LENGTH = 63;
const MAX_LABEL_VALUE_LENGTH = 256;
/** As many as a configuration can name. */
const MAX_FILES = 64;
const MAX_NAME_LENGTH = 63;
/** A pattern may find very many; whoever restores more of them restores all. */
const MAX_DATABASES = 1000;
/** Of one that a pattern found: its entry's name, a slash, the file's name. */
const MAX_DATABASE_NAME_LENGTH = MAX_NAME_LENGTH + 1 + 100;
/** Paths of one restore; whoever wants more wants a folder. */
const MAX_PATHS = 1000;
/** As long as the system lets one be. */
const MAX_PATH_LENGTH = 4096;

const object = <Entries extends v.ObjectEntries>(entries: Entries) => {
  const known = Object.keys(entries);
  return v.strictObject(
    entries,
    (issue) => {
      if (issue.expected === "Object") return "must be a JSON object";
      if (issue.expected !== "never") return "must be given";
      return known.length === 0
        ? "unknown key: none is known here"
        : `unknown key: known are ${known.join(", ")}`;
    },
  );
};

/** What `GET /config` shows in the place of a secret is none. */
const newSecret = (what: string) =>
  v.pipe(
    v.string(`must be ${what}`),
    v.check((text) => text !== "***", `must be ${what}, and not the mark that stands for a hidden one`),
    secretSchema(what),
  );

const flag = v.boolean("must be true or false");

const names = (most: number, longest: number) =>
  v.pipe(
    v.array(
      v.pipe(
        v.string("must be a name"),
        v.minLength(1, "must be a name"),
        v.maxLength(longest, `must have at most ${longest} characters`),
      ),
      "must be a list of names",
    ),
    v.maxLength(most, `must hold at most ${most} names`),
  );

const PATH_TEXT = "must be a path inside of a files root, relative to it";

const paths = v.pipe(
  v.array(
    v.pipe(
      v.string(PATH_TEXT),
      v.maxLength(MAX_PATH_LENGTH, "is too long"),
      v.check((text) => isInnerPath(text), PATH_TEXT),
    ),
    "must be a list of paths",
  ),
  v.minLength(1, "must name some, or be left out for all"),
  v.maxLength(MAX_PATHS, `must hold at most ${MAX_PATHS} paths`),
);

function isInnerPath(text: string): boolean {
  try {
    parseInnerPath(text);
    return true;
  } catch (error) {
    if (isError(error, "invalid-request")) return false;
    throw error;
  }
}

/** For requests that take nothing. */
export const nothingSchema = object({});

/** No control characters: comments and labels are printed in terminals. */
// deno-lint-ignore no-control-regex
const PRINTABLE = /^[^\u0000-\u001f\u007f-\u009f]*$/;

const commentText = v.pipe(
  v.string("must be a text"),
  v.maxLength(MAX_COMMENT_LENGTH, `must have at most ${MAX_COMMENT_LENGTH} characters`),
  v.regex(PRINTABLE, "must be one line without control characters"),
);

const labelName = v.pipe(
  v.string("must have text keys"),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._/-]*$/, "must have keys of letters, digits, '.', '_', '/' and '-'"),
  v.maxLength(MAX_LABEL_NAME_LENGTH, `must have keys of at most ${MAX_LABEL_NAME_LENGTH} characters`),
);

const labelValue = v.pipe(
  v.string("must have text values"),
  v.maxLength(MAX_LABEL_VALUE_LENGTH, `must have values of at most ${MAX_LABEL_VALUE_LENGTH} characters`),
  v.regex(PRINTABLE, "must have values without control characters"),
);

export const checkpointSchema = object({
  comment: v.optional(commentText, ""),
  labels: v.optional(
    v.pipe(
      v.record(labelName, labelValue, "must be an object of texts"),
      v.maxEntries(LABELS_LIMIT, `must have at most ${LABELS_LIMIT} keys`),
    ),
    {},
  ),
});

/** Null takes a label away; labels that are not named stay. */
export const notesSchema = object({
  comment: v.exactOptional(commentText),
  labels: v.exactOptional(
    v.pipe(
      v.record(labelName, v.nullable(labelValue), "must be an object of texts and nulls"),
      v.maxEntries(2 * LABELS_LIMIT, `must have at most ${2 * LABELS_LIMIT} keys`),
    ),
  ),
  pinned: v.exactOptional(flag),
});

const REFERENCE_TEXT = "must be an id, an ordinal (3 or v3) or latest";

const checkpointReference = v.pipe(
  v.union(
    [v.string(), v.pipe(v.number(), v.safeInteger(REFERENCE_TEXT))],
    REFERENCE_TEXT,
  ),
  v.transform((value) => parseCheckpointReference(String(value))),
  v.check((value) => value !== null, REFERENCE_TEXT),
  v.transform((value) => value ?? "latest"), // null was refused the line before
);

const TIME_TEXT = "must be a time as in RFC 3339, with its zone: 2026-01-31T12:00:00Z";

export const restoreSchema = object({
  checkpoint: v.optional(checkpointReference),
  at: v.optional(v.pipe(
    v.string(TIME_TEXT),
    v.check((text) => parseTime(text) !== null, TIME_TEXT),
    v.transform((text) => parseTime(text) ?? 0), // null was refused the line before
  )),
  txid: v.optional(
    v.pipe(
      v.number("must be a TXID, a whole number from 1 on"),
      v.safeInteger("must be a TXID, a whole number from 1 on"),
      v.minValue(1, "must be a TXID, a whole number from 1 on"),
    ),
  ),
  files: v.optional(names(MAX_FILES, MAX_NAME_LENGTH)),
  databases: v.optional(names(MAX_DATABASES, MAX_DATABASE_NAME_LENGTH)),
  paths: v.optional(paths),
  dry_run: v.optional(flag, false),
  safety: v.optional(flag, true),
  consistent: v.optional(flag, false),
});

const LEVEL_TEXT = "must be 1, 2, 3 or 4";
const PERCENT_TEXT = "must be a number from 0 to 100";

export const verifySchema = object({
  level: v.optional(v.picklist([1, 2, 3, 4], LEVEL_TEXT)),
  percent: v.optional(
    v.pipe(v.number(PERCENT_TEXT), v.minValue(0, PERCENT_TEXT), v.maxValue(100, PERCENT_TEXT)),
  ),
});

/** Longest wait for the end of a process in one answer: as long as `timeout_stop` can be. */
const LONGEST_WAIT_MS = 24 * 3600 * 1000;

/** `wait`: how long an answer may take; what was asked for goes on after it. */
export const waitSchema = object({
  wait: v.optional(durationSchema(0, LONGEST_WAIT_MS, "30s")),
});

export const signalSchema = object({
  signal: v.optional(signalNameSchema("must be a signal", ["SIGCHLD"])),
  to: v.optional(v.picklist(["leader", "group"], "must be leader or group"), "leader"),
});

export const reloadSchema = object({ dry_run: v.optional(flag, false), restart: v.optional(flag, false) });

export const repairSchema = object({ dry_run: v.optional(flag, false), read: v.optional(flag, false) });

export const credentialsSchema = object({
  access_key: newSecret("an access key id"),
  secret_key: newSecret("a secret access key"),
  session_token: v.exactOptional(newSecret("a session token")),
});

export const pruneSchema = object({ dry_run: v.optional(flag, false) });

/** Most records in one page (the contract's). */
export const MAX_PAGE = 1000;
