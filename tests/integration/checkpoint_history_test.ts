/** Differences and listings of real checkpoints, against what a look at the trees themselves says. */

import assert from "node:assert/strict";
import { listFolder, readFile } from "../../src/checkpoint/browse.ts";
import { diffCheckpoints, type Difference } from "../../src/checkpoint/diff.ts";
import { openCheckpoint } from "../../src/checkpoint/restore.ts";
import type { CheckpointRecord } from "../../src/checkpoint/types.ts";
import { isError } from "../../src/platform/errors.ts";
import { showPath } from "../../src/platform/libc_files.ts";
import { type KeptRepository, keptRepository, noise, verifyStore } from "../support/kept_repository.ts";
import { seededRandom } from "../support/tree_model.ts";
import { say } from "../support/say.ts";
import { readManifest } from "../support/manifest_entries.ts";

function environment({ runs }: KeptRepository) {
  return { ...runs.environment(), cacheFolder: null };
}

/** Each path with its content and with all else, as a restore would read it. */
async function facts(repository: KeptRepository, record: CheckpointRecord) {
  const opened = await openCheckpoint(
    record,
    repository.head.head.indexes,
    environment(repository),
    () => {},
  );
  const found = new Map<string, { content: string; rest: string }>();
  for (const [name, item] of Object.entries(opened.root.items.files)) {
    for (const { entry, parts } of await readManifest(item, name, opened)) {
      const { type, size, target, mode, uid, gid, mtimeNs } = entry;
      const content = JSON.stringify([type, size, target === undefined ? null : showPath(target), parts]);
      found.set(showPath(entry.path), { content, rest: [mode, uid, gid, mtimeNs].join() });
    }
  }
  return found;
}

async function expectedDiff(repository: KeptRepository, before: CheckpointRecord, after: CheckpointRecord) {
  const [old, now] = [await facts(repository, before), await facts(repository, after)];
  const changes: Record<string, string> = {};
  for (const path of new Set([...old.keys(), ...now.keys()])) {
    const [a, b] = [old.get(path), now.get(path)];
    if (a === undefined) changes[path] = "added";
    else if (b === undefined) changes[path] = "removed";
    else if (a.content !== b.content) changes[path] = "changed";
    else if (a.rest !== b.rest) changes[path] = "metadata";
  }
  return changes;
}

function told(differences: readonly Difference[]): Record<string, string> {
  const changes = Object.fromEntries(differences.map(({ path, change }) => [path, change]));
  assert.equal(Object.keys(changes).length, differences.length, "each path once");
  return changes;
}

Deno.test("differences between any two checkpoints are those of their trees, by pages, too", async () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  say(`seed ${seed}`);
  const float = seededRandom(seed);
  const upTo = (most: number) => Math.floor(float() * most);
  await using repository = await keptRepository(0);
  const root = repository.runs.files;
  const pathOf = (i: number) => `${root}/folder-${i % 7}/${"long name ".repeat(8)}${i}`;
  for (let i = 0; i < 7; i++) await Deno.mkdir(`${root}/folder-${i}`);
  for (let i = 0; i < 900; i++) await Deno.writeTextFile(pathOf(i), `content of ${i}`);
  // More parts than a line takes, so that one file spans lines.
  await Deno.writeFile(`${root}/folder-3/large`, noise(seed, 600_000));
  await repository.checkpoint();
  let next = 900;
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 1 + upTo(12); i++) {
      const path = pathOf(upTo(next));
      const what = upTo(5);
      try {
        if (what === 0) await Deno.remove(path);
        else if (what === 1) {
          // Of the same length now and then: sizes tell nothing then.
          const text = await Deno.readTextFile(path);
          await Deno.writeTextFile(
            path,
            upTo(2) === 0 ? `changed in ${round}` : text.replace(/.$/, `${round}`),
          );
        } else if (what === 2) await Deno.chmod(path, 0o600 + upTo(8));
        else if (what === 3) await Deno.utime(path, 1000 + round, 1000 + round);
        else {
          await Deno.remove(path);
          await Deno.symlink(`to-${round}`, path);
        }
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
      if (upTo(3) === 0) await Deno.writeTextFile(pathOf(next++), "new");
    }
    await repository.checkpoint();
  }
  const { indexes } = repository.head.head;
  const records = repository.records;
  for (const [i, before] of records.entries()) {
    for (const after of [records[i], records[i + 1], records.at(-1), records[0]]) {
      if (after === undefined) continue;
      const request = { before, after, indexes, skip: 0, limit: Infinity };
      const result = await diffCheckpoints(request, environment(repository));
      const expected = await expectedDiff(repository, before, after);
      assert.deepEqual(told(result.differences), expected, `v${before.n} to v${after.n}`);
      const totals = { added: 0, removed: 0, changed: 0, metadata: 0 };
      for (const change of Object.values(expected)) totals[change as keyof typeof totals]++;
      assert.deepEqual(result.totals, totals);
      const pages: Difference[] = [];
      for (let skip: number | null = 0; skip !== null;) {
        const page = await diffCheckpoints({ ...request, skip, limit: 4 }, environment(repository));
        pages.push(...page.differences);
        assert.ok(page.differences.length <= 4);
        skip = page.next;
      }
      assert.deepEqual(pages, result.differences);
    }
  }
});

