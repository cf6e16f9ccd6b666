/** A running manager verifies, by schedule and on request, tells what a checkpoint holds, and takes notes of it. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";

Deno.test("a running manager compares, lists, annotates and verifies, and a damaged pack is in its status", async () => {
  using scratch = scratchFolder();
  const root = scratch.path;
  Deno.mkdirSync(`${root}/files`);
  Deno.writeTextFileSync(`${root}/files/a`, "one");
  await using manager = new ManagerProcess({
    args: [
      "run",
      ...["--directory", `${root}/store`, "--files", `data=${root}/files`, "--data-dir", `${root}/manager`],
      ...["--", "sh", "-c", `cd ${root}; until test -e end; do sleep 0.05; done`],
    ],
    env: {
      STATE_MANAGER_CHECKPOINT_INTERVAL: "0",
      STATE_MANAGER_CHECKPOINT_VERIFY_INTERVAL: "1s",
      STATE_MANAGER_CHECKPOINT_VERIFY_PERCENT: "50",
    },
  });
  await manager.state("running");
  const first = (await manager.checkpoint("first")).checkpoint;
  Deno.writeTextFileSync(`${root}/files/a`, "two");
  Deno.writeTextFileSync(`${root}/files/b`, "new");
  const second = (await manager.checkpoint("second")).checkpoint;

  const diff = await manager.json(`/checkpoints/${first.id}/diff/${second.id}`);
  assert.deepEqual(
    diff.differences.filter(({ change }: { change: string }) => change !== "metadata")
      .map(({ path, change }: { path: string; change: string }) => [path, change]),
    [["data/a", "changed"], ["data/b", "added"]],
  );
  const { entries } = await manager.json(`/checkpoints/${second.id}/files?path=data`);
  assert.deepEqual(entries.map(({ path }: { path: string }) => path), ["data/a", "data/b"]);
  const notes = { comment: "the good one", labels: { release: "1" }, pinned: true };
  await manager.json(`/checkpoints/${first.id}`, { method: "PATCH", json: notes });
  const listed = await manager.json("/checkpoints?label=release&pinned=true");
  assert.deepEqual(listed.checkpoints.map((each: { comment: string }) => each.comment), ["the good one"]);
  const offline = await runProgram([
    "checkpoint",
    "show",
    first.id,
    "--json",
    "--directory",
    `${root}/store`,
  ]);
  assert.equal(JSON.parse(offline.stdout).labels.release, "1", "it is in the store");
  const cat = await runProgram(["checkpoint", "cat", "1", "data/a", "--directory", `${root}/store`]);
  assert.equal(cat.stdout, "one", cat.stderr);

  const verify = (...args: string[]) =>
    waitFor("a verification", async () => {
      const found = await runProgram(["storage", "check", ...args, "--data-dir", `${root}/manager`]);
      return found.code === 75 ? null : found; // busy: the one by schedule is under way
    });
  assert.equal((await verify("--level", "4")).code, 0);
  await waitFor("two runs by schedule", async () => {
    const { last } = (await manager.json("/")).checkpoint.verify;
    return last?.outcome === "passed" && last.percent === 50 && last.all_read_since !== null;
  });

  const packs = [...Deno.readDirSync(`${root}/store/checkpoints/packs/00000001`)].map(({ name }) => name)
    .sort();
  const pack = packs[0] ?? "";
  Deno.removeSync(`${root}/store/checkpoints/packs/00000001/${pack}`);
  const check = await verify();
  assert.equal(check.code, 65, check.stderr);
  assert.match(check.stdout, new RegExp(`missing +checkpoints/packs/00000001/${pack}`));
  const status = await waitFor("damage in the status", async () => {
    const { last } = (await manager.json("/")).checkpoint.verify;
    return last?.outcome === "damaged" ? last : null;
  });
  assert.deepEqual(status.objects, [`checkpoints/packs/00000001/${pack}`]);
  assert.match(await (await manager.fetch("/metrics")).text(), /state_manager_last_verify_ok 0/);
  assert.equal((await manager.json("/")).state, "running", "nothing else depends on it");
  Deno.writeTextFileSync(`${root}/end`, "");
  assert.equal(await manager.exit(), 0);
});

Deno.test("a checkpoint whose database cannot be restored any more is named, by the manager and without one", async () => {
  using scratch = scratchFolder();
  const root = scratch.path;
  const path = `${root}/app.db`;
  {
    using database = new DatabaseSync(path);
    database.exec("PRAGMA journal_mode = WAL; CREATE TABLE t(x); INSERT INTO t VALUES (randomblob(20000))");
  }
  await using manager = new ManagerProcess({
    args: [
      "run",
      ...["--directory", `${root}/store`, "--database", `app=${path}`, "--data-dir", `${root}/manager`],
      ...["--", "sh", "-c", `cd ${root}; until test -e end; do sleep 0.05; done`],
    ],
    env: { STATE_MANAGER_CHECKPOINT_INTERVAL: "0" },
  });
  await manager.state("running");
  const { checkpoint } = await manager.checkpoint("with a database");
  const { txid } = checkpoint.databases.app;
  const check = (level: string, ...where: string[]) =>
    runProgram(["storage", "check", "--json", "--level", level, ...where]);
  const ways = [["--data-dir", `${root}/manager`], [
    "--directory",
    `${root}/store`,
    "--data-dir",
    `${root}/none`,
  ]];
  for (const where of ways) {
    const { code, stdout, stderr } = await check("4", ...where);
    assert.equal(code, 0, stderr);
    const { positions_checked, databases_checked } = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "");
    assert.deepEqual([positions_checked, databases_checked], [1, 1]);
  }
  const replica = `${root}/store/databases/app/ltx`;
  const files = [...Deno.readDirSync(replica)].flatMap(({ name: level }) =>
    [...Deno.readDirSync(`${replica}/${level}`)].map(({ name }) => `${level}/${name}`)
  );
  for (const file of files) {
    const bytes = Deno.readFileSync(`${replica}/${file}`);
    bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
    Deno.writeFileSync(`${replica}/${file}`, bytes);
  }
  for (const where of ways) {
    const { code, stdout } = await check("3", ...where);
    assert.equal(code, 65);
    const { findings } = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "");
    assert.ok(findings.length > 0);
    for (const { object, checkpoints } of findings) {
      assert.match(object, /^databases\/app\/ltx\/\d\//);
      assert.deepEqual(checkpoints.map(({ n }: { n: number }) => n), [checkpoint.n]);
    }
  }
  for (const file of files) Deno.removeSync(`${replica}/${file}`);
  const gone = await check("1", "--directory", `${root}/store`, "--data-dir", `${root}/none`);
  assert.equal(gone.code, 65);
  assert.match(gone.stdout, new RegExp(`databases/app/ltx/TXID ${txid}`));
  Deno.writeTextFileSync(`${root}/end`, "");
  await manager.exit();
});

Deno.test("a running manager repairs beside its programs, and stores again what the files still have", async () => {
  using scratch = scratchFolder();
  const root = scratch.path;
  Deno.mkdirSync(`${root}/files`);
  for (const name of ["a", "b", "c"]) Deno.writeTextFileSync(`${root}/files/${name}`, `content of ${name}`);
  await using manager = new ManagerProcess({
    args: [
      "run",
      ...["--directory", `${root}/store`, "--files", `data=${root}/files`, "--data-dir", `${root}/manager`],
      ...["--", "sh", "-c", `cd ${root}; echo up >> starts; until test -e end; do sleep 0.05; done`],
    ],
    env: { STATE_MANAGER_CHECKPOINT_INTERVAL: "0" },
  });
  await manager.state("running");
  await manager.checkpoint("one");
  const folder = `${root}/store/checkpoints`;
  for (const { name } of Deno.readDirSync(`${folder}/index`)) Deno.removeSync(`${folder}/index/${name}`);
  for (const { name } of Deno.readDirSync(`${folder}/packs/00000001`)) {
    const pack = `${folder}/packs/00000001/${name}`;
    if (new TextDecoder("latin1").decode(Deno.readFileSync(pack)).includes("content of b")) {
      Deno.removeSync(pack);
    }
  }
  const run = (...args: string[]) => runProgram(["storage", ...args, "--data-dir", `${root}/manager`]);
  assert.equal((await run("check")).code, 65);
  const planned = await run("repair", "--dry-run", "--json");
  assert.equal(JSON.parse(planned.stdout.trimEnd().split("\n").at(-1) ?? "").dry_run, true, planned.stderr);
  assert.equal((await run("check")).code, 65, "a dry run changes nothing");
  assert.equal((await run("repair")).code, 64, "nobody said yes");
  const repair = await run("repair", "--yes");
  assert.match(repair.stderr, /has read all files and stored what they still have/, repair.stdout);
  const check = await run("check", "--level", "4");
  assert.equal(check.code, 0, check.stdout + check.stderr);
  assert.equal((await run("repair", "--yes")).code, 0);
  // Nothing was stopped for it, and the manager's own term goes on.
  assert.equal(Deno.readTextFileSync(`${root}/starts`), "up\n");
  await manager.checkpoint("two");
  Deno.writeTextFileSync(`${root}/end`, "");
  assert.equal(await manager.exit(), 0);
});
