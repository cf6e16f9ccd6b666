/** Which data wins at a start: every row of the lineage table, with real managers. Nothing regresses, nothing is deleted. */

import assert from "node:assert/strict";
import { ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { testOnStores, type TestStore } from "../support/test_stores.ts";

const PROGRAM = ["--", "sleep", "100000"];

/** A machine: its data dir and its files folder survive a restart, as a volume does. */
function machine(root: string, name: string, store: TestStore) {
  const files = `${root}/${name}/files`;
  const dataDir = `${root}/${name}/data`;
  Deno.mkdirSync(files, { recursive: true });
  return {
    files,
    dataDir,
    write: (file: string, text: string) => Deno.writeTextFileSync(`${files}/${file}`, text),
    read: (file: string) => {
      try {
        return Deno.readTextFileSync(`${files}/${file}`);
      } catch {
        return null;
      }
    },
    start: (...extra: string[]) =>
      new ManagerProcess({
        args: [
          "run",
          ...store.args,
          ...[
            "--files",
            `app=${files}`,
            "--data-dir",
            dataDir,
            "--lease-ttl",
            "3s",
            "--checkpoint-interval",
            "1h",
          ],
          ...extra,
          ...PROGRAM,
        ],
        env: store.env,
      }),
  };
}

/** Every file below `path` with its text. */
function contents(path: string): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (folder: string) => {
    for (const entry of Deno.readDirSync(folder)) {
      const at = `${folder}/${entry.name}`;
      if (entry.isDirectory) walk(at);
      else found[at.slice(path.length + 1)] = Deno.readTextFileSync(at);
    }
  };
  walk(path);
  return found;
}

async function stopWell(manager: ManagerProcess): Promise<void> {
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(), 143, manager.tail());
}

testOnStores(
  "a new machine restores what another left when its folder is empty",
  async (store) => {
    using scratch = scratchFolder();
    const a = machine(scratch.path, "a", store);
    {
      await using manager = a.start();
      assert.equal((await manager.state("running")).files[0].origin, "empty");
      a.write("x", "from a");
      await stopWell(manager);
    }
    const b = machine(scratch.path, "b", store);
    Deno.mkdirSync(`${b.files}/lost+found`);
    await using manager = b.start();
    assert.equal((await manager.state("running")).files[0].origin, "restored");
    assert.equal(b.read("x"), "from a");
  },
);

testOnStores(
  "a restart after a crash keeps local data that is newer than the bucket and ships it",
  async (store) => {
    using scratch = scratchFolder();
    const a = machine(scratch.path, "a", store);
    {
      await using manager = a.start();
      await manager.state("running");
      a.write("x", "1");
      await manager.json("/checkpoint", { json: {} });
      a.write("x", "2");
      a.write("y", "only here");
      await manager.killTree();
    }
    {
      await using manager = a.start();
      assert.equal((await manager.state("running")).files[0].origin, "kept");
      assert.deepEqual([a.read("x"), a.read("y")], ["2", "only here"]);
      await waitFor(
        "the rest to be shipped",
        async () => (await manager.json("/checkpoints")).checkpoints.length === 2,
      );
      await manager.killTree();
    }
    const b = machine(scratch.path, "b", store);
    await using manager = b.start();
    await manager.state("running");
    assert.deepEqual([b.read("x"), b.read("y")], ["2", "only here"]);
  },
);

testOnStores(
  "a stale volume that comes back moves aside and does not regress the bucket",
  async (store) => {
    using scratch = scratchFolder();
    const a = machine(scratch.path, "a", store);
    const b = machine(scratch.path, "b", store);
    {
      await using manager = a.start();
      await manager.state("running");
      a.write("x", "a1");
      await manager.json("/checkpoint", { json: {} });
      a.write("z", "never shipped");
      await manager.killTree();
    }
    {
      await using manager = b.start();
      await manager.state("running");
      assert.deepEqual(contents(b.files), { x: "a1" });
      b.write("x", "b1");
      b.write("w", "from b");
      await stopWell(manager);
    }
    await using manager = a.start();
    assert.equal(
      (await manager.state("running")).files[0].origin,
      "moved-aside",
    );
    assert.deepEqual(contents(a.files), { x: "b1", w: "from b" });
    const aside = Object.entries(contents(`${a.dataDir}/stale`)).map((
      [path, text],
    ) => [path.split("/").at(-1), text]);
    assert.deepEqual(aside.sort(), [["x", "a1"], ["z", "never shipped"]]);
    assert.match(manager.stderr, /diverged/);
  },
);

