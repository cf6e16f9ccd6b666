/**
 * The one schema of the configuration, in the names of the file. It checks values one by one and resolves units;
 * defaults, and rules that need more than one key, are in effective.ts. Keys whose feature this version lacks are
 * not here but in unavailable.ts, so that they are refused with a reason instead of being ignored.
 */

import * as v from "valibot";
import { databaseSchema, MOST_DATABASES } from "./schema_database.ts";
import { hookSchema, MOST_PROCESSES, processSchema } from "./schema_process.ts";
import {
  booleanSchema,
  choiceSchema,
  described,
  durationSchema,
  integerSchema,
  listSchema,
  mapSchema,
  nameSchema,
  pathSchema,
  requiredKey,
  scheduleSchema,
  secretSchema,
  signalChoiceSchema,
  sizeSchema,
  textSchema,
} from "./schema_values.ts";

const SECOND_MS = 1000;
/** Signals that other worlds stop a container with: LXC's `lxc.signal.halt`, the web server httpd's STOPSIGNAL. */
const STOP_CHOICES = ["SIGPWR", "SIGWINCH"] as const;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** A bound on the maps: what one manager can keep without becoming slow. */
const MOST_FILES = 64;
const MOST_TOKENS = 64;

const storageSchema = v.strictObject({
  bucket: described(
    "Bucket",
    "Name of the S3 bucket. Either this or `directory`.",
    v.pipe(
      v.string("a bucket's name"),
      v.regex(
        /^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$/,
        "a bucket's name: 3 to 255 of letters, digits, . _ and -",
      ),
    ),
  ),
  endpoint: described(
    "Endpoint",
    "URL of the S3-compatible store. Default: Amazon's for the region.",
    v.pipe(
      v.string("a URL such as https://s3.example.com"),
      v.maxLength(2048, "a URL of at most 2048 characters"),
      v.check(isEndpoint, "an http or https URL without user name, password, query or fragment"),
      v.transform((url) => url.replace(/\/+$/, "")),
    ),
  ),
  region: described(
    "Region",
    "Region that requests are signed for. Default: us-east-1.",
    textSchema("a region", 64),
  ),
  access_key: described("Access key", "Access key id. Secret.", secretSchema("an access key id")),
  secret_key: described("Secret key", "Secret access key. Secret.", secretSchema("a secret access key")),
  session_token: described(
    "Session token",
    "Token of temporary credentials. Secret.",
    secretSchema("a session token"),
  ),
  force_path_style: described(
    "Path style",
    "Put the bucket into the URL's path, not into its host name. Default: true.",
    booleanSchema,
  ),
  ca_file: described("CA file", "PEM file with further root certificates.", pathSchema("a PEM file")),
  directory: described("Folder", "A folder as the store, instead of a bucket.", pathSchema("a folder")),
  key_prefix: described(
    "Key prefix",
    "Everything is kept under it; one prefix is one repository with one lease. Default: none.",
    v.pipe(
      v.string("a key prefix"),
      v.transform((prefix) => prefix.replace(/^\/+|\/+$/g, "")),
      v.maxLength(512, "at most 512 characters"),
      v.check(isKeyPrefix, "parts of letters, digits, . _ and -, joined by /"),
    ),
  ),
  env_dir: described(
    "Folder of variables",
    "One file per variable (mounted secrets); read again when it changes, so that credentials rotate.",
    pathSchema("a folder"),
  ),
}, "an object");

function isEndpoint(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const url = new URL(text);
  return /^https?:$/.test(url.protocol) && url.hostname !== "" && url.username === "" &&
    url.password === "" &&
    url.search === "" && url.hash === "";
}

function isKeyPrefix(text: string): boolean {
  return text === "" ||
    text.split("/").every((part) => /^[A-Za-z0-9._-]{1,200}$/.test(part) && part !== "." && part !== "..");
}

const filesSchema = v.strictObject({
  path: requiredKey("Path", "The folder that is kept.", pathSchema("a folder")),
  exclude: described(
    "Exclude",
    "Patterns of what is left out, in .gitignore's form.",
    listSchema(textSchema("a pattern", 1024), 1000, "a list of patterns"),
  ),
  exclude_caches: described(
    "Exclude caches",
    "Leave out what is in folders with a CACHEDIR.TAG; folder and tag are kept. Default: false.",
    booleanSchema,
  ),
  include_databases: described(
    "Include databases",
    "Keep SQLite databases below it by consistent copies. Default: true.",
    booleanSchema,
  ),
}, "an object");

