/**
 * `deno task bench supervisor`: State Manager beside s6, runit, supervisord and PM2, all in one run and with the same
 * programs. `--restarts 100`, `--idle-seconds 60`, `--lines 3000000`, `--only NAME,…`. The binary is
 * STATE_MANAGER_BINARY, else the source. Others are measured where they are installed:
 * `apt-get install s6 runit supervisor`, `npm install --prefix .cache/pm2 pm2`.
 *
 * What is measured, for all alike and from outside:
 * - Crash → running: from the KILL of a program that ran for more than two seconds to when the next one, a shell, has
 *   said its pid. No delay is asked for; who has one that cannot be switched off is measured with it.
 * - Start: from the exec of the supervisor to the first of 100 programs, and to the last.
 * - Memory: of all the supervisor's own processes together (not the programs), ten seconds after the last program runs, with
 *   1 and with 100 idle programs. Pss: a page that several of them map counts once; Rss, in which it counts in each, beside it.
 * - CPU idle: user and system time of these, with 100 idle programs; all supervisors at the same time.
 * - Log throughput: one program writes as fast as it may into its log file; until all of it is there, and the processor
 *   time of the supervisor meanwhile. State Manager keeps the last lines in memory and numbers them besides.
 * - The last column bounds what any supervisor can do: a loop of the shell, which starts again what has ended and asks
 *   nothing, and `cat` from a pipe into a file.
 */

import { parseArgs } from "node:util";
import { scratchFolder, waitFor } from "../tests/support/manager_process.ts";
import { say } from "./replication_table.ts";
import { cpuSeconds, fileBytes, memoryOf, quantile } from "./replication_probe.ts";
import { type Program, Running, type Subject, SUBJECTS } from "./supervisor_subjects.ts";
import { type Row, sayRows } from "./supervisor_table.ts";

const LIMIT_MS = 120_000;
/** Killed one after the other, each again after more than two seconds: a run shorter than one is throttled by some. */
const CRASHING = 20;
const BETWEEN_KILLS_MS = 120;
const MANY = 100;
const SHORT_LINE_BYTES = 80;
const LONG_LINE_BYTES = 1000;
const LINES_AT_ONCE = 1000;
/** The shorter, the nearer to when the last byte was there. */
const LOOK_MS = 5;

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** A pipe by name that programs write a line into: `NAME PID`. */
class Bell implements AsyncDisposable {
  readonly path: string;
  readonly #file: Deno.FsFile;
  readonly #reading: Promise<void>;
  readonly #pids = new Map<string, number>();
  readonly #waiting = new Map<string, (atMs: number) => void>();
  #ended = false;
  heard = 0;
  lastMs = NaN;
  firstMs = NaN;

  private constructor(path: string, file: Deno.FsFile) {
    this.path = path;
    this.#file = file;
    this.#reading = this.#read();
  }

  static async open(path: string): Promise<Bell> {
    const { success } = await new Deno.Command("mkfifo", { args: [path] }).output();
    if (!success) throw new Error(`mkfifo ${path}: failed`);
    return new Bell(path, await Deno.open(path, { read: true, write: true }));
  }

  async #read(): Promise<void> {
    const buffer = new Uint8Array(65_536);
    const decoder = new TextDecoder();
    let text = "";
    while (!this.#ended) {
      const size = await this.#file.read(buffer);
      const atMs = performance.now();
      text += decoder.decode(buffer.subarray(0, size ?? 0), { stream: true });
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) this.#hear(line, atMs);
    }
  }

  #hear(line: string, atMs: number): void {
    const [name = "", pid = ""] = line.split(" ");
    this.#pids.set(name, Number(pid));
    this.heard++;
    this.lastMs = atMs;
    if (this.heard === 1) this.firstMs = atMs;
    this.#waiting.get(name)?.(atMs);
    this.#waiting.delete(name);
  }

  pid(name: string): number | undefined {
    return this.#pids.get(name);
  }

  /** When the program says its next line. */
  next(name: string): Promise<number> {
    return new Promise((resolve) => this.#waiting.set(name, resolve));
  }

  async until(count: number): Promise<void> {
    await waitFor(`${count} programs`, () => this.heard >= count, LIMIT_MS, () => `${this.heard} came`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true;
    // By an opening of its own: a file's own writes wait for its reads.
    await Deno.writeTextFile(this.path, "end 0\n");
    await this.#reading;
    this.#file.close();
  }
}

function idle(count: number, bell: string): Program[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `p${index}`,
    line: `echo p${index} $$ > ${bell}; exec sleep 100000`,
    logs: false,
  }));
}

interface Scene extends AsyncDisposable {
  readonly running: Running;
  readonly bell: Bell;
  readonly startedMs: number;
  logOf(name: string): string;
}

async function begin(subject: Subject, of: (bell: string) => Program[]): Promise<Scene> {
  const scratch = scratchFolder();
  const bell = await Bell.open(`${scratch.path}/bell`);
  const prepared = await subject.prepare(scratch.path, of(bell.path));
  const startedMs = performance.now();
  const running = new Running(prepared, scratch.path);
  return {
    running,
    bell,
    startedMs,
    logOf: prepared.logOf,
    [Symbol.asyncDispose]: async () => {
      await running[Symbol.asyncDispose]();
      await bell[Symbol.asyncDispose]();
      scratch[Symbol.dispose]();
    },
  };
}

