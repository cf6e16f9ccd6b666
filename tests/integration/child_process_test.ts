/** How programs are started: what they inherit, what a failure says, and that nothing of a start is left behind. */

import assert from "node:assert/strict";
import {
  type Child,
  ownChildren,
  sendGroupSignal,
  sendSignal,
  spawnByRuntime,
  spawnChild,
  SpawnError,
  type SpawnOptions,
} from "../../src/platform/child_process.ts";
import { ENDS_IN_TURN, libcChildren, lookForEnds } from "../../src/platform/libc_child.ts";
import { reapChild } from "../../src/platform/libc_process.ts";
import { readProcess } from "../../src/platform/proc.ts";
import { scratchFolder } from "../support/manager_process.ts";
import { until } from "../support/supervised.ts";

const FIXTURE = new URL("../support/fixtures/spawn_main.ts", import.meta.url).pathname;
const CONFIG = new URL("../../deno.json", import.meta.url).pathname;
const O_CLOEXEC = 0o2000000;
const RESTARTS = 2_000;
const AT_ONCE = 20;
/** One that takes this long does not end. */
const END_LIMIT_MS = 60_000;
const SIGPIPE_BIT = 1n << 12n;
/** The two that follow are the C library's own. */
const NAMED_SIGNALS = (1n << 31n) - 1n;

/** Opened once: they hold libc open for good, which a test's own check would take for a leak. */
const byLibc = libcChildren();
readProcess(Deno.pid);

async function textOf(stream: ReadableStream<Uint8Array<ArrayBuffer>> | null): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of stream ?? []) text += decoder.decode(bytes, { stream: true });
  return text;
}

async function outputOf(child: Child) {
  const [stdout, stderr, notify, exit] = await Promise.all([
    textOf(child.stdout),
    textOf(child.stderr),
    textOf(child.notify),
    child.status,
  ]);
  return { stdout, stderr, notify, ...exit };
}

const shell = (script: string, change: Partial<SpawnOptions> = {}): SpawnOptions => ({
  command: "/bin/sh",
  args: ["-c", script],
  detached: true,
  stdout: "piped",
  stderr: "piped",
  ...change,
});

function openFiles(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

/** Numbers that every program of ours inherits, since whoever started us left them open. */
function inheritedNumbers(): number[] {
  const numbers: number[] = [];
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    if (Number(name) < 3) continue;
    try {
      const flags = /^flags:\s+(\d+)$/m.exec(Deno.readTextFileSync(`/proc/self/fdinfo/${name}`))?.[1];
      if ((parseInt(flags ?? "0", 8) & O_CLOEXEC) === 0) numbers.push(Number(name));
    } catch {
      // It was that of the list itself.
    }
  }
  return numbers;
}

const signalsOf = (status: string, field: string) =>
  BigInt(`0x${new RegExp(`^${field}:\\s+(\\w+)$`, "m").exec(status)?.[1]}`);

