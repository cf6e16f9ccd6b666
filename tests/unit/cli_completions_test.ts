/** The scripts of `completions`: every command and option is in each, and bash answers by them. */

import assert from "node:assert/strict";
import { COMMANDS } from "../../src/cli/command_table.ts";
import { completionScript } from "../../src/cli/completions.ts";

const hasBash = await Deno.stat("/bin/bash").then(() => true, () => false);

Deno.test("completions name every command and option for each shell, and refuse other shells", () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const script = completionScript(shell, COMMANDS);
    for (const { name, options, hidden } of COMMANDS) {
      if (hidden !== true) assert.ok(script.includes(name.split(" ").at(-1) ?? ""), `${shell}: ${name}`);
      for (const { flags } of options) {
        const long = /--([\w-]+)/.exec(flags)?.[1] ?? "";
        assert.match(script, new RegExp(`(--|-l )${long}\\b`), `${shell}: ${flags}`);
      }
    }
  }
  assert.throws(() => completionScript("tcsh", COMMANDS), /want bash, zsh or fish/);
});

Deno.test({
  name: "bash completes commands, options and choices by its script",
  ignore: !hasBash,
  async fn() {
    const ask = async (...words: string[]) => {
      const program = `${completionScript("bash", COMMANDS)}
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_state_manager
printf '%s\\n' "\${COMPREPLY[@]}"`;
      const { stdout, stderr, success } = await new Deno.Command("/bin/bash", {
        args: ["-c", program, "bash", "state-manager", ...words],
      }).output();
      assert.ok(success, new TextDecoder().decode(stderr));
      return new TextDecoder().decode(stdout).trim().split("\n");
    };
    assert.deepEqual(await ask("check"), ["checkpoint"]);
    assert.deepEqual(await ask("checkpoint", "d"), ["diff"]);
    assert.deepEqual(await ask("storage", "check", "--level", ""), ["1", "2", "3", "4"]);
    assert.deepEqual(await ask("checkpoint", "create", "--com"), ["--comment"]);
    assert.deepEqual(await ask("run", "--restart", "on"), ["on-failure"]);
    assert.deepEqual(await ask("config", "reload", "--restart", "--dry"), ["--dry-run"]);
    assert.deepEqual(await ask("restore", "--to", ""), [""]); // names of files, by the shell
    assert.deepEqual(await ask("run", "--", "my-server", "--"), [""]);
  },
});
