/** What a command is to the parser, and the options that several commands share. */

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
  storage: { text: "check, copy and repair what is in the store, change its key", standard: "check" },
  db: { text: "replicated databases: list, restore, sync", standard: "list" },
};

export const JSON_OUTPUT: OptionSpec = { flags: "--json", text: "print JSON" };
export const QUIET: OptionSpec = { flags: "-q, --quiet", text: "no talk on standard error but errors" };
export const YES: OptionSpec = { flags: "-y, --yes", text: "do not ask" };
export const DATA_DIR: OptionSpec = { flags: "--data-dir <dir>", text: "data folder of the manager" };
export const CONFIG: OptionSpec = { flags: "--config <file>", text: "configuration file" };

/** How a running manager is found. */
export const CLIENT: readonly OptionSpec[] = [
  DATA_DIR,
  { flags: "--url <url>", text: "the manager's address, instead of its unix socket" },
  { flags: "--token-file <file>", text: "bearer token for --url (else STATE_MANAGER_TOKEN)" },
  JSON_OUTPUT,
  QUIET,
];

export const STORE: readonly OptionSpec[] = [
  { flags: "--directory <dir>", text: "a folder as the store" },
  { flags: "--bucket <name>", text: "bucket of an S3-compatible store" },
  { flags: "--endpoint <url>", text: "its endpoint" },
  { flags: "--region <name>", text: "its region" },
  { flags: "--prefix <prefix>", text: "everything is under this prefix" },
  { flags: "--encryption-key-file <file>", text: "key or passphrase of an encrypted repository" },
];

/** What a restore in place needs to know where no manager runs. */
export const ALONE: readonly OptionSpec[] = [
  { flags: "--no-lease-wait", text: "with no manager: give up (75) at once when another holds the lease" },
  {
    flags: "--on-conflict <what>",
    text: "with no manager: what wins when local data is of unknown origin",
    choices: ["refuse", "bucket", "local"],
  },
];

/** For commands that work straight on the store, manager or not. */
export const STORE_ALONE: readonly OptionSpec[] = [CONFIG, DATA_DIR, ...STORE, JSON_OUTPUT, QUIET];

/** How every restore ends: a manager's, or in place where none runs. */
export const RESTORE_IN_PLACE: readonly OptionSpec[] = [
  { flags: "--dry-run", text: "say what would be done" },
  { flags: "--no-safety", text: "make no safety checkpoint first" },
  ...ALONE,
  YES,
  CONFIG,
  ...STORE,
  ...CLIENT,
];
