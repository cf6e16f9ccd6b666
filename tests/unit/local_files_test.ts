/** The machine's file systems by both implementations of the port: one on other threads, one on this one. */

import assert from "node:assert/strict";
import {
  isMissing,
  type LocalFiles,
  promptFiles,
  readRange,
  systemFiles,
} from "../../src/platform/local_files.ts";
import { scratchFolder } from "../support/tree_model.ts";

const text = (value: string) => new TextEncoder().encode(value);
const kinds: Readonly<Record<string, LocalFiles>> = { systemFiles, promptFiles };

async function write(files: LocalFiles, path: string, ...parts: readonly string[]): Promise<void> {
  using file = await files.create(path, 0o640);
  for (const part of parts) assert.equal(await file.write(text(part)), part.length);
  await file.sync();
  assert.equal((await file.facts()).sizeBytes, parts.join("").length);
}

for (const [name, files] of Object.entries(kinds)) {
  Deno.test(`${name}: what is written in parts is read from any position, in any order`, async () => {
    await using folder = scratchFolder("local-files-");
    const path = `${folder.path}/a`;
    await write(files, path, "hello ", "", "world");
    assert.equal((Deno.statSync(path).mode ?? 0) & 0o777, 0o640 & ~Deno.umask());
    using file = await files.open(path);
    const at = async (from: number, length: number) =>
      new TextDecoder().decode(await readRange(file, from, length));
    assert.deepEqual(
      [await at(6, 5), await at(0, 5), await at(5, 2), await at(7, 4), await at(8, 100), await at(99, 1)],
      ["world", "hello", " w", "orld", "rld", ""],
    );
    assert.equal(await file.read(new Uint8Array(4), 11), null);
    const { kind, sizeBytes, inode } = await file.facts();
    assert.deepEqual([kind, sizeBytes], ["file", 11]);
    assert.deepEqual(await files.stat(path), await file.facts());
    assert.equal(inode, Deno.statSync(path).ino);
    Deno.symlinkSync(path, `${folder.path}/link`);
    assert.equal((await files.stat(`${folder.path}/link`)).inode, inode, "stat follows links");
    assert.equal((await files.stat(folder.path)).kind, "folder");
  });

  Deno.test(`${name}: names change as a whole, and nothing that is there is taken for a new file`, async () => {
    await using folder = scratchFolder("local-files-");
    const at = (each: string) => `${folder.path}/${each}`;
    await write(files, at("a"), "a");
    await write(files, at("b"), "b");
    await assert.rejects(files.create(at("a"), 0o600), Deno.errors.AlreadyExists);
    await assert.rejects(files.link(at("a"), at("b")), Deno.errors.AlreadyExists);
    await files.link(at("a"), at("c"));
    await files.rename(at("a"), at("b"));
    await files.syncFolder(folder.path);
    assert.deepEqual(["b", "c"].map((each) => Deno.readTextFileSync(at(each))), ["a", "a"]);
    assert.deepEqual((await files.list(folder.path)).map((entry) => entry.name).sort(), ["b", "c"]);
  });

  Deno.test(`${name}: remove takes a file or an empty folder, removeTree whatever is there and never behind a link`, async () => {
    await using folder = scratchFolder("local-files-");
    const at = (each: string) => `${folder.path}/${each}`;
    await files.makeFolder(at("full"), 0o700);
    await write(files, at("full/kept"), "kept");
    Deno.symlinkSync(at("full"), at("link"));
    Deno.symlinkSync(at("nowhere"), at("dangling"));
    await files.removeTree(at("link"));
    await files.removeTree(at("dangling"));
    assert.equal(Deno.readTextFileSync(at("full/kept")), "kept");
    await assert.rejects(files.remove(at("full")), /os error 39/);
    await files.removeTree(at("full"));
    await files.makeFolder(at("empty"), 0o700);
    await files.remove(at("empty"));
    await write(files, at("file"), "");
    await files.removeTree(at("file"));
    assert.deepEqual(await files.list(folder.path), []);
  });

  Deno.test(`${name}: what fails is a rejection with the number of the error, never thrown`, async () => {
    await using folder = scratchFolder("local-files-");
    const none = `${folder.path}/none`;
    await write(files, `${folder.path}/file`, "");
    const calls: readonly (() => Promise<unknown>)[] = [
      () => files.stat(none),
      () => files.stat(`${folder.path}/file/below`),
      () => files.open(none),
      () => files.create(`${none}/a`, 0o600),
      () => files.list(none),
      () => files.rename(none, `${none}2`),
      () => files.link(none, `${none}2`),
      () => files.remove(none),
      () => files.removeTree(none),
      () => files.syncFolder(none),
    ];
    for (const call of calls) {
      await call().then(
        () => assert.fail(String(call)),
        (error) => assert.ok(isMissing(error) && /\(os error \d+\)/.test(error.message), `${call}: ${error}`),
      );
    }
  });
}
