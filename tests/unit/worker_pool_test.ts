import assert from "node:assert/strict";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { errorToWire } from "../../src/platform/wire_error.ts";
import { type PoolThread, WorkerPool } from "../../src/platform/worker_pool.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

interface Posted {
  readonly id: number;
  readonly job: string;
}

/** A Worker whose answers the test gives. */
class FakeThread implements PoolThread {
  onmessage: PoolThread["onmessage"] = null;
  onmessageerror: PoolThread["onmessageerror"] = null;
  onerror: PoolThread["onerror"] = null;
  terminated = false;
  readonly posted: Posted[] = [];

  postMessage(message: Posted): void {
    this.posted.push(message);
  }

  terminate(): void {
    this.terminated = true;
  }

  answer(data: unknown): void {
    this.onmessage?.call(this as unknown as Worker, new MessageEvent("message", { data }));
  }

  fail(message: string): ErrorEvent {
    const event = new ErrorEvent("error", { message, cancelable: true });
    this.onerror?.call(this as unknown as Worker, event);
    return event;
  }
}

function makePool(count: number, signal = new AbortController().signal) {
  const clock = new VirtualClock();
  const threads: FakeThread[] = [];
  const pool = new WorkerPool<string, string>({
    action: "test things",
    start: () => {
      const thread = new FakeThread();
      threads.push(thread);
      return thread;
    },
    count,
    clock,
    signal,
    jobLimitMs: 1000,
  });
  pool.start();
  return { pool, threads, clock };
}

Deno.test("pool gives each Worker five jobs at most and the rest in the order they came", async () => {
  const { pool, threads } = makePool(2);
  using _ = pool;
  const results = [..."abcdefghijk"].map((job) => pool.run(job));
  const jobs = () => threads.map(({ posted }) => posted.map(({ job }) => job).join(""));
  assert.deepEqual(jobs(), ["acegi", "bdfhj"]);
  threads[1]?.answer({ id: 2, result: "B" });
  assert.deepEqual(jobs(), ["acegi", "bdfhjk"]);
  for (const id of [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]) {
    threads[id === 11 ? 1 : 1 - id % 2]?.answer({ id, result: String(id) });
  }
  assert.equal((await Promise.all(results)).join(), "1,B,3,4,5,6,7,8,9,10,11");
});

Deno.test("pool rejects a job with the error that its Worker tells, and goes on", async () => {
  const { pool, threads } = makePool(1);
  using _ = pool;
  const bad = pool.run("bad");
  const good = pool.run("good");
  threads[0]?.answer({ id: 1, error: errorToWire(new StateManagerError("disk-full", "write x: full")) });
  await assert.rejects(bad, (error) => isError(error, "disk-full") && error.message === "write x: full");
  threads[0]?.answer({ id: 2, result: "fine" });
  assert.equal(await good, "fine");
});

Deno.test("pool ends with a clear error when a Worker fails outside of a job", async () => {
  const { pool, threads } = makePool(2);
  using _ = pool;
  const runs = ["a", "b", "c", "d", "e", "f"].map((job) => pool.run(job));
  const event = threads[1]?.fail("out of memory");
  assert.equal(event?.defaultPrevented, true, "unhandled it would end the process");
  for (const run of [...runs, pool.run("later")]) {
    await assert.rejects(
      run,
      (error) => isError(error, "internal") && /test things.*out of memory/.test(error.message),
    );
  }
  assert.ok(threads.every(({ terminated }) => terminated));
});

Deno.test("pool ends with a clear error when a Worker gives no answer", async () => {
  const { pool, threads, clock } = makePool(1);
  using _ = pool;
  const failed = assert.rejects(
    pool.run("hangs"),
    (error) => isError(error, "local-io") && /no answer within 1000 ms/.test(error.message),
  );
  await clock.advance(1200);
  await failed;
  assert.equal(threads[0]?.terminated, true);
});

Deno.test("pool ends with the signal's reason, and with its own when it is left", async () => {
  const abort = new AbortController();
  const first = makePool(1, abort.signal);
  const run = first.pool.run("a");
  abort.abort(new StateManagerError("cancelled", "the client went away"));
  await assert.rejects(run, /the client went away/);
  assert.equal(first.threads[0]?.terminated, true);

  const second = makePool(1);
  const left = second.pool.run("a");
  second.pool[Symbol.dispose]();
  await assert.rejects(left, (error) => isError(error, "cancelled"));
});

Deno.test("a Worker begins the next job where the former only waits, and tells each one's end", async () => {
  const source = `
    const { serveJobs } = await import(${
    JSON.stringify(import.meta.resolve("../../src/platform/worker_pool.ts"))
  });
    const ends = [];
    serveJobs((job) => {
      if (job === "at once") return { result: "done" };
      if (job !== "end") return { result: new Promise((resolve, reject) => ends.push({ resolve, reject })) };
      ends[1].resolve("second");
      ends[0].reject(new Error("first failed"));
      return { result: ends.length + " waited" };
    });`;
  const pool = new WorkerPool<string, string>({
    action: "test things",
    start: () => new Worker(`data:text/javascript,${encodeURIComponent(source)}`, { type: "module" }),
    count: 1,
    clock: systemClock(),
    signal: new AbortController().signal,
  });
  using _ = pool;
  pool.start();
  assert.equal(await pool.run("at once"), "done");
  const [first, second, end] = ["wait", "wait", "end"].map((job) => pool.run(job));
  await assert.rejects(first ?? Promise.resolve(), /first failed/);
  assert.deepEqual([await second, await end], ["second", "2 waited"]);
});
