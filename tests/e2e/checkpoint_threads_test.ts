/** The archiver's reading threads in the program as it ships. */

import assert from "node:assert/strict";
import { Archiver, openRepository } from "../../src/checkpoint/mod.ts";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { stageCheckpoint } from "../../src/checkpoint/restore.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom, ulid } from "../../src/platform/random.ts";
import { openStore } from "../../src/storage/mod.ts";
import { CheckpointRuns, filesRoot } from "../support/checkpoint_runs.ts";
import { programCommand, scratchFolder } from "../support/manager_process.ts";
import { takeOverHead } from "../support/take_over_head.ts";
import { listTree } from "../support/tree_listing.ts";

const clock = systemClock();
const random = systemRandom();

function threadNames(pid: number): string[] {
  try {
    return [...Deno.readDirSync(`/proc/${pid}/task`)].map(({ name }) =>
      Deno.readTextFileSync(`/proc/${pid}/task/${name}/comm`).trim()
    );
  } catch {
    return [];
  }
}

Deno.test({
  name: "the program reads a large checkpoint by a thread for each core, and restores it equal",
  ignore: navigator.hardwareConcurrency < 2,
  async fn() {
    using scratch = scratchFolder();
    const files = `${scratch.path}/files`;
    const script = `mkdir "$0"; cd "$0"; head -c 80000000 /dev/urandom > big; seq 1 2000000 > text; mkdir s
      for i in $(seq 1 400); do echo "$i" > s/$i; done`;
    await new Deno.Command("sh", { args: ["-ec", script, files] }).output();
    const settings = { kind: "directory", directory: `${scratch.path}/store` } as const;
    const dir = { cache: `${scratch.path}/cache`, scratch: `${scratch.path}/scratch` };
    for (const path of [settings.directory, dir.cache, dir.scratch]) await Deno.mkdir(path);
    const store = openStore(settings, { clock, random });
    const repo = await openRepository(store, { name: "test", random });
    const session = await takeOverHead(store, { repo, token: 1, assertHeld: () => {} });
    let child = 0;
    const [command = "", ...args] = programCommand(["__archive"]);
    const archiver = new Archiver({
      store: settings,
      cipher: plainCipher,
      dir,
      clock,
      command: { command, args },
      watchChild: () => ({ env: {}, started: (pid) => child = pid, gone: () => {} }),
    });
    const seen = new Set<string>();
    const request = {
      id: ulid(clock.wallMs(), random),
      kind: "request",
      time: clock.wallMs(),
      comment: "",
      labels: {},
      token: 1,
      head: session.head,
      roots: [filesRoot("data", files)],
      always: false,
    } as const;
    const onProgress = () => threadNames(child).forEach((name) => seen.add(name));
    const { record, indexes, warnings } = await archiver.create(request, { onProgress });
    await archiver.close();
    assert.deepEqual(warnings, []);
    assert.ok(record !== null);
    assert.ok([...seen].filter((name) => /worker/i.test(name)).length > 0, [...seen].join());
    await using runs = new CheckpointRuns(store);
    const stage = `${scratch.path}/stage`;
    await stageCheckpoint({ record, indexes, roots: [{ name: "data", stage }] }, runs.environment());
    assert.deepEqual(await listTree(stage), await listTree(files));
    await store.close();
  },
});
