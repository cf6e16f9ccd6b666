/**
 * The manager's own files, each of their operations failed in each way: the error is a clear one, and what is there
 * afterwards is the old or the new content, never a part, also when the power fails at that moment.
 */

import assert from "node:assert/strict";
import { persistConfig } from "../../src/config/mod.ts";
import { dataDirAt, isReleased, setReleased, writeExitRecord } from "../../src/manager/data_dir.ts";
import { LineageFile, type MarkerItem, readMarker } from "../../src/manager/lineage.ts";
import { isError } from "../../src/platform/errors.ts";
import { Crash, type FaultyFiles, faultyFiles, type FileFaultRule } from "../../src/platform/faulty_files.ts";
import { ensureFolder, readTextIfPresent, writeFileAtomically } from "../../src/platform/files.ts";
import type { LocalFiles } from "../../src/platform/local_files.ts";
import { MemoryDisk } from "../../src/platform/memory_disk.ts";
import { randomOf } from "../support/seeded_random.ts";

const DIR = "/var/lib/app";
const dir = dataDirAt(DIR);
/** Of each crash point: enough that every change is kept and lost in some of them. */
const POWER_CUTS = 24;
/** More operations than any of the subjects has: past it a test would run for ever. */
const MOST_OPERATIONS = 200;

const item = (checkpoint: string): MarkerItem => ({
  repo_id: "r",
  path: "/files",
  token: 7,
  claimed: null,
  checkpoint,
  pending: null,
});

interface Subject {
  readonly name: string;
  /** Makes the old state, durably. */
  prepare(files: LocalFiles): Promise<void>;
  change(files: LocalFiles): Promise<void>;
  /** What a next start would find. */
  read(files: LocalFiles): Promise<unknown>;
  readonly old: unknown;
  readonly new: unknown;
  /** true: it never throws, it is best effort. */
  readonly quiet?: boolean;
}

const CONFIG = `${DIR}/etc/config.json`;

async function readConfig(files: LocalFiles): Promise<unknown> {
  const text = await readTextIfPresent(CONFIG, files);
  return text === null ? null : JSON.parse(text);
}

async function readCheckpoint(files: LocalFiles): Promise<unknown> {
  const { marker, damaged } = await readMarker(dir.lineage, files);
  return damaged ? "damaged" : marker.files["app"]?.checkpoint ?? null;
}

async function updateMarker(files: LocalFiles, checkpoint: string): Promise<void> {
  const lineage = new LineageFile(dir.lineage, files);
  await lineage.load();
  await lineage.apply({ kind: "own", items: { app: item(checkpoint) } });
}

const SUBJECTS: readonly Subject[] = [
  {
    name: "a configuration in a new folder",
    prepare: (files) => ensureFolder("/var", 0o755, files),
    change: (files) => persistConfig(CONFIG, { a: "new" }, 1, files),
    read: readConfig,
    old: null,
    new: { a: "new" },
  },
  {
    name: "a configuration that replaces another",
    prepare: (files) => persistConfig(CONFIG, { a: "old" }, 1, files),
    change: (files) => persistConfig(CONFIG, { a: "new" }, 2, files),
    read: readConfig,
    old: { a: "old" },
    new: { a: "new" },
  },
  {
    name: "the first lineage marker",
    prepare: (files) => ensureFolder(DIR, 0o700, files),
    change: (files) => updateMarker(files, "new"),
    read: readCheckpoint,
    old: null,
    new: "new",
  },
  {
    name: "the lineage marker of a next checkpoint",
    prepare: async (files) => {
      await ensureFolder(DIR, 0o700, files);
      await updateMarker(files, "old");
    },
    change: (files) => updateMarker(files, "new"),
    read: readCheckpoint,
    old: "old",
    new: "new",
  },
  {
    name: "the flag of a released lease",
    prepare: (files) => ensureFolder(DIR, 0o700, files),
    change: (files) => setReleased(dir, true, files),
    read: (files) => isReleased(dir, files),
    old: false,
    new: true,
  },
  {
    name: "the end of that flag",
    prepare: async (files) => {
      await ensureFolder(DIR, 0o700, files);
      await setReleased(dir, true, files);
    },
    change: (files) => setReleased(dir, false, files),
    read: (files) => isReleased(dir, files),
    old: true,
    new: false,
  },
  {
    name: "the record of the exit",
    prepare: async (files) => {
      await ensureFolder(DIR, 0o700, files);
      await writeExitRecord(dir.exitRecord, 1, "old", 1, files);
    },
    change: (files) => writeExitRecord(dir.exitRecord, 2, "new", 2, files),
    read: async (files) => JSON.parse(await readTextIfPresent(dir.exitRecord, files) ?? "{}").exit_code,
    old: 1,
    new: 2,
    quiet: true,
  },
];

