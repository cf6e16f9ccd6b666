/**
 * The swap of a restored database, with a crash at each file operation, with the power cut there, and with a second
 * crash in the roll: never a new database beside an old companion, never anything of the old one lost.
 */

import assert from "node:assert/strict";
import {
  finishDatabaseSwaps,
  rollDatabaseSwaps,
  stagePathOf,
  swapDatabases,
} from "../../src/database/database_swap.ts";
import { isError } from "../../src/platform/errors.ts";
import { Crash, faultyFiles, type FileFaultRule } from "../../src/platform/faulty_files.ts";
import { ensureFolder, readTextIfPresent, writeFileAtomically } from "../../src/platform/files.ts";
import { fileError, type LocalFiles } from "../../src/platform/local_files.ts";
import { MemoryDisk } from "../../src/platform/memory_disk.ts";
import { randomOf } from "../support/seeded_random.ts";

const JOURNAL = "/data/database-swap.json";
const NAMES = ["one", "two"] as const;
const SUFFIXES = ["", "-wal", "-shm", "-journal"] as const;
/** Of each crash point: enough that every change is kept and lost in some of them. */
const POWER_CUTS = 12;
/** More operations than a swap has: past it a test would run for ever. */
const MOST_OPERATIONS = 300;

const liveOf = (name: string) => `/srv/${name}/app.db`;
const asideOf = (name: string) => `/data/stale/then/${name}`;
const oldText = (name: string, suffix: string) => `old ${name}${suffix}`;

async function prepare(files: LocalFiles, suffixes: readonly string[] = SUFFIXES): Promise<void> {
  await ensureFolder("/data", 0o700, files);
  for (const name of NAMES) {
    await ensureFolder(`/srv/${name}`, 0o755, files);
    for (const suffix of suffixes) {
      await writeFileAtomically(liveOf(name) + suffix, oldText(name, suffix), { files });
    }
    await writeFileAtomically(stagePathOf(liveOf(name)), `new ${name}`, { files });
  }
}

function swap(files: LocalFiles) {
  const items = NAMES.map((name) => ({
    name,
    live: liveOf(name),
    stage: stagePathOf(liveOf(name)),
    aside: asideOf(name),
  }));
  return swapDatabases({ journalPath: JOURNAL, id: "r1", items }, files);
}

/** What the manager does at a start, and what it would record. */
async function recover(files: LocalFiles): Promise<void> {
  if (await rollDatabaseSwaps(JOURNAL, files) !== null) await finishDatabaseSwaps(JOURNAL, files);
}

/** True at every moment, whatever crashed: what is live is whole, and is one of the two. */
async function checkInvariant(files: LocalFiles, text: string): Promise<void> {
  for (const name of NAMES) {
    const live = await readTextIfPresent(liveOf(name), files);
    assert.ok([null, `new ${name}`, oldText(name, "")].includes(live), `${text}: ${live} is live`);
    for (const suffix of SUFFIXES.slice(1)) {
      const companion = await readTextIfPresent(liveOf(name) + suffix, files);
      if (live === `new ${name}`) assert.equal(companion, null, `${text}: ${suffix} beside the new database`);
    }
  }
}

async function checkSwapped(files: LocalFiles, text: string, suffixes: readonly string[] = SUFFIXES) {
  for (const name of NAMES) {
    assert.equal(await readTextIfPresent(liveOf(name), files), `new ${name}`, text);
    assert.equal(await readTextIfPresent(stagePathOf(liveOf(name)), files), null, text);
    for (const suffix of suffixes) {
      if (suffix !== "") assert.equal(await readTextIfPresent(liveOf(name) + suffix, files), null, text);
      const kept = await readTextIfPresent(`${asideOf(name)}/app.db${suffix}`, files);
      assert.equal(kept, oldText(name, suffix), `${text}: ${name}${suffix} aside`);
    }
  }
  assert.equal(await readTextIfPresent(JOURNAL, files), null, text);
}

async function checkUntouched(files: LocalFiles, text: string): Promise<void> {
  for (const name of NAMES) {
    for (const suffix of SUFFIXES) {
      const live = await readTextIfPresent(liveOf(name) + suffix, files);
      assert.equal(live, oldText(name, suffix), text);
    }
  }
}