async function measureRestarts(subject: Subject, count: number): Promise<number[]> {
  await using scene = await begin(subject, (bell) => idle(CRASHING, bell));
  const { bell } = scene;
  await bell.until(CRASHING);
  await sleep(2_500);
  const took: Promise<number>[] = [];
  for (let n = 0; n < count; n++) {
    const name = `p${n % CRASHING}`;
    const next = bell.next(name);
    const pid = bell.pid(name);
    if (pid === undefined || pid <= 1) throw new Error(`${subject.name}: no pid of ${name}`);
    const killedMs = performance.now();
    Deno.kill(pid, "SIGKILL");
    took.push(next.then((atMs) => atMs - killedMs));
    await sleep(BETWEEN_KILLS_MS);
  }
  let all: number[] | null = null;
  void Promise.all(took).then((times) => all = times);
  return await waitFor(`${subject.name}'s restarts`, () => all, LIMIT_MS);
}

interface Figures {
  readonly restartMs: readonly number[];
  readonly firstMs: number;
  readonly allMs: number;
  readonly memoryOne: SupervisorMemory;
  readonly memoryMany: SupervisorMemory;
  readonly cpuPercent: number;
  readonly shortLines: Throughput | null;
  readonly longLines: Throughput | null;
}

/** What a start needs and gives back does not count. */
const SETTLE_MS = 10_000;

/** MiB of all its processes together. */
interface SupervisorMemory {
  readonly pss: number;
  readonly rss: number;
}

function memoryIn({ running }: Scene): SupervisorMemory {
  const all = running.pids().map(memoryOf).filter((memory) => memory !== null);
  const sum = (of: "pss" | "rss") => all.reduce((total, memory) => total + memory[of], 0) / 2 ** 20;
  return { pss: sum("pss"), rss: sum("rss") };
}

const UNMEASURED: SupervisorMemory = { pss: NaN, rss: NaN };

async function measureOne(subject: Subject): Promise<SupervisorMemory> {
  await using scene = await begin(subject, (bell) => idle(1, bell));
  await scene.bell.until(1);
  await sleep(SETTLE_MS);
  return memoryIn(scene);
}

/** The scene is kept: how all of them idle is measured at the same time. */
async function measureMany(subject: Subject, kept: AsyncDisposableStack) {
  const scene = kept.use(await begin(subject, (bell) => idle(MANY, bell)));
  const { bell, startedMs } = scene;
  await bell.until(MANY);
  const [firstMs, allMs] = [bell.firstMs - startedMs, bell.lastMs - startedMs];
  await sleep(SETTLE_MS);
  return { scene, firstMs, allMs, memoryMany: memoryIn(scene) };
}

/** Share of one core, in percent, of each. */
async function measureIdle(scenes: readonly (Scene | null)[], seconds: number): Promise<number[]> {
  const cpu = () => scenes.map((scene) => scene === null ? NaN : cpuOf(scene));
  const [before, beginMs] = [cpu(), performance.now()];
  await sleep(seconds * 1000);
  const tookMs = performance.now() - beginMs;
  return cpu().map((after, index) => (after - (before[index] ?? NaN)) / tookMs * 100_000);
}

interface Throughput {
  readonly linesPerSecond: number;
  readonly bytesPerSecond: number;
  /** Of all the supervisor's own processes. */
  readonly cpuSecondsPerGigabyte: number;
}

function cpuOf({ running }: Scene): number {
  return running.pids().reduce((sum, pid) => sum + cpuSeconds(pid), 0);
}

async function writeLines(path: string, lines: number, lineBytes: number): Promise<void> {
  const some = new TextEncoder().encode(`${"x".repeat(lineBytes - 1)}\n`.repeat(LINES_AT_ONCE));
  function* blocks() {
    for (let left = lines; left > 0; left -= LINES_AT_ONCE) {
      yield some.subarray(0, Math.min(left, LINES_AT_ONCE) * lineBytes);
    }
  }
  await Deno.writeFile(path, ReadableStream.from(blocks()));
}

/** Null: they were not all there in time. */
async function measureLogs(subject: Subject, lines: number, lineBytes: number): Promise<Throughput | null> {
  using scratch = scratchFolder();
  const text = `${scratch.path}/text`;
  await writeLines(text, lines, lineBytes);
  await using scene = await begin(subject, (bell) => [{
    name: "writer",
    line: `sleep 2; echo writer $$ > ${bell}; dd if=${text} bs=128k status=none; exec sleep 100000`,
    logs: true,
  }]);
  await scene.bell.until(1);
  const beginMs = scene.bell.firstMs;
  const cpuBefore = cpuOf(scene);
  const wanted = lines * lineBytes;
  const path = scene.logOf("writer");
  while (fileBytes(path) < wanted) {
    if (performance.now() - beginMs > LIMIT_MS) return null;
    await sleep(LOOK_MS);
  }
  const seconds = (performance.now() - beginMs) / 1000;
  return {
    linesPerSecond: lines / seconds,
    bytesPerSecond: wanted / seconds,
    cpuSecondsPerGigabyte: (cpuOf(scene) - cpuBefore) / wanted * 1e9,
  };
}

