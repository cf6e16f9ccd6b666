/** What commands tell a person: what is restored, and what to do after a mistake. */

import assert from "node:assert/strict";
import { COMMANDS } from "../../src/cli/command_table.ts";
import { type Context, Options } from "../../src/cli/context.ts";
import { fromManagerOrStore } from "../../src/cli/manager_or_store.ts";
import { runProgram } from "../../src/cli/program.ts";
import { tellRestored } from "../../src/cli/restore_in_place.ts";
import { StateManagerError } from "../../src/platform/errors.ts";

/** The part of a terminal that is used here. */
function listener() {
  const told = { out: "", err: "" };
  const terminal = {
    outHasColor: false,
    out: (text: string) => told.out += text,
    err: (text: string) => told.err += text,
  };
  return { told, context: { terminal, environment: {}, folder: "/" } as unknown as Context };
}

const restored = {
  source: { n: 1, id: "one" },
  checkpoint: { n: 3, id: "three" },
  safety: { n: 2, id: "two" },
  files: [],
  databases: { app: 7 },
  totals: { bytes: 0, bytes_transferred: 0 },
  plan: [],
  file_warnings: [],
  file_warnings_total: 0,
};

Deno.test("a restore of databases alone tells their TXIDs, not the checkpoint beside which they are", () => {
  const { told, context } = listener();
  tellRestored(context, new Options({}), restored);
  tellRestored(context, new Options({}), { ...restored, checkpoint: null });
  assert.equal(
    told.out,
    "restored app to TXID 7 as v3 three; what was there before is v2 two\nwould restore app to TXID 7\n",
  );
});

Deno.test("a restore of files tells the checkpoint and the databases that go with it", () => {
  const { told, context } = listener();
  tellRestored(context, new Options({}), { ...restored, files: ["data"] });
  assert.equal(
    told.out,
    "restored v1 one (app to TXID 7) as v3 three, 0 B; what was there before is v2 two\n",
  );
});

Deno.test("wrong usage tells which help to read", async () => {
  const { told, context } = listener();
  assert.equal(await runProgram(["checkpoint", "list", "--bogus"], context, COMMANDS), 64);
  assert.match(told.err, /unknown option '--bogus'\n {2}hint: state-manager checkpoint list --help\n$/);
});

Deno.test("where neither a manager answers nor a store is named, the error says how to name either", async () => {
  const { context } = listener();
  const fail = (code: "manager-unreachable" | "config-invalid") => () =>
    Promise.reject(new StateManagerError(code, code, { hint: "name its data folder with --data-dir" }));
  await assert.rejects(
    fromManagerOrStore(context, new Options({}), fail("manager-unreachable"), fail("config-invalid")),
    (error: StateManagerError) =>
      error.code === "manager-unreachable" && /--data-dir.*--directory.*--bucket/.test(error.hint ?? ""),
  );
});
