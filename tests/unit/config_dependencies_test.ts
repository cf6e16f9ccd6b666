/** The two forms of a dependency. */

import assert from "node:assert/strict";
import { FOLDER_STORE, load, problemsOf } from "../support/config_files.ts";

const A = { command: ["a"] };
const loaded = (dependencies: unknown) =>
  load({ file: { ...FOLDER_STORE, processes: { a: { ...A, depends_on: dependencies }, b: A, c: A, d: A } } });

Deno.test("a dependency is a condition alone, or one with restart_with", async () => {
  const { config } = await loaded({
    b: "started",
    c: { condition: "ready", restart_with: true },
    d: { condition: "completed" },
  });
  const { dependsOn, restartWith } = config?.processes["a"] ?? {};
  assert.deepEqual(dependsOn, { b: "started", c: "ready", d: "completed" });
  assert.deepEqual(restartWith, ["c"]);
  for (
    const wrong of [{ restart_with: true }, { condition: "up" }, { condition: "ready", with: true }, true]
  ) {
    const problems = await problemsOf(loaded({ b: wrong }));
    assert.match(Object.keys(problems).join(), /^\/processes\/a\/depends_on\/b/, JSON.stringify(wrong));
  }
});