async function measure(
  subject: Subject,
  kept: AsyncDisposableStack,
  options: { readonly restarts: number; readonly lines: number },
) {
  const { restarts, lines } = options;
  const restartMs = await measureRestarts(subject, restarts);
  const memoryOne = subject.isBound ? UNMEASURED : await measureOne(subject);
  const shortLines = await measureLogs(subject, lines, SHORT_LINE_BYTES);
  const longLines = await measureLogs(subject, Math.ceil(lines / 5), LONG_LINE_BYTES);
  const many = subject.isBound
    ? { scene: null, firstMs: NaN, allMs: NaN, memoryMany: UNMEASURED }
    : await measureMany(subject, kept);
  return {
    restartMs,
    memoryOne,
    ...many,
    shortLines,
    longLines,
  };
}

function rowsOf(names: readonly string[], all: readonly Figures[]): Row[] {
  const row = (name: string, of: (figures: Figures) => number | null): Row => ({ name, cells: all.map(of) });
  const by = (name: string) => all[names.indexOf(name)];
  const [our] = all;
  if (our === undefined) throw new Error("nothing was measured");
  const p50 = (figures: Figures | undefined) =>
    figures === undefined ? NaN : quantile(figures.restartMs, 0.5);
  const rivals = [by("supervisord"), by("PM2")].filter((each) => each !== undefined);
  const fiveTimes = (of: (figures: Figures) => number | null) => ({
    text: "≥ 5 × supervisord and PM2",
    isMet: rivals.length > 0 && rivals.every((each) => (of(our) ?? 0) >= 5 * (of(each) ?? 0)),
  });
  const restart = row("crash → running p50, ms", p50);
  const cpu = row("CPU idle, %", ({ cpuPercent }) => cpuPercent);
  const logRows = (bytes: number, which: "shortLines" | "longLines"): Row[] => {
    const log = (what: string, key: keyof Throughput, unit: number) =>
      row(`log of ${bytes} B, ${what}`, ({ [which]: found }) => found === null ? null : found[key] / unit);
    return [
      {
        ...log("1,000 lines/s", "linesPerSecond", 1e3),
        aim: fiveTimes((f) => f[which]?.linesPerSecond ?? null),
      },
      log("MB/s", "bytesPerSecond", 1e6),
      log("CPU s/GB", "cpuSecondsPerGigabyte", 1),
    ];
  };
  return [
    { ...restart, aim: { text: "< half of runit's", isMet: p50(our) < p50(by("runit")) / 2 } },
    row("crash → running p99, ms", ({ restartMs }) => quantile(restartMs, 0.99)),
    row("start → first program, ms", ({ firstMs }) => firstMs),
    row(`start → all of ${MANY}, ms`, ({ allMs }) => allMs),
    row("memory with 1 program, MiB (Pss)", ({ memoryOne }) => memoryOne.pss),
    row("memory with 1 program, MiB (Rss)", ({ memoryOne }) => memoryOne.rss),
    row(`memory with ${MANY} programs, MiB (Pss)`, ({ memoryMany }) => memoryMany.pss),
    row(`memory with ${MANY} programs, MiB (Rss)`, ({ memoryMany }) => memoryMany.rss),
    { ...cpu, aim: { text: "< 0.5", isMet: our.cpuPercent < 0.5 } },
    ...logRows(SHORT_LINE_BYTES, "shortLines"),
    ...logRows(LONG_LINE_BYTES, "longLines"),
  ];
}

export async function benchSupervisor(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      restarts: { type: "string", default: "100" },
      "idle-seconds": { type: "string", default: "60" },
      lines: { type: "string", default: "3000000" },
      only: { type: "string", default: SUBJECTS.map(({ name }) => name).join(",") },
    },
  });
  const options = {
    restarts: Number(values.restarts),
    idleSeconds: Number(values["idle-seconds"]),
    lines: Number(values.lines),
  };
  const names: string[] = [];
  const alone: Awaited<ReturnType<typeof measure>>[] = [];
  await using kept = new AsyncDisposableStack();
  for (const subject of SUBJECTS.filter(({ name }) => values.only.split(",").includes(name))) {
    const version = await subject.version();
    if (version === null) {
      say(`${subject.name}: not installed, left out`);
      continue;
    }
    say(`${subject.name} ${version}`);
    alone.push(await measure(subject, kept, options));
    names.push(subject.name);
  }
  const idling = await measureIdle(alone.map(({ scene }) => scene), options.idleSeconds);
  const all: Figures[] = alone.map((figures, index) => ({ ...figures, cpuPercent: idling[index] ?? NaN }));
  const title =
    `${options.restarts} restarts, ${options.idleSeconds} s idle, ${options.lines} lines; in ( ) times ours`;
  sayRows(title, names, rowsOf(names, all));
}
