/**
 * `deno task bench checkpoint`: checkpoints and restores of the same data on the same disk in one run, beside restic and
 * borg, on a folder and on MinIO. Each step is done once for each subject and round; the best of the rounds counts, and
 * who goes first changes. Ours is the time of POST /checkpoint to a running manager, theirs the whole command. They
 * encrypt; ours is told with and without. All make checkpoints at the low priority that our archiver gives itself.
 *
 * Flags: --rounds 2, --store folder,minio, --set mixed,small,large (300 MB, 50,000 files, 2 GB), --only ours,encrypted,restic,borg.
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

const STEPS = ["first", "unchanged", "1 % changed", "restore"] as const;
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
};
const STORED_AIM = 1.05;
const MEMORY_AIM_BYTES = 350 * 1024 * 1024;

async function settle(): Promise<void> {
  await output(["sync"]);
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
}

async function measure(subject: Subject, set: DataSet, home: string, minio: Minio | null): Promise<Result> {
  const data = `${home}/data`;
  await Deno.mkdir(data, { recursive: true });
  // Opened on an empty folder: what is there before would be shipped at once.
  const open: Open = await subject.open({ home, data, minio });
  try {
    await set.make(data);
    await settle();
    const first = await open.checkpoint();
    const unchanged = await open.checkpoint();
    const storedBytes = await open.storedBytes();
    await set.change(data);
    await settle();
    const changed = await open.checkpoint();
    const restore = await open.restore(`${home}/out`);
    const { standingBytes } = open;
    return { steps: { first, unchanged, "1 % changed": changed, restore }, storedBytes, standingBytes };
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

function sayResults(title: string, results: ReadonlyMap<Subject, Result>): void {
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => i === 0 ? cell.padEnd(20) : cell.padStart(14)).join("");
  const our = results.get(ours);
  const theirs = results.get(restic);
  say(`\n${title}`);
  say(line(["", ...[...results.keys()].map(({ name }) => name), "ours / restic"]));
  const row = (
    name: string,
    of: (result: Result) => number,
    show: (value: number) => string,
    limit: number,
  ) => {
    const cells = [...results.values()].map((result) => show(of(result)));
    if (our === undefined || theirs === undefined) return say(line([name, ...cells]));
    const ratio = of(our) / of(theirs);
    say(
      `${line([name, ...cells, ratio.toFixed(2)])}   ${ratio <= limit ? "met" : "MISSED"}: at most ${
        limit.toFixed(2)
      }`,
    );
  };
  for (const step of STEPS) {
    row(step, ({ steps }) => steps[step].ms, (ms) => `${(ms / 1000).toFixed(2)} s`, AIMS[step]);
  }
  row("stored, first", ({ storedBytes }) => storedBytes, mib, STORED_AIM);
  row("peak memory", peak, mib, theirs === undefined ? 1 : Math.max(1, MEMORY_AIM_BYTES / peak(theirs)));
  if (our?.standingBytes) say(line(["  manager beside it", mib(our.standingBytes)]));
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
  const wanted = chosen(Object.fromEntries(SUBJECTS.map((subject) => [subject.name, subject])), values.only);
  const subjects: Subject[] = [];
  const versions: string[] = [];
  for (const subject of wanted) {
    const version = await subject.version();
    if (version !== null) subjects.push(subject);
    versions.push(`${subject.name} ${version ?? "not found, left out"}`);
  }
  say(`${versions.join("; ")}; ${navigator.hardwareConcurrency} cores; best of ${values.rounds}`);
  const scratch = await Deno.makeTempDir({ prefix: "state-manager-bench-" });
  try {
    for (const store of values.store.split(",")) {
      for (const set of chosen(SETS, values.set)) {
        await benchSet(set, store, subjects.filter((each) => store === "folder" || each !== borg), {
          scratch,
          rounds: Number(values.rounds),
        });
      }
    }
  } finally {
    await output(["chmod", "-R", "u+rwX", scratch]);
    await Deno.remove(scratch, { recursive: true });
  }
}

/**
 * Each measurement in a place of its own, and all stay to the end: for minutes after many files were deleted ext4 looks
 * for free inodes among them one by one, and whoever comes next would pay for it.
 */
let places = 0;

async function benchSet(
  set: DataSet,
  store: string,
  subjects: readonly Subject[],
  { scratch, rounds }: { readonly scratch: string; readonly rounds: number },
): Promise<void> {
  const minio = store === "minio" ? await startMinio() : null;
  if (store === "minio" && minio === null) return say("MinIO: not found (STATE_MANAGER_TEST_MINIO names it)");
  const all = new Map(subjects.map((subject) => [subject, new Array<Result>()]));
  try {
    for (let round = 0; round < rounds; round++) {
      for (const subject of round % 2 === 0 ? subjects : subjects.toReversed()) {
        const home = `${scratch}/${++places}-${subject.name}`;
        all.get(subject)?.push(await measure(subject, set, home, minio));
      }
    }
  } finally {
    await minio?.stop();
  }
  const results = new Map([...all].map(([subject, each]) => [subject, best(each)]));
  sayResults(`${set.name}, ${store === "minio" ? "MinIO" : "folder"}`, results);
}