/** The ways in which one operation fails; the first two also of reads. */
const FAULTS: Readonly<Record<string, Omit<FileFaultRule, "nth" | "count">>> = {
  "EIO": { errno: "EIO" },
  "done and EIO": { errno: "EIO", when: "after" },
  "ENOSPC": { errno: "ENOSPC", changing: true },
  "ENOSPC within a write": { errno: "ENOSPC", changing: true, takes: 5 },
  "EROFS": { errno: "EROFS", changing: true },
};
const CRASHES: Readonly<Record<string, Omit<FileFaultRule, "nth" | "count">>> = {
  "a crash before": { crash: true, changing: true },
  "a crash after": { crash: true, changing: true, when: "after" },
  "a crash within a write": { crash: true, changing: true, takes: 5 },
};

interface Run {
  readonly disk: MemoryDisk;
  readonly files: FaultyFiles;
  readonly hit: boolean;
  readonly error: unknown;
}

async function runWith(subject: Subject, rule: FileFaultRule): Promise<Run> {
  const disk = new MemoryDisk();
  await subject.prepare(disk);
  const files = faultyFiles(disk);
  const fault = files.inject(rule);
  const error = await subject.change(files).then(() => null, (error) => error);
  fault.end();
  return { disk, files, hit: fault.hits > 0, error };
}

async function assertOldOrNew(subject: Subject, files: LocalFiles, what: string): Promise<void> {
  const found = JSON.stringify(await subject.read(files));
  assert.ok([subject.old, subject.new].some((each) => JSON.stringify(each) === found), `${what}: ${found}`);
}

/** Names below `path` that a crash may leave and a failure must not. */
async function temporaries(files: LocalFiles, path = ""): Promise<string[]> {
  const found: string[] = [];
  for (const { name, kind } of await files.list(path === "" ? "/" : path)) {
    if (kind === "folder") found.push(...await temporaries(files, `${path}/${name}`));
    else if (name.endsWith(".tmp")) found.push(`${path}/${name}`);
  }
  return found;
}