/** More would only make the list of checkpoints, which each of them changes, slow. */
const MOST_KEPT = 1000;

const keepCount = (title: string, text: string) =>
  described(title, text, integerSchema(0, MOST_KEPT, "checkpoints to keep"));

const keepSchema = v.strictObject({
  last: keepCount("Last", "So many of the newest checkpoints. Default: 10."),
  hourly: keepCount("Hourly", "The newest one of each of so many hours that have any. Default: 24."),
  daily: keepCount("Daily", "The newest one of each of so many days (UTC). Default: 7."),
  weekly: keepCount("Weekly", "The newest one of each of so many weeks, from Monday on. Default: 5."),
  monthly: keepCount("Monthly", "The newest one of each of so many months. Default: 6."),
  within: described(
    "Within",
    "All that are younger than this; 0: no such rule. Default: 0.",
    durationSchema(0, 3650 * DAY_MS, "7d"),
  ),
  labels: described(
    "Labels",
    "All that bear one of these labels: name, or name=value. Default: none.",
    listSchema(textSchema("a label: name, or name=value", 512), 100, "a list of labels"),
  ),
}, "an object");

/** At less than this a checkpoint of anything would outlast the patience of everybody. */
const LEAST_RATE_BYTES = 1024;

export const checkpointSchema = v.strictObject({
  interval: described(
    "Interval",
    "Time between two checkpoints; 0: none by time. Nothing changed: nothing is written. Default: 5m.",
    durationSchema(0, 30 * DAY_MS, "5m"),
  ),
  schedule: described(
    "Schedule",
    "Cron expression, or {cron, time_zone}, instead of the interval. Default: none.",
    scheduleSchema,
  ),
  on_stop: described("On stop", "Make one when everything has stopped. Default: true.", booleanSchema),
  verify: described(
    "Verify",
    "Verification by schedule: every object is looked at, and a part of the packs is read.",
    v.strictObject({
      interval: described(
        "Interval",
        "Time between two; 0: none. Default: 24h.",
        durationSchema(0, 30 * DAY_MS, "24h"),
      ),
      percent: described(
        "Percent",
        "Share of the packs that each one reads, those first that were read longest ago; 0: only their footers. Default: 2.",
        v.pipe(
          v.number("a number from 0 to 100"),
          v.minValue(0, "a number from 0 to 100"),
          v.maxValue(100, "a number from 0 to 100"),
        ),
      ),
    }, "an object"),
  ),
  compression: described(
    "Compression",
    "Of files: auto (more of it while the store is slower than the reading), fast, max, or off. Default: auto.",
    choiceSchema(["auto", "fast", "max", "off"]),
  ),
  upload_limit: described(
    "Upload limit",
    "Bytes per second that checkpoints send to the store; 0: no limit. Default: 0.",
    sizeSchema(LEAST_RATE_BYTES, "10MiB"),
  ),
  download_limit: described(
    "Download limit",
    "Bytes per second that restores and verifications get from the store; 0: no limit. Default: 0.",
    sizeSchema(LEAST_RATE_BYTES, "10MiB"),
  ),
  keep: described("Keep", "Which checkpoints stay; what none of these rules wants is deleted.", keepSchema),
  consistency: described(
    "Consistency",
    "live: files are read while processes run. freeze: processes are stopped (SIGSTOP) while what changed is copied. " +
      "hooks: before and after are run around that. Default: live.",
    choiceSchema(["live", "freeze", "hooks"]),
  ),
  capture_limit: described(
    "Capture limit",
    "Longest time that freeze or hooks may keep processes still; then they go on, and the rest is read live, with a warning. Default: 5s.",
    durationSchema(100, 10 * 60 * SECOND_MS, "5s"),
  ),
  before: described(
    "Before",
    "With hooks: command that makes programs put their state on the disk and keep it still. A list, or a line for /bin/sh.",
    hookSchema,
  ),
  after: described(
    "After",
    "With hooks: command that lets programs go on; always run once `before` was begun. A list, or a line for /bin/sh.",
    hookSchema,
  ),
  hook_timeout: described(
    "Hook timeout",
    "Longest time for `before`, and for `after`. Default: 30s.",
    durationSchema(100, 10 * 60 * SECOND_MS, "30s"),
  ),
  encryption_key_file: described(
    "Encryption key file",
    "Encrypts a repository that is made, and opens one that is encrypted: 32 random bytes, raw, hex or base64, or a " +
      "passphrase. Replicas of databases are not encrypted. Default: none.",
    pathSchema("a file"),
  ),
}, "an object");

