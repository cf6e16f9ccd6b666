/**
 * `deno task bench`: memory of the idle manager, time from exec to the program's start, and checkpoints beside restic's
 * backups of the same data on the same disk in the same run. Tests the binary (STATE_MANAGER_BINARY, else
 * ./state-manager) or, where there is none, the source. Sizes: BENCH_MIB (256), BENCH_FILES (4000), BENCH_ROUNDS (3).
 * `deno task bench checkpoint`: checkpoint.ts, beside restic and borg. `deno task bench replication`: replication.ts, beside Litestream.
 * `deno task bench loop-delay`: loop_delay.ts, what probes see of a manager while a large checkpoint runs.
 */

import { benchCheckpoint } from "./checkpoint.ts";
import { type DataSize, makeData, touchData } from "./data.ts";
import { Manager, output, programCommand } from "./programs.ts";
import { benchLoopDelay } from "./loop_delay.ts";
import { benchReplication } from "./replication.ts";
import { benchSupervisor } from "./supervisor.ts";

const size: DataSize = {
  bytes: Number(Deno.env.get("BENCH_MIB") ?? 256) << 20,
  files: Number(Deno.env.get("BENCH_FILES") ?? 4000),
};
const rounds = Number(Deno.env.get("BENCH_ROUNDS") ?? 3);
const START_ROUNDS = 7;
/** Time for the runtime to give back what the start needed. */
const IDLE_MS = 5000;

function say(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

async function timed(action: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await action();
  return performance.now() - begin;
}

async function measureStart(scratch: string): Promise<void> {
  const times: number[] = [];
  for (let round = 0; round < START_ROUNDS; round++) {
    const home = `${scratch}/start${round}`;
    await Deno.mkdir(`${home}/data`, { recursive: true });
    const begin = BigInt(Date.now()) * 1_000_000n;
    await output(programCommand([
      ...["run", "--directory", `${home}/store`, "--data-dir", `${home}/manager`, "--listen", "127.0.0.1:0"],
      ...["--files", `data=${home}/data`, "--", "sh", "-c", `date +%s%N > ${home}/data/started`],
    ]));
    times.push(Number(BigInt((await Deno.readTextFile(`${home}/data/started`)).trim()) - begin) / 1e6);
  }
  const version = await Promise.all([timed(() => output(programCommand(["version"])))]);
  say(
    `exec to the program's start (new folder store)   ${
      median(times).toFixed(0)
    } ms, median of ${START_ROUNDS}`,
  );
  say(`exec to the end of "version"                     ${median(version).toFixed(0)} ms`);
}

/** Kilobytes of one line of /proc/PID/smaps_rollup, in bytes. */
async function memory(pid: number, name: "Pss" | "Rss"): Promise<number> {
  const text = await Deno.readTextFile(`/proc/${pid}/smaps_rollup`);
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1]) * 1024;
}

async function measureMemory(scratch: string): Promise<void> {
  const home = `${scratch}/memory`;
  await Deno.mkdir(`${home}/data`, { recursive: true });
  await using manager = await Manager.start(home, `${home}/data`);
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  const [pss, rss] = [await memory(manager.pid, "Pss"), await memory(manager.pid, "Rss")];
  say(`idle manager, running a program                  PSS ${mib(pss)}, RSS ${mib(rss)}`);
  await manager.checkpoint();
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  say(`  after its first checkpoint                     PSS ${mib(await memory(manager.pid, "Pss"))}`);
}

async function folderBytes(path: string): Promise<number> {
  return Number((await output(["du", "-sb", path])).split("\t")[0]);
}

const STEPS = ["first", "unchanged", "2 % changed", "restore"] as const;
type Times = Record<typeof STEPS[number], number>;

interface Scene {
  readonly home: string;
  readonly data: string;
  readonly fill: () => Promise<unknown>;
  readonly change: () => Promise<unknown>;
}