for (const subject of SUBJECTS) {
  Deno.test(`${subject.name} is the old or the new one when any of its file operations fails`, async () => {
    for (const [fault, rule] of Object.entries(FAULTS)) {
      let nth = 1;
      for (;; nth++) {
        assert.ok(nth < MOST_OPERATIONS, fault);
        const run = await runWith(subject, { ...rule, nth });
        if (!run.hit) break;
        const what = `${fault} at operation ${nth}`;
        if (run.error !== null) {
          assert.ok(
            isError(run.error) && run.error.hint !== undefined && !isError(run.error, "internal"),
            `${what}: ${run.error}`,
          );
        }
        await assertOldOrNew(subject, run.disk, what);
        if (run.error === null && subject.quiet !== true) {
          assert.deepEqual(await subject.read(run.disk), subject.new, what);
        }
        if (fault !== "done and EIO") assert.deepEqual(await temporaries(run.disk), [], what);
        // What failed once works when it is asked again.
        await subject.change(run.files);
        assert.deepEqual(await subject.read(run.disk), subject.new, what);
      }
      assert.ok(nth > 2, `${fault} hit nothing`);
    }
  });

  Deno.test(`${subject.name} is the old or the new one when the power fails at any of its file operations`, async () => {
    for (const [crash, rule] of Object.entries(CRASHES)) {
      for (let nth = 1;; nth++) {
        assert.ok(nth < MOST_OPERATIONS, crash);
        let hit = false;
        for (let seed = 0; seed < POWER_CUTS; seed++) {
          const run = await runWith(subject, { ...rule, nth });
          const what = `${crash} operation ${nth}, seed ${seed}`;
          hit ||= run.hit;
          if (run.hit && subject.quiet !== true) assert.ok(run.error !== null, what);
          await assertOldOrNew(subject, run.disk, what); // killed, the machine lives on
          run.disk.powerCut(randomOf(seed));
          await assertOldOrNew(subject, run.disk, `${what}, power cut`);
          if (run.error === null && !run.hit) {
            assert.deepEqual(await subject.read(run.disk), subject.new, what);
          }
          await subject.change(run.disk);
          assert.deepEqual(await subject.read(run.disk), subject.new, what);
        }
        if (!hit) break;
      }
    }
  });

  Deno.test(`${subject.name} is whole when every write takes one byte`, async () => {
    const { disk, error } = await runWith(subject, { operation: "write", takes: 1, count: Infinity });
    assert.equal(error, null);
    assert.deepEqual(await subject.read(disk), subject.new);
  });
}

Deno.test("a write is not failed by what a killed process of the same id left", async () => {
  const disk = new MemoryDisk();
  const rules = [{ operation: "create", when: "after", crash: true }] as const;
  let leftover = "";
  const dying = faultyFiles(disk, { rules });
  await assert.rejects(writeFileAtomically("/file", "old", { files: dying }));
  const files: LocalFiles = {
    ...faultyFiles(disk),
    // The next process counts its writes from one again, as the killed one did.
    create: async (path: string, mode: number) => {
      if (leftover === "") await disk.rename(`/${(await disk.list("/"))[0]?.name}`, leftover = path);
      return await disk.create(path, mode);
    },
  };
  await writeFileAtomically("/file", "new", { files });
  assert.equal(await readTextIfPresent("/file", disk), "new");
  assert.deepEqual((await disk.list("/")).map(({ name }) => name), ["file"]);
});

Deno.test("a dead process does nothing more", async () => {
  const disk = new MemoryDisk();
  const files = faultyFiles(disk, { rules: [{ crash: true, operation: "write" }] });
  await assert.rejects(writeFileAtomically("/file", "new", { files }));
  assert.equal(files.crashed, true);
  await assert.rejects(files.remove("/file"), Crash);
  assert.equal((await disk.list("/")).length, 1); // the temporary: nobody was left to remove it
});

Deno.test("a disk that loses power keeps what was synced, and anything of the rest", async () => {
  const seen = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const disk = new MemoryDisk();
    using file = await disk.create("/a", 0o600);
    await file.write(new TextEncoder().encode("kept"));
    await file.sync();
    await disk.syncFolder("/");
    await file.write(new TextEncoder().encode("+more"));
    await disk.link("/a", "/b");
    await disk.rename("/b", "/c");
    disk.powerCut(randomOf(seed));
    const text = (await readTextIfPresent("/a", disk)) ?? "";
    assert.ok(text.startsWith("kept"), `seed ${seed}: ${text}`);
    await assert.rejects(file.write(new Uint8Array(1)), /EIO/);
    const names = (await disk.list("/")).map(({ name }) => name).sort().join();
    seen.add(names).add(
      text.includes("\0") ? "zeros" : text.length === 9 ? "all" : text.length === 4 ? "old" : "part",
    );
  }
  for (const what of ["a", "a,b", "a,c", "all", "old", "part", "zeros"]) {
    assert.ok(seen.has(what), `never: ${what}`);
  }
});
