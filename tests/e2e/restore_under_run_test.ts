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
  await manager.json("/checkpoint", { method: "POST" });
  await manager.json("/restore", { json: { checkpoint: "latest" } });
  await waitFor("the second start", () => starts() === 2);
  await manager.state("running");
  // A second restore meets a manager that is as whole as the first did.
  await manager.json("/restore", { json: { checkpoint: "latest" } });
  await waitFor("the third start", () => starts() === 3);
  Deno.writeTextFileSync(`${root}/end`, "");
  assert.equal(await manager.exit(), 3);
});
