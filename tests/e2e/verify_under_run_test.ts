/** A running manager verifies, by schedule and on request, tells what a checkpoint holds, and takes notes of it. */

import assert from "node:assert/strict";
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
