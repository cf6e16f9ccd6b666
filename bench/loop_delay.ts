/**
 * `deno task bench loop-delay`: how long a running manager takes to answer GET /livez, 100 requests a second from a process
 * of its own, while nothing happens and while a large checkpoint runs. An answer that comes late is a manager whose loop
 * stood still, or a machine that is full: an idle probe of the same machine, a bare server, stands beside it. Requests go
 * out by the clock, whether or not earlier ones were answered, so that a pause is counted by all that fell into it.
 *
 * Flags: --bytes 2000000000, --idle-seconds 10.
 */

import { parseArgs } from "node:util";
import { mixed } from "./checkpoint_data.ts";
import { Manager, output } from "./programs.ts";
import { say } from "./replication_table.ts";

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

export async function benchLoopDelay(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      bytes: { type: "string", default: "2000000000" },
      "idle-seconds": { type: "string", default: "10" },
    },
  });
  const set = mixed(Number(values.bytes));
  const rest = () => new Promise((resolve) => setTimeout(resolve, Number(values["idle-seconds"]) * 1000));
  const home = await Deno.makeTempDir({ prefix: "state-manager-bench-" });
  try {
    const data = `${home}/data`;
    await Deno.mkdir(data);
    await using manager = await Manager.start(`${home}/ours`, data);
    await set.make(data);
    await output(["sync"]);
    say(`GET /livez, one each ${EACH_MS} ms; wanted of the manager at p99.9: under ${AIM_MS} ms`);
    sayAnswers("a bare server, nothing happens", await probedAlone(rest));
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
  } finally {
    await Deno.remove(home, { recursive: true });
  }
}
