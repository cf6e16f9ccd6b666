/**
 * Every command, its options and where its code is. The parser, the help and the tests are made from this table; a
 * command's code is imported only when it runs, so that short ones start fast.
 */

import type { CommandAction } from "./context.ts";

export interface OptionSpec {
  /** As commander reads it: `--files <path>`, `--json`, `--no-lease-wait`. */
  readonly flags: string;
  readonly text: string;
  readonly repeatable?: true;
  readonly choices?: readonly string[];
}

export interface CommandSpec {
  /** `status`, `checkpoint create`. */
  readonly name: string;
  readonly text: string;
  /** As commander reads it: `[id]`, `<command...>`. */
  readonly arguments?: string;
  readonly options: readonly OptionSpec[];
  /** What follows the program's name in examples of the help. */
  readonly examples?: readonly string[];
  /** The first argument ends the options: what follows is another program's. */
  readonly passThrough?: true;
  readonly hidden?: true;
  readonly load: () => Promise<CommandAction>;
}

/** Commands that only group others, and what a group alone means. */
export const GROUPS: Readonly<Record<string, { readonly text: string; readonly standard: string }>> = {
  checkpoint: { text: "make, list, verify and delete checkpoints", standard: "list" },
  lease: { text: "show, release or take the lease", standard: "show" },
  config: { text: "check, show and send configurations", standard: "show" },
  storage: { text: "check and repair what is in the store, change its key", standard: "check" },
  db: { text: "replicated databases: list, restore, sync", standard: "list" },
};

const JSON_OUTPUT: OptionSpec = { flags: "--json", text: "print JSON" };
const QUIET: OptionSpec = { flags: "-q, --quiet", text: "no talk on standard error but errors" };
const YES: OptionSpec = { flags: "-y, --yes", text: "do not ask" };
const DATA_DIR: OptionSpec = { flags: "--data-dir <dir>", text: "data folder of the manager" };
const CONFIG: OptionSpec = { flags: "--config <file>", text: "configuration file" };

/** How a running manager is found. */
const CLIENT: readonly OptionSpec[] = [
  DATA_DIR,
  { flags: "--url <url>", text: "the manager's address, instead of its unix socket" },
  { flags: "--token-file <file>", text: "bearer token for --url (else STATE_MANAGER_TOKEN)" },
  JSON_OUTPUT,
  QUIET,
];

const WAIT: OptionSpec = {
  flags: "--wait <duration>",
  text: "longest wait for the end (default: the process's timeout_stop)",
};

const STORE: readonly OptionSpec[] = [
  { flags: "--directory <dir>", text: "a folder as the store" },
  { flags: "--bucket <name>", text: "bucket of an S3-compatible store" },
  { flags: "--endpoint <url>", text: "its endpoint" },
  { flags: "--region <name>", text: "its region" },
  { flags: "--prefix <prefix>", text: "everything is under this prefix" },
  { flags: "--encryption-key-file <file>", text: "key or passphrase of an encrypted repository" },
];

const SERVER: readonly OptionSpec[] = [
  CONFIG,
  DATA_DIR,
  ...STORE,
  { flags: "--files <path>", text: "keep this folder: [NAME=]PATH", repeatable: true },
  { flags: "--database <path>", text: "replicate this SQLite database: [NAME=]PATH", repeatable: true },
  { flags: "--checkpoint-interval <duration>", text: "time between checkpoints, 0 for none" },
  { flags: "--restore <what>", text: "what to restore at the start: latest, none, a checkpoint or a time" },
  {
    flags: "--on-conflict <what>",
    text: "what wins when local data is of unknown origin",
    choices: ["refuse", "bucket", "local"],
  },
  { flags: "--no-lease-wait", text: "give up (75) when another holds the lease" },
  { flags: "--lease-ttl <duration>", text: "how long a lease lives without renewal" },
  { flags: "--listen <address>", text: "where HTTP listens: HOST:PORT" },
  { flags: "--timeout-stop <duration>", text: "longest wait for a process to stop" },
  { flags: "--shutdown-budget <duration>", text: "longest time for the whole stop" },
];

/** What a restore in place needs to know where no manager runs. */
const ALONE: readonly OptionSpec[] = [
  { flags: "--no-lease-wait", text: "with no manager: give up (75) at once when another holds the lease" },
  {
    flags: "--on-conflict <what>",
    text: "with no manager: what wins when local data is of unknown origin",
    choices: ["refuse", "bucket", "local"],
  },
];

