/** Building a tree from a manifest and chunks in any order. */

import assert from "node:assert/strict";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { loadCodec } from "../../src/checkpoint/codec.ts";
import { chunkId } from "../../src/checkpoint/ids.ts";
import { FLAG_ZSTD } from "../../src/checkpoint/pack.ts";
import { StageThread } from "../../src/checkpoint/stage_job.ts";
import { TreeStager } from "../../src/checkpoint/stage.ts";
import type { ManifestEntry, TreeEntry } from "../../src/checkpoint/types.ts";
import { isError } from "../../src/platform/errors.ts";
import { isRoot, pathBytes } from "../../src/platform/libc_files.ts";
import { canMount, tool } from "../support/mounts.ts";
import { captureTree, deliver, filesRoot, stageCaptured } from "../support/tree_capture.ts";
import { hashTree, makeTree, scratchFolder } from "../support/tree_model.ts";

function entry(
  path: string,
  type: TreeEntry["type"],
  more: Partial<TreeEntry> = {},
): TreeEntry {
  const owner = { uid: Deno.uid() ?? 0, gid: Deno.gid() ?? 0 };
  return {
    path: pathBytes(path),
    type,
    mode: 0o755,
    ...owner,
    mtimeNs: 1_000_000_007n,
    size: 0,
    ...more,
  };
}

const line = (
  one: TreeEntry,
  parts: ManifestEntry["parts"] = [],
): ManifestEntry => ({ entry: one, parts });
const rootLine = line(entry("", "directory"));

Deno.test("stage equals the tree it was captured from, whatever order the chunks come in", async () => {
  for (const seed of [1, 2, 3]) {
    await using folder = scratchFolder("stage-");
    const live = `${folder.path}/live`;
    Deno.mkdirSync(live);
    makeTree(live, { seed, files: 300, asRoot: isRoot() });
    const tree = captureTree(filesRoot(live));
    assert.deepEqual(tree.warnings, [], `seed ${seed}`);
    assert.deepEqual(
      await stageCaptured(tree, `${folder.path}/stage`, seed),
      [],
      `seed ${seed}`,
    );
    const [before, after] = [
      await hashTree(live),
      await hashTree(`${folder.path}/stage`),
    ];
    assert.deepEqual(after.lines, before.lines, `seed ${seed}`);
    assert.equal(after.hash, before.hash);
    const blocks = Deno.statSync(`${folder.path}/stage/hole-all`).blocks;
    assert.equal(blocks, 0, "a hole takes no space");
  }
});

Deno.test("stage keeps few files open", async () => {
  await using folder = scratchFolder("stage-");
  const [a, b] = [chunkId(pathBytes("A")), chunkId(pathBytes("B"))];
  const lines = Array.from(
    { length: 300 },
    (_, i) =>
      line(entry(`f${String(i).padStart(3, "0")}`, "file", { size: 2 }), [
        { kind: "chunk", id: a, length: 1 },
        { kind: "chunk", id: b, length: 1 },
      ]),
  );
  const open = () => [...Deno.readDirSync("/proc/self/fd")].length;
  const before = open();
  using stager = new TreeStager({
    root: "data",
    target: `${folder.path}/stage`,
  });
  stager.begin([rootLine, ...lines]);
  // One job with both chunks of all files: it is asked how many are open while it unpacks the second chunk.
  let most = 0;
  const codec = {
    ...await loadCodec(),
    decompress: (frame: Uint8Array) => {
      most = Math.max(most, open() - before);
      return frame;
    },
  };
  const part = stager.take([b, a, "unknown"].map((id) => ({ id, length: 1 })));
  const chunks = part.chunks.map((chunk, at) => ({ ...chunk, flags: FLAG_ZSTD, at, stored: 1 }));
  const job = { ...part, kind: "pack", pack: "a pack", start: 0, bytes: pathBytes("BA"), chunks } as const;
  const { result } = await new StageThread({ codec, cipher: plainCipher }).begin(job);
  stager.settle(part, await result);
  assert.ok(most > 10 && most < 80, `${most} more open files`);
  await stager.finish();
  assert.equal(open(), before);
  for (const i of ["000", "150", "299"]) {
    assert.equal(Deno.readTextFileSync(`${folder.path}/stage/f${i}`), "AB");
  }
});

