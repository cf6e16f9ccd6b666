import assert from "node:assert/strict";
import { ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";

Deno.test("run keeps running when POST /restore stopped and started its program, and still ends with it", async () => {
  using scratch = scratchFolder();
  const root = scratch.path;
  Deno.mkdirSync(`${root}/files`);
  await using manager = new ManagerProcess({
    args: [
      "run",
      ...[
        "--directory",
        `${root}/store`,
        "--files",
        `data=${root}/files`,
        "--data-dir",
        `${root}/manager`,
      ],
      "--",
      ...[
        "sh",
        "-c",
        `cd ${root}; echo up >> starts; until test -e end; do sleep 0.05; done; exit 3`,
      ],
    ],
  });
  await manager.state("running");
  const starts = () => Deno.readTextFileSync(`${root}/starts`).length / "up\n".length;
  await waitFor("the first start", () => starts() === 1);
  Deno.writeTextFileSync(`${root}/files/kept`, "as it was");
  const { checkpoint } = await manager.json("/checkpoint", { method: "POST" });
  Deno.writeTextFileSync(`${root}/files/kept`, "changed");
  Deno.writeTextFileSync(`${root}/files/since`, "");
  const plan = await manager.json("/restore", { json: { checkpoint: "latest", dry_run: true } });
  assert.equal(plan.source.id, checkpoint.id);
  const first = await manager.json("/restore", { json: { checkpoint: "latest" } });
  assert.equal(first.source.id, checkpoint.id, "what changed since the last checkpoint is taken back");
  assert.deepEqual([...Deno.readDirSync(`${root}/files`)].map(({ name }) => name), ["kept"]);
  assert.equal(Deno.readTextFileSync(`${root}/files/kept`), "as it was");
  await waitFor("the second start", () => starts() === 2);
  await manager.state("running");
  // A second restore meets a manager that is as whole as the first did; what was there before the first can be had still.
  const second = await manager.json("/restore", { json: { checkpoint: first.safety.id } });
  assert.equal(second.source.id, first.safety.id);
  assert.deepEqual([...Deno.readDirSync(`${root}/files`)].map(({ name }) => name).sort(), ["kept", "since"]);
  await waitFor("the third start", () => starts() === 3);
  await manager.state("running");
  const latest = await manager.json("/checkpoints/latest");
  assert.equal(latest.id, second.checkpoint.id);
  Deno.writeTextFileSync(`${root}/end`, "");
  assert.equal(await manager.exit(), 3);
});
