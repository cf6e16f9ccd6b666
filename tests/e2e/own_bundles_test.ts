/** Children that have a bundle of their own in the binary (tools/compile.ts): each is the program that it belongs to. */

import assert from "node:assert/strict";
import { runProgram, scratchFolder } from "../support/manager_process.ts";

Deno.test("children say the build of their program, and end when nobody talks to them", async () => {
  using scratch = scratchFolder();
  const { build } = JSON.parse((await runProgram(["version", "--json"])).stdout);
  for (const args of [["__archive"], ["__follow"], ["__guard", `${scratch.path}/guard.lock`]]) {
    const { code, stdout, stderr } = await runProgram(args);
    assert.equal(code, 0, `${args[0]}: ${stderr}`);
    const [hello = ""] = stdout.split("\n");
    assert.equal(JSON.parse(hello).type, "hello", args[0]);
    assert.equal(JSON.parse(hello).build, build, args[0]);
  }
});
