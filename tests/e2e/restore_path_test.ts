/** Single files and folders put back into the living root: by a manager, with none, and cut off in the middle. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { type Json, ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";
import { canMount, tool } from "../support/mounts.ts";
import { writeTree } from "../support/swap_scene.ts";
import { listTree } from "../support/tree_listing.ts";

class Scene {
  readonly data: string;
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
    this.data = `${root}/data`;
    Deno.mkdirSync(this.data, { recursive: true });
    const config = {
      storage: { directory: `${root}/store` },
      files: { data: { path: this.data, exclude: ["/cache", "*.log"] } },
      processes: { app: { command: ["sh", "-c", `echo up >> ${root}/starts; exec sleep 1000`] } },
      checkpoint: { interval: 0 },
    };
    Deno.writeTextFileSync(`${root}/config.json`, JSON.stringify(config));
  }

  get flags(): readonly string[] {
    return ["--config", `${this.#root}/config.json`, ...this.dataDir];
  }

  get dataDir(): readonly string[] {
    return ["--data-dir", `${this.#root}/dir`];
  }

  start(): ManagerProcess {
    return new ManagerProcess({ args: this.flags });
  }

  read(path: string): string {
    return Deno.readTextFileSync(`${this.data}/${path}`);
  }

  get starts(): number {
    return Deno.readTextFileSync(`${this.#root}/starts`).split("\n").length - 1;
  }

  /** Of head.json, which a folder store keeps as it is. */
  get hasIntent(): boolean {
    const folder = `${this.#root}/store`;
    for (const { name } of Deno.readDirSync(folder)) {
      if (!name.startsWith("head.json")) continue;
      return JSON.parse(Deno.readTextFileSync(`${folder}/${name}`)).intent !== null;
    }
    return false;
  }
}

function addRow(path: string, row: string): void {
  using database = new DatabaseSync(path);
  database.exec("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t(x TEXT)");
  database.prepare("INSERT INTO t VALUES (?)").run(row);
}

function rows(path: string): unknown[] {
  using database = new DatabaseSync(path);
  return database.prepare("SELECT x FROM t").all().map(({ x }) => x);
}

Deno.test("a running manager puts single paths back, with a safety checkpoint, and touches nothing beside them", async () => {
  using scratch = scratchFolder();
  const scene = new Scene(scratch.path);
  const { data } = scene;
  writeTree(data, {
    "notes.txt": "then",
    "photos/2026/a": "then",
    "photos/2026/b": "then",
    "photos/x": "then",
  });
  addRow(`${data}/app.db`, "then");
  await using manager = scene.start();
  await manager.state("running");
  const { checkpoint: then } = await manager.checkpoint("then");
  writeTree(data, {
    "notes.txt": "now",
    "photos/2026/a": "now",
    "photos/2026/new": "now",
    "photos/x": "now",
  });
  writeTree(data, { "cache/big": "cached", "photos/2026/run.log": "log" });
  Deno.removeSync(`${data}/photos/2026/b`);
  addRow(`${data}/app.db`, "now");
  // A program that was killed leaves its log; a database of another time must never meet it.
  Deno.writeTextFileSync(`${data}/app.db-wal`, "a log of now");
  const inode = Deno.statSync(`${data}/photos/x`).ino;
  const planned = await manager.json("/restore", {
    json: { checkpoint: then.id, paths: ["photos/2026"], dry_run: true },
  });
  assert.deepEqual(planned.plan.map(({ name }: Json) => name), ["data"]);
  assert.equal(scene.read("photos/2026/a"), "now");

  const done = await manager.json("/restore", { json: { checkpoint: then.id, paths: ["photos/2026/"] } });
  assert.equal(scene.read("photos/2026/a"), "then");
  assert.equal(scene.read("photos/2026/b"), "then");
  assert.equal(scene.read("photos/2026/run.log"), "log");
  assert.throws(() => scene.read("photos/2026/new"), Deno.errors.NotFound);
  assert.deepEqual([scene.read("notes.txt"), scene.read("photos/x"), scene.read("cache/big")], [
    "now",
    "now",
    "cached",
  ]);
  assert.equal(Deno.statSync(`${data}/photos/x`).ino, inode);
  assert.equal(done.checkpoint.kind, "restore");
  assert.equal(done.safety.kind, "safety");
  await waitFor("the program's second start", () => scene.starts === 2);
  // What is current now is the tree as it lies there.
  const { checkpoint: after } = await manager.checkpoint("after");
  const diff = await manager.json(`/checkpoints/${done.checkpoint.id}/diff/${after.id}`);
  // SQLite may have touched the root meanwhile.
  assert.deepEqual(diff.differences.filter(({ change }: Json) => change !== "metadata"), []);

  // By the command; a database takes the place of its log, too.
  const restore = (...args: string[]) => runProgram(["restore", then.id, ...args, ...scene.dataDir]);
  const { code, stdout, stderr } = await restore("--path", "app.db", "--path", "notes.txt", "--yes");
  assert.equal(code, 0, stdout + stderr);
  assert.deepEqual(rows(`${data}/app.db`), ["then"]);
  assert.equal(scene.read("notes.txt"), "then");
  assert.equal(scene.read("photos/x"), "now");
  await waitFor("the program's third start", () => scene.starts === 3);
  // What cannot be: told before anything stops.
  const { starts } = scene;
  const missing = await restore("--path", "nothing/here", "--yes");
  assert.equal(missing.code, 64, missing.stderr);
  assert.match(missing.stderr, /does not have that path/);
  assert.equal((await restore("--path", "/etc/passwd", "--yes")).code, 64);
  assert.equal((await restore("--path", "notes.txt", "--no-safety", "--yes")).code, 64);
  assert.equal((await restore("--path", "notes.txt")).code, 64, "no terminal and no --yes");
  assert.equal(scene.starts, starts);
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(), 0, manager.tail());
});