async function swapUntil(disk: LocalFiles, rule: FileFaultRule): Promise<"done" | "stopped"> {
  const files = faultyFiles(disk, { rules: [rule] });
  try {
    await swap(files);
    await finishDatabaseSwaps(JOURNAL, files);
    return "done";
  } catch (error) {
    assert.ok(files.crashed || isError(error), `threw ${error}`);
    return "stopped";
  }
}

/** Whether the journal had its name when the process ended: from then on the swap goes forward. */
async function wasCommitted(files: LocalFiles): Promise<boolean> {
  if (await readTextIfPresent(JOURNAL, files) !== null) return true;
  return await readTextIfPresent(liveOf("two"), files) === "new two";
}

Deno.test("a database swap puts the new file in place and keeps all of the old one aside", async () => {
  for (const suffixes of [SUFFIXES, [""], ["", "-wal", "-shm"], []]) {
    const disk = new MemoryDisk();
    await prepare(disk, suffixes);
    const { movedAside } = await swap(disk);
    await finishDatabaseSwaps(JOURNAL, disk);
    await checkSwapped(disk, `with ${suffixes}`, suffixes);
    const wanted = suffixes.length === 0
      ? {}
      : Object.fromEntries(NAMES.map((name) => [name, asideOf(name)]));
    assert.deepEqual(movedAside, wanted);
  }
});

Deno.test("a database swap rolls forward from a crash at every file operation, and from a second one in the roll", async () => {
  let points = 0;
  for (const when of ["before", "after"] as const) {
    for (let nth = 1; nth < MOST_OPERATIONS; nth++) {
      const disk = new MemoryDisk();
      await prepare(disk);
      const text = `crash ${when} operation ${nth}`;
      const outcome = await swapUntil(disk, { changing: true, nth, when, crash: true });
      await checkInvariant(disk, text);
      if (outcome === "done") break;
      points++;
      if (!await wasCommitted(disk)) {
        await checkUntouched(disk, text);
        continue;
      }
      const again = faultyFiles(disk, { rules: [{ changing: true, nth: 1 + nth % 7, crash: true }] });
      await recover(again).catch((error) => assert.ok(error instanceof Crash || isError(error)));
      await checkInvariant(disk, `${text}, then in the roll`);
      await recover(disk);
      await checkSwapped(disk, text);
    }
  }
  assert.ok(points > 60, `only ${points} crash points`);
});

Deno.test("a database swap survives a power cut after every file operation", async () => {
  for (let nth = 1; nth < MOST_OPERATIONS; nth++) {
    for (let seed = 1; seed <= POWER_CUTS; seed++) {
      const disk = new MemoryDisk();
      await prepare(disk);
      const text = `power cut at operation ${nth}, seed ${seed}`;
      const outcome = await swapUntil(disk, { changing: true, nth, crash: true });
      const random = randomOf(seed * 1000 + nth);
      disk.powerCut(random);
      await checkInvariant(disk, text);
      const committed = await wasCommitted(disk);
      await recover(disk);
      disk.powerCut(random);
      await checkInvariant(disk, text);
      if (committed) await checkSwapped(disk, text);
      else await checkUntouched(disk, text);
      if (outcome === "done") return;
    }
  }
  assert.fail("a swap has no end");
});

Deno.test("a database swap that fails at any operation is finished by the next start", async () => {
  for (const errno of ["EIO", "ENOSPC"] as const) {
    for (let nth = 1; nth < MOST_OPERATIONS; nth++) {
      const disk = new MemoryDisk();
      await prepare(disk);
      const text = `${errno} at operation ${nth}`;
      const outcome = await swapUntil(disk, { changing: true, nth, errno });
      await checkInvariant(disk, text);
      const committed = await wasCommitted(disk);
      await recover(disk);
      if (outcome === "done" || committed) await checkSwapped(disk, text);
      else await checkUntouched(disk, text);
      if (outcome === "done" && nth > 20) break;
    }
  }
});

