/**
 * `deno task bench checkpoint`: checkpoints and restores of the same data on the same disk in one run, beside restic and
 * borg, on a folder and on MinIO. Each step is done once for each subject and round; the best of the rounds counts, and
 * who goes first changes. Ours is the time of POST /checkpoint to a running manager, theirs the whole command. They
 * encrypt; ours is told with and without. A restore is told twice: until the command ends, and until what it wrote is on
 * the disk, which is when ours ends and what nobody else waits for. All make checkpoints at the low priority that our
 * archiver gives itself.
 *
 * Flags: --rounds 2, --store folder,minio, --set mixed,small,large (300 MB, 50,000 files, 2 GB; the default is mixed,small),
 * --only ours,encrypted,restic,borg. One set on one store with two rounds takes one to three minutes, the large one with
 * `--rounds 1` about five. Who is not installed, or cannot write to the store, is shown as skipped.
 */

import { parseArgs } from "node:util";
import { type Minio, startMinio } from "../tests/support/minio.ts";
import { type DataSet, mixed, small } from "./checkpoint_data.ts";
import { borg, encrypted, type Open, ours, restic, type Step, type Subject } from "./checkpoint_subjects.ts";
import { output } from "./programs.ts";
import { say } from "./replication_table.ts";

const SETS: Readonly<Record<string, DataSet>> = {
  mixed: mixed(300e6),
  small: small(50_000),
  large: mixed(2e9),
};
const SUBJECTS = [ours, encrypted, restic, borg];
/** Files that were written right before a scan are read again by the next one: nobody's data is that young. */
const SETTLE_MS = 3000;

const STEPS = ["first", "unchanged", "1 % changed", "restore", "restore, on disk"] as const;
type StepName = typeof STEPS[number];

interface Result {
  readonly steps: Readonly<Record<StepName, Step>>;
  readonly storedBytes: number;
  readonly standingBytes: number | null;
}

/** Wanted of ours, as a part of restic's. */
const AIMS: Readonly<Record<StepName, number>> = {
  "first": 1 / 2,
  "unchanged": 1 / 5,
  "1 % changed": 1,
  "restore": 1 / 2,
  "restore, on disk": 1 / 2,
};
const STORED_AIM = 1.05;
const MEMORY_AIM_BYTES = 350 * 1024 * 1024;

async function settle(): Promise<void> {
  await output(["sync"]);
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
}

/** What is left to write of a restore: ours ends when all is on the disk, others leave that to the system. */
async function syncMs(folder: string): Promise<number> {
  const begin = performance.now();
  await output(["sync", "-f", folder]);
  return performance.now() - begin;
}

interface Scene {
  readonly set: DataSet;
  /** The data of the set: each subject gets a copy. */
  readonly template: string;
  readonly home: string;
  readonly minio: Minio | null;
}

async function measure(subject: Subject, { set, template, home, minio }: Scene): Promise<Result> {
  const data = `${home}/data`;
  await Deno.mkdir(data, { recursive: true });
  // Opened on an empty folder: what is there before would be shipped at once.
  const open: Open = await subject.open({ home, data, minio });
  try {
    await output(["cp", "-a", `${template}/.`, data]);
    await settle();
    const first = await open.checkpoint();
    const unchanged = await open.checkpoint();
    const storedBytes = await open.storedBytes();
    await set.change(data);
    await settle();
    const changed = await open.checkpoint();
    await output(["sync"]); // what the store holds by now is no part of a restore
    const restore = await open.restore(`${home}/out`);
    const onDisk = { ...restore, ms: restore.ms + await syncMs(`${home}/out`) };
    const { standingBytes } = open;
    const steps = { first, unchanged, "1 % changed": changed, restore, "restore, on disk": onDisk };
    return { steps, storedBytes, standingBytes };
  } finally {
    await open[Symbol.asyncDispose]();
  }
}

function best(results: readonly Result[]): Result {
  const [first, ...rest] = results;
  if (first === undefined) throw new Error("no round was measured");
  return rest.reduce((a, b) => ({
    steps: Object.fromEntries(
      STEPS.map((step) => [step, a.steps[step].ms <= b.steps[step].ms ? a.steps[step] : b.steps[step]]),
    ) as Record<StepName, Step>,
    storedBytes: Math.min(a.storedBytes, b.storedBytes),
    standingBytes: a.standingBytes,
  }), first);
}

function peak(result: Result): number {
  return Math.max(...STEPS.map((step) => result.steps[step].memoryBytes));
}

const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

/** Ours beside restic's: the aims are for both, since restic always encrypts. */
const RATIOS = [[ours, "ours/restic"], [encrypted, "encr./restic"]] as const;