for (
  const [way, spawn] of [
    ["by libc", spawnChild],
    ["by the runtime", spawnByRuntime],
  ] as const
) {
  Deno.test(`child ${way}: what it writes, how it ends, what it inherits`, async () => {
    const own = inheritedNumbers();
    for (const notify of [false, true]) {
      const child = spawn(shell("exec sleep 600", { notify }));
      const numbers = () =>
        [...Deno.readDirSync(`/proc/${child.pid}/fd`)].map(({ name }) => Number(name))
          .filter((number) => !own.includes(number) || (notify && number === 3)).sort().join(" ");
      // The loader's own come and go.
      await until(() => numbers() === (notify ? "0 1 2 3" : "0 1 2"), `the descriptors, not ${numbers()}`);
      sendSignal(child.pid, "SIGKILL");
      assert.equal((await outputOf(child)).signal, "SIGKILL");
    }
    const told = await outputOf(spawn(shell("echo out; echo err >&2; echo word >&3", { notify: true })));
    assert.deepEqual([told.stdout, told.stderr, told.notify], ["out\n", "err\n", "word\n"]);

    const { stdout: status } = await outputOf(
      spawn({ ...shell(""), command: "cat", args: ["/proc/self/status"] }),
    );
    assert.equal(signalsOf(status, "SigBlk"), 0n);
    const ours = signalsOf(Deno.readTextFileSync("/proc/self/status"), "SigIgn");
    assert.equal(signalsOf(status, "SigIgn") & NAMED_SIGNALS, ours & NAMED_SIGNALS & ~SIGPIPE_BIT);

    const leader = await outputOf(spawn(shell("cut -d' ' -f5,6 /proc/$$/stat; echo $$")));
    const [ids, pid] = leader.stdout.trim().split("\n");
    assert.equal(ids, `${pid} ${pid}`, "leads its own group and session");

    assert.deepEqual((({ code, signal }) => [code, signal])(await outputOf(spawn(shell("exit 200")))), [
      200,
      null,
    ]);
    for (const signal of ["SIGKILL", "SIGTERM", "SIGABRT", "SIGPIPE"] as const) {
      const ended = await outputOf(spawn(shell(`kill -${signal.slice(3)} $$`)));
      assert.equal(ended.signal, signal);
    }
    const own_ = await outputOf(
      spawn(shell("echo $A$B; pwd", { cwd: "/usr", clearEnv: true, env: { A: "a" } })),
    );
    assert.equal(own_.stdout, "a\n/usr\n");
  });

  Deno.test(`child ${way}: what cannot be started says why, and leaves nothing open`, async () => {
    using scratch = scratchFolder();
    const file = (name: string, text: string, mode = 0o755) => {
      Deno.writeTextFileSync(`${scratch.path}/${name}`, text);
      Deno.chmodSync(`${scratch.path}/${name}`, mode);
      return `${scratch.path}/${name}`;
    };
    using busy = Deno.openSync(file("busy", "#!/bin/sh\n"), { write: true });
    const { path } = scratch;
    file("plain", "#!/bin/sh\n", 0o644);
    const failures: [Partial<SpawnOptions>, 126 | 127, boolean, RegExp][] = [
      [{ command: `${path}/none` }, 127, true, /\/none: not found$/],
      [{ command: "surely-not-there" }, 127, true, /: not found$/],
      [{ command: "plain", env: { PATH: path } }, 127, true, /: not found$/],
      [{ command: "" }, 127, true, /: not found$/],
      [{ command: `${path}/plain` }, 126, true, /: permission denied$/],
      [{ command: path }, 126, true, /: permission denied$/],
      [{ command: file("lost", "#!/nowhere/sh\n") }, 127, true, /its interpreter or loader was not found$/],
      [{ command: "./lost", cwd: path }, 127, true, /its interpreter or loader was not found$/],
      [{ command: `${path}/busy` }, 126, false, /os error 26/],
      [{ command: "true", cwd: `${path}/none` }, 126, true, /working folder .*\/none does not exist$/],
      [{ command: "true", cwd: `${path}/plain` }, 126, true, /working folder .*\/plain does not exist$/],
      [{ command: "true", args: ["x".repeat(200_000)] }, 126, true, /os error 7/],
      [{ command: "true", args: ["a\0b"] }, 126, true, /[nN]ul byte/],
    ];
    const before = openFiles();
    for (const [change, exitCode, permanent, message] of failures) {
      assert.throws(() => spawn({ ...shell(""), args: [], ...change }), (error) => {
        assert.ok(error instanceof SpawnError, String(error));
        assert.match(error.message, message);
        assert.deepEqual([error.exitCode, error.permanent], [exitCode, permanent], error.message);
        return true;
      });
    }
    assert.equal(openFiles(), before);
    busy.writeSync(new Uint8Array()); // open until here
    // A script without a first line, and one by a path from its own folder: as a shell has it.
    file("bare", "echo $0 $1\n");
    const bare = await outputOf(spawn({ ...shell(""), command: "./bare", args: ["x"], cwd: path }));
    assert.equal(bare.stdout, `${path}/bare x\n`);
  });
}

Deno.test("2,000 starts, ends and cancelled pipes leave no descriptor, no zombie and nobody in the own set", async () => {
  assert.ok(byLibc !== null);
  const life = async (index: number) => {
    const notify = index % 3 === 0;
    const child = spawnChild(shell("echo out; echo err >&2; exit 3", { notify }));
    // What is cancelled at once, and what is so while a read waits; the rest is read to its end.
    if (index % 4 === 0) await child.stdout?.cancel();
    else if (index % 4 === 1) {
      const reader = child.stderr?.getReader();
      const read = reader?.read();
      await reader?.cancel();
      await read;
      reader?.releaseLock();
    }
    const rest = [child.stdout, child.stderr, child.notify].filter((stream) => stream !== null);
    await Promise.all(rest.map(textOf));
    const { code, signal } = await child.status;
    // One whose reader is gone may end by PIPE.
    assert.ok(code === 3 || signal === "SIGPIPE", `${code} ${signal}`);
  };
  await life(0);
  const [before, ownBefore] = [openFiles(), ownChildren().size];
  for (let from = 0; from < RESTARTS; from += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => life(from + index)));
  }
  assert.equal(openFiles(), before);
  assert.equal(ownChildren().size, ownBefore);
  const zombies = Deno.readTextFileSync(`/proc/self/task/${Deno.pid}/children`).trim().split(" ")
    .filter((pid) => pid !== "" && readProcess(Number(pid))?.state === "Z");
  assert.deepEqual(zombies, []);
});

