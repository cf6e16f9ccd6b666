/** Whatever stands in a file, a body or a variable: it loads, or one error tells what is wrong. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { CONFIG_KEYS, itemKeysOf, type LoadedConfig, validateBody } from "../../src/config/mod.ts";
import { isError } from "../../src/platform/errors.ts";
import { load, optionsFor } from "../support/config_files.ts";

const RUNS = 400;
/** Longest message about one key: longer ones would echo what they were given. */
const LONGEST_DETAIL = 400;

const words = [...CONFIG_KEYS, ...itemKeysOf(["processes"]), ...itemKeysOf(["server", "tokens"])]
  .flatMap(({ path }) => path)
  .concat("databases", "a", "b", "toString", "__proto__", "hasOwnProperty", "*", "");
const key = fc.constantFrom(...new Set(words));
const leaf = fc.oneof(
  fc.constantFrom("/x", "5m", ":1", "${A}", "$$", "***", "latest", "", "a", "write", "lease", "\u0000"),
  fc.constantFrom(true, false, null, 0, 5, -1, 1e300),
  fc.string(),
);
const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { depthSize: "medium" },
    leaf,
    fc.array(tie("tree"), { maxLength: 3 }),
    fc.array(fc.tuple(key, tie("tree")), { maxLength: 5 }).map((entries) => Object.fromEntries(entries)),
  ),
}));

async function loadsOrTells(loading: Promise<LoadedConfig>): Promise<void> {
  try {
    JSON.stringify((await loading).redacted());
  } catch (error) {
    if (!isError(error, "config-invalid")) throw error;
    assert.ok(error.details.length > 0);
    for (const { pointer, detail } of error.details) {
      assert.equal(typeof pointer, "string");
      assert.ok(detail.length <= LONGEST_DETAIL, detail);
    }
  }
}

Deno.test("any value in a file, a body or a variable loads or is told to be wrong", async () => {
  await fc.assert(
    fc.asyncProperty(tree, fc.string(), async (value, text) => {
      const environment = { A: "/v", STATE_MANAGER_PROCESSES: text, STATE_MANAGER_LEASE_WAIT: text };
      await loadsOrTells(load({ file: value, environment }));
      await loadsOrTells(load({ file: text }));
      await loadsOrTells(validateBody(value, optionsFor({ environment: { A: "/v" } })));
      if (typeof value !== "object") return;
      await loadsOrTells(validateBody({ ...value, storage: { directory: "/store" } }, optionsFor({})));
    }),
    { numRuns: RUNS },
  );
});
