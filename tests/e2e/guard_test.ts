/** A dead manager leaves nothing running: seen on the real program, with kill -9 of the manager, its guard, and both. */

import assert from "node:assert/strict";
import { sendSignal } from "../../src/platform/child_process.ts";
import { isAlive, readProcess, readProcesses } from "../../src/platform/proc.ts";
import { descendants, ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { isRoot, unshare } from "../support/small_root.ts";

const SECRETS = { AWS_SECRET_ACCESS_KEY: "hidden-1", AWS_ACCESS_KEY_ID: "hidden-2" };

function alive(pid: number): boolean {
  const info = readProcess(pid);
  return info !== null && isAlive(info);
}

/** Empty where it is gone. */
function argvOf(pid: number): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`);
  } catch {
    return "";
  }
}

function holdsLock(pid: number): boolean {
  try {
    return [...Deno.readDirSync(`/proc/${pid}/fdinfo`)].some(({ name }) =>
      Deno.readTextFileSync(`/proc/${pid}/fdinfo/${name}`).includes("FLOCK")
    );
  } catch {
    return false; // gone, or a descriptor of it is
  }
}

function guardsBelow(pid: number): number[] {
  return descendants(pid).filter((each) => argvOf(each).split("\0").includes("__guard"));
}

/** Everybody who works for the folder `root`: in its arguments, environment or working folder. */
function workersOf(root: string): number[] {
  return readProcesses().filter(isAlive).map(({ pid }) => pid).filter((pid) => {
    try {
      const text = Deno.readTextFileSync(`/proc/${pid}/cmdline`) +
        Deno.readTextFileSync(`/proc/${pid}/environ`) + Deno.readLinkSync(`/proc/${pid}/cwd`);
      return text.includes(root);
    } catch {
      return false;
    }
  });
}

/** A test that fails leaves nothing running either. */
function endAll(root: string): Disposable {
  return {
    [Symbol.dispose]: () => {
      for (const pid of workersOf(root)) sendSignal(pid, "SIGKILL");
    },
  };
}

/**
 * Writes its start into `starts`, takes a lock for its life, and shouts into `overlaps` when somebody else has it; has a
 * child of its own, one in another session, and one that is stopped (and stops itself again when a freeze of the whole
 * program on a slow machine ends with SIGCONT for all).
 */
function program(root: string): string {
  return `trap '' TERM HUP; cd ${root}; exec 9> program.lock
    flock -n 9 || echo overlap >> overlaps
    sleep 3630 & setsid sleep 3631 & sh -c 'while :; do kill -STOP $$; done' &
    echo $$ >> starts; wait`;
}

interface StartOptions {
  readonly wrap?: readonly string[];
}

function start(root: string, options: StartOptions = {}): ManagerProcess {
  Deno.mkdirSync(`${root}/files`, { recursive: true });
  return new ManagerProcess({
    args: [
      "run",
      ...["--directory", `${root}/store`, "--files", `app=${root}/files`, "--data-dir", `${root}/data`],
      ...["--", "sh", "-c", program(root)],
    ],
    env: SECRETS,
    ...options,
  });
}

function starts(root: string): number[] {
  try {
    // The file is there before its first line is.
    return Deno.readTextFileSync(`${root}/starts`).split("\n").slice(0, -1).map(Number);
  } catch {
    return [];
  }
}

/** All four processes of the program, once it has its children. */
async function programOf(root: string, manager: ManagerProcess, number = 1): Promise<number[]> {
  const leader = await waitFor(
    `start ${number} of the program`,
    () => starts(root)[number - 1],
    60_000,
    () => {
      return manager.tail();
    },
  );
  return await waitFor(
    "its children",
    () => {
      const children = descendants(leader).filter(alive);
      const isStopped = children.some((pid) => readProcess(pid)?.state === "T");
      return children.length === 3 && isStopped ? [leader, ...children] : null;
    },
    60_000,
    () => manager.tail(),
  );
}

Deno.test("manager killed with -9 leaves nothing running, and the next start finds nothing to end", async () => {
  using scratch = scratchFolder();
  const root = scratch.path;
  using _left = endAll(root);
  {
    await using manager = start(root);
    const processes = await programOf(root, manager);
    const [guard = 0] = guardsBelow(manager.pid);
    assert.ok(guard > 0);
    const environment = Deno.readTextFileSync(`/proc/${guard}/environ`);
    assert.doesNotMatch(environment, /hidden|AWS_|STATE_MANAGER_/);
    manager.signal("SIGKILL");
    const startMs = performance.now();
    await waitFor("all to be dead", () => !processes.some(alive));
    const tookMs = performance.now() - startMs;
    assert.ok(tookMs < 20_000, `took ${tookMs} ms`);
    await waitFor("the guard to end", () => workersOf(root).length === 0);
  }
  await using next = start(root);
  await programOf(root, next, 2);
  assert.doesNotMatch(next.stderr, /ending what the last run left/);
  assert.throws(() => Deno.statSync(`${root}/overlaps`));
});

Deno.test("manager and guard killed with -9: the next start ends what they left before its program starts", async () => {
  using scratch = scratchFolder();
  const root = scratch.path;
  using _left = endAll(root);
  let processes: number[];
  {
    await using manager = start(root);
    processes = await programOf(root, manager);
    const [guard = 0] = guardsBelow(manager.pid);
    manager.signal("SIGSTOP"); // else it would start another guard
    Deno.kill(guard, "SIGKILL");
    await waitFor("the guard to be dead", () => !alive(guard));
    manager.signal("SIGKILL");
    await manager.ended;
    assert.ok(processes.every(alive));
    // The manager's output stays open in the hands of nobody: its programs have pipes of their own.
  }
  await using next = start(root);
  await programOf(root, next, 2);
  assert.match(next.stderr, /ending what the last run left running/);
  assert.deepEqual(processes.filter(alive), []);
  assert.throws(() => Deno.statSync(`${root}/overlaps`));
});

Deno.test("guard killed with -9 is replaced while the program goes on, and the next guard does its work", async () => {
  using scratch = scratchFolder();
  const root = scratch.path;
  using _left = endAll(root);
  await using manager = start(root);
  const processes = await programOf(root, manager);
  const [first = 0] = guardsBelow(manager.pid);
  Deno.kill(first, "SIGKILL");
  // One that has begun its work: until then a death of the manager leaves its programs running.
  await waitFor(
    "another guard",
    () => guardsBelow(manager.pid).some((pid) => pid !== first && holdsLock(pid)),
  );
  assert.ok(processes.every(alive));
  assert.equal((await manager.json("/")).state, "running");
  manager.signal("SIGKILL");
  await waitFor("all to be dead", () => !processes.some(alive));
  await waitFor("the guard to end", () => workersOf(root).length === 0);
});

Deno.test("manager that stops in order leaves no guard, and says so for the next start", async () => {
  using scratch = scratchFolder();
  const root = scratch.path;
  using _left = endAll(root);
  await using manager = start(root);
  await programOf(root, manager);
  const [guard = 0] = guardsBelow(manager.pid);
  manager.signal("SIGTERM");
  await manager.exit();
  assert.equal(alive(guard), false);
  assert.deepEqual(workersOf(root), []);
  const record = JSON.parse(Deno.readTextFileSync(`${root}/data/units.json`));
  assert.deepEqual([record.ended, record.units], [true, []]);
});

Deno.test({
  name:
    "manager killed with -9 below another PID 1 of its namespace leaves nothing running there [needs root]",
  ignore: !isRoot || unshare === null,
  async fn() {
    using scratch = scratchFolder();
    const root = scratch.path;
    using _left = endAll(root);
    // The first process of the namespace lives on, so nothing but the guard can end the program.
    const init = ["sh", "-c", '"$@" & wait; exec sleep 3632', "init"];
    await using outer = start(root, {
      wrap: ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", ...init],
    });
    await waitFor("the program", () => starts(root).length === 1, 60_000, () => outer.tail());
    const inside = descendants(outer.pid);
    const cmdlines = inside.map((pid) => ({ pid, argv: argvOf(pid) }));
    const manager = cmdlines.find(({ argv }) => argv.includes("--data-dir") && !/^(unshare|sh)\0/.test(argv));
    assert.ok(manager);
    const programs = await waitFor("its processes", () => {
      const found = descendants(manager.pid).filter(alive);
      return found.length >= 5 ? found : null;
    });
    Deno.kill(manager.pid, "SIGKILL");
    await waitFor("all to be dead", () => !programs.some(alive));
    await waitFor(
      "the first process to go on",
      () => inside.some((pid) => argvOf(pid).startsWith("sleep\x003632")),
    );
  },
});