Deno.test("a checkpoint is listed folder by folder, and its files read, holes and links among them", async () => {
  await using repository = await keptRepository(2);
  const root = repository.runs.files;
  const file = await Deno.open(`${root}/sparse`, { create: true, write: true });
  await file.truncate(3_000_000);
  await file.seek(1_000_000, Deno.SeekMode.Start);
  await file.write(noise(5, 100_000));
  file.close();
  await Deno.link(`${root}/same`, `${root}/sub/linked`);
  await Deno.symlink("large", `${root}/to-large`);
  const record = await repository.checkpoint();
  const { indexes } = repository.head.head;
  const list = async (path: string, recursive = false, limit = Infinity, skip = 0) =>
    await listFolder({ record, indexes, path, recursive, limit, skip }, environment(repository));
  const paths = async (path: string, recursive = false) =>
    (await list(path, recursive)).entries.map((entry) => entry.path);
  assert.deepEqual(await paths(""), ["data"]);
  const top = ["data/changing", "data/large", "data/same", "data/sparse", "data/sub", "data/to-large"];
  assert.deepEqual(await paths("data"), top);
  assert.deepEqual(await paths("/data/sub/"), ["data/sub/linked", "data/sub/of-1", "data/sub/of-2"]);
  assert.deepEqual(await paths("data/large"), ["data/large"], "a file is its own listing");
  assert.equal((await paths("data", true)).length, 9);
  assert.equal((await list("data")).entries[5]?.target, "large");
  const page = await list("data", false, 2, 2);
  assert.deepEqual([page.entries.map((entry) => entry.path), page.next], [["data/same", "data/sparse"], 4]);
  assert.equal((await list("data", false, 2, 4)).next, null);
  for (const path of ["nothing", "data/nothing", "data/larg", "data/large/x"]) {
    await assert.rejects(list(path), (error) => isError(error, "not-found"), path);
  }

  const read = async (path: string) => {
    const pieces = [];
    for await (const piece of readFile({ record, indexes, path }, environment(repository))) {
      pieces.push(piece);
    }
    return new Uint8Array(await new Blob(pieces).arrayBuffer());
  };
  for (const name of ["large", "sparse", "same", "changing", "sub/of-1"]) {
    assert.deepEqual(await read(`data/${name}`), await Deno.readFile(`${root}/${name}`), name);
  }
  assert.equal(new TextDecoder().decode(await read("data/sub/linked")), "the same in all of them");
  await assert.rejects(read("data/sub"), (error) => isError(error, "invalid-request"));
  await assert.rejects(read("data/none"), (error) => isError(error, "not-found"));
  assert.deepEqual((await verifyStore(repository.store, repository)).findings, []);
});