Deno.test("a program whose output nobody reads waits; whoever reads gets every byte in order, and others their turn", async () => {
  const size = 3_000_000;
  const child = spawnChild(shell(`seq 1 ${size}; echo end >&2`));
  assert.equal(await Promise.race([child.status.then(() => "ended"), sleep(300)]), undefined);
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  let last = 0;
  let rest = "";
  const decoder = new TextDecoder();
  const reader = child.stdout?.getReader({ mode: "byob" });
  let buffer = new ArrayBuffer(64 * 1024);
  while (reader !== undefined) {
    const { value, done } = await reader.read(new Uint8Array(buffer));
    if (done || value === undefined) break;
    const lines = (rest + decoder.decode(value)).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (Number(line) !== ++last) assert.fail(`${line} came after ${last - 1}`);
    buffer = value.buffer;
  }
  clearInterval(timer);
  assert.equal(last, size);
  assert.ok(turns > 10, `${turns} turns of the event loop`);
  assert.equal(await textOf(child.stderr), "end\n");
  assert.equal((await child.status).code, 0);
});

Deno.test("a cancelled pipe ends its writer, also one that is read just then", async () => {
  for (const isRead of [false, true]) {
    const child = spawnChild({ ...shell(""), command: "yes", args: [] });
    const reader = child.stdout?.getReader();
    const first = isRead ? reader?.read() : undefined;
    await reader?.cancel();
    assert.equal((await child.status).signal, "SIGPIPE");
    await first;
    await child.stderr?.cancel();
  }
});

Deno.test("a child is nobody else's to reap from its start until its status was taken, and is not signalled later", async () => {
  const child = spawnChild(shell("exit 5", { stdout: "null", stderr: "null" }));
  const { pid } = child;
  assert.ok(ownChildren().has(pid));
  while (readProcess(pid)?.state !== "Z");
  // As the reaper does it: whoever is in the set is left alone.
  if (!ownChildren().has(pid)) reapChild(pid);
  assert.equal((await child.status).code, 5);
  assert.ok(!ownChildren().has(pid));
  assert.equal(readProcess(pid), null);
  child.kill("SIGKILL");
});

Deno.test("a look for ends takes the exit and the last words at once, and leaves those alone that run", async () => {
  const [ended, runs] = [spawnChild(shell("echo last; exit 4")), spawnChild(shell("sleep 600"))];
  const last = textOf(ended.stdout);
  while (readProcess(ended.pid)?.state !== "Z");
  lookForEnds();
  assert.deepEqual([ownChildren().has(ended.pid), ownChildren().has(runs.pid)], [false, true]);
  assert.equal(await last, "last\n");
  assert.equal((await ended.status).code, 4);
  assert.equal(await textOf(ended.stderr), "");
  sendGroupSignal(runs.pid, "SIGKILL");
  assert.equal((await outputOf(runs)).signal, "SIGKILL");
});

Deno.test("of many that have ended a look takes some at once, and the others in the next turns", async () => {
  const children = Array.from(
    { length: 3 * ENDS_IN_TURN },
    () => spawnChild(shell("exit 3", { stdout: "null", stderr: "null" })),
  );
  for (const { pid } of children) while (readProcess(pid)?.state !== "Z");
  lookForEnds();
  const left = children.filter(({ pid }) => ownChildren().has(pid)).length;
  assert.equal(left, 2 * ENDS_IN_TURN);
  for (const { status } of children) assert.equal((await status).code, 3);
  assert.ok(children.every(({ pid }) => !ownChildren().has(pid)));
  await sleep(0); // the look after the last one
});

Deno.test("we end by ourselves when the children have ended, and at once when asked to or by an error", async () => {
  const run = async (way: string) => {
    const child = spawnChild({
      command: Deno.execPath(),
      args: ["run", "-A", "--quiet", "--no-check", "--config", CONFIG, FIXTURE, way],
      stdout: "piped",
      stderr: "piped",
    });
    const limit = setTimeout(() => child.kill("SIGKILL"), END_LIMIT_MS);
    const { stdout, stderr, code } = await outputOf(child);
    clearTimeout(limit);
    if (way !== "natural") sendSignal(Number(stdout.trim()), "SIGKILL");
    return { stdout, stderr, code };
  };
  const natural = await run("natural");
  assert.deepEqual([natural.stdout.trim().split("\n").sort(), natural.code], [["ended 0", "read 0"], 0]);
  assert.equal((await run("cancelled")).code, 0);
  assert.equal((await run("exit")).code, 7);
  const failed = await run("error");
  assert.equal(failed.code, 1);
  assert.match(failed.stderr, /on purpose/);
});

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
