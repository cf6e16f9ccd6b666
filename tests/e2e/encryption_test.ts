/** An encrypted repository through the whole program: made, restored elsewhere, its key changed, wrong keys refused. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readEncryptionKey, readRepository, repositoryCipher } from "../../src/checkpoint/mod.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { openStore } from "../../src/storage/mod.ts";
import { listAll } from "../../src/storage/object_store.ts";
import {
  descendants,
  ManagerProcess,
  runProgram,
  scratchFolder,
  waitFor,
} from "../support/manager_process.ts";
import { storeOptionsOf, testOnStores, type TestStore } from "../support/test_stores.ts";

const clock = systemClock();
const random = systemRandom();

function start(root: string, store: TestStore, ...extra: string[]): ManagerProcess {
  Deno.mkdirSync(`${root}/app`, { recursive: true });
  return new ManagerProcess({
    args: [
      ...["run", ...store.args, "--files", `app=${root}/app`, "--data-dir", `${root}/data`],
      ...["--checkpoint-interval", "1h", ...extra, "--", "sleep", "100000"],
    ],
    env: store.env,
  });
}

async function stopWell(manager: ManagerProcess): Promise<void> {
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(), 143, manager.tail());
}

/** All objects but the lease, by key. */
async function objectsOf(place: TestStore): Promise<Map<string, Buffer>> {
  const store = openStore(storeOptionsOf(place), { clock, random });
  try {
    const objects = new Map<string, Buffer>();
    for await (const { key } of listAll(store, "")) {
      if (key !== "lease.json") objects.set(key, Buffer.from((await store.get(key)).body));
    }
    return objects;
  } finally {
    await store.close();
  }
}

/** What the key file opens, by the product's own code. */
async function dataKeyOf(place: TestStore, keyFile: string): Promise<string> {
  const store = openStore(storeOptionsOf(place), { clock, random });
  try {
    const cipher = await repositoryCipher(
      await readRepository(store),
      await readEncryptionKey(keyFile),
      random,
    );
    const dataKey = cipher.forWorker()?.dataKey;
    assert.ok(dataKey !== undefined);
    return dataKey;
  } finally {
    await store.close();
  }
}

function holders(objects: ReadonlyMap<string, Buffer>, what: string | Buffer): string[] {
  return [...objects].filter(([, body]) => body.includes(what)).map(([key]) => key);
}

/** Arguments and environment of the manager and everything below it, as `ps` and /proc show them. */
function visibleOf(pid: number): string {
  return [pid, ...descendants(pid)].flatMap((each) =>
    ["cmdline", "environ"].map((name) => {
      try {
        return Deno.readTextFileSync(`/proc/${each}/${name}`);
      } catch {
        return ""; // gone meanwhile
      }
    })
  ).join("\n");
}