const RESTORE: readonly OptionSpec[] = [
  { flags: "--checkpoint <id>", text: "which checkpoint: id, ordinal (3 or v3) or latest" },
  { flags: "--at <time>", text: "the newest state not after this time (RFC 3339)" },
  { flags: "--files <name>", text: "only these files (else all): NAME, or NAME=PATH", repeatable: true },
  {
    flags: "--databases <name>",
    text: "only these databases (else all): NAME, or NAME=PATH",
    repeatable: true,
  },
  {
    flags: "--path <path>",
    text: "only this file or folder, relative to its files root; nothing beside it changes",
    repeatable: true,
  },
  { flags: "--consistent", text: "with --at: the databases too as they were at the checkpoint" },
  {
    flags: "--to <dir>",
    text: "into this empty folder, straight from the store; nothing in the store changes",
  },
  { flags: "--salvage", text: "with --to: whatever can still be read of a damaged checkpoint" },
  { flags: "--dry-run", text: "say what would be done" },
  { flags: "--no-safety", text: "make no safety checkpoint first" },
  ...ALONE,
  YES,
  CONFIG,
  ...STORE,
  ...CLIENT,
];

/** For commands that work straight on the store, manager or not. */
const STORE_ALONE: readonly OptionSpec[] = [CONFIG, DATA_DIR, ...STORE, JSON_OUTPUT, QUIET];

const VERIFY: readonly OptionSpec[] = [
  {
    flags: "--level <n>",
    text: "1: objects are there, 2: and footers (default), 3: and packs are read, 4: and restored to scratch",
    choices: ["1", "2", "3", "4"],
  },
  {
    flags: "--percent <p>",
    text: "share of the packs that level 3 reads, longest unread first (default: 100)",
  },
  {
    flags: "--scratch <dir>",
    text: "with no manager: where level 4 restores to (default: TMPDIR, else /tmp)",
  },
  CONFIG,
  ...STORE,
  ...CLIENT,
];

const pin = (verb: "pin" | "unpin", text: string): CommandSpec => ({
  name: `checkpoint ${verb}`,
  text,
  arguments: "<id>",
  options: CLIENT,
  load: async () => (await import("./checkpoint_edit.ts")).pinAction(verb),
});

const lease = (verb: "show" | "release" | "acquire", text: string): CommandSpec => ({
  name: `lease ${verb}`,
  text,
  options: CLIENT,
  load: async () => (await import("./lease.ts")).leaseAction(verb),
});

