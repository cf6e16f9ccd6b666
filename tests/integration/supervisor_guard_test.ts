/** The real guard process: what it kills when its manager dies, stops or overstays, and how it is replaced. */

import assert from "node:assert/strict";
import { type Child, sendSignal, spawnChild } from "../../src/platform/child_process.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { selfCommand } from "../../src/platform/entry.ts";
import { lockFolder } from "../../src/platform/folder_lock.ts";
import { readLines } from "../../src/platform/line_reader.ts";
import { isAlive, readProcess, readProcesses, readStartVariable } from "../../src/platform/proc.ts";
import { randomHex, systemRandom } from "../../src/platform/random.ts";
import { type Guard, startGuard } from "../../src/supervisor/mod.ts";
import { binaryPath, scratchFolder } from "../support/manager_process.ts";
import { signalAll } from "../support/signal_all.ts";
import { until } from "../support/supervised.ts";

/** Opened once: it holds libc open for good, which a test's own check would take for a leak. */
const clock = systemClock();
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const FIXTURE = new URL("../support/fixtures/guard_main.ts", import.meta.url).pathname;
const CONFIG = new URL("../deno.json", import.meta.url).pathname;

function guardCommand(lockPath: string): { command: string; args: string[] } {
  const args = ["__guard", lockPath];
  return binaryPath === null ? selfCommand(args) : { command: binaryPath, args };
}

function alive(pid: number): boolean {
  const info = readProcess(pid);
  return info !== null && isAlive(info);
}

function argumentsOf(pid: number): string[] {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
  } catch {
    return []; // gone meanwhile
  }
}

/** Libraries that FFI opens stay open for good, which a test's own check would take for a leak. */
function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, sanitizeResources: false, fn });
}

/** A guard of this process, and programs in the same turn told to it. */
class Scene implements AsyncDisposable {
  readonly runId = randomHex(systemRandom(), 8);
  readonly lockPath: string;
  readonly #scratch = scratchFolder();
  readonly #children: Child[] = [];
  #guard: Guard | null = null;
  #count = 0;

  constructor() {
    this.lockPath = `${this.#scratch.path}/guard.lock`;
  }

  async start(environment: Readonly<Record<string, string>> = Deno.env.toObject()): Promise<Guard> {
    const options = { lockPath: this.lockPath, runId: this.runId, clock, log: silent, environment };
    this.#guard = await startGuard({ ...options, command: guardCommand(this.lockPath) });
    return this.#guard;
  }

  get guardPid(): number {
    return this.#guard?.status().pid ?? 0;
  }

  spawn(...argv: readonly string[]): number {
    return this.#spawn(argv, (tag) => ({ SM_UNIT: tag }));
  }

  /** Like a program that overwrote its environment: only what the guard was told can find it. */
  spawnUntagged(...argv: readonly string[]): number {
    return this.#spawn(argv, () => ({}));
  }

  #spawn(argv: readonly string[], env: (tag: string) => Record<string, string>): number {
    const tag = `app.${++this.#count}.${this.runId}`;
    const child = spawnChild({
      command: argv[0] ?? "",
      args: argv.slice(1),
      env: env(tag),
      clearEnv: true,
      detached: true,
    });
    this.#children.push(child);
    const startTicks = readProcess(child.pid)?.startTicks ?? 0;
    this.#guard?.units.watch({ name: "app", groupId: child.pid, startTicks, tag });
    return child.pid;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      child.kill("SIGKILL");
      await child.status;
      this.#guard?.units.forget(child.pid);
    }
    await this.#guard?.end();
    // What a failed test left: whose tag is of this run, and guards of this lock.
    for (const { pid } of readProcesses().filter(isAlive)) {
      const isOurs = readStartVariable(pid, "SM_UNIT")?.endsWith(`.${this.runId}`) ||
        argumentsOf(pid).some((argument) => argument.includes(this.lockPath));
      if (isOurs) sendSignal(pid, "SIGKILL");
    }
    this.#scratch[Symbol.dispose]();
  }
}

