/**
 * Several machines (data folder and files each) on one repository, all on this host, with a program on them that keeps
 * count (chaos_program.ts). Everything that was started in it, however it was orphaned, ends with the scene.
 */

import { type Clock, systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { listAll, type ObjectStore, openStore } from "../../src/storage/mod.ts";
import type { JournalLine, ProgramOptions, Shout } from "./chaos_program.ts";
import { type DiskState, readState, type StateFolders } from "./chaos_state.ts";
import { type ManagerOptions, ManagerProcess, waitFor } from "./manager_process.ts";
import type { TestStore } from "./test_stores.ts";
import { storeOptionsOf } from "./test_stores.ts";
import { signalAll } from "./signal_all.ts";

export interface SceneOptions {
  readonly ttlMs: number;
  /** The program keeps a SQLite database too. */
  readonly database?: boolean;
  /** How long the program takes to stop. */
  readonly stopMs?: number;
  /** May a manager ask another one for the lease, and give its own away when asked? */
  readonly handOver?: boolean;
  /** Further variables for every manager. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Made once: it loads libc, which older runtimes count as a leak of the test that does it. */
const clock: Clock = systemClock();
const random = systemRandom();
const testsConfig = new URL("../deno.json", import.meta.url).pathname;
const programPath = new URL("./chaos_program.ts", import.meta.url).pathname;
/** Every process that a scene starts inherits it. */
const MARK = "CHAOS_MACHINE";
const TICK_MS = 20;
/** A start from source on a busy machine, the wait for a lease included. */
export const START_LIMIT_MS = 90_000;

export function nowMs(): number {
  return clock.monotonicMs();
}

function linesOf<T>(path: string): T[] {
  try {
    return Deno.readTextFileSync(path).split("\n").slice(0, -1).map((line) => JSON.parse(line) as T);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Processes of this host that carry the mark, or name `path` in their command line. */
function processesOf(path: string): number[] {
  const found: number[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === Deno.pid) continue;
    try {
      const environment = Deno.readTextFileSync(`/proc/${name}/environ`).split("\0");
      const command = Deno.readTextFileSync(`/proc/${name}/cmdline`).split("\0");
      const marked = environment.some((each) =>
        each === `${MARK}=${path}` || each.startsWith(`${MARK}=${path}/`)
      );
      if (marked || command.some((each) => each.includes(`${path}/`))) found.push(Number(name));
    } catch {
      // gone, or not ours to read
    }
  }
  return found;
}

export function stateOfProcess(pid: number): string | null {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const state = stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3);
    return state === "Z" || state === "X" ? null : state;
  } catch {
    return null;
  }
}

/** One data folder with its files: what a volume is to a container. */
export class ChaosMachine {
  readonly name: string;
  readonly path: string;
  readonly dataDir: string;
  readonly folders: StateFolders;
  readonly #scene: ChaosScene;

  constructor(scene: ChaosScene, name: string) {
    this.#scene = scene;
    this.name = name;
    this.path = `${scene.path}/${name}`;
    this.dataDir = `${this.path}/data`;
    this.folders = [`${this.path}/one`, `${this.path}/two`];
    for (const folder of this.folders) Deno.mkdirSync(folder, { recursive: true });
  }

  start(options: Partial<ManagerOptions> & { readonly store?: TestStore } = {}): ManagerProcess {
    const scene = this.#scene;
    const { store = scene.store, env, ...rest } = options;
    const [one, two] = this.folders;
    const program: ProgramOptions = {
      machine: this.name,
      one,
      two,
      journal: scene.journalPath,
      lock: `${scene.path}/program.lock`,
      shouts: scene.shoutsPath,
      database: scene.options.database ?? false,
      stopMs: scene.options.stopMs ?? 0,
      tickMs: TICK_MS,
    };
    return scene.keep(
      new ManagerProcess({
        args: [
          "run",
          ...store.args,
          ...["--files", `one=${one}`, "--files", `two=${two}`, "--data-dir", this.dataDir],
          ...["--lease-ttl", `${scene.options.ttlMs}ms`, "--checkpoint-interval", "1h"],
          ...["--", Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--config", testsConfig],
          ...[programPath, JSON.stringify(program)],
        ],
        env: {
          ...store.env,
          [MARK]: this.path,
          ...(scene.options.handOver === true ? {} : { STATE_MANAGER_LEASE_HAND_OVER: "never" }),
          ...scene.options.env,
          ...env,
        },
        ...rest,
      }),
    );
  }

  /** What the live folders hold. */
  disk(): DiskState {
    return readState(this.folders);
  }

  /** What was moved aside here: each folder has a time of its own, so every pair of the two is a candidate. */
  stale(): DiskState[] {
    const path = `${this.dataDir}/stale`;
    try {
      const times = [...Deno.readDirSync(path)].map(({ name }) => name).sort();
      const holding = (root: string) =>
        times.flatMap((time) =>
          [...Deno.readDirSync(`${path}/${time}`)].some(({ name }) => name === root)
            ? [`${path}/${time}/${root}`]
            : []
        );
      const twos = holding("two");
      return holding("one").flatMap((one) => twos.map((two) => readState([one, two])));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  /** Everything that runs here: manager, guard, archiver, programs; orphans too. */
  processes(): number[] {
    return processesOf(this.path);
  }

  journal(): JournalLine[] {
    return this.#scene.journal().filter(({ machine }) => machine === this.name);
  }

  lastLine(): JournalLine | null {
    return this.journal().at(-1) ?? null;
  }

  /** The next line of this machine's programs with this event after the first `after` lines of the whole journal. */
  async nextLine(
    event: JournalLine["event"],
    after: number,
    describe: () => string = () => "",
    limitMs = START_LIMIT_MS,
  ): Promise<JournalLine> {
    return await waitFor(
      `"${event}" in the journal of ${this.name}`,
      () =>
        this.#scene.journal().slice(after).find((line) => line.machine === this.name && line.event === event),
      limitMs,
      describe,
    );
  }
}

export class ChaosScene implements AsyncDisposable {
  readonly path: string;
  readonly journalPath: string;
  readonly shoutsPath: string;
  readonly store: TestStore;
  readonly options: SceneOptions;
  readonly #objects: ObjectStore;
  readonly #managers: ManagerProcess[] = [];

  constructor(store: TestStore, options: SceneOptions) {
    this.path = Deno.makeTempDirSync({ prefix: "state-manager-chaos-" });
    this.journalPath = `${this.path}/journal`;
    this.shoutsPath = `${this.path}/shouts`;
    this.store = store;
    this.options = options;
    this.#objects = openStore(storeOptionsOf(store), { clock, random });
  }

  machine(name: string): ChaosMachine {
    return new ChaosMachine(this, name);
  }

  keep(manager: ManagerProcess): ManagerProcess {
    this.#managers.push(manager);
    return manager;
  }

  /** Forgets those that have ended, with all that they said. */
  forget(manager: ManagerProcess): void {
    const at = this.#managers.indexOf(manager);
    if (at >= 0) this.#managers.splice(at, 1);
  }

  journal(): JournalLine[] {
    return linesOf<JournalLine>(this.journalPath);
  }

  shouts(): Shout[] {
    return linesOf<Shout>(this.shoutsPath);
  }

  /** A data folder and its files as a copy of a volume has them. */
  clone(of: ChaosMachine, name: string): ChaosMachine {
    const { success, stderr } = new Deno.Command("cp", { args: ["-a", of.path, `${this.path}/${name}`] })
      .outputSync();
    // A file that is renamed away meanwhile is missing in the copy, as in any copy of a live volume.
    const text = new TextDecoder().decode(stderr);
    if (!success && !/No such file|replaced while being copied/.test(text)) throw new Error(`cp: ${text}`);
    return new ChaosMachine(this, name);
  }

  /** The record of the lease; null before there is one. */
  async lease(): Promise<{ token: number; holder: string; nonce: string; state: string } | null> {
    try {
      const { body } = await this.#objects.get("lease.json");
      return JSON.parse(new TextDecoder().decode(body));
    } catch (error) {
      if (isError(error, "object-not-found", "store-not-found")) return null;
      throw error;
    }
  }

  /** Key → tag of every object but those that a holder writes without a change of its data. */
  async bucket(): Promise<Map<string, string>> {
    const tags = new Map<string, string>();
    for await (const { key, etag } of listAll(this.#objects, "")) tags.set(key, etag);
    tags.delete("lease.json");
    return tags;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Until nothing is left: a manager that was about to start something may have done so meanwhile.
    await waitFor("the scene's processes to end", () => {
      const left = processesOf(this.path);
      signalAll(left, "SIGSTOP"); // nobody reacts to the death of another
      signalAll(left, "SIGKILL");
      return left.every((pid) => stateOfProcess(pid) === null);
    });
    await Promise.all(this.#managers.map((manager) => manager.exit()));
    await this.#objects.close();
    await new Deno.Command("rm", { args: ["-rf", this.path] }).output();
  }
}

export interface Life {
  readonly pid: number;
  readonly machine: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** From first to last line of each program, its first being what it found: a pid may come twice. */
export function livesOf(journal: readonly JournalLine[]): Life[] {
  const lives: Life[] = [];
  const placeOf = new Map<number, number>();
  for (const { pid, machine, timeMs, event } of journal) {
    const known = event === "found" ? undefined : placeOf.get(pid);
    const place = known ?? lives.length;
    lives[place] = { pid, machine, fromMs: lives[place]?.fromMs ?? timeMs, toMs: timeMs };
    placeOf.set(pid, place);
  }
  return lives.sort((a, b) => a.fromMs - b.fromMs);
}

/** Pairs of programs that wrote to the journal in turns: the second witness beside the lock. */
export function overlaps(journal: readonly JournalLine[]): string[] {
  const lives = livesOf(journal);
  return lives.flatMap((life, i) => {
    const before = lives.slice(0, i).find((each) => each.toMs > life.fromMs);
    return before === undefined ? [] : [
      `${before.pid} on ${before.machine} until ${before.toMs}, ${life.pid} on ${life.machine} from ${life.fromMs}`,
    ];
  });
}
