/** The folder store beyond the contract: how it lies on the disk, what other processes do to it, disks that refuse. */

import { canUnshareMounts } from "../support/mounts.ts";
import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { directoryStore, type ObjectStore } from "../../src/storage/mod.ts";

const root = new URL("../../", import.meta.url).pathname;
const writer = new URL("../support/store_writer.ts", import.meta.url).pathname;
/** One for all tests: it opens a library that it never closes. */
const machineClock = systemClock();
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (body: Uint8Array) => new TextDecoder().decode(body);

async function inFolder(
  body: (store: ObjectStore, path: string) => Promise<void>,
  wallMs: () => number = Date.now,
): Promise<void> {
  const path = await Deno.makeTempDir({ prefix: "state-manager-folder-" });
  try {
    const clock = { ...machineClock, wallMs };
    await body(directoryStore({ path, clock, random: systemRandom() }), path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

/** Every name below `path`, folders with a slash at their end. */
function namesBelow(path: string, below = ""): string[] {
  return [...Deno.readDirSync(path)].flatMap((entry) => {
    const name = below + entry.name;
    return entry.isDirectory ? [`${name}/`, ...namesBelow(`${path}/${entry.name}`, `${name}/`)] : [name];
  }).sort();
}

async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 60_000;
  while (!await holds()) {
    assert.ok(performance.now() < end, `did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function writerCommand(path: string, name: string, count: number, stdout: "piped" | "null") {
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--quiet",
      "--no-check",
      "--config",
      `${root}tests/deno.json`,
      writer,
      path,
      name,
      String(count),
    ],
    stdin: "null",
    stdout,
    stderr: "inherit",
  });
}

function startWriter(path: string, name: string, count: number) {
  const child = writerCommand(path, name, count, "piped").spawn();
  const wins: number[] = [];
  const reading = (async () => {
    let rest = "";
    for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + piece).split("\n");
      rest = lines.pop() ?? "";
      wins.push(...lines.map(Number));
    }
  })();
  return {
    wins,
    /** One that has all its wins may be gone already. */
    kill: (signal: Deno.Signal) => {
      try {
        child.kill(signal);
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
      }
    },
    async ended(): Promise<number> {
      const { code } = await child.status;
      await reading;
      return code;
    },
  };
}

Deno.test("folder store keeps an object made by put-if-absent as a plain file with exactly its body", () =>
  inFolder(async (store, path) => {
    const condition = { absent: true } as const;
    await store.put("databases/app/ltx/0/1-1.ltx", bytes("pages"), {
      condition,
      metadata: { "sm-token": "3" },
    });
    assert.equal(await Deno.readTextFile(`${path}/databases/app/ltx/0/1-1.ltx`), "pages");
    assert.deepEqual(namesBelow(`${path}/.tmp`), []);
    await store.delete("databases/app/ltx/0/1-1.ltx");
    assert.deepEqual(namesBelow(`${path}/databases/app/ltx/0`), []);
  }));

Deno.test("folder store keeps few generations of an object that is swapped often, and none after its delete", () =>
  inFolder(async (store, path) => {
    let { etag } = await store.put("lease.json", bytes("0"));
    for (let i = 1; i <= 30; i++) {
      ({ etag } = await store.put("lease.json", bytes(String(i)), { condition: { etag } }));
    }
    assert.equal(text((await store.get("lease.json")).body), "30");
    const names = namesBelow(path).filter((name) => name !== ".tmp/");
    assert.ok(names.length <= 10, names.join(" "));
    assert.ok(!names.includes("lease.json"), "an outdated plain file is left to be read by people");
    await store.delete("lease.json");
    assert.deepEqual(namesBelow(path), [".tmp/"]);
  }));

Deno.test("folder store makes folders and files for its own user alone", () =>
  inFolder(async (store, path) => {
    await store.put("a/b", bytes("1"));
    await store.put("a/b", bytes("2"));
    for (const name of namesBelow(path)) {
      const mode = (await Deno.stat(`${path}/${name}`)).mode ?? 0;
      assert.equal(mode & 0o077, 0, `${name}: ${mode.toString(8)}`);
    }
  }));

Deno.test("folder store lists foreign files but no temporaries, and removes those when a day old", async () => {
  const day = 24 * 3600 * 1000;
  let now = Date.now();
  await inFolder(async (store, path) => {
    await store.put("real", bytes("x"));
    await Deno.writeTextFile(`${path}/.tmp/crashed`, "half");
    await Deno.writeTextFile(`${path}/with blank`, "foreign");
    await Deno.mkdir(`${path}/real~`); // a swap died before its link
    const { objects } = await store.list({ prefix: "" });
    assert.deepEqual(objects.map(({ key }) => key), ["real", "with blank"]);
    const again = () =>
      directoryStore({ path, clock: { ...machineClock, wallMs: () => now }, random: systemRandom() });
    now += day / 2;
    await again().put("first", bytes("x"));
    assert.deepEqual(namesBelow(`${path}/.tmp`), ["crashed"]);
    now += day;
    await again().put("second", bytes("x"));
    assert.deepEqual(namesBelow(`${path}/.tmp`), []);
  }, () => now);
});

Deno.test("folder store has nothing to do with the lost+found of a disk of its own", () =>
  inFolder(async (store, path) => {
    await Deno.mkdir(`${path}/lost+found/#12`, { recursive: true });
    await Deno.writeTextFile(`${path}/lost+found/#12/found`, "again");
    await Deno.chmod(`${path}/lost+found`, 0);
    await store.put("below/lost", bytes("x"));
    const { objects } = await store.list({ prefix: "" });
    assert.deepEqual(objects.map(({ key }) => key), ["below/lost"]);
    await Deno.chmod(`${path}/lost+found`, 0o700);
  }));

Deno.test("folder store refuses a key below another object's key and says why", () =>
  inFolder(async (store) => {
    await store.put("a", bytes("x"));
    await assert.rejects(
      store.put("a/b", bytes("y")),
      (error) => isError(error, "store-refused") && /file stands where a folder/.test(error.message),
    );
    assert.equal(text((await store.get("a")).body), "x");
  }));

Deno.test("folder store lists nothing and finds nothing in a folder that does not exist, and makes none", () =>
  inFolder(async (_, path) => {
    const store = directoryStore({ path: `${path}/none`, clock: machineClock, random: systemRandom() });
    assert.deepEqual(await store.list({ prefix: "" }), { objects: [] });
    await assert.rejects(store.get("a"), (error) => isError(error, "object-not-found"));
    await store.delete("a");
    assert.deepEqual(namesBelow(path), []);
  }));

Deno.test("folder store answers within timeoutMs when the disk hangs: a put's outcome is unknown", async () => {
  // A clock that is past every deadline at once stands for a disk that never answers.
  let ms = 0;
  const clock = { ...machineClock, monotonicMs: () => (ms += 1000) };
  const path = await Deno.makeTempDir();
  try {
    const store = directoryStore({ path, clock, random: systemRandom() });
    await assert.rejects(
      store.put("a", bytes("x"), { timeoutMs: 10 }),
      (error) => isError(error, "outcome-unknown"),
    );
    await assert.rejects(store.get("a", { timeoutMs: 10 }), (error) => isError(error, "store-unreachable"));
    await eventually("the put that was left behind ends", () => namesBelow(path).join(" ") === ".tmp/");
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});

Deno.test("folder store loses no win of processes that are stopped for a while and killed at any moment", () =>
  inFolder(async (store, path) => {
    await store.put("counter", bytes("0 start"));
    const steady = [startWriter(path, "a", 150), startWriter(path, "b", 150)];
    const stopped = startWriter(path, "stopped", 60);
    await eventually(
      "the first win of each",
      () => [...steady, stopped].every(({ wins }) => wins.length > 0),
    );
    for (let round = 0; round < 8; round++) {
      stopped.kill("SIGSTOP");
      // Stopped for as long as it takes to prune all that it knew of.
      const seen = steady.map(({ wins }) => wins.length);
      const all = steady.every(({ wins }) => wins.length >= 150);
      if (!all) {
        await eventually(
          "20 wins of the others",
          () => steady.some(({ wins }, index) => wins.length >= Math.min(150, (seen[index] ?? 0) + 20)),
        );
      }
      stopped.kill("SIGCONT");
      const before = stopped.wins.length;
      await eventually("it goes on", () => stopped.wins.length > Math.min(before, 59));
    }
    const killed = startWriter(path, "killed", 0);
    await eventually("a win of the one to be killed", () => killed.wins.length > 3);
    killed.kill("SIGKILL");
    await killed.ended();
    for (const process of [...steady, stopped]) assert.equal(await process.ended(), 0);

    const wins = [...steady, stopped, killed].flatMap((process) => process.wins);
    assert.equal(new Set(wins).size, wins.length, "two processes won the same value");
    const last = Number(text((await store.get("counter")).body).split(" ")[0]);
    const untold = last - wins.length; // by the killed one's last swap, or where the outcome stayed unknown
    assert.ok(untold >= 0 && untold <= 20, `${last} counted, ${wins.length} told`);
    assert.ok(namesBelow(path).length < 20, namesBelow(path).join(" "));
  }));

/**
 * A store at `path` whose next put stands still between its look at the object and its link, while `meanwhile` runs to
 * its end: a put names its temporary there, so its randomness is the place to wait.
 */
function interruptedStore(path: string, meanwhile: () => void): ObjectStore {
  const random = systemRandom();
  let waiting = true;
  const bytesOnce = (count: number) => {
    if (waiting) {
      waiting = false;
      meanwhile();
    }
    return random.bytes(count);
  };
  return directoryStore({ path, clock: machineClock, random: { ...random, bytes: bytesOnce } });
}

const notWon = (error: unknown) => isError(error, "precondition-failed", "outcome-unknown");

Deno.test("folder store lets a swap lose that slept while others swapped so often that its place is free again", () =>
  inFolder(async (store, path) => {
    await store.put("counter", bytes("0 start"));
    const { etag } = await store.put("counter", bytes("0 again"), {}); // a generation, not the plain file
    const late = interruptedStore(path, () => writerCommand(path, "other", 30, "null").outputSync());
    await assert.rejects(late.put("counter", bytes("99 late"), { condition: { etag } }), notWon);
    assert.match(text((await store.get("counter")).body), /^30 other/);
  }));

Deno.test("folder store lets a first swap lose that slept while others swapped", () =>
  inFolder(async (store, path) => {
    const { etag } = await store.put("counter", bytes("0 start"));
    const late = interruptedStore(path, () => writerCommand(path, "other", 30, "null").outputSync());
    await assert.rejects(late.put("counter", bytes("99 late"), { condition: { etag } }), notWon);
    assert.match(text((await store.get("counter")).body), /^30 other/);
  }));

Deno.test("folder store lets a create lose that slept while others created and swapped the object", () =>
  inFolder(async (store, path) => {
    const late = interruptedStore(path, () => {
      Deno.writeTextFileSync(`${path}/counter`, "0 other");
      writerCommand(path, "other", 3, "null").outputSync();
    });
    await assert.rejects(late.put("counter", bytes("late"), { condition: { absent: true } }), notWon);
    assert.match(text((await store.get("counter")).body), /^3 other/);
    const { objects } = await store.list({ prefix: "" });
    assert.deepEqual(objects.map(({ key }) => key), ["counter"]);
  }));

Deno.test("folder store lets a swap lose that slept while the object was deleted, or deleted and made anew", () =>
  inFolder(async (store, path) => {
    const { etag } = await store.put("object", bytes("old"));
    const deleted = interruptedStore(path, () => Deno.removeSync(`${path}/object`));
    await assert.rejects(deleted.put("object", bytes("late"), { condition: { etag } }), notWon);
    await assert.rejects(store.get("object"), (error) => isError(error, "object-not-found"));

    const second = await store.put("object", bytes("old"));
    const anew = interruptedStore(path, () => {
      Deno.removeSync(`${path}/object`);
      Deno.writeTextFileSync(`${path}/object`, "made anew");
    });
    await assert.rejects(anew.put("object", bytes("late"), { condition: { etag: second.etag } }), notWon);
    assert.equal(text((await store.get("object")).body), "made anew");
  }));

Deno.test("folder store puts without a condition and deletes though others swap at the same moment", () =>
  inFolder(async (store, path) => {
    await store.put("counter", bytes("0 start"));
    const late = interruptedStore(path, () => writerCommand(path, "other", 12, "null").outputSync());
    await late.put("counter", bytes("500 late"));
    assert.match(text((await store.get("counter")).body), /^500 late/);
    const deleting = interruptedStore(path, () => writerCommand(path, "other", 1, "null").outputSync());
    await deleting.delete("counter");
    await assert.rejects(store.get("counter"), (error) => isError(error, "object-not-found"));
    assert.deepEqual(namesBelow(path), [".tmp/"]);
  }));

/** Runs `body` of this module's store in a process in its own mount namespace, where a tmpfs of 1 MiB is at `path`. */
async function onSmallDisk(path: string, script: string) {
  const module = new URL("../../src/", import.meta.url).href;
  const source = `
    import { directoryStore } from "${module}storage/mod.ts";
    import { systemClock } from "${module}platform/clock.ts";
    import { systemRandom } from "${module}platform/random.ts";
    const store = directoryStore({ path: "${path}/disk", clock: systemClock(), random: systemRandom() });
    const codeOf = (promise) => promise.then(() => "ok", (error) => error.code);
    ${script}`;
  await Deno.mkdir(`${path}/disk`);
  await Deno.writeTextFile(`${path}/script.ts`, source);
  const mounted = `mount -t tmpfs -o size=1m none "$0/disk" && exec "$@"`;
  const { stdout, stderr } = await new Deno.Command("unshare", {
    args: [
      ...["-m", "sh", "-c", mounted, path],
      ...[Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--config", `${root}tests/deno.json`],
      `${path}/script.ts`,
    ],
    stdin: "null",
  }).output();
  return { out: text(stdout).trim(), err: text(stderr) };
}

Deno.test({
  name:
    "folder store on a full disk is store-full, keeps what was there and goes on when there is space [needs mount]",
  ignore: !canUnshareMounts,
  fn: () =>
    inFolder(async (_, path) => {
      const { out, err } = await onSmallDisk(
        path,
        `
        const body = (kib) => new Uint8Array(kib * 1024);
        const { etag } = await store.put("a", body(300));
        const answers = [
          await codeOf(store.put("b", body(900))),
          await codeOf(store.put("a", body(900), { condition: { etag } })),
          (await store.get("a")).sizeBytes,
          (await store.list({ prefix: "" })).objects.length,
          [...Deno.readDirSync("${path}/disk/.tmp")].length,
          await codeOf(store.put("b", body(300))),
        ];
        console.log(JSON.stringify(answers));`,
      );
      assert.equal(out, JSON.stringify(["store-full", "store-full", 300 * 1024, 1, 0, "ok"]), err);
    }),
});

Deno.test({
  name: "folder store on a read-only disk is store-access-denied for writes and still reads [needs mount]",
  ignore: !canUnshareMounts,
  fn: () =>
    inFolder(async (_, path) => {
      const { out, err } = await onSmallDisk(
        path,
        `
        await store.put("a", new Uint8Array(3));
        await new Deno.Command("mount", { args: ["-o", "remount,ro", "${path}/disk"] }).output();
        const answers = [
          await codeOf(store.put("b", new Uint8Array(3))),
          await codeOf(store.put("a", new Uint8Array(3))),
          await codeOf(store.delete("a")),
          (await store.get("a")).sizeBytes,
        ];
        console.log(JSON.stringify(answers));`,
      );
      const denied = "store-access-denied";
      assert.equal(out, JSON.stringify([denied, denied, denied, 3]), err);
    }),
});
