/** Checkpoints of a program that writes two files in lockstep: of one moment with freeze and hooks, not with live. */

import assert from "node:assert/strict";
import { findTool } from "../support/find_tool.ts";
import {
  descendants,
  type Json,
  ManagerProcess,
  runProgram,
  scratchFolder,
  waitFor,
} from "../support/manager_process.ts";
import { say } from "../support/say.ts";

const python = findTool("python3");

/**
 * Counts in `a` and then in `z`, in place; `m` lies between them in the order of reading and is as large as it takes to
 * read for some time. Where the folder beside it has a file "quiet" it says so by "still" and waits.
 */
const PROGRAM = `
import os, sys, time
data, side = sys.argv[1], sys.argv[2]
a, z, m = (os.open(f"{data}/{name}", os.O_RDWR | os.O_CREAT) for name in "azm")
n = int(os.pread(a, 10, 0) or b"0")
while True:
    n += 1
    os.pwrite(a, b"%010d" % n, 0)
    time.sleep(0.0003)
    os.pwrite(z, b"%010d" % n, 0)
    if n % 50 == 0:
        os.pwrite(m, os.urandom(4096), (n // 50 * 4096) % 24000000)
    if os.path.exists(side + "/quiet"):
        open(side + "/still", "w").close()
        while os.path.exists(side + "/quiet"): time.sleep(0.001)
        os.unlink(side + "/still")
`;

const BEFORE = 'touch "$SIDE/quiet"; while [ ! -e "$SIDE/still" ]; do sleep 0.01; done; echo quiet now';
const AFTER = 'rm -f "$SIDE/quiet"; echo goes on';

interface Scene {
  readonly manager: ManagerProcess;
  readonly data: string;
  readonly side: string;
  readonly root: string;
}

async function withScene(
  checkpoint: Record<string, unknown>,
  body: (scene: Scene) => Promise<void>,
): Promise<void> {
  using folder = scratchFolder();
  const [data, side, root] = [`${folder.path}/data`, `${folder.path}/side`, folder.path];
  for (const path of [data, side]) Deno.mkdirSync(path);
  await Deno.writeFile(`${data}/m`, crypto.getRandomValues(new Uint8Array(60_000)));
  await Deno.truncate(`${data}/m`, 24_000_000);
  const config = {
    storage: { directory: `${root}/store` },
    files: { data: { path: data } },
    processes: { app: { command: [python, "-c", PROGRAM, data, side] } },
    checkpoint: { interval: 0, ...checkpoint },
  };
  Deno.writeTextFileSync(`${root}/config.json`, JSON.stringify(config));
  await using manager = new ManagerProcess({
    args: ["--config", `${root}/config.json`, "--data-dir", `${root}/dir`],
    env: { SIDE: side, STATE_MANAGER_LOG_FORMAT: "json", SECRET_KEPT: "1" },
  });
  await manager.state("running");
  await waitFor("the program's first writes", () => valueOf(`${data}/z`) > 3, 60_000, () => manager.tail());
  await body({ manager, data, side, root });
}

function valueOf(path: string): number {
  try {
    return Number(Deno.readTextFileSync(path));
  } catch {
    return 0;
  }
}

/** How far `z` is behind `a` in each of some checkpoints: 0 or 1 at every moment. */
async function differences(
  { manager, root, data }: Scene,
  count: number,
): Promise<{ found: number[]; made: Json[] }> {
  const made: Json[] = [];
  for (let i = 0; i < count; i++) {
    const before = valueOf(`${data}/z`);
    await waitFor("the program to go on", () => valueOf(`${data}/z`) > before, 60_000, () => manager.tail());
    // All of it has to be read: its times are younger than the last scan.
    made.push(await manager.checkpoint(`${i}`));
  }
  const found: number[] = [];
  for (const { id } of made.map(({ checkpoint }) => checkpoint)) {
    const to = `${root}/restored-${id}`;
    const { code, stderr } = await runProgram([
      "restore",
      "--directory",
      `${root}/store`,
      "--checkpoint",
      id,
      "--to",
      to,
    ]);
    assert.equal(code, 0, stderr);
    found.push(valueOf(`${to}/data/a`) - valueOf(`${to}/data/z`));
  }
  return { found, made };
}

/** The problem that ends a checkpoint; the first one after a start may still be under way. */
async function refused(manager: ManagerProcess): Promise<Json> {
  return await waitFor("a refusal", async () => {
    const response = await manager.fetch("/checkpoint", { json: {} });
    const problem = await response.json();
    assert.ok(!response.ok, "it was made");
    return response.status === 409 ? null : problem;
  });
}

const LIVE_TRIES = 40;
const isOneMoment = (difference: number): boolean => difference === 0 || difference === 1;

Deno.test({
  name:
    "checkpoint with freeze holds one moment of a program, which then goes on; a live one does not [needs python3]",
  ignore: python === null,
  async fn() {
    await withScene({ consistency: "live" }, async (scene) => {
      // Again where the machine gave the program no turn between the two reads.
      const all: number[] = [];
      while (all.every(isOneMoment) && all.length < LIVE_TRIES) {
        all.push(...(await differences(scene, 2)).found);
      }
      say(`live: z behind a by ${all.join(", ")}`);
      assert.ok(!all.every(isOneMoment), `${all}: the test cannot tell them apart`);
    });
    await withScene({ consistency: "freeze", capture_limit: "60s" }, async (scene) => {
      const { found, made } = await differences(scene, 3);
      say(`freeze: z behind a by ${found.join(", ")}`);
      assert.ok(found.every(isOneMoment), `${found}`);
      assert.deepEqual(made.flatMap(({ file_warnings }) => file_warnings), []);
      assert.match(scene.manager.stderr, /captured while the programs stood still/);
    });
  },
});

