import assert from "node:assert/strict";
import { command } from "../support/fake_terminal.ts";
import { smallRepository } from "../support/small_repository.ts";

/** Every file below `path` with its content, to see that nothing changes. */
async function contentOf(path: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const { name, isDirectory } of Deno.readDir(path)) {
    const at = `${path}/${name}`;
    if (isDirectory) Object.assign(found, await contentOf(at));
    else found[at] = Array.from(await Deno.readFile(at)).join();
  }
  return found;
}

Deno.test("with no manager, checkpoints are listed, shown and restored straight from the store", async () => {
  await using repository = await smallRepository();
  const { path, directory, keyPrefix, ids } = repository;
  const store = ["--directory", directory, "--prefix", keyPrefix, "--data-dir", `${path}/none`];
  const before = await contentOf(directory);

  const list = await command(["checkpoint", "list", "--json", ...store]);
  assert.equal(list.code, 0, list.err);
  const { checkpoints } = JSON.parse(list.out);
  assert.deepEqual(
    checkpoints.map((each: Record<string, unknown>) => [each["n"], each["id"], each["current"]]),
    [[1, ids[0], false], [2, ids[1], true]],
  );
  for (const [reference, n] of [["v1", 1], ["2", 2], ["latest", 2], [ids[0], 1]] as const) {
    const shown = await command(["checkpoint", "show", reference, "--json", ...store]);
    assert.equal(JSON.parse(shown.out).n, n, shown.err);
  }
  assert.equal((await command(["checkpoint", "show", "v9", ...store])).code, 1);

  const old = await command(["restore", "v1", "--to", `${path}/old`, ...store]);
  assert.equal(old.code, 0, old.err);
  assert.match(old.out, /^restored v1 /);
  assert.equal(await Deno.readTextFile(`${path}/old/app/a`), "one");
  await assert.rejects(Deno.stat(`${path}/old/app/sub`), Deno.errors.NotFound);
  const now = new Date().toISOString();
  const latest = await command(["restore", "--at", now, "--to", "new", "--json", ...store], { folder: path });
  assert.equal(latest.code, 0, latest.err);
  assert.equal(JSON.parse(latest.out.trimEnd().split("\n").at(-1) ?? "").source.n, 2);
  assert.equal(await Deno.readTextFile(`${path}/new/app/sub/b`), "new");
  assert.doesNotMatch(latest.err, /yet to come/);
  const late = ["restore", "--at", "2999-01-01T00:00:00Z", ...store];
  const ahead = await command([...late, "--to", `${path}/ahead`]);
  assert.deepEqual(
    [ahead.code, /yet to come .* the newest state is taken/.test(ahead.err)],
    [0, true],
    ahead.err,
  );
  const inPlace = await command([...late, "--yes", "--files", `app=${path}/in-place`]);
  assert.equal(inPlace.code, 64);
  assert.match(inPlace.err, /yet to come\n.*name a time that has been/);
  assert.deepEqual(await contentOf(directory), before);
});

Deno.test("restore --to overwrites nothing and says what is not there", async () => {
  await using repository = await smallRepository();
  const { path, directory, keyPrefix } = repository;
  const store = ["--directory", directory, "--prefix", keyPrefix, "--data-dir", `${path}/none`];
  const inNoPrefix = new RegExp(
    `check the folder and key prefix; under no prefix there is ${keyPrefix}\n`,
  );
  await Deno.mkdir(`${path}/full`);
  await Deno.writeTextFile(`${path}/full/mine`, "precious");
  const cases: [string[], number, RegExp][] = [
    [["restore", "v1", "--to", `${path}/full`, "--yes", ...store], 64, /not empty/],
    [["restore", "v1", "--to", `${path}/full/mine`, ...store], 64, /not empty/],
    [["restore", "v7", "--to", `${path}/x`, ...store], 1, /no such id or ordinal/],
    [["restore", "--at", "2001-01-01T00:00:00Z", "--to", `${path}/x`, ...store], 1, /2001/],
    [["restore", "v1", "--files", "web", "--to", `${path}/x`, ...store], 64, /it holds app/],
    [["restore", "v1", "--to", `${path}/x`, "--directory", `${path}/nothing-there`], 78, /nothing is there/],
    [["checkpoint", "list", "--directory", directory], 78, inNoPrefix],
    [["storage", "check", "--directory", directory, "--prefix", `${keyPrefix}x`], 78, inNoPrefix],
    [["db", "list", "--directory", directory, "--prefix", `${keyPrefix}x`], 78, inNoPrefix],
    [["restore", "v1", "--yes", "--directory", directory, "--data-dir", `${path}/none`], 78, inNoPrefix],
  ];
  for (const [argv, code, text] of cases) {
    const result = await command(argv);
    assert.equal(result.code, code, `${argv.join(" ")}: ${result.err}`);
    assert.match(result.err, text);
    await assert.rejects(Deno.stat(`${path}/x`), Deno.errors.NotFound);
  }
  const plan = await command(["restore", "v1", "--dry-run", "--to", `${path}/x`, ...store]);
  assert.match(plan.out, /^would restore v1 /, plan.err);
  await assert.rejects(Deno.stat(`${path}/x`), Deno.errors.NotFound);
  assert.deepEqual(Array.from(Deno.readDirSync(`${path}/full`), ({ name }) => name), ["mine"]);
});

Deno.test("checkpoint list falls back to the configured store when no manager answers, and says so", async () => {
  await using repository = await smallRepository();
  const { path, directory, keyPrefix } = repository;
  const environment = {
    STATE_MANAGER_STORAGE_DIRECTORY: directory,
    STATE_MANAGER_STORAGE_KEY_PREFIX: keyPrefix,
  };
  const { code, out, err } = await command(["checkpoint", "list", "--data-dir", `${path}/none`], {
    environment,
  });
  assert.equal(code, 0, err);
  assert.match(out, /v1 .*first\n\*v2 .*second\n$/);
  assert.match(err, /straight from the store/);
  assert.equal((await command(["checkpoint", "list", "--data-dir", `${path}/none`])).code, 69);
});