Deno.test("files have their modes, whatever the umask would take away", async () => {
  const modes = [0o600, 0o644, 0o666, 0o777, 0o640, 0o444, 0o000, 0o4755, 0o2644, 0o1600];
  for (const umask of [0o000, 0o022, 0o077]) {
    await using folder = scratchFolder("stage-");
    const former = Deno.umask(umask);
    try {
      const id = chunkId(pathBytes("A"));
      const names = modes.flatMap((mode) => [`a-${mode}`, `b-${mode}`]).sort();
      const modeOf = (name: string) => Number(name.slice(2));
      using stager = new TreeStager({ root: "data", target: `${folder.path}/stage` });
      stager.begin([
        rootLine,
        ...names.map((name) =>
          line(entry(name, "file", { size: 1, mode: modeOf(name) }), [{
            kind: "chunk",
            id,
            length: 1,
          }])
        ),
      ]);
      const part = stager.take([{ id, length: 1 }]);
      const chunks = part.chunks.map((chunk) => ({ ...chunk, flags: 0, at: 0, stored: 1 }));
      const thread = new StageThread({ codec: await loadCodec(), cipher: plainCipher });
      const job = { ...part, kind: "pack", pack: "a pack", start: 0, bytes: pathBytes("A"), chunks } as const;
      const { result } = await thread.begin(job);
      stager.settle(part, await result);
      await stager.finish();
      for (const name of names) {
        const { mode } = Deno.statSync(`${folder.path}/stage/${name}`);
        assert.equal((mode ?? 0) & 0o7777, modeOf(name), `${name} with umask ${umask}`);
      }
    } finally {
      Deno.umask(former);
    }
  }
});

Deno.test("a thread has three jobs at one time, and gives each the result of its own", async () => {
  await using folder = scratchFolder("stage-");
  const ids = ["A", "B", "C", "D", "E"].map((text) => ({ text, id: chunkId(pathBytes(text)) }));
  using stager = new TreeStager({ root: "data", target: `${folder.path}/stage` });
  stager.begin([
    rootLine,
    ...ids.map(({ text, id }) => line(entry(text, "file", { size: 1 }), [{ kind: "chunk", id, length: 1 }])),
  ]);
  const waits: PromiseWithResolvers<void>[] = [];
  const thread = new StageThread({
    codec: await loadCodec(),
    cipher: plainCipher,
    turn: () => {
      const wait = Promise.withResolvers<void>();
      waits.push(wait);
      return wait.promise;
    },
  });
  const results = ids.map(async ({ text, id }) => {
    const part = stager.take([{ id, length: 1 }]);
    const chunks = part.chunks.map((chunk) => ({ ...chunk, flags: 0, at: 0, stored: 1 }));
    const bytes = pathBytes(text === "B" ? "?" : text);
    const { result } = await thread.begin({ ...part, kind: "pack", pack: "a pack", start: 0, bytes, chunks });
    return stager.settle(part, await result);
  });
  const settled = Promise.allSettled(results);
  const turn = () => new Promise((resolve) => setTimeout(resolve, 0));
  await turn();
  assert.equal(waits.length, 3);
  waits[1]?.resolve();
  await turn();
  assert.equal(waits.length, 4, "one ended, by its error: another one begins");
  for (let i = 0; i < waits.length; i++) {
    waits[i]?.resolve();
    await turn();
  }
  assert.deepEqual((await settled).map(({ status }) => status === "fulfilled"), [
    true,
    false,
    true,
    true,
    true,
  ]);
  assert.equal(Deno.readTextFileSync(`${folder.path}/stage/E`), "E");
});

