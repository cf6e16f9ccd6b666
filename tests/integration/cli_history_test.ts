/** `checkpoint list` with filters, `diff`, `files`, `cat`, `edit` and `pin`: from the store, and through a manager. */

import assert from "node:assert/strict";
import { type CheckpointNotes, notedRecord } from "../../src/checkpoint/mod.ts";
import { checkpointRecord, diffResult } from "../support/fake_control.ts";
import { command } from "../support/fake_terminal.ts";
import { serveControl } from "../support/served_control.ts";
import { smallRepository } from "../support/small_repository.ts";

Deno.test("with no manager, checkpoints are compared, listed and read straight from the store", async () => {
  await using repository = await smallRepository();
  const { path, directory, keyPrefix } = repository;
  const store = ["--directory", directory, "--prefix", keyPrefix];
  const diff = await command(["checkpoint", "diff", "v1", "v2", ...store]);
  assert.equal(diff.code, 0, diff.err);
  assert.deepEqual(diff.out.trimEnd().split("\n").toSorted(), [
    "+ app/sub",
    "+ app/sub/b",
    "M app/a",
    "U app",
  ]);
  assert.match(diff.err, /^2 added, 0 removed, 1 changed, 1 in their metadata alone; 3 B -> 6 B/);
  const back = await command(["checkpoint", "diff", "latest", "1", "--json", ...store]);
  assert.equal(JSON.parse(back.out).totals.removed, 2);
  assert.match((await command(["checkpoint", "diff", "v1", "--stat", ...store])).out, /^2 added/);
  assert.equal((await command(["checkpoint", "diff", "v2", "v2", ...store])).out, "");

  const files = await command(["checkpoint", "files", "v2", "app", ...store]);
  assert.match(files.out, /^MODE .*\n-0.* 3 .* app\/a\nd0.* app\/sub\n$/, files.err);
  const all = await command(["checkpoint", "files", "v2", "-r", "--json", ...store]);
  assert.deepEqual(
    JSON.parse(all.out).entries.map((entry: { path: string }) => entry.path),
    ["app", "app/a", "app/sub", "app/sub/b"],
  );
  assert.equal((await command(["checkpoint", "cat", "v1", "app/a", ...store])).out, "one");
  assert.equal((await command(["checkpoint", "cat", "v2", "app/sub/b", ...store])).out, "new");
  assert.equal((await command(["checkpoint", "cat", "v1", "app/sub/b", ...store])).code, 1);
  assert.equal((await command(["checkpoint", "cat", "v1", "app", ...store])).code, 64);

  assert.match((await command(["checkpoint", "list", "--kind", "request", ...store])).out, /v1 .*\n\*v2 /);
  assert.doesNotMatch((await command(["checkpoint", "list", "--label", "x", ...store])).out, /v1/);
  assert.equal((await command(["checkpoint", "list", "--kind", "wrong", ...store])).code, 64);
  assert.match((await command(["checkpoint", "show", "v2", ...store])).out, /parent: +v1 01/);
  await assert.rejects(Deno.stat(`${path}/none`), Deno.errors.NotFound);
});

Deno.test("a damaged file is not printed as if it were whole", async () => {
  await using repository = await smallRepository();
  const { directory, keyPrefix } = repository;
  const store = ["--directory", directory, "--prefix", keyPrefix];
  const packs = `${directory}/${keyPrefix}/checkpoints/packs`;
  for await (const term of Deno.readDir(packs)) {
    for await (const { name } of Deno.readDir(`${packs}/${term.name}`)) {
      const file = `${packs}/${term.name}/${name}`;
      const bytes = await Deno.readFile(file);
      const at = new TextDecoder("latin1").decode(bytes).indexOf("one");
      if (at < 0) continue;
      bytes[at] = 0x4f;
      await Deno.writeFile(file, bytes);
    }
  }
  const { code, out } = await command(["checkpoint", "cat", "v1", "app/a", ...store]);
  assert.deepEqual([code, out], [65, ""]);
});

Deno.test("through a manager, pages are put together and notes are sent as they were given", async () => {
  const asked: [string, CheckpointNotes][] = [];
  const entry = (path: string) => ({
    path,
    type: "file" as const,
    mode: 0o600,
    uid: 0,
    gid: 0,
    mtimeNs: "0",
    sizeBytes: 1,
    target: null,
    sqlite: false,
  });
  await using served = await serveControl({
    annotateCheckpoint: (reference, notes) => {
      asked.push([reference, notes]);
      return Promise.resolve(notedRecord(checkpointRecord(2), notes));
    },
    checkpointFiles: (_reference, { skip }) =>
      Promise.resolve({ entries: [entry(`app/${skip}`)], next: skip < 3 ? skip + 1 : null }),
    diffCheckpoints: ({ skip }) =>
      Promise.resolve(diffResult({
        differences: [{ root: "app", path: `${skip}`, change: "removed", before: null, after: null }],
        next: skip < 2 ? skip + 1 : null,
      })),
  });
  const run = (...argv: string[]) => command([...argv, "--data-dir", served.dataDir]);
  const files = await run("checkpoint", "files", "v2", "app", "--json");
  assert.deepEqual(
    JSON.parse(files.out).entries.map(({ path }: { path: string }) => path),
    ["app/0", "app/1", "app/2", "app/3"],
  );
  assert.equal((await run("checkpoint", "diff", "v1", "v2")).out, "- app/0\n- app/1\n- app/2\n");
  const edit = await run(
    "checkpoint",
    "edit",
    "v2",
    "-m",
    "good",
    "--label",
    "a=b=c",
    "--remove-label",
    "old",
  );
  assert.equal(edit.code, 0, edit.err);
  assert.match(edit.out, /^v2 {2}01/);
  await run("checkpoint", "pin", "2");
  await run("checkpoint", "unpin", "latest");
  assert.deepEqual(asked, [
    ["2", { comment: "good", labels: { old: null, a: "b=c" } }],
    ["2", { pinned: true }],
    ["latest", { pinned: false }],
  ]);
  assert.equal((await run("checkpoint", "edit", "v2")).code, 64);
});