const restoreSchema = v.strictObject({
  on_start: described(
    "On start",
    "latest, none, or once: a checkpoint's id or number, or an RFC 3339 time. Default: latest.",
    v.pipe(
      v.string('"latest", "none", a checkpoint or a time'),
      v.check(
        isRestorePoint,
        '"latest", "none", a checkpoint\'s id or number, or a time such as 2026-01-31T12:00:00Z',
      ),
    ),
  ),
  on_conflict: described(
    "On conflict",
    "What wins where local data is of unknown origin. Default: refuse.",
    choiceSchema(["refuse", "bucket", "local"]),
  ),
  orphans: described(
    "Orphans",
    "Files and databases in the bucket that the configuration does not name: stop, or keep them there. Default: stop.",
    choiceSchema(["stop", "keep"]),
  ),
}, "an object");

function isRestorePoint(text: string): boolean {
  if (text === "latest" || text === "none" || /^v?[1-9]\d{0,8}$/.test(text)) return true;
  if (/^[0-9a-hjkmnp-tv-z]{26}$/.test(text)) return true;
  return /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)$/.test(text) &&
    !Number.isNaN(Date.parse(text));
}

const leaseSchema = v.strictObject({
  mode: described(
    "Mode",
    "required: nothing starts without the lease. none: nothing protects the data from a second manager. Default: required.",
    choiceSchema(["required", "none"]),
  ),
  ttl: described(
    "Time to live",
    "How long a holder that died keeps others waiting. Default: 30s.",
    durationSchema(2 * SECOND_MS, HOUR_MS, "30s"),
  ),
  renew: described(
    "Renew",
    "Time between renewals. Default: 8s, or less for a short ttl.",
    durationSchema(100, HOUR_MS, "8s"),
  ),
  wait: described(
    "Wait",
    "While another holds it: true waits for ever, false gives up at once, or how long. Default: true.",
    v.union(
      [booleanSchema, durationSchema(0, 365 * DAY_MS, "5m")],
      "true, false, or a duration such as 5m",
    ),
  ),
  on_unreachable: described(
    "On unreachable store",
    "What happens to processes when the lease cannot be renewed in time. Default: freeze.",
    choiceSchema(["freeze", "stop"]),
  ),
  hand_over: described(
    "Hand over",
    "on_request: a manager that waits asks the one that holds the lease, which stops in order and hands it over. " +
      "never: it neither asks nor answers. Default: on_request.",
    choiceSchema(["on_request", "never"]),
  ),
  standby_ready: described(
    "Standby is ready",
    "A manager that waits for the lease says it is ready. Default: false.",
    booleanSchema,
  ),
}, "an object");

const tokenSchema = v.strictObject({
  name: requiredKey("Name", "For logs; no secret.", nameSchema),
  token_file: described("Token file", "File that holds the token.", pathSchema("a file")),
  hash: described(
    "Hash",
    "sha256: and the lower-case hex SHA-256 of the token.",
    v.pipe(
      v.string('"sha256:" and 64 hex digits'),
      v.regex(/^sha256:[0-9a-f]{64}$/, '"sha256:" and 64 lower-case hex digits'),
    ),
  ),
  scope: requiredKey("Scope", "write includes read.", choiceSchema(["read", "write"])),
}, "an object");

const serverSchema = v.strictObject({
  listen: described(
    "Listen",
    "Address and port; beyond loopback a token is needed. Default: 127.0.0.1:8080.",
    v.pipe(
      v.string("an address such as 127.0.0.1:8080"),
      v.maxLength(300, "an address such as 127.0.0.1:8080"),
    ),
  ),
  socket: described(
    "Unix socket",
    "Path of the control socket. Default: in the data folder.",
    pathSchema("a path"),
  ),
  tokens: described(
    "Tokens",
    "Who may call beyond loopback.",
    listSchema(tokenSchema, MOST_TOKENS, "a list of tokens"),
  ),
  tls: described(
    "TLS",
    "Certificate and key, PEM.",
    v.strictObject({
      cert: requiredKey("Certificate", "Chain, PEM.", pathSchema("a PEM file")),
      key: requiredKey("Key", "Private key, PEM.", pathSchema("a PEM file")),
    }, "an object with cert and key"),
  ),
  behind_tls_proxy: described(
    "Behind a TLS proxy",
    "A proxy in front speaks TLS, so that secrets may come in over this listener. Default: false.",
    booleanSchema,
  ),
}, "an object");

