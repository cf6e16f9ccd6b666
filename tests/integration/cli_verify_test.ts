/** `checkpoint verify`, `storage check`, `storage repair` and `restore --salvage` straight on a store. */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { LeaseHolder } from "../../src/lease/mod.ts";
import { openStore } from "../../src/storage/mod.ts";
import { command } from "../support/fake_terminal.ts";
import { smallRepository } from "../support/small_repository.ts";

const clock = systemClock();
const random = systemRandom();

async function filesIn(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) found.push(...await filesIn(`${folder}/${name}`));
    else found.push(`${folder}/${name}`);
  }
  return found.sort();
}

async function scene() {
  const repository = await smallRepository();
  const { path, directory, keyPrefix } = repository;
  const root = `${directory}/${keyPrefix}/checkpoints`;
  const store = ["--directory", directory, "--prefix", keyPrefix, "--data-dir", `${path}/none`];
  return {
    path,
    store,
    settings: { kind: "directory", directory, keyPrefix } as const,
    /** The pack with this content, which is raw as it is so short. Names of one millisecond are in no order. */
    async packWith(text: string): Promise<string> {
      for (const pack of await filesIn(`${root}/packs`)) {
        if (new TextDecoder("latin1").decode(await Deno.readFile(pack)).includes(text)) return pack;
      }
      throw new Error(`no pack has ${text}`);
    },
    indexes: () => filesIn(`${root}/index`),
    [Symbol.asyncDispose]: () => repository[Symbol.asyncDispose](),
  };
}

Deno.test("a whole store passes at each level, and nothing of it changes", async () => {
  await using at = await scene();
  const before = await filesIn(at.path);
  for (
    const argv of [
      ["storage", "check"],
      ["checkpoint", "verify"],
      ["checkpoint", "verify", "v1", "--level", "1"],
      ["checkpoint", "verify", "--all", "--percent", "30"],
      ["checkpoint", "verify", "--all", "--level", "4", "--scratch", `${at.path}/scratch`],
    ]
  ) {
    const { code, out, err } = await command([...argv, ...at.store]);
    assert.deepEqual([code, out], [0, ""], `${argv.join(" ")}: ${err}`);
    assert.match(err, /nothing is missing or damaged/);
  }
  assert.deepEqual(await filesIn(at.path), before);
  const { out } = await command(["storage", "check", "--json", ...at.store]);
  const last = JSON.parse(out.trimEnd().split("\n").at(-1) ?? "");
  assert.deepEqual([last.type, last.ok, last.checkpoints, last.packs], ["complete", true, 2, 4]);
});

Deno.test("damage is exit 65, with the object, the checkpoints and the files that it hurts", async () => {
  await using at = await scene();
  const first = await at.packWith("one");
  const name = first.slice(first.indexOf("checkpoints/packs"));
  await Deno.remove(first);
  const { code, out, err } = await command(["storage", "check", ...at.store]);
  assert.equal(code, 65, err);
  assert.match(out, new RegExp(`^missing  ${name}\n.*not there\n +hurts v1: app/a\n$`));
  assert.match(err, /1 object missing or damaged/);
  assert.equal((await command(["checkpoint", "verify", "v1", ...at.store])).code, 65);
  assert.equal((await command(["checkpoint", "verify", "v2", ...at.store])).code, 0, "it needs other packs");
});

Deno.test("verify says what it was asked wrongly", async () => {
  const cases: [string[], RegExp][] = [
    [["checkpoint", "verify", "v1", "--all"], /--all/],
    [["checkpoint", "verify", "no!"], /ordinal/],
    [["storage", "check", "--level", "5"], /level/],
    [["storage", "check", "--percent", "200"], /percent/],
    [["restore", "v1", "--salvage"], /--to/],
  ];
  for (const [argv, text] of cases) {
    const { code, err } = await command(argv);
    assert.equal(code, 64, argv.join(" "));
    assert.match(err, text);
  }
});

