/** What can be seen of a manager that does not run: crashes from their files, and where the history is. */

import assert from "node:assert/strict";
import { dataDirAt } from "../../src/manager/data_dir.ts";
import { CrashFiles } from "../../src/supervisor/mod.ts";
import { command } from "../support/fake_terminal.ts";
import { scratchFolder } from "../support/tree_model.ts";

Deno.test("crashes and events of a manager that is gone: the files are read, or named", async () => {
  await using folder = scratchFolder("cli-crashes-");
  const at = ["--data-dir", folder.path];
  const dir = dataDirAt(folder.path);
  const none = await command(["crashes", "web", ...at]);
  assert.equal(none.code, 69, none.err);

  const files = new CrashFiles(dir.crashes, (error) => assert.fail(error));
  files.add({
    ...{
      name: "web",
      wallMs: Date.UTC(2026, 0, 31, 12),
      cause: { kind: "exit", code: 3 },
      uptimeMs: 5,
      pid: 7,
    },
    ...{
      incarnation: 1,
      restartFor: null,
      program: "/web",
      cwd: null,
      environment: [],
      limits: {},
      lines: [],
    },
  });
  await files.idle();
  const list = await command(["crashes", "web", "--json", ...at]);
  assert.equal(list.code, 0, list.err);
  const { crashes: [crash] } = JSON.parse(list.out);
  assert.equal(crash.time, "2026-01-31T12:00:00.000Z");
  for (const id of [crash.id, "latest"]) {
    const shown = await command(["crashes", "web", id, ...at]);
    assert.match(shown.out, /^process: web$/m, shown.err);
    assert.match(shown.err, /No manager answers/);
  }
  assert.equal((await command(["crashes", "web", "../../x", ...at])).code, 1);
  assert.equal((await command(["crashes", "../web", ...at])).code, 64);

  assert.doesNotMatch((await command(["events", ...at])).err, /sqlite3/);
  await Deno.writeTextFile(dir.catalog, "");
  const events = await command(["events", ...at]);
  assert.equal(events.code, 69);
  assert.ok(events.err.includes(`sqlite3 ${dir.catalog} `), events.err);
});