testOnStores(
  "an encrypted repository opens with its key alone, on any machine, and tells nothing without",
  async (store) => {
    using scratch = scratchFolder();
    const [a, b, c] = ["a", "b", "c"].map((name) => `${scratch.path}/${name}`);
    assert.ok(a !== undefined && b !== undefined && c !== undefined);
    const keyFile = `${scratch.path}/key`;
    const secret = Buffer.from(random.bytes(32)).toString("hex");
    Deno.writeTextFileSync(keyFile, secret + "\n");
    const noise = random.bytes(50_000);
    {
      await using manager = start(a, store, "--encryption-key-file", keyFile);
      await manager.state("running");
      Deno.writeTextFileSync(`${a}/app/marker-name`, "marker-content\n".repeat(100));
      Deno.writeFileSync(`${a}/app/noise`, noise);
      let visible = "";
      // Again where it was over before we looked.
      for (let turn = 0; !visible.includes("__archive") && turn < 20; turn++) {
        Deno.writeTextFileSync(`${a}/app/turn`, String(turn));
        let isDone = false;
        const pending = manager.checkpoint("marker-comment").finally(() => isDone = true);
        await waitFor("the checkpoint", () => {
          visible += visibleOf(manager.pid);
          return isDone;
        });
        await pending;
      }
      assert.match(visible, /__archive/, "the archiver was seen at work");
      // Keys go over pipes, and are nowhere to be seen.
      const dataKey = await dataKeyOf(store, keyFile);
      for (const each of [secret, dataKey, Buffer.from(dataKey, "base64").toString("hex")]) {
        assert.ok(!visible.includes(each));
      }
      assert.equal((await manager.json("/")).storage.encrypted, true);
      assert.equal((await manager.json("/config")).checkpoint.encryption_key_file, keyFile);
      const { checkpoints } = await manager.json("/checkpoints");
      assert.ok(checkpoints.some((each: { comment: string }) => each.comment === "marker-comment"));
      await stopWell(manager);
      for (const each of [secret, dataKey]) assert.ok(!(manager.stdout + manager.stderr).includes(each));
    }
    const objects = await objectsOf(store);
    const keys = [...objects.keys()].filter((key) => /^checkpoints\/(roots|packs|index)\//.test(key));
    assert.ok(keys.length >= 3, keys.join());
    for (const marker of ["marker", secret, Buffer.from(noise.subarray(100, 132))]) {
      assert.deepEqual(
        holders(objects, marker),
        [],
      );
    }

    // Wrong and missing keys end the start before anything is written, restored or started.
    const wrongFile = `${scratch.path}/wrong`;
    Deno.writeTextFileSync(wrongFile, "a passphrase that is wrong\n");
    const cases: [string[], RegExp][] = [
      [["--encryption-key-file", wrongFile], /encryption key does not open the repository/],
      [[], /it is encrypted, and no key is given/],
      [["--encryption-key-file", `${scratch.path}/nothing`], /no such file/],
    ];
    for (const [flags, message] of cases) {
      await using manager = start(b, store, ...flags);
      assert.equal(await manager.exit(), 78, manager.tail());
      assert.match(manager.stderr, message);
      assert.ok(!manager.stderr.includes("passphrase that is wrong"));
      const offline = await runProgram(["checkpoint", "list", ...store.args, ...flags], { env: store.env });
      assert.equal(offline.code, 78, offline.stderr);
      assert.match(offline.stderr, message);
    }
    assert.deepEqual(await objectsOf(store), objects);
    assert.deepEqual([...Deno.readDirSync(`${b}/app`)], []);

    // Another key, with an overlap; then the old one dies.
    const nextFile = `${scratch.path}/next`;
    Deno.writeTextFileSync(nextFile, "correct horse battery staple\n");
    const rekey = async (old: string, ...flags: string[]) => {
      const args = [
        "storage",
        "rekey",
        ...store.args,
        "--encryption-key-file",
        old,
        "--new-encryption-key-file",
        nextFile,
      ];
      return await runProgram([...args, ...flags], { env: store.env });
    };
    assert.equal((await rekey(wrongFile)).code, 78);
    const overlap = await rekey(keyFile, "--keep-others", "--json");
    assert.deepEqual(JSON.parse(overlap.stdout || "null"), { keys: 2 }, overlap.stderr);
    {
      await using manager = start(b, store, "--encryption-key-file", keyFile);
      await manager.state("running");
      assert.deepEqual(Deno.readFileSync(`${b}/app/noise`), noise);
      // Beside a running manager, which goes on.
      const last = await rekey(nextFile);
      assert.equal(last.code, 0, last.stderr);
      assert.match(last.stderr, /no other key does any more/);
      Deno.writeTextFileSync(`${b}/app/later`, "later");
      await stopWell(manager);
    }
    {
      await using manager = start(c, store, "--encryption-key-file", keyFile);
      assert.equal(await manager.exit(), 78, manager.tail());
    }
    await using manager = start(c, store, "--encryption-key-file", nextFile);
    await manager.state("running");
    assert.equal(Deno.readTextFileSync(`${c}/app/later`), "later");
    assert.deepEqual(Deno.readFileSync(`${c}/app/noise`), noise);
    await stopWell(manager);

    const offline = ["--encryption-key-file", nextFile, ...store.args];
    const list = await runProgram(["checkpoint", "list", ...offline], { env: store.env });
    assert.match(list.stdout, /marker-comment/, list.stderr);
    const check = await runProgram(["storage", "check", "--level", "3", ...offline], { env: store.env });
    assert.equal(check.code, 0, check.stdout + check.stderr);
    const blind = await runProgram(["storage", "check", ...store.args], { env: store.env });
    assert.equal(blind.code, 78, blind.stdout + blind.stderr);
    const to = `${scratch.path}/rescued`;
    const rescued = await runProgram(["restore", "latest", "--to", to, ...offline], { env: store.env });
    assert.equal(rescued.code, 0, rescued.stderr);
    assert.deepEqual(Deno.readFileSync(`${to}/app/noise`), noise);
  },
);

testOnStores(
  "a key for a repository that is not encrypted is refused, and databases beside a key are warned of",
  async (store) => {
    using scratch = scratchFolder();
    const keyFile = `${scratch.path}/key`;
    Deno.writeFileSync(keyFile, random.bytes(32));
    {
      await using manager = start(`${scratch.path}/a`, store);
      await manager.state("running");
      assert.equal((await manager.json("/")).storage.encrypted, false);
      Deno.writeTextFileSync(`${scratch.path}/a/app/x`, "x");
      await stopWell(manager);
    }
    const objects = await objectsOf(store);
    const extra = ["--encryption-key-file", keyFile, "--database", `db=${scratch.path}/app.db`];
    await using manager = start(`${scratch.path}/b`, store, ...extra);
    assert.equal(await manager.exit(), 78, manager.tail());
    assert.match(manager.stderr, /the repository is not encrypted/);
    assert.match(manager.stderr, /replicated databases \(db\) are NOT encrypted/);
    assert.deepEqual(await objectsOf(store), objects);
  },
);