testOnStores(
  "a stale volume whose lease term was followed by a crash of the next holder is stale all the same",
  async (store) => {
    using scratch = scratchFolder();
    const a = machine(scratch.path, "a", store);
    const b = machine(scratch.path, "b", store);
    {
      await using manager = a.start();
      await manager.state("running");
      a.write("x", "a1");
      await stopWell(manager);
    }
    {
      await using manager = b.start();
      await manager.state("running");
      await manager.killTree(); // wrote nothing, but its program ran
    }
    await using manager = a.start();
    assert.equal(
      (await manager.state("running")).files[0].origin,
      "moved-aside",
    );
    assert.deepEqual(contents(a.files), { x: "a1" });
  },
);

testOnStores(
  "local data with nothing in the bucket is adopted and shipped",
  async (store) => {
    using scratch = scratchFolder();
    const a = machine(scratch.path, "a", store);
    a.write("x", "was here before");
    {
      await using manager = a.start();
      assert.equal((await manager.state("running")).files[0].origin, "adopted");
      await waitFor(
        "the adopted data to be shipped",
        async () => (await manager.json("/checkpoints")).checkpoints.length === 1,
      );
      await manager.killTree();
    }
    const b = machine(scratch.path, "b", store);
    await using manager = b.start();
    await manager.state("running");
    assert.deepEqual(contents(b.files), { x: "was here before" });
  },
);

testOnStores(
  "local data of unknown origin refuses the start until the operator chooses",
  async (store) => {
    using scratch = scratchFolder();
    const a = machine(scratch.path, "a", store);
    {
      await using manager = a.start();
      await manager.state("running");
      a.write("x", "bucket");
      await stopWell(manager);
    }
    const b = machine(scratch.path, "b", store);
    b.write("x", "local");
    b.write("own", "local too");
    {
      await using manager = b.start();
      assert.equal(await manager.exit(), 78, manager.tail());
      assert.match(manager.stderr, /on_conflict/);
      assert.deepEqual(contents(b.files), { x: "local", own: "local too" });
      assert.equal(
        JSON.parse(Deno.readTextFileSync(`${b.dataDir}/exit.json`)).code,
        "origin-unknown",
      );
    }
    {
      await using manager = b.start("--on-conflict", "bucket");
      assert.equal(
        (await manager.state("running")).files[0].origin,
        "moved-aside",
      );
      assert.deepEqual(contents(b.files), { x: "bucket" });
      assert.deepEqual(Object.values(contents(`${b.dataDir}/stale`)).sort(), [
        "local",
        "local too",
      ]);
      await stopWell(manager);
    }
    const c = machine(scratch.path, "c", store);
    c.write("x", "from c");
    await using manager = c.start("--on-conflict", "local");
    assert.equal((await manager.state("running")).files[0].origin, "kept");
    assert.deepEqual(contents(c.files), { x: "from c" });
    const { checkpoints } = await waitFor("a new commit", async () => {
      const list = await manager.json("/checkpoints");
      return list.checkpoints.length === 2 ? list : null;
    });
    assert.equal(checkpoints[1].parent, checkpoints[0].id);
  },
);

testOnStores(
  "a marker of another repository counts as unknown origin",
  async (store) => {
    using scratch = scratchFolder();
    const other = machine(scratch.path, "b", {
      args: ["--directory", `${scratch.path}/other`],
      env: {},
      config: {},
    });
    {
      await using manager = other.start();
      await manager.state("running");
      other.write("x", "another repository's");
      await stopWell(manager);
    }
    const a = machine(scratch.path, "a", store);
    {
      await using manager = a.start();
      await manager.state("running");
      a.write("x", "this repository's");
      await stopWell(manager);
    }
    await using manager = machine(scratch.path, "b", store).start();
    assert.equal(await manager.exit(), 78, manager.tail());
    assert.equal(other.read("x"), "another repository's");
  },
);

testOnStores(
  "a folder that is neither here nor in the bucket is made, and what is written there is shipped",
  async (store) => {
    using scratch = scratchFolder();
    const one = machine(scratch.path, "one", store);
    Deno.removeSync(one.files);
    {
      await using manager = one.start();
      await manager.state("running");
      one.write("first", "1");
      manager.signal("SIGTERM");
      assert.equal(await manager.exit(), 143, manager.tail());
    }
    const two = machine(scratch.path, "two", store);
    await using manager = two.start();
    await manager.state("running");
    assert.equal(two.read("first"), "1");
  },
);