function sayResults(title: string, results: ReadonlyMap<Subject, Result | string>): void {
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => i === 0 ? cell.padEnd(20) : cell.padStart(13)).join("");
  const measured = (subject: Subject): Result | null => {
    const result = results.get(subject);
    return result === undefined || typeof result === "string" ? null : result;
  };
  const theirs = measured(restic);
  const beside = RATIOS.filter(([subject]) => theirs !== null && measured(subject) !== null);
  say(`\n${title}`);
  for (const [{ name }, result] of results) {
    if (typeof result === "string") say(`  ${name} skipped: ${result}`);
  }
  say(line(["", ...[...results.keys()].map(({ name }) => name), ...beside.map(([, title]) => title)]));
  const row = (
    name: string,
    of: (result: Result) => number,
    show: (value: number) => string,
    limit: number,
  ) => {
    const cells = [...results.values()].map((each) => typeof each === "string" ? "skipped" : show(of(each)));
    const ratios = beside.map(([subject]) => {
      const [our, their] = [measured(subject), theirs];
      return our === null || their === null ? NaN : of(our) / of(their);
    });
    const verdict = ratios.length === 0
      ? ""
      : `   ${ratios.every((ratio) => ratio <= limit) ? "met" : "MISSED"}: at most ${limit.toFixed(2)}`;
    say(line([name, ...cells, ...ratios.map((ratio) => ratio.toFixed(2))]) + verdict);
  };
  for (const step of STEPS) {
    row(step, ({ steps }) => steps[step].ms, (ms) => `${(ms / 1000).toFixed(2)} s`, AIMS[step]);
  }
  row("stored, first", ({ storedBytes }) => storedBytes, mib, STORED_AIM);
  row("peak memory", peak, mib, theirs === null ? 1 : Math.max(1, MEMORY_AIM_BYTES / peak(theirs)));
  const standing = measured(ours)?.standingBytes ?? null;
  if (standing !== null) say(line(["  manager beside it", mib(standing)]));
}

function chosen<T>(all: Readonly<Record<string, T>>, names: string): T[] {
  return names.split(",").map((name) => {
    const found = all[name];
    if (found === undefined) throw new Error(`choose ${name}: wanted one of ${Object.keys(all).join(", ")}`);
    return found;
  });
}

export async function benchCheckpoint(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: "string", default: "2" },
      store: { type: "string", default: "folder,minio" },
      set: { type: "string", default: "mixed,small" },
      only: { type: "string", default: SUBJECTS.map(({ name }) => name).join(",") },
    },
  });
  const subjects = chosen(
    Object.fromEntries(SUBJECTS.map((subject) => [subject.name, subject])),
    values.only,
  );
  const versions = new Map<Subject, string | null>();
  for (const subject of subjects) versions.set(subject, await subject.version());
  const told = [...versions].map(([{ name }, version]) => `${name} ${version ?? "not installed"}`);
  say(`${told.join("; ")}; ${navigator.hardwareConcurrency} cores; best of ${values.rounds}`);
  const scratch = await Deno.makeTempDir({ prefix: "state-manager-bench-" });
  try {
    for (const set of chosen(SETS, values.set)) {
      const template = `${scratch}/${++places}-template`;
      await Deno.mkdir(template);
      await set.make(template);
      for (const store of values.store.split(",")) {
        await benchSet({ set, template }, store, versions, { scratch, rounds: Number(values.rounds) });
      }
    }
  } finally {
    await output(["chmod", "-R", "u+rwX", scratch]);
    await Deno.remove(scratch, { recursive: true });
  }
}

/**
 * Each measurement in a place of its own. Places with many files stay to the end: for minutes after many files were
 * deleted ext4 looks for free inodes among them one by one, and whoever comes next would pay for it. Those with few and
 * large ones go, since together they would fill the disk.
 */
let places = 0;

/** Why a subject cannot be measured on a store; null: it can. */
function whyNot(subject: Subject, version: string | null, store: string): string | null {
  if (version === null) return "not installed";
  return subject === borg && store === "minio" ? "it cannot write to S3" : null;
}

async function benchSet(
  { set, template }: Pick<Scene, "set" | "template">,
  store: string,
  versions: ReadonlyMap<Subject, string | null>,
  { scratch, rounds }: { readonly scratch: string; readonly rounds: number },
): Promise<void> {
  const minio = store === "minio" ? await startMinio() : null;
  if (store === "minio" && minio === null) return say("MinIO: not found (STATE_MANAGER_TEST_MINIO names it)");
  const all = new Map<Subject, Result[] | string>();
  for (const [subject, version] of versions) all.set(subject, whyNot(subject, version, store) ?? []);
  try {
    for (let round = 0; round < rounds; round++) {
      const inTurn = [...all];
      for (const [subject, measured] of round % 2 === 0 ? inTurn : inTurn.toReversed()) {
        if (typeof measured === "string") continue;
        const home = `${scratch}/${++places}-${subject.name}`;
        measured.push(await measure(subject, { set, template, home, minio }));
        if (!set.isWide) await Deno.remove(home, { recursive: true });
      }
    }
  } finally {
    await minio?.stop();
  }
  const results = new Map(
    [...all].map(([subject, each]) => [subject, typeof each === "string" ? each : best(each)] as const),
  );
  sayResults(`${set.name}, ${store === "minio" ? "MinIO" : "folder"}`, results);
}