Deno.test("stage refuses a manifest that could write outside of it", async () => {
  await using folder = scratchFolder("stage-");
  const link = line(entry("d", "symlink", { target: pathBytes("/etc") }));
  const bad: readonly [string, ManifestEntry[]][] = [
    ["no root", [line(entry("a", "directory"))]],
    ["dot dot", [rootLine, line(entry("..", "directory"))]],
    ["dot dot inside", [
      rootLine,
      line(entry("a", "directory")),
      line(entry("a/..", "directory")),
    ]],
    ["absolute", [rootLine, line(entry("/etc/x", "file"))]],
    ["through a link", [rootLine, link, line(entry("d/passwd", "file"))]],
    ["no parent", [rootLine, line(entry("x/y", "file"))]],
    ["twice", [
      rootLine,
      line(entry("a", "file")),
      line(entry("a", "directory")),
    ]],
    ["link without target", [rootLine, line(entry("a", "symlink"))]],
    ["empty name", [
      rootLine,
      line(entry("a", "directory")),
      line(entry("a/", "file")),
    ]],
    ["NUL", [rootLine, line(entry("a\0b", "file"))]],
    ["wrong size", [
      rootLine,
      line(entry("a", "file", { size: 3 }), [{ kind: "hole", length: 2 }]),
    ]],
    ["second link with parts", [
      rootLine,
      line(entry("a", "file", { linkGroup: 1 })),
      line(entry("b", "file", { linkGroup: 1, size: 1 }), [{
        kind: "hole",
        length: 1,
      }]),
    ]],
  ];
  for (const [what, manifest] of bad) {
    using stager = new TreeStager({
      root: "data",
      target: `${folder.path}/stage`,
    });
    assert.throws(
      () => stager.begin(manifest),
      (error) => isError(error, "data-damaged"),
      what,
    );
  }
  assert.deepEqual([...Deno.readDirSync(folder.path)], []);
});

Deno.test("stage refuses chunks of a wrong length, and an end with chunks missing", async () => {
  await using folder = scratchFolder("stage-");
  using stager = new TreeStager({
    root: "data",
    target: `${folder.path}/stage`,
  });
  const id = chunkId(pathBytes("abcd"));
  stager.begin([
    rootLine,
    line(entry("a", "file", { size: 4 }), [{ kind: "chunk", id, length: 4 }]),
  ]);
  assert.throws(
    () => deliver(stager, id, pathBytes("abc")),
    (error) => isError(error, "data-damaged"),
  );
  await assert.rejects(
    stager.finish(),
    (error) => isError(error, "data-damaged"),
  );
});

Deno.test("stage refuses a folder that is there", async () => {
  await using folder = scratchFolder("stage-");
  using stager = new TreeStager({ root: "data", target: folder.path });
  assert.throws(
    () => stager.begin([rootLine]),
    (error) => isError(error, "local-io"),
  );
});

Deno.test(
  "stage says disk-full when the disk is full [needs mount]",
  { ignore: !canMount },
  async () => {
    await using folder = scratchFolder("stage-");
    const small = `${folder.path}/small`;
    Deno.mkdirSync(small);
    assert.ok(tool("mount", "-t", "tmpfs", "-o", "size=64k", "none", small));
    try {
      const size = 1024 * 1024;
      const bytes = new Uint8Array(size).fill(1);
      const id = chunkId(bytes);
      using stager = new TreeStager({ root: "data", target: `${small}/stage` });
      stager.begin([
        rootLine,
        line(entry("a", "file", { size }), [{
          kind: "chunk",
          id,
          length: size,
        }]),
      ]);
      assert.throws(
        () => deliver(stager, id, bytes),
        (error) => isError(error, "disk-full"),
      );
      stager.close();
    } finally {
      tool("umount", small);
    }
  },
);

// As root there is nobody whose files it may not own; the end-to-end tests do the same as nobody there.
if (!isRoot()) {
  Deno.test(
    "stage as an ordinary user counts owners it may not give, and lends nobody its rights",
    async () => {
      await using folder = scratchFolder("stage-");
      using stager = new TreeStager({
        root: "data",
        target: `${folder.path}/stage`,
      });
      const foreign = { uid: 0, gid: 0, mode: 0o4755 };
      stager.begin([
        rootLine,
        line(entry("a", "file", foreign)),
        line(entry("b", "file", foreign)),
      ]);
      const warnings = await stager.finish();
      assert.equal(warnings.length, 1);
      assert.match(warnings[0]?.reason ?? "", /owner not set.*1 others/);
      assert.equal(
        (Deno.statSync(`${folder.path}/stage/a`).mode ?? 0) & 0o7777,
        0o755,
      );
    },
  );
}
