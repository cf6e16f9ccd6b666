/** The part of the schema that says what one database is, or one folder of them. */

import * as v from "valibot";
import { choiceSchema, described, durationSchema, pathSchema, requiredKey } from "./schema_values.ts";

/** Entries; one with a pattern may mean many files. */
export const MOST_DATABASES = 256;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const LARGEST_ID = 4_294_967_294; // the largest number means "unchanged" to chown(2)

/** Of file names that a store can keep (docs/configuration.md). */
const PATTERN = /^[A-Za-z0-9._?*-]{1,100}$/;

export interface Owner {
  readonly uid: number;
  /** Null: the group as recorded. */
  readonly gid: number | null;
}

/** Numbers alone: names mean something else in each image. */
const ownerSchema = v.pipe(
  v.union([v.string(), v.number()], 'numbers: "UID" or "UID:GID", such as "1000:1000"'),
  v.rawTransform<string | number, Owner>(({ dataset, addIssue, NEVER }) => {
    const [, user = "", group] = /^(\d{1,10})(?::(\d{1,10}))?$/.exec(String(dataset.value)) ?? [];
    const owner = { uid: Number(user), gid: group === undefined ? null : Number(group) };
    if (user !== "" && owner.uid <= LARGEST_ID && (owner.gid ?? 0) <= LARGEST_ID) return owner;
    addIssue({ message: 'numbers: "UID" or "UID:GID", such as "1000:1000"' });
    return NEVER;
  }),
);

/** A text alone: of the number 640 nobody knows whether it is meant in octal. */
const modeSchema = v.pipe(
  v.string('octal digits as a text, such as "0640"'),
  v.regex(
    /^0?[67][0-7]{2}$/,
    'octal digits as a text, such as "0640", with which its owner may read and write',
  ),
  v.transform((text) => parseInt(text, 8)),
);

export const databaseSchema = v.strictObject({
  path: requiredKey(
    "Path",
    "The SQLite file; with `pattern` the folder of the files. It may lie below a folder of `files`.",
    pathSchema("a file"),
  ),
  pattern: described(
    "Pattern",
    "Which files of the folder are databases, such as *.db: * any characters, ? one. Each is NAME/FILE. Default: `path` is one file.",
    v.pipe(
      v.string("a pattern such as *.db"),
      v.regex(PATTERN, "a pattern such as *.db: up to 100 of letters, digits, . _ - * and ?, without /"),
    ),
  ),
  sync_interval: described(
    "Sync interval",
    "Longest time from a commit to its copy in the store, while the store answers. Default: 1s.",
    durationSchema(100, HOUR_MS, "1s"),
  ),
  snapshot_interval: described(
    "Snapshot interval",
    "Time between two whole copies in the store, from which restores begin. Default: 24h.",
    durationSchema(MINUTE_MS, 30 * DAY_MS, "24h"),
  ),
  retention: described(
    "Retention",
    "How far back it can be restored; more where a checkpoint needs it. Default: 24h.",
    durationSchema(MINUTE_MS, 3650 * DAY_MS, "24h"),
  ),
  drill_interval: described(
    "Drill interval",
    "Time between two trial restores, each checked and thrown away; 0: none. Default: 24h.",
    durationSchema(0, 365 * DAY_MS, "24h"),
  ),
  journal: described(
    "Journal",
    "follow: the WAL is followed; while the program keeps a rollback journal, whole copies are compared instead. " +
      "convert: it is set to WAL mode as soon as possible. snapshot: whole copies are compared always. Default: follow.",
    choiceSchema(["follow", "convert", "snapshot"]),
  ),
  owner: described("Owner", 'Of a restored file: "UID" or "UID:GID". Default: as recorded.', ownerSchema),
  mode: described("Mode", 'Of a restored file, such as "0640". Default: as recorded.', modeSchema),
}, "an object");
