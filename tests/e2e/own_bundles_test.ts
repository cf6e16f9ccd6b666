/** What has a bundle of its own in the binary (tools/compile.ts): each is the program that it belongs to. */

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

Deno.test("restore --to is itself in its own bundle, and every other restore is the whole program's", async () => {
  using scratch = scratchFolder();
  const store = ["--directory", `${scratch.path}/none`];
  const help = await runProgram(["restore", "--help"]);
  assert.deepEqual(await runProgram(["restore", "--to", "x", "--help"]), help);
  const cases: [string[], number, RegExp][] = [
    [["--to", `${scratch.path}/to`, ...store], 78, /nothing is there/],
    [[`--to=${scratch.path}/to`, "v1", ...store], 78, /nothing is there/],
    [["--to", `${scratch.path}/to`, "--no-such-option"], 64, /unknown option/],
    [["--to", `${scratch.path}/to`, "--at", "yesterday"], 64, /RFC 3339/],
    [["v1", "--to", `${scratch.path}/to`, "--salvage", ...store], 78, /nothing is there/],
    [["v1", "--path", "--to", "--url", "nonsense", "--yes"], 64, /read --url/],
  ];
  for (const [args, wanted, text] of cases) {
    const { code, stdout, stderr } = await runProgram(["restore", ...args]);
    assert.match(stderr, text, args.join(" "));
    assert.deepEqual([code, stdout], [wanted, ""], args.join(" "));
  }
});