/** A manager that is a process of its own, to be killed or stopped. */
async function foreignManager(scene: Scene, script: Record<string, unknown>): Promise<
  { child: Child; guard: number; programs: number[]; deadlineMs: number }
> {
  const child = spawnChild({
    command: Deno.execPath(),
    args: [
      ...["run", "-A", "--quiet", "--no-check", "--config", CONFIG, FIXTURE],
      JSON.stringify({
        lockPath: scene.lockPath,
        runId: scene.runId,
        command: guardCommand(scene.lockPath),
        programs: [],
        lastProgram: null,
        deadlineInMs: null,
        ...script,
      }),
    ],
    stdout: "piped",
    stderr: "inherit",
  });
  assert.ok(child.stdout);
  for await (const line of readLines(child.stdout, { limitBytes: 65536 })) {
    return { child, ...JSON.parse(line) };
  }
  throw new Error("the manager of the test ended early");
}

function guardsOf(manager: number): number[] {
  return readProcesses()
    .filter(({ pid, parentPid }) => parentPid === manager && argumentsOf(pid).includes("__guard"))
    .map(({ pid }) => pid);
}

function isLockFree(path: string): boolean {
  const lock = lockFolder(path);
  lock?.release();
  return lock !== null;
}

test("guard ends programs, escaped grandchildren and stopped ones when its manager is killed, and frees its lock last", async () => {
  await using scene = new Scene();
  const { child, guard, programs } = await foreignManager(scene, {
    programs: [
      ["sh", "-c", "trap '' TERM HUP; setsid sleep 3601 & sleep 3602"],
      ["sh", "-c", "kill -STOP $$; sleep 3603"],
    ],
  });
  const leader = programs[0] ?? 0;
  const children = () => Deno.readTextFileSync(`/proc/${leader}/task/${leader}/children`).trim().split(" ");
  await until(() => children().length === 2, "two children of the first program");
  await until(() => readProcess(programs[1] ?? 0)?.state === "T", "the second program to be stopped");
  const all = [...programs, ...children().map(Number)];
  assert.ok(all.every(alive));
  assert.equal(isLockFree(scene.lockPath), false);
  child.kill("SIGKILL");
  const startMs = performance.now();
  await until(() => isLockFree(scene.lockPath), "the lock to be free");
  // The lock is the proof that the next start relies on: nothing may be alive when it is free.
  assert.deepEqual(all.filter(alive), []);
  const tookMs = performance.now() - startMs;
  assert.ok(tookMs < 20_000, `took ${tookMs} ms`);
  await until(() => !alive(guard), "the guard to end");
  await child.status;
});

test("guard finds by its tag a program that was spawned in the turn of the kill and never told", async () => {
  await using scene = new Scene();
  for (let round = 0; round < 5; round++) {
    const mark = `${Deno.makeTempFileSync()}`;
    const { child } = await foreignManager(scene, {
      lastProgram: ["sh", "-c", `echo $$ > ${mark}.pid; exec sleep 3604`],
    });
    await child.status;
    await until(() => isLockFree(scene.lockPath), "the lock to be free");
    // It may have been killed before it wrote its pid; then there is nothing to look for.
    const pid = await Deno.readTextFile(`${mark}.pid`).then(Number, () => 0);
    assert.equal(pid !== 0 && alive(pid), false, `round ${round}: ${pid} is alive`);
    await Deno.remove(mark);
    await Deno.remove(`${mark}.pid`).catch(() => {});
  }
});

test("guard ends the programs of a stopped manager at the deadline and leaves the manager alone", async () => {
  await using scene = new Scene();
  const { child, guard, programs, deadlineMs } = await foreignManager(scene, {
    programs: [["sleep", "3605"], ["sh", "-c", "setsid sleep 3606 & wait"]],
    deadlineInMs: 1_500,
  });
  child.kill("SIGSTOP");
  const living = programs.every(alive);
  assert.ok(living || clock.monotonicMs() >= deadlineMs, "not before the deadline");
  // The dead stay zombies: the one who would reap them is stopped.
  await until(() => !programs.some(alive), "the programs to be dead");
  assert.equal(readProcess(child.pid)?.state, "T");
  assert.ok(alive(guard));
  child.kill("SIGCONT");
  child.kill("SIGKILL");
  await child.status;
  await until(() => !alive(guard), "the guard to end");
});