Deno.test("a database swap renames where the file system has no second names", async () => {
  const withoutLinks = (disk: MemoryDisk): LocalFiles =>
    new Proxy<LocalFiles>(disk, {
      get(target, key) {
        if (key === "link") return () => Promise.reject(fileError("EPERM", "link"));
        const value = Reflect.get(target, key);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  let ended = false;
  for (let nth = 1; !ended && nth < MOST_OPERATIONS; nth++) {
    const disk = new MemoryDisk();
    await prepare(disk);
    const files = withoutLinks(disk);
    ended = await swapUntil(files, { changing: true, nth, crash: true }) === "done";
    await checkInvariant(disk, `crash at ${nth}`);
    if (!await wasCommitted(disk)) continue;
    await recover(files);
    await checkSwapped(disk, `crash at ${nth}`);
  }
  assert.ok(ended);
});

Deno.test("a database swap keeps the old file beside the database when the data folder is on another file system", async () => {
  const disk = new MemoryDisk();
  await prepare(disk);
  const refuse = (to: string) => to.startsWith("/data/stale/");
  const files = new Proxy<LocalFiles>(disk, {
    get(target, key) {
      const value = Reflect.get(target, key);
      if (typeof value !== "function") return value;
      if (key !== "link" && key !== "rename") return value.bind(target);
      return (from: string, to: string) =>
        refuse(to)
          ? Promise.reject(new Error("Invalid cross-device link (os error 18)"))
          : value.call(target, from, to);
    },
  });
  const { movedAside } = await swap(files);
  await finishDatabaseSwaps(JOURNAL, files);
  assert.deepEqual(movedAside, { one: "/srv/one/.sm-stale/then/one", two: "/srv/two/.sm-stale/then/two" });
  for (const suffix of SUFFIXES) {
    const path = `/srv/one/.sm-stale/then/one/app.db${suffix}`;
    assert.equal(await readTextIfPresent(path, disk), oldText("one", suffix));
  }
  assert.deepEqual(await disk.list("/data/stale/then"), []);
});

Deno.test("a roll keeps what a program made by hand between the crash and the start, apart from the old", async () => {
  const disk = new MemoryDisk();
  await prepare(disk);
  // Dies when the live names are gone and the new file has none yet.
  const rule: FileFaultRule = { operation: "rename", pathPrefix: liveOf("one"), crash: true };
  assert.equal(await swapUntil(disk, rule), "stopped");
  await writeFileAtomically(liveOf("one"), "by hand", { files: disk });
  await writeFileAtomically(`${liveOf("one")}-wal`, "by hand, log", { files: disk });
  await recover(disk);
  await checkSwapped(disk, "by hand");
  assert.equal(await readTextIfPresent(`${asideOf("one")}/app.db.1`, disk), "by hand");
  assert.equal(await readTextIfPresent(`${asideOf("one")}/app.db.1-wal`, disk), "by hand, log");
});

Deno.test("a roll refuses to guess when the restored file is gone", async () => {
  const disk = new MemoryDisk();
  await prepare(disk);
  assert.equal(await swapUntil(disk, { operation: "link", crash: true, nth: 2 }), "stopped");
  await disk.remove(stagePathOf(liveOf("one")));
  await assert.rejects(rollDatabaseSwaps(JOURNAL, disk), { code: "data-damaged" });
  await checkInvariant(disk, "stage gone");
});

Deno.test("a second swap is refused while the journal of one is there", async () => {
  const disk = new MemoryDisk();
  await prepare(disk);
  await swap(disk);
  await assert.rejects(swap(disk), { code: "busy" });
  await writeFileAtomically(JOURNAL, "{}", { files: disk });
  await assert.rejects(rollDatabaseSwaps(JOURNAL, disk), { code: "data-damaged" });
});

Deno.test("stale data is moved aside alone when nothing takes its place", async () => {
  const disk = new MemoryDisk();
  await prepare(disk);
  const items = [{ name: "one", live: liveOf("one"), stage: null, aside: asideOf("one") }];
  const { movedAside } = await swapDatabases({ journalPath: JOURNAL, id: "r1", items }, disk);
  await finishDatabaseSwaps(JOURNAL, disk);
  assert.deepEqual(movedAside, { one: asideOf("one") });
  assert.equal(await readTextIfPresent(liveOf("one"), disk), null);
  assert.equal(await readTextIfPresent(`${asideOf("one")}/app.db-wal`, disk), oldText("one", "-wal"));
});