export const COMMANDS: readonly CommandSpec[] = [
  {
    name: "serve",
    text: "start the manager (as state-manager alone does)",
    options: SERVER,
    hidden: true,
    load: async () => (await import("./serve_command.ts")).serve,
  },
  {
    name: "run",
    text: "run one command with its state kept in the store",
    arguments: "<command...>",
    options: [
      ...SERVER,
      {
        flags: "--restart <policy>",
        text: "what follows the command's end (default: no)",
        choices: ["always", "on-failure", "no"],
      },
      {
        flags: "--interactive",
        text:
          "the command has standard input, output and the terminal (default: at a terminal, without --restart)",
      },
      { flags: "--no-interactive", text: "it has none of them: its output is logged" },
    ],
    passThrough: true,
    examples: ["run --directory /mnt/store --files /srv/data -- my-server --port 80"],
    load: async () => (await import("./serve_command.ts")).run,
  },
  {
    name: "status",
    text: "show the state of the manager",
    options: CLIENT,
    load: async () => (await import("./status.ts")).showStatus,
  },
  {
    name: "ps",
    text: "list the processes",
    options: CLIENT,
    load: async () => (await import("./ps.ts")).listProcesses,
  },
  {
    name: "start",
    text: "start processes",
    arguments: "<name...>",
    options: CLIENT,
    examples: ["start web"],
    load: async () => (await import("./processes.ts")).processAction("start"),
  },
  {
    name: "stop",
    text: "stop processes and all that they started; they stay down until they are started",
    arguments: "<name...>",
    options: [WAIT, ...CLIENT],
    examples: ["stop web worker"],
    load: async () => (await import("./processes.ts")).processAction("stop"),
  },
  {
    name: "restart",
    text: "stop processes, then start them again",
    arguments: "<name...>",
    options: [WAIT, ...CLIENT],
    examples: ["restart web"],
    load: async () => (await import("./processes.ts")).processAction("restart"),
  },
  {
    name: "signal",
    text: "send a signal to a process (default: its reload_signal)",
    arguments: "<name> [signal]",
    options: [{ flags: "--group", text: "to all of it, not to its leader alone" }, ...CLIENT],
    examples: ["signal web HUP"],
    load: async () => (await import("./processes.ts")).signalProcess,
  },
  {
    name: "logs",
    text: "show what processes said (all of them, or those named), and with -f what they say",
    arguments: "[names...]",
    options: [
      { flags: "-f, --follow", text: "go on until interrupted" },
      {
        flags: "-n, --tail <lines>",
        text: "so many of the last lines of each, or all, with log files where memory has less",
      },
      {
        flags: "--since <time>",
        text: "lines since this time (RFC 3339), or this long ago (10m), with log files likewise",
      },
      { flags: "--stream <name>", text: "only this one", choices: ["stdout", "stderr", "note"] },
      { flags: "--text <text>", text: "only lines that hold this text" },
      { flags: "-t, --timestamps", text: "the time before each line" },
      { ...CONFIG, text: "configuration file that names the log files, where no manager answers" },
      ...CLIENT,
    ],
    examples: ["logs -f web", "logs --since 10m --stream stderr", "logs --tail 50000 web"],
    load: async () => (await import("./logs.ts")).showLogs,
  },
  {
    name: "events",
    text: "show what happened, and with -f what happens",
    options: [
      { flags: "-f, --follow", text: "go on until interrupted" },
      { flags: "-n, --tail <events>", text: "so many of the last ones, or all (default 100, with -f 10)" },
      { flags: "--since <time>", text: "since this time (RFC 3339), or this long ago (10m)" },
      { flags: "--until <time>", text: "before this time; not with -f" },
      { flags: "--kind <kind>", text: "only events of this kind", repeatable: true },
      ...CLIENT,
    ],
    examples: ["events -f", "events --since 1h --kind process-exit", "events -f --json"],
    load: async () => (await import("./events.ts")).showEvents,
  },
  {
    name: "crashes",
    text: "list the unexpected ends of a process, or show what it said before one",
    arguments: "<name> [id]",
    options: CLIENT,
    examples: ["crashes web", "crashes web latest"],
    load: async () => (await import("./crashes.ts")).showCrashes,
  },
  {
    name: "checkpoint create",
    text: "make a checkpoint and wait until it is durable",
    options: [
      { flags: "-m, --comment <text>", text: "a note for people" },
      { flags: "--label <name=value>", text: "a label", repeatable: true },
      ...CLIENT,
    ],
    examples: ['checkpoint create -m "before the upgrade"'],
    load: async () => (await import("./checkpoint_create.ts")).createCheckpoint,
  },
  {
    name: "checkpoint list",
    text: "list the checkpoints, oldest first (also with no manager, from the store)",
    options: [
      {
        flags: "--label <name=value>",
        text: "only those with this label; NAME alone: with any value",
        repeatable: true,
      },
      { flags: "--kind <kind>", text: "only those of this kind", repeatable: true },
      { flags: "--pinned", text: "only pinned ones" },
      CONFIG,
      ...STORE,
      ...CLIENT,
    ],
    examples: ["checkpoint list --label release --kind request"],
    load: async () => (await import("./checkpoint_list.ts")).listCheckpoints,
  },
  {
    name: "checkpoint show",
    text: "show one checkpoint (also with no manager, from the store)",
    arguments: "<id>",
    options: [CONFIG, ...STORE, ...CLIENT],
    examples: ["checkpoint show v3", "checkpoint show latest --directory /mnt/store"],
    load: async () => (await import("./checkpoint_list.ts")).showCheckpoint,
  },
  {
    name: "checkpoint diff",
    text:
      "what differs between two checkpoints: + added, - removed, M changed, U only metadata (also with no manager)",
    arguments: "<before> [after]",
    options: [{ flags: "--stat", text: "only the totals" }, CONFIG, ...STORE, ...CLIENT],
    examples: ["checkpoint diff v3 v4", "checkpoint diff v3 --stat"],
    load: async () => (await import("./checkpoint_diff.ts")).diff,
  },
  {
    name: "checkpoint files",
    text: "list a folder of a checkpoint: FILES/PATH (also with no manager, from the store)",
    arguments: "<id> [path]",
    options: [
      { flags: "-r, --recursive", text: "also what is in the folders below" },
      CONFIG,
      ...STORE,
      ...CLIENT,
    ],
    examples: ["checkpoint files v3", "checkpoint files v3 data/images"],
    load: async () => (await import("./checkpoint_files.ts")).listFiles,
  },
  {
    name: "checkpoint cat",
    text: "print the bytes of a file in a checkpoint, straight from the store",
    arguments: "<id> <path>",
    options: [CONFIG, DATA_DIR, ...STORE, QUIET],
    examples: ["checkpoint cat v3 data/notes.txt"],
    load: async () => (await import("./checkpoint_files.ts")).printFile,
  },
  {
    name: "checkpoint edit",
    text: "change the comment and labels of a checkpoint",
    arguments: "<id>",
    options: [
      { flags: "-m, --comment <text>", text: "the new comment" },
      { flags: "--label <name=value>", text: "set a label", repeatable: true },
      { flags: "--remove-label <name>", text: "take a label away", repeatable: true },
      ...CLIENT,
    ],
    examples: ['checkpoint edit v3 -m "the good one" --label release=1.2'],
    load: async () => (await import("./checkpoint_edit.ts")).editCheckpoint,
  },
  pin("pin", "keep a checkpoint whatever the keep rules say"),
  pin("unpin", "let the keep rules decide again"),
  {
    name: "checkpoint verify",
    text: "check that a checkpoint can be brought back (also with no manager, from the store)",
    arguments: "[id]",
    options: [{ flags: "--all", text: "all checkpoints" }, ...VERIFY],
    examples: ["checkpoint verify v3 --level 4", "checkpoint verify --all --percent 10"],
    load: async () => (await import("./verify.ts")).verifyCheckpoint,
  },
  {
    name: "storage check",
    text: "check everything that the checkpoints need (also with no manager, from the store)",
    options: VERIFY,
    examples: ["storage check", "storage check --level 3 --bucket b --endpoint https://s3.example.com"],
    load: async () => (await import("./verify.ts")).checkStorage,
  },
  {
    name: "storage repair",
    text: "make lost or damaged indexes anew from the packs, by the running manager or straight on the store",
    options: [
      { flags: "--read", text: "read every pack, to find damage inside of them" },
      { flags: "--dry-run", text: "say what would be done" },
      YES,
      ...STORE_ALONE,
    ],
    examples: ["storage repair --dry-run --directory /mnt/store"],
    load: async () => (await import("./storage_repair.ts")).repairStorage,
  },
  {
    name: "checkpoint rm",
    text: "delete checkpoints; what only they need is freed by the next prune",
    arguments: "<id...>",
    options: [{ flags: "--force", text: "also pinned ones" }, YES, ...CLIENT],
    examples: ["checkpoint rm v3 v4"],
    load: async () => (await import("./checkpoint_prune.ts")).removeCheckpoints,
  },
  {
    name: "checkpoint prune",
    text: "delete the checkpoints that the keep rules do not want, and free what nothing needs",
    options: [{ flags: "--dry-run", text: "say what would go, and why the rest stays" }, YES, ...CLIENT],
    examples: ["checkpoint prune --dry-run"],
    load: async () => (await import("./checkpoint_prune.ts")).pruneCheckpoints,
  },
  {
    name: "restore",
    text: "bring back an earlier state",
    arguments: "[checkpoint]",
    options: RESTORE,
    examples: [
      "restore v3",
      "restore v3 --config /etc/state-manager.json --data-dir /var/lib/state-manager",
      "restore latest --to /tmp/rescued --bucket b --endpoint https://s3.example.com",
      "restore v3 --path notes/2026 --files data",
      "restore v3 --to /tmp/rescued --path notes/2026",
    ],
    load: async () => (await import("./restore.ts")).restore,
  },
  {
    name: "db list",
    text: "list the databases, and how far each is in the bucket (with no manager: what the store has)",
    options: [CONFIG, ...STORE, ...CLIENT],
    examples: ["db list", "db list --directory /mnt/store"],
    load: async () => (await import("./db_list.ts")).listAllDatabases,
  },
  {
    name: "db points",
    text: "list the states of a database that can be restored (also with no manager, from the store)",
    arguments: "<name>",
    options: [
      { flags: "--limit <n>", text: "only the newest n (default: 50)" },
      { flags: "--all", text: "all of them" },
      CONFIG,
      ...STORE,
      ...CLIENT,
    ],
    examples: ["db points app", "db points app --bucket b --endpoint https://s3.example.com"],
    load: async () => (await import("./db_list.ts")).listPoints,
  },
  {
    name: "db restore",
    text: "bring back an earlier state of a database, or with --to any state of it into a new file",
    arguments: "<name>",
    options: [
      {
        flags: "--to <file>",
        text: "into this new file, straight from the store; nothing in the store changes",
      },
      { flags: "--txid <n>", text: "the state at this TXID (with --to else the newest)" },
      { flags: "--at <time>", text: "the newest state not after this time (RFC 3339)" },
      {
        flags: "--check <how>",
        text: "SQLite's check of the result (default: quick)",
        choices: ["quick", "full", "none"],
      },
      { flags: "--checkpoint <id>", text: "the state that a checkpoint holds" },
      { flags: "--database <path>", text: "with no manager: where it is, [NAME=]PATH", repeatable: true },
      { flags: "--dry-run", text: "say what would be done" },
      { flags: "--no-safety", text: "make no safety checkpoint first" },
      ...ALONE,
      YES,
      CONFIG,
      ...STORE,
      ...CLIENT,
    ],
    examples: [
      "db restore app --txid 1234",
      "db restore app --to /tmp/app.db --directory /mnt/store",
      "db restore app --to old.db --at 2026-01-31T12:00:00Z --bucket b --endpoint https://s3.example.com",
    ],
    load: async () => (await import("./db_restore.ts")).restoreOneDatabase,
  },
  {
    name: "db sync",
    text: "wait until all that is committed to a database is in the bucket",
    arguments: "<name>",
    options: CLIENT,
    examples: ["db sync app"],
    load: async () => (await import("./db_sync.ts")).syncDatabase,
  },
  {
    name: "storage rekey",
    text: "change the encryption key of a repository; content stays as it is, and a manager may run",
    options: [
      { flags: "--new-encryption-key-file <file>", text: "the key that opens it from now on" },
      { flags: "--keep-others", text: "the keys that open it now go on doing so" },
      ...STORE_ALONE,
    ],
    examples: ["storage rekey --config state.json --new-encryption-key-file /run/secrets/next-key"],
    load: async () => (await import("./storage_rekey.ts")).rekeyStorage,
  },
  lease("show", "show the lease"),
  lease("release", "stop everything and give the lease back; the manager stays up"),
  lease("acquire", "take the lease again and start"),
  {
    name: "config check",
    text: "check a configuration and the environment, without starting anything",
    arguments: "[file]",
    options: [CONFIG, DATA_DIR, JSON_OUTPUT],
    load: async () => (await import("./config.ts")).checkConfiguration,
  },
  {
    name: "config show",
    text: "show the configuration in force, secrets as ***",
    options: CLIENT,
    load: async () => (await import("./config.ts")).showConfiguration,
  },
  {
    name: "config schema",
    text: "print the JSON Schema of the configuration file",
    options: [],
    load: async () => (await import("./config.ts")).printSchema,
  },
  {
    name: "config apply",
    text: "send a configuration to an unconfigured manager (- reads standard input)",
    arguments: "<file>",
    options: CLIENT,
    load: async () => (await import("./config.ts")).applyConfiguration,
  },
  {
    name: "config reload",
    text: "read the configuration again and take over what concerns processes",
    options: [
      { flags: "--dry-run", text: "say what would be done" },
      { flags: "--restart", text: "restart processes whose command, environment, … changed" },
      ...CLIENT,
    ],
    examples: ["config reload --dry-run", "config reload --restart"],
    load: async () => (await import("./config.ts")).reloadConfiguration,
  },
  {
    name: "healthcheck",
    text: "exit 0 when the manager is alive",
    options: [{ flags: "--ready", text: "ask whether it is ready instead" }, ...CLIENT],
    load: async () => (await import("./healthcheck.ts")).checkHealth,
  },
  {
    name: "version",
    text: "print the version",
    options: [JSON_OUTPUT],
    load: async () => (await import("./version.ts")).printVersion,
  },
];