test("guard of a tree that was frozen beyond the deadline ends the programs as soon as it thaws", async () => {
  // Again with more time where the machine stood still until the deadline had passed.
  for (const deadlineInMs of [1_000, 4_000, 16_000]) if (await frozenBeyond(deadlineInMs)) return;
  assert.fail("never frozen before the deadline");
});

async function frozenBeyond(deadlineInMs: number): Promise<boolean> {
  await using scene = new Scene();
  const { child, guard, programs, deadlineMs } = await foreignManager(scene, {
    programs: [["sleep", "3607"]],
    deadlineInMs,
  });
  const tree = [child.pid, guard, ...programs];
  for (const pid of tree) Deno.kill(pid, "SIGSTOP");
  const isInTime = clock.monotonicMs() < deadlineMs;
  if (isInTime) {
    await until(() => clock.monotonicMs() > deadlineMs + 500, "the deadline to pass");
    assert.ok(programs.every(alive));
  }
  signalAll(tree, "SIGCONT"); // the guard may be sooner
  await until(() => !programs.some(alive), "the programs to be dead");
  assert.ok(alive(child.pid));
  child.kill("SIGKILL");
  await child.status;
  await until(() => !alive(guard), "the guard to end");
  return isInTime;
}

test("guard spares a program while its deadline is renewed, and kills it when that ends", async () => {
  // Again with more time where the machine stood still until the first deadline had passed.
  for (const firstMs of [1_000, 4_000, 16_000]) if (await renewed(firstMs)) return;
  assert.fail("never renewed before the deadline");
});

async function renewed(firstMs: number): Promise<boolean> {
  await using scene = new Scene();
  const guard = await scene.start();
  const pid = scene.spawn("sleep", "3608");
  const startMs = clock.monotonicMs();
  guard.deadline(startMs + firstMs);
  await clock.sleep(300);
  guard.deadline(startMs + 120_000);
  // Sent, and still half of the time for its way.
  if (clock.monotonicMs() > startMs + firstMs / 2) return false;
  await until(() => clock.monotonicMs() > startMs + firstMs + 500, "the first deadline to pass");
  assert.ok(alive(pid));
  guard.deadline(clock.monotonicMs() + 200);
  await until(() => !alive(pid), "the program to be dead");
  return true;
}

test("guard that is killed is replaced and knows everything anew", async () => {
  await using scene = new Scene();
  const guard = await scene.start();
  const pid = scene.spawnUntagged("sleep", "3609");
  const first = scene.guardPid;
  Deno.kill(first, "SIGKILL");
  await until(
    () => guard.status().state === "guarding" && ![0, first].includes(scene.guardPid),
    "another guard",
  );
  assert.ok(alive(pid));
  guard.deadline(clock.monotonicMs());
  await until(() => !alive(pid), "the new guard to kill at the deadline");
});

test("guard that is being replaced knows the deadline when that is called told, and is ready no earlier", async () => {
  await using scene = new Scene();
  const guard = await scene.start();
  for (const wait of [(g: Guard) => g.deadline(clock.monotonicMs() + 3_600_000), (g: Guard) => g.ready()]) {
    const first = scene.guardPid;
    Deno.kill(first, "SIGKILL");
    while (alive(first)); // without a turn in which its end is heard of
    await wait(guard);
    assert.ok(![0, first].includes(scene.guardPid));
    await until(() => guard.status().state === "guarding", "the next one to guard");
  }
  Deno.kill(scene.guardPid, "SIGKILL");
  const over = AbortSignal.abort(new Error("the manager ends"));
  await assert.rejects(guard.ready(over), /the manager ends/);
  const told = guard.deadline(null);
  await guard.end();
  await told;
});

