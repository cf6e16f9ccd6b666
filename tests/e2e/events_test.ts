/** Events end to end: the stream, the command, a manager that starts anew, a reader that stalls. */

import assert from "node:assert/strict";
import {
  ManagerProcess,
  programCommand,
  runProgram,
  scratchFolder,
  waitFor,
} from "../support/manager_process.ts";

type Told = Readonly<Record<string, unknown>>;

function start(root: string, processes: unknown): ManagerProcess {
  const config = `${root}/config.json`;
  const stored = { storage: { directory: `${root}/store` }, checkpoint: { interval: "1h" }, processes };
  Deno.writeTextFileSync(config, JSON.stringify(stored), { mode: 0o600 });
  return new ManagerProcess({ args: ["--config", config, "--data-dir", `${root}/data`] });
}

/** Events as JSON lines until `enough`, or to the end of the stream; heartbeats are left out. */
async function read(response: Response, enough: (told: readonly Told[]) => boolean): Promise<Told[]> {
  assert.equal(response.status, 200);
  assert.ok(response.body !== null);
  const told: Told[] = [];
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const late = setTimeout(() => void reader.cancel("late"), 60_000);
  try {
    while (!enough(told)) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop() ?? "";
      told.push(...lines.map((line) => JSON.parse(line)).filter(({ type }) => type !== "heartbeat"));
    }
    return told;
  } finally {
    clearTimeout(late);
    await reader.cancel();
  }
}

const numberOf = ({ id }: Told) => Number(String(id).split("-")[1]);

/** Each once, in order, none missing. */
function assertInRow(told: readonly Told[]): void {
  for (const [index, event] of told.entries()) {
    const before = told[index - 1];
    if (before !== undefined) assert.equal(numberOf(event), numberOf(before) + 1, JSON.stringify(event));
  }
}

Deno.test("events are replayed behind the last one that a client had, also by a manager that started anew", async () => {
  using scratch = scratchFolder();
  const processes = { web: { command: ["sleep", "1000"] } };
  const headers = { accept: "application/x-ndjson" };
  let last = "";
  {
    await using manager = start(scratch.path, processes);
    await manager.state("running");
    const first = await manager.fetch("/events", { headers });
    const isWhole = (told: readonly Told[]) =>
      told.some(({ kind }) => kind === "process-start") &&
      told.some(({ work, state }) => work === "checkpoint" && state === "done");
    const reading = read(first, isWhole);
    await manager.json("/processes/web/restart", { json: {} });
    await manager.checkpoint("one");
    const told = (await reading).filter(({ type }) => type === "event");
    assertInRow(told);
    last = String(told.find(({ kind }) => kind === "process-exit")?.["id"]);
    const again = await manager.fetch("/events?kind=process-start,lease-term,state", {
      headers: { ...headers, "last-event-id": last },
    });
    const toTheEnd = read(again, () => false);
    manager.signal("SIGTERM");
    assert.equal(await manager.exit(), 0);
    const end = await toTheEnd;
    assert.equal(end[0]?.["kind"], "process-start");
    assert.deepEqual(end.slice(-2).map(({ summary }) => summary), ["state: stopping", "lease released"]);
  }
  await using manager = start(scratch.path, processes);
  await manager.state("running");
  const response = await manager.fetch(`/events?after=${last}`, { headers });
  const told = (await read(response, (told) => told.some(({ summary }) => summary === "state: running")))
    .filter(({ type }) => type === "event");
  const [runBefore] = last.split("-");
  const before = told.filter(({ id }) => String(id).startsWith(`${runBefore}-`));
  assertInRow(before);
  assert.equal(numberOf(before[0] ?? {}), Number(last.split("-")[1]) + 1);
  assert.equal(before.at(-1)?.["summary"], "lease released");
  const now = told.slice(before.length);
  assert.equal(numberOf(now[0] ?? {}), 1);
  assertInRow(now);
  const shown = await runProgram(["events", "--tail", "all", "--json", "--data-dir", `${scratch.path}/data`]);
  assert.equal(shown.code, 0, shown.stderr);
  const ids = shown.stdout.trimEnd().split("\n").map((line) => JSON.parse(line).id);
  const wanted = told.map(({ id }) => id);
  assert.deepEqual(ids.filter((id) => wanted.includes(id)).slice(0, 100), wanted.slice(0, 100));
  const text = await runProgram([
    "events",
    "--kind",
    "state",
    "--tail",
    "1",
    "--data-dir",
    `${scratch.path}/data`,
  ]);
  assert.match(text.stdout, /^\S+Z {2}state +state: running\n$/);
});

Deno.test("a client of events that does not read holds up nobody, and gets all of them in the end", async () => {
  using scratch = scratchFolder();
  await using manager = start(scratch.path, { web: { command: ["sleep", "1000"] } });
  await manager.state("running");
  const headers = { accept: "application/x-ndjson" };
  const slow = await manager.fetch("/events?kind=process-state,process-exit,process-start", { headers });
  // By the command, which reads all the time, into a pipe that its reader looks at later.
  const [command = "", ...args] = programCommand([
    "events",
    "-f",
    "--json",
    "--data-dir",
    `${scratch.path}/data`,
  ]);
  const follower = new Deno.Command(command, { args, stdout: "piped", stderr: "null" }).spawn();
  try {
    const lines = follower.stdout.pipeThrough(new TextDecoderStream()).getReader();
    await lines.read(); // it follows
    const restarts = 30;
    for (let n = 0; n < restarts; n++) await manager.json("/processes/web/restart", { json: {} });
    const starts = (told: readonly Told[]) => told.filter(({ kind }) => kind === "process-start").length;
    const told = await read(slow, (told) => starts(told) >= restarts);
    assert.equal(starts(told), restarts);
    assert.ok(!told.some(({ type }) => type === "gap"));
    let text = "";
    await waitFor("the command to have told all", async () => {
      text += (await lines.read()).value ?? "";
      return [...text.matchAll(/"kind":"process-exit"/g)].length >= restarts;
    });
    await lines.cancel();
  } finally {
    try {
      follower.kill("SIGTERM");
    } catch { /* it has ended with its pipe */ }
    await follower.status;
  }
});
