/** What is read of /proc by way of libc is what the runtime reads. */

import assert from "node:assert/strict";
import { listProcPids, readProcFile } from "../../src/platform/libc_proc.ts";
import { readProcess, readProcesses, readStartVariable } from "../../src/platform/proc.ts";
import { waitFor } from "../support/manager_process.ts";

async function sleeper(
  env: Record<string, string>,
  use: (pid: number) => void | Promise<void>,
): Promise<void> {
  const child = new Deno.Command("sleep", { args: ["1000"], clearEnv: true, env }).spawn();
  try {
    await use(child.pid);
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
  assert.equal(readProcess(child.pid), null);
  assert.equal(readStartVariable(child.pid, "MARK"), null);
}

Deno.test("readProcess and readProcesses tell of a process what its stat file says, and nothing of one that is gone", async () => {
  await sleeper({}, (pid) => {
    const info = readProcess(pid);
    assert.equal(info?.pid, pid);
    assert.equal(info.parentPid, Deno.pid);
    const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1]?.split(" ");
    assert.deepEqual([info.groupId, info.startTicks], [Number(fields?.[2]), Number(fields?.[19])]);
    const listed = readProcesses().find((each) => each.pid === pid);
    assert.equal(listed?.startTicks, info.startTicks);
  });
  const own = readProcess(Deno.pid);
  assert.equal(own?.pid, Deno.pid);
});

Deno.test("listProcPids lists all processes, and nothing else of /proc", () => {
  const pids = listProcPids();
  assert.ok(pids.includes(1) && pids.includes(Deno.pid));
  assert.equal(new Set(pids).size, pids.length);
  const listed = new Set(
    [...Deno.readDirSync("/proc")].map(({ name }) => name).filter((name) => /^\d+$/.test(name)),
  );
  const missing = [...listed].filter((name) => !pids.includes(Number(name)));
  // Between the two lists some may have come, and gone.
  const later = listProcPids();
  for (const name of missing) {
    assert.ok(later.includes(Number(name)) || readProcess(Number(name)) === null, name);
  }
});

Deno.test("readStartVariable finds a variable in an environment of any length, whole, by its whole name", async () => {
  const padding = Object.fromEntries(
    Array.from({ length: 12 }, (_, index) => [`PADDING_${index}`, "x".repeat(100_000)]),
  );
  await sleeper({ OTHER_MARK: "no", ...padding, MARK: "a=b c", Z: "last" }, async (pid) => {
    // The kernel lets us go on a little before the new program has its environment.
    await waitFor("the environment", () => (readProcFile(pid, "environ")?.length ?? 0) > 1_200_000);
    assert.equal(readStartVariable(pid, "MARK"), "a=b c");
    assert.equal(readStartVariable(pid, "ARK"), null);
    assert.equal(readStartVariable(pid, "MAR"), null);
    assert.equal(readStartVariable(pid, "Z"), "last");
    assert.equal(readStartVariable(pid, "OTHER_MARK"), "no");
  });
});