test("guard that is killed is replaced in time for the death of the manager", async () => {
  await using scene = new Scene();
  const { child, guard, programs } = await foreignManager(scene, { programs: [["sleep", "3610"]] });
  Deno.kill(guard, "SIGKILL");
  await until(() => !alive(guard), "the first guard to be dead");
  await until(() => guardsOf(child.pid).some((pid) => pid !== guard), "another guard");
  await until(() => !isLockFree(scene.lockPath), "it to hold the lock");
  assert.ok(programs.every(alive));
  child.kill("SIGKILL");
  await child.status;
  await until(() => isLockFree(scene.lockPath), "the lock to be free");
  assert.ok(!programs.some(alive));
});

test("guard that does not read is replaced, and telling it never waits", async () => {
  await using scene = new Scene();
  const guard = await scene.start();
  const first = scene.guardPid;
  Deno.kill(first, "SIGSTOP");
  const startMs = performance.now();
  const told = () => {
    for (let each = 0; each < 1_000; each++) guard.deadline(null);
  };
  for (let rounds = 0; rounds < 40; rounds++) told();
  const tookMs = performance.now() - startMs;
  assert.ok(tookMs < 20_000, `telling took ${tookMs} ms`);
  await until(
    () => guard.status().state === "guarding" && ![0, first].includes(scene.guardPid),
    "another guard",
  );
});

test("guard ignores every signal that it can, and ends at the goodbye", async () => {
  await using scene = new Scene();
  const guard = await scene.start();
  const { guardPid } = scene;
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGPIPE"] as const) {
    Deno.kill(guardPid, signal);
  }
  const pid = scene.spawn("sleep", "3611");
  guard.deadline(clock.monotonicMs());
  await until(() => !alive(pid), "it to work on");
  assert.equal(scene.guardPid, guardPid);
  guard.units.forget(pid);
  await guard.end();
  assert.equal(alive(guardPid), false);
  assert.equal(guard.status().state, "ended");
  assert.ok(isLockFree(scene.lockPath));
});

test("guard gets no secret of the manager in its environment and its arguments", async () => {
  await using scene = new Scene();
  await scene.start({
    ...Deno.env.toObject(),
    AWS_SECRET_ACCESS_KEY: "hidden-1",
    STATE_MANAGER_STORAGE_SECRET_KEY: "hidden-2",
    SM_UNIT: "outer.1.0123456789abcdef",
  });
  const environment = Deno.readTextFileSync(`/proc/${scene.guardPid}/environ`);
  const names = environment.split("\0").map((entry) => entry.split("=")[0]).filter((name) => name !== "");
  const allowed = new Set(["PATH", "HOME", "DENO_DIR", "XDG_CACHE_HOME", "TMPDIR", "LD_LIBRARY_PATH"]);
  assert.deepEqual(names.filter((name) => name !== undefined && !allowed.has(name)), []);
  assert.doesNotMatch(environment, /hidden|AWS_|STATE_MANAGER_|SM_UNIT/);
});

test("startGuard rejects with busy while another guard holds the lock", async () => {
  await using scene = new Scene();
  const lock = lockFolder(scene.lockPath);
  assert.ok(lock);
  try {
    await assert.rejects(scene.start(), { code: "busy" });
  } finally {
    lock.release();
  }
});

test("startGuard rejects with spawn-failed and its last words when the program does not become a guard", async () => {
  await using scene = new Scene();
  const options = { lockPath: scene.lockPath, runId: scene.runId, clock, log: silent, environment: {} };
  const command = { command: "/bin/sh", args: ["-c", "echo out of luck >&2; exit 3"] };
  await assert.rejects(startGuard({ ...options, command }), (error: Error & { code: string }) => {
    assert.equal(error.code, "spawn-failed");
    assert.match(error.message, /exit code 3.*out of luck/);
    return true;
  });
});
