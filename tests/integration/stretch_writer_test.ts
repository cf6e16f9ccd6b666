/** Large files of a restore, written past the page cache beside other work: what was given is what is there. */

import assert from "node:assert/strict";
import { Flights, STRETCHES_FROM_BYTES, StretchWriter } from "../../src/checkpoint/stretch_writer.ts";
import { isError } from "../../src/platform/errors.ts";
import { AT_CWD, closeFd, OPEN, openAt, pathBytes } from "../../src/platform/libc_files.ts";
import { CheckpointRuns, watchedStore } from "../support/checkpoint_runs.ts";
import { scratchFolder } from "../support/manager_process.ts";
import { canMount, tool } from "../support/mounts.ts";
import { say } from "../support/say.ts";
import { randomOf } from "../support/seeded_random.ts";
import { hashTree } from "../support/tree_model.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

function opened(path: string): Disposable & { readonly fd: number } {
  const fd = openAt(AT_CWD, pathBytes(path), OPEN.read | OPEN.directory);
  return { fd, [Symbol.dispose]: () => closeFd(fd) };
}

Deno.test("stretches of several files, in any order and of any length, are what was given", async () => {
  for (const folder of [scratchFolder(), scratchFolder("/dev/shm")]) {
    using _ = folder;
    const seed = Date.now() % 1_000_000;
    say(`seed ${seed}`);
    const random = randomOf(seed);
    const below = (limit: number) => Math.floor(random.float() * limit);
    const models = ["a", "b", "c"].map((name) => ({ name, bytes: new Uint8Array(24 * MIB) }));
    for (const { name, bytes } of models) Deno.writeFileSync(`${folder.path}/${name}`, bytes);
    using place = opened(folder.path);
    const flights = new Flights();
    let passed = 0;
    for (let job = 0; job < 6; job++) {
      await using writer = new StretchWriter(place.fd, flights);
      for (let run = 0; run < 5; run++) {
        const number = below(models.length);
        const model = models[number];
        assert.ok(model !== undefined);
        let at = below(model.bytes.length - 8 * MIB);
        if (below(3) === 0) at -= at % 4096;
        // Chunks that follow each other, as a pack has them.
        for (let left = below(7 * MIB); left > 0;) {
          const pause = writer.room();
          if (pause !== null) await pause;
          const bytes = random.bytes(Math.min(left, 1 + below(MIB)));
          writer.write(number, pathBytes(model.name), bytes, at);
          model.bytes.set(bytes, at);
          at += bytes.length;
          left -= bytes.length;
        }
        // A part that is written again must not be overtaken by what was there before.
        await writer.flush();
      }
      passed += writer.passed;
    }
    say(`${folder.path}: ${passed} bytes passed the page cache`);
    for (const { name, bytes } of models) {
      assert.ok(Deno.readFileSync(`${folder.path}/${name}`).every((byte, i) => byte === bytes[i]), name);
    }
  }
});

class CountedFlights extends Flights {
  now = 0;
  most = 0;

  override add(flight: Promise<void>): void {
    this.most = Math.max(this.most, ++this.now);
    super.add(flight.finally(() => this.now--));
  }
}

Deno.test("jobs of a thread share its writes under way, which are three at one time", async () => {
  using folder = scratchFolder();
  const content = randomOf(7).bytes(32 * MIB);
  for (const name of ["a", "b"]) Deno.writeFileSync(`${folder.path}/${name}`, new Uint8Array(0));
  using place = opened(folder.path);
  const flights = new CountedFlights();
  await using first = new StretchWriter(place.fd, flights);
  await using second = new StretchWriter(place.fd, flights);
  const job = async (writer: StretchWriter, name: string) => {
    for (let at = 0; at < content.length; at += MIB) { // the longest chunk, which ends one window at most
      for (let pause = writer.room(); pause !== null; pause = writer.room()) await pause;
      writer.write(0, pathBytes(name), content.subarray(at, at + MIB), at);
    }
    await writer.flush();
  };
  await Promise.all([job(first, "a"), job(second, "b")]);
  say(`${first.passed} bytes passed the page cache, ${flights.most} writes at one time`);
  assert.ok(flights.most <= 3, `${flights.most} at one time`);
  assert.equal(flights.now, 0);
  for (const name of ["a", "b"]) {
    assert.ok(Deno.readFileSync(`${folder.path}/${name}`).every((byte, i) => byte === content[i]), name);
  }
});

Deno.test("restore of large files by Workers equals the tree, and its times", async () => {
  await using runs = new CheckpointRuns(watchedStore().store);
  const random = randomOf(5);
  const noise = random.bytes(20 * MIB + 12_345);
  const text = new TextEncoder().encode(
    Array.from({ length: 700_000 }, (_, n) => `line ${n} of a log, ${n * n}\n`).join(""),
  );
  // Large by their size, with little in them.
  for (const [name, bytes] of [["noise", noise], ["text.log", text]] as const) {
    using file = await Deno.open(`${runs.files}/${name}`, { write: true, createNew: true });
    for (const at of [0, 90 * MIB + 7, STRETCHES_FROM_BYTES - bytes.length + 5000]) {
      await file.seek(at, Deno.SeekMode.Start);
      for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
    }
  }
  assert.ok(tool("truncate", "-s", `${STRETCHES_FROM_BYTES}`, `${runs.files}/hole`));
  await Deno.writeFile(`${runs.files}/small`, noise.subarray(0, 70_000));
  assert.ok(
    tool("sh", "-c", `touch -d 2001-02-03T04:05:06.789 ${runs.files}/*; chmod 400 ${runs.files}/noise`),
  );
  const { record } = await runs.create();
  assert.ok(record !== null);
  const { path, warnings } = await runs.stage();
  assert.deepEqual(warnings, []);
  assert.deepEqual((await hashTree(path)).lines, (await hashTree(runs.files)).lines);
});

Deno.test(
  "a stretch that finds the disk full fails as such [needs mount]",
  { ignore: !canMount },
  async () => {
    using folder = scratchFolder();
    const small = `${folder.path}/small`;
    Deno.mkdirSync(small);
    assert.ok(tool("mount", "-t", "tmpfs", "-o", "size=6m", "none", small));
    try {
      Deno.writeFileSync(`${small}/a`, new Uint8Array(0));
      using place = opened(small);
      await using writer = new StretchWriter(place.fd, new Flights());
      await assert.rejects(async () => {
        for (let at = 0; at < 20 * MIB; at += MIB) {
          await writer.room();
          writer.write(0, pathBytes("a"), new Uint8Array(MIB).fill(1), at);
        }
        await writer.flush();
      }, (error) => isError(error, "disk-full"));
    } finally {
      tool("umount", small);
    }
  },
);
