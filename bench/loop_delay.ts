/**
 * `deno task bench loop-delay`: how long a running manager takes to answer GET /livez, 100 requests a second from a process
 * of its own, while nothing happens and while a large checkpoint runs. An answer that comes late is a manager whose loop
 * stood still, or a machine that is full: an idle probe of the same machine, a bare server, stands beside it. Requests go
 * out by the clock, whether or not earlier ones were answered, so that a pause is counted by all that fell into it.
 * Besides: while 100 programs start in one moment, and while all of them are killed in one and start again.
 *
 * Flags: --bytes 2000000000 (0: no checkpoint), --processes 100 (0: none), --idle-seconds 10.
 */

import { parseArgs } from "node:util";
import { mixed } from "./checkpoint_data.ts";
import { freePort } from "../tests/support/free_port.ts";
import { Manager, output, programCommand } from "./programs.ts";
import { say } from "./replication_table.ts";
import { Running } from "./supervisor_subjects.ts";

const EACH_MS = 10;
const ANSWER_LIMIT_MS = 5000;
const QUANTILES = [0.5, 0.9, 0.99, 0.999, 1];
/** Wanted of a manager's loop at p99.9. */
const AIM_MS = 50;

interface Answers {
  readonly times: number[];
  failed: number;
}

/** Asks until `work` has ended. */
async function probed(url: string, work: () => Promise<unknown>): Promise<Answers> {
  const answers: Answers = { times: [], failed: 0 };
  const begun = performance.now();
  const asked: Promise<void>[] = [];
  const ask = async (atMs: number) => {
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(ANSWER_LIMIT_MS) });
      await answer.body?.cancel();
      if (!answer.ok) answers.failed++;
      // From when it should have gone out: a prober that is late itself counts, too.
      answers.times.push(performance.now() - atMs);
    } catch {
      answers.failed++;
    }
  };
  const timer = setInterval(() => {
    while (begun + asked.length * EACH_MS <= performance.now()) {
      asked.push(ask(begun + asked.length * EACH_MS));
    }
  }, EACH_MS);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  await Promise.all(asked);
  return answers;
}

function sayAnswers(what: string, { times, failed }: Answers): void {
  const sorted = times.toSorted((a, b) => a - b);
  const cells = QUANTILES.map((quantile) => {
    const ms = sorted[Math.min(sorted.length - 1, Math.floor(quantile * sorted.length))] ?? NaN;
    return `${quantile === 1 ? "max" : `p${quantile * 100}`} ${ms.toFixed(1)}`.padStart(12);
  });
  say(`${what.padEnd(34)}${String(times.length).padStart(7)} answers${cells.join("")} ms, ${failed} failed`);
}

/** A server that does nothing else, in this process: what the machine and the prober themselves cost. */
async function probedAlone(work: () => Promise<unknown>): Promise<Answers> {
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    () => new Response("ok"),
  );
  return await probed(`http://127.0.0.1:${server.addr.port}/`, work);
}

/** Waits for what is hardly ever asked, so that the waiting costs nothing. */
async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + START_LIMIT_MS;
  while (!await holds()) {
    if (performance.now() > end) throw new Error(`wait for ${what}: not within ${START_LIMIT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_EACH_MS));
  }
  await new Promise((resolve) => setTimeout(resolve, AFTERMATH_MS));
}

const START_LIMIT_MS = 30_000;
const LOOK_EACH_MS = 100;
/** What comes of it after the last program runs counts, too. */
const AFTERMATH_MS = 1000;

/** All wait for a program that ends when `go` is there, then each writes its pid. */
async function benchStarts(home: string, count: number): Promise<void> {
  await Deno.mkdir(`${home}/up`, { recursive: true });
  const names = Array.from({ length: count }, (_, n) => `p${n}`);
  const program = (name: string) => ({
    command: ["/bin/sh", "-c", `echo $$ > ${home}/up/${name}; exec sleep 100000`],
    depends_on: { gate: "completed" },
    essential: false,
    restart: "always",
    restart_delay: "0s",
    logs: { pass_through: false },
  });
  const gate = {
    command: ["/bin/sh", "-c", `while [ ! -e ${home}/go ]; do sleep 0.05; done`],
    restart: "no",
    essential: false,
  };
  const config = {
    storage: { directory: `${home}/store` },
    checkpoint: { interval: "24h" },
    processes: { gate, ...Object.fromEntries(names.map((name) => [name, program(name)])) },
  };
  await Deno.writeTextFile(`${home}/config.json`, JSON.stringify(config), { mode: 0o600 });
  const listen = `127.0.0.1:${freePort()}`;
  const argv = programCommand(["--config", `${home}/config.json`, "--data-dir", `${home}/data`]);
  const env = { STATE_MANAGER_SERVER_LISTEN: listen };
  await using _ = new Running({ argv, env, logOf: () => "" }, home);
  const url = `http://${listen}/livez`;
  await until("the manager", async () => {
    const answer = await fetch(url).catch(() => null);
    await answer?.body?.cancel();
    return answer?.ok === true;
  });
  const pids = () =>
    names.map((name) => {
      try {
        return Number(Deno.readTextFileSync(`${home}/up/${name}`));
      } catch {
        return 0;
      }
    });
  const starts = await probed(url, async () => {
    await Deno.writeTextFile(`${home}/go`, "");
    await until(`${count} programs`, () => pids().every((pid) => pid > 0));
  });
  sayAnswers(`${count} programs start at once`, starts);
  const before = pids();
  const restarts = await probed(url, async () => {
    for (const pid of before) Deno.kill(pid, "SIGKILL");
    await until(`${count} programs again`, () => pids().every((pid, n) => pid > 0 && pid !== before[n]));
  });
  sayAnswers(`${count} programs start again`, restarts);
}

export async function benchLoopDelay(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      bytes: { type: "string", default: "2000000000" },
      processes: { type: "string", default: "100" },
      "idle-seconds": { type: "string", default: "10" },
    },
  });
  const rest = () => new Promise((resolve) => setTimeout(resolve, Number(values["idle-seconds"]) * 1000));
  const home = await Deno.makeTempDir({ prefix: "state-manager-bench-" });
  say(`GET /livez, one each ${EACH_MS} ms; wanted of the manager at p99.9: under ${AIM_MS} ms`);
  try {
    sayAnswers("a bare server, nothing happens", await probedAlone(rest));
    const [bytes, processes] = [Number(values.bytes), Number(values.processes)];
    if (processes > 0) await benchStarts(`${home}/starts`, processes);
    if (bytes > 0) await benchCheckpoints(home, bytes, rest);
  } finally {
    await Deno.remove(home, { recursive: true });
  }
}

async function benchCheckpoints(home: string, bytes: number, rest: () => Promise<unknown>): Promise<void> {
  const set = mixed(bytes);
  const data = `${home}/data`;
  await Deno.mkdir(data);
  await using manager = await Manager.start(`${home}/ours`, data);
  await set.make(data);
  await output(["sync"]);
  sayAnswers("nothing happens", await probed(`${manager.url}/livez`, rest));
  const begun = performance.now();
  const busy = await probed(`${manager.url}/livez`, () => manager.checkpoint());
  sayAnswers(`first checkpoint of ${set.name}`, busy);
  say(`  it took ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  await Deno.writeFile(`${data}/new`, crypto.getRandomValues(new Uint8Array(65_536)));
  sayAnswers("next checkpoint", await probed(`${manager.url}/livez`, () => manager.checkpoint()));
  await set.change(data);
  const beside = await probedAlone(() => manager.checkpoint());
  sayAnswers("a bare server beside a checkpoint", beside);
}