async function benchManager({ home, data, fill, change }: Scene): Promise<Times> {
  await Deno.mkdir(data, { recursive: true });
  // Started on an empty folder: data that is there already would be shipped at once, behind our back.
  await using manager = await Manager.start(home, data);
  await fill();
  const first = await timed(() => manager.checkpoint());
  const unchanged = await timed(() => manager.checkpoint());
  await change();
  const changed = await timed(() => manager.checkpoint());
  await manager.stop();
  const restore = ["restore", "--directory", manager.store, "--to", `${home}/out`, "--yes"];
  return {
    first,
    unchanged,
    "2 % changed": changed,
    restore: await timed(() => output(programCommand(restore))),
  };
}

async function benchRestic({ home, data, fill, change }: Scene): Promise<Times> {
  const env = {
    RESTIC_REPOSITORY: `${home}/store`,
    RESTIC_PASSWORD: "bench",
    RESTIC_CACHE_DIR: `${home}/cache`,
  };
  const restic = (...args: string[]) => output(["restic", "--quiet", ...args], env);
  await Deno.mkdir(home, { recursive: true });
  await restic("init");
  await fill();
  const first = await timed(() => restic("backup", data));
  const unchanged = await timed(() => restic("backup", data));
  await change();
  const changed = await timed(() => restic("backup", data));
  const restore = await timed(() => restic("restore", "latest", "--target", `${home}/out`));
  return { first, unchanged, "2 % changed": changed, restore };
}

async function measureCheckpoints(scratch: string): Promise<void> {
  const version = await output(["restic", "version"]).then((text) => text.split(" ")[1], () => undefined);
  if (version === undefined) {
    return say("checkpoints: restic not found, nothing to stand beside (apt-get install restic)");
  }
  const ours: Times[] = [];
  const theirs: Times[] = [];
  let stores = "";
  for (let round = 0; round < rounds; round++) {
    const home = `${scratch}/round${round}`;
    const subjects = [[benchManager, ours, "ours"], [benchRestic, theirs, "restic"]] as const;
    // Who goes first changes, so that neither has the warmer disk each time.
    for (const [bench, times, name] of round % 2 === 0 ? subjects : subjects.toReversed()) {
      const data = `${home}/${name}-data`;
      const fill = () => makeData(data, size, round).then(() => output(["sync"]));
      const change = () => touchData(data, size, round);
      times.push(await bench({ home: `${home}/${name}`, data, fill, change }));
    }
    stores = `ours ${mib(await folderBytes(`${home}/ours/store`))}, restic ${
      mib(await folderBytes(`${home}/restic/store`))
    }`;
    await Deno.remove(home, { recursive: true });
  }
  say(
    `\ncheckpoints of ${size.files} files, ${
      mib(size.bytes)
    }, median of ${rounds} rounds beside restic ${version}`,
  );
  say(`  (restic encrypts, we don't; both stores are folders on the same disk)`);
  for (const step of STEPS) {
    const [a, b] = [median(ours.map((each) => each[step])), median(theirs.map((each) => each[step]))];
    // A speed says something only where all bytes move.
    const moved = step === "first" || step === "restore";
    const rate = (ms: number) =>
      `${ms.toFixed(0).padStart(6)} ms${
        moved ? `${(size.bytes / 2 ** 20 / ms * 1000).toFixed(0).padStart(5)} MiB/s` : " ".repeat(11)
      }`;
    say(`  ${step.padEnd(12)} ours ${rate(a)}   restic ${rate(b)}   ratio ${(a / b).toFixed(2)}`);
  }
  say(`  stores after it: ${stores}`);
}

async function benchCheckpoints(): Promise<void> {
  const scratch = await Deno.makeTempDir({ prefix: "state-manager-bench-" });
  try {
    const [program = ""] = programCommand([]);
    say(
      `${await output(programCommand(["version"]))}, ${program}, ${mib((await Deno.stat(program)).size)}`,
    );
    await measureStart(scratch);
    await measureMemory(scratch);
    await measureCheckpoints(scratch);
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

const [name, ...args] = Deno.args;
if (name === "replication") await benchReplication(args);
else if (name === "checkpoint") await benchCheckpoint(args);
else if (name === "supervisor") await benchSupervisor(args);
else if (name === "loop-delay") await benchLoopDelay(args);
else await benchCheckpoints();