Deno.test("single paths come back with no manager, and a restore that is killed leaves the old tree or the new one", async () => {
  using scratch = scratchFolder();
  const scene = new Scene(scratch.path);
  const { data } = scene;
  for (let i = 0; i < 300; i++) writeTree(data, { [`many/${i}`]: "then" });
  writeTree(data, { "beside": "then" });
  let id: string;
  {
    await using manager = scene.start();
    await manager.state("running");
    ({ checkpoint: { id } } = await manager.checkpoint("then"));
    for (let i = 0; i < 300; i++) writeTree(data, { [`many/${i}`]: "now" });
    writeTree(data, { "beside": "now", "more/x": "now" });
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0, manager.tail());
  }
  const { code, stderr } = await runProgram(["restore", id, "--path", "many/7", "--yes", ...scene.flags]);
  assert.equal(code, 0, stderr);
  assert.deepEqual(["many/7", "many/8", "beside", "more/x"].map((path) => scene.read(path)), [
    ...["then", "now", "now", "now"],
  ]);
  const before = await listTree(data);
  {
    await using manager = scene.start();
    await manager.state("running");
    const restoring = manager.fetch("/restore", { json: { checkpoint: id, paths: ["many"] } })
      .then((response) => response.text()).then(() => true, () => true);
    let isDone = false;
    void restoring.then(() => isDone = true);
    await waitFor("the restore's intent", () => isDone || scene.hasIntent, 60_000, () => manager.tail());
    await manager.killTree();
    await restoring;
  }
  await using manager = scene.start();
  await manager.state("running", 60_000);
  const found = await listTree(data);
  const isNew = scene.read("many/0") === "then";
  for (let i = 0; i < 300; i++) assert.equal(scene.read(`many/${i}`), isNew || i === 7 ? "then" : "now");
  const beside = (lines: readonly string[]) => lines.filter((line) => /^(beside|more)/.test(line));
  assert.deepEqual(beside(found), beside(before));
  assert.equal((await manager.json("/")).checkpoint.current !== null, true);
});

Deno.test(
  "what is mounted in a files root and what is left out of checkpoints outlives every restore [needs mount]",
  { ignore: !canMount },
  async () => {
    using scratch = scratchFolder();
    const scene = new Scene(scratch.path);
    const { data } = scene;
    writeTree(data, { "a/b/file": "then", "gone/file": "now", "top": "then" });
    Deno.mkdirSync(`${data}/a/b/volume`);
    assert.ok(tool("mount", "-t", "tmpfs", "none", `${data}/a/b/volume`));
    try {
      writeTree(data, { "a/b/volume/precious": "other volume" });
      await using manager = scene.start();
      await manager.state("running");
      Deno.removeSync(`${data}/gone`, { recursive: true });
      const { checkpoint: then } = await manager.checkpoint("then");
      writeTree(data, { "a/b/file": "now", "top": "now", "later/x": "now", "later/deep/run.log": "log" });
      writeTree(data, { "cache/big": "cached", "a/b/run.log": "log" });
      const kept = () =>
        ["a/b/volume/precious", "cache/big", "a/b/run.log", "later/deep/run.log"].map((path) => {
          return [scene.read(path), Deno.statSync(`${data}/${path}`).ino];
        });
      const before = kept();
      await manager.json("/restore", { json: { checkpoint: then.id, paths: ["a"] } });
      assert.deepEqual(kept(), before);
      assert.deepEqual([scene.read("a/b/file"), scene.read("top"), scene.read("later/x")], [
        "then",
        "now",
        "now",
      ]);
      await manager.json("/restore", { json: { checkpoint: then.id } });
      assert.deepEqual(kept(), before);
      assert.equal(scene.read("top"), "then");
      assert.throws(() => scene.read("later/x"), Deno.errors.NotFound);
      manager.signal("SIGTERM");
      assert.equal(await manager.exit(), 0, manager.tail());
    } finally {
      tool("umount", `${data}/a/b/volume`);
    }
  },
);