/** The whole file. */
export const configSchema = v.strictObject({
  $schema: described("Schema", "For editors; ignored.", v.string("a URL")),
  name: described(
    "Name",
    "Name of the repository in the bucket. Default: the last part of the key prefix.",
    v.pipe(v.string("a name"), v.regex(/^[A-Za-z0-9._-]{1,200}$/, "a name of letters, digits, . _ and -")),
  ),
  storage: described("Storage", "Where the state is kept.", storageSchema),
  stacks: described(
    "Stacks",
    "What to start, in this order: lease, databases, files, processes, or names of single ones. Default: all.",
    listSchema(textSchema("a stack's name", 64), 512, "a list of names"),
  ),
  supervisor: described(
    "Supervisor",
    "Defaults for all processes.",
    v.strictObject({
      timeout_stop: described(
        "Stop timeout",
        "That of every process without its own. Default: 90s.",
        durationSchema(0, DAY_MS, "90s"),
      ),
      restart_delay: described(
        "Restart delay",
        "That of every process without its own. Default: 1s.",
        durationSchema(0, HOUR_MS, "1s"),
      ),
    }, "an object"),
  ),
  processes: described(
    "Processes",
    "What runs, by name.",
    mapSchema(processSchema, MOST_PROCESSES, "an object of processes"),
  ),
  files: described(
    "Files",
    "Folders that are kept, by name.",
    mapSchema(filesSchema, MOST_FILES, "an object of folders"),
  ),
  databases: described(
    "Databases",
    "SQLite databases that are replicated as they are written, by name.",
    mapSchema(databaseSchema, MOST_DATABASES, "an object of databases"),
  ),
  checkpoint: described("Checkpoints", "When checkpoints are made.", checkpointSchema),
  restore: described("Restore", "What happens at a start.", restoreSchema),
  lease: described("Lease", "Who may run.", leaseSchema),
  catalog: described(
    "Catalog",
    "Local history of events; never needed for a restore.",
    v.strictObject({
      path: described("Path", "Its file. Default: in the data folder.", pathSchema("a file")),
    }, "an object"),
  ),
  server: described("Server", "The HTTP interface.", serverSchema),
  shutdown: described(
    "Shutdown",
    "How long stopping may take.",
    v.strictObject({
      budget: described(
        "Budget",
        "All of it; the platform's grace, less a second. Default: 9s, or less for a short platform_grace.",
        durationSchema(SECOND_MS, DAY_MS, "9s"),
      ),
      flush_reserve: described(
        "Flush reserve",
        "Part of the budget kept for the last checkpoint and the release. Default: 3s.",
        durationSchema(0, DAY_MS, "3s"),
      ),
      platform_grace: described(
        "Platform's grace",
        "How long the platform waits before it kills: a longer budget is warned of. Default: that of the platform where it is known, by its own defaults.",
        durationSchema(SECOND_MS, DAY_MS, "10s"),
      ),
      signals: described(
        "Signals",
        "Signals that stop the manager besides SIGTERM, SIGINT and SIGQUIT: SIGPWR (LXC), SIGWINCH. Default: none.",
        listSchema(
          signalChoiceSchema(STOP_CHOICES, "others stop it anyway, or mean something else to it"),
          STOP_CHOICES.length,
          "a list of signals",
        ),
      ),
    }, "an object"),
  ),
  log: described(
    "Log",
    "Lines go to standard error.",
    v.strictObject({
      format: described(
        "Format",
        "auto: text on a terminal, else JSON. Default: auto.",
        choiceSchema(["text", "json", "auto"]),
      ),
      level: described(
        "Level",
        "The least important lines that are written. Default: info.",
        choiceSchema(["debug", "info", "warn", "error"]),
      ),
    }, "an object"),
  ),
}, "an object");

/** What the schema gives: the file's names, units resolved, no defaults yet. */
export type ParsedConfig = v.InferOutput<typeof configSchema>;
export type ParsedToken = v.InferOutput<typeof tokenSchema>;