Deno.test("a lost and a damaged index are made anew from the packs, under the lease", async () => {
  for (const damage of ["lost", "damaged", "all lost"]) {
    await using at = await scene();
    const indexes = await at.indexes();
    assert.equal(indexes.length, 2);
    for (const index of damage === "all lost" ? indexes : indexes.slice(0, 1)) {
      if (damage === "damaged") await Deno.writeTextFile(index, "SMIX1 and then nothing of use");
      else await Deno.remove(index);
    }
    assert.equal((await command(["storage", "check", ...at.store])).code, 65);
    assert.equal((await command(["restore", "v1", "--to", `${at.path}/broken`, ...at.store])).code, 65);
    const plan = await command(["storage", "repair", "--dry-run", ...at.store]);
    assert.equal(plan.code, 0, plan.err);
    assert.match(plan.err, /would be saved/);
    assert.equal((await command(["storage", "repair", ...at.store])).code, 64, "nobody said yes");
    assert.equal((await command(["storage", "check", ...at.store])).code, 65);
    const repair = await command(["storage", "repair", "--yes", ...at.store]);
    assert.equal(repair.code, 0, repair.err);
    assert.match(repair.err, /, 0 lost/);
    const check = await command(["storage", "check", "--level", "4", ...at.store]);
    assert.equal(check.code, 0, check.out);
    for (const [n, text] of [[1, "one"], [2, "two"]] as const) {
      const restored = await command(["restore", `v${n}`, "--to", `${at.path}/${n}`, ...at.store]);
      assert.equal(restored.code, 0, restored.err);
      assert.equal(await Deno.readTextFile(`${at.path}/${n}/app/a`), text);
    }
    assert.match((await command(["storage", "repair", "--yes", ...at.store])).err, /nothing to repair/);
  }
});

Deno.test("repair writes nothing while somebody holds the lease", async () => {
  await using at = await scene();
  await Deno.remove((await at.indexes())[0] ?? "");
  const plain = openStore(at.settings, { clock, random, plain: true });
  await using lease = new LeaseHolder({
    store: plain,
    clock,
    random,
    ttlMs: 30_000,
    renewMs: 8_000,
    info: {},
    onEvent: () => {},
  });
  await lease.acquire({ wait: false });
  const before = await filesIn(`${at.path}/store/shop/checkpoints`);
  const { code, err } = await command(["storage", "repair", "--yes", ...at.store]);
  assert.equal(code, 75, err);
  assert.deepEqual(await filesIn(`${at.path}/store/shop/checkpoints`), before);
  await lease.release();
  assert.equal((await command(["storage", "repair", "--yes", ...at.store])).code, 0);
  await plain.close();
});

Deno.test("salvage brings what is left of a damaged checkpoint, and says what is not", async () => {
  await using at = await scene();
  // The second checkpoint's data: the new `a` and `sub/b`.
  const data = await at.packWith("two");
  const bytes = await Deno.readFile(data);
  const where = new TextDecoder("latin1").decode(bytes).indexOf("two");
  bytes[where] = 0x54;
  await Deno.writeFile(data, bytes);
  assert.equal((await command(["restore", "v2", "--to", `${at.path}/broken`, ...at.store])).code, 65);
  for (const index of await at.indexes()) await Deno.remove(index); // the footers say enough
  const { code, out, err } = await command([
    "restore",
    "v2",
    "--to",
    `${at.path}/left`,
    "--salvage",
    ...at.store,
  ]);
  assert.equal(code, 2, err);
  assert.equal(out, "lost 3 B of 3 B: app/a\n");
  assert.equal(await Deno.readTextFile(`${at.path}/left/app/sub/b`), "new");
  await assert.rejects(Deno.stat(`${at.path}/left/app/a`), Deno.errors.NotFound);
  assert.deepEqual([...await Deno.readFile(`${at.path}/left/app~incomplete/a`)], [0, 0, 0]);
  const whole = await command([
    "restore",
    "v1",
    "--to",
    `${at.path}/first`,
    "--salvage",
    "--json",
    ...at.store,
  ]);
  assert.equal(whole.code, 0, whole.err);
  assert.deepEqual(JSON.parse(whole.out.trimEnd().split("\n").at(-1) ?? "").lost_files, []);
});