Deno.test({
  name: "checkpoint with hooks holds one moment, and after is run however it ends [needs python3]",
  ignore: python === null,
  async fn() {
    const hooks = {
      consistency: "hooks",
      before: BEFORE,
      after: ["/bin/sh", "-c", AFTER],
      capture_limit: "60s",
    };
    await withScene(hooks, async (scene) => {
      const { found, made } = await differences(scene, 2);
      assert.deepEqual(found, [0, 0]);
      assert.deepEqual(made.flatMap(({ file_warnings }) => file_warnings), []);
      await waitFor("the output of both", () => /goes on/.test(scene.manager.stdout + scene.manager.stderr));
      assert.match(scene.manager.stdout + scene.manager.stderr, /quiet now/);
    });
    await withScene(
      { ...hooks, before: 'touch "$SIDE/quiet"; env >&2; exit 3' },
      async ({ manager, side }) => {
        const problem = await refused(manager);
        assert.equal(problem.status, 500, JSON.stringify(problem));
        assert.equal(problem.code, "command-failed");
        assert.match(problem.detail, /checkpoint\.before: exit code 3/);
        await waitFor("after", () => !exists(`${side}/quiet`));
        assert.doesNotMatch(
          manager.stderr,
          /STATE_MANAGER_LOG_FORMAT=/,
          "the manager's own settings are not for hooks",
        );
        assert.match(manager.stdout + manager.stderr, /SECRET_KEPT/, "its environment is that of a process");
      },
    );
    const slow = { ...hooks, before: "sleep 100", hook_timeout: "300ms" };
    await withScene(slow, async ({ manager }) => {
      const problem = await refused(manager);
      assert.match(problem.detail, /checkpoint\.before: took longer than 0\.3 s/);
      await waitFor("its end", () => childrenNamed(manager.pid, "sleep").length === 0);
    });
  },
});

Deno.test({
  name: "a freeze that takes too long ends with a warning, and a stop in one ends in order [needs python3]",
  ignore: python === null,
  async fn() {
    await withScene({ consistency: "freeze", capture_limit: "100ms" }, async ({ manager, data, side }) => {
      // Many small files take longer to copy than this, also on a fast machine.
      for (let i = 0; i < 8_000; i++) Deno.writeTextFileSync(`${data}/f${i}`, String(i));
      const { file_warnings } = await manager.checkpoint();
      assert.match(JSON.stringify(file_warnings), /capture_limit/);
      const before = valueOf(`${data}/z`);
      await waitFor(
        "the program to go on",
        () => valueOf(`${data}/z`) > before,
        60_000,
        () => manager.tail(),
      );
      assert.equal(exists(`${side}/still`), false);
    });
    await withScene(
      { consistency: "hooks", before: "sleep 100", hook_timeout: "100s" },
      async ({ manager, data }) => {
        const asked = manager.fetch("/checkpoint", { json: {} }).then((response) => response.body?.cancel())
          .catch(() => {});
        await waitFor("before", () => childrenNamed(manager.pid, "sleep").length > 0);
        const last = valueOf(`${data}/z`);
        manager.signal("SIGTERM");
        assert.equal(await manager.exit(), 0, manager.tail());
        await asked;
        assert.ok(valueOf(`${data}/z`) >= last);
      },
    );
  },
});

Deno.test({
  name: "a manager that is killed in a freeze leaves nothing that stands still [needs python3]",
  ignore: python === null,
  async fn() {
    await withScene({ consistency: "freeze", capture_limit: "60s" }, async ({ manager, data }) => {
      const programs = descendants(manager.pid).filter((pid) => nameOf(pid)?.startsWith("python"));
      assert.ok(programs.length > 0);
      const isFrozen = () => programs.every((pid) => stateOf(pid) === "T");
      let asked = Promise.resolve();
      // Again where it was over before we looked.
      for (let isOver = true; isOver;) {
        for (let i = 0; i < 4000; i++) Deno.writeTextFileSync(`${data}/f${i}`, crypto.randomUUID());
        isOver = false;
        asked = manager.fetch("/checkpoint", { json: {} }).then((response) => response.body?.cancel())
          .catch(() => {}).then(() => void (isOver = true));
        await waitFor("the freeze", () => isOver || isFrozen(), 60_000, () => manager.tail());
        isOver = !isFrozen();
      }
      manager.signal("SIGKILL");
      await waitFor(
        "their end",
        () => programs.every((pid) => stateOf(pid) === null || stateOf(pid) === "Z"),
      );
      await asked;
    });
  },
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function statText(pid: number): string | null {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/stat`);
  } catch {
    return null;
  }
}

const stateOf = (pid: number) => statText(pid)?.replace(/^.*\) /s, "")[0] ?? null;
const nameOf = (pid: number) => /\((.*)\)/s.exec(statText(pid) ?? "")?.[1];
/** Of those that can run: a zombie is gone but for the reaper's next look. */
const childrenNamed = (pid: number, name: string) =>
  descendants(pid).filter((each) => nameOf(each) === name && stateOf(each) !== "Z");
