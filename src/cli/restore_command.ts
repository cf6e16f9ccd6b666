/** `restore` as the parser knows it: the whole program has it in its table, and the bundle for `--to` has nothing else. */

import { type CommandSpec, type OptionSpec, RESTORE_IN_PLACE } from "./command_options.ts";

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
  ...RESTORE_IN_PLACE,
];

export function restoreCommand(load: CommandSpec["load"]): CommandSpec {
  return {
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
    load,
  };
}
