/** Stops with real processes: those that ignore, leave, freeze, race. Names are unique: the tags are looked for in /proc. */

import assert from "node:assert/strict";
import { readProcess } from "../../src/platform/proc.ts";
import { unlessStalled } from "../support/machine_stall.ts";
import { shellSpec } from "../support/process_specs.ts";
import { Supervised, until } from "../support/supervised.ts";

/** The processes' own limit, and what a stop within a budget of less takes at most, however slow the machine. */
const SLOW_STOP = { timeoutStopMs: 120_000 };
const SOON_MS = 30_000;
const DEAF = `trap '' TERM; echo up; while :; do sleep 0.05; done`;

Deno.test("Supervisor.stop ends with the whole group when the leader ignores TERM", async () => {
  await using app = new Supervised(shellSpec("deaf-leader", DEAF, SLOW_STOP));
  await app.start().untilLine("deaf-leader", "up");
  const tookMs = await app.stop(300);
  assert.ok(tookMs >= 295 && tookMs < SOON_MS, `${tookMs} ms`);
  assert.deepEqual(app.alive("deaf-leader"), []);
  assert.equal(app.status("deaf-leader").state, "stopped");
  assert.deepEqual(app.names("killed-group"), ["deaf-leader"]);
  assert.equal((await app.supervisor.outcome).exitCode, 137);
});

Deno.test("Supervisor.stop waits for a grandchild that ignores TERM after its leader has ended", async () => {
  const script = `sh -c "${DEAF}" & trap 'exit 0' TERM; while :; do sleep 0.05; done`;
  await using app = new Supervised(shellSpec("deaf-grandchild", script, SLOW_STOP));
  await app.start().untilLine("deaf-grandchild", "up");
  const tookMs = await app.stop(400);
  assert.ok(tookMs >= 395 && tookMs < SOON_MS, `${tookMs} ms`);
  assert.deepEqual(app.alive("deaf-grandchild"), []);
  assert.deepEqual(app.status("deaf-grandchild").lastExit, {
    kind: "exit",
    code: 0,
  });
});

Deno.test("Supervisor.stop kills descendants that left the group and hold its output", async () => {
  const script = `setsid sh -c "${DEAF}" & echo $! ; exec sleep 600`;
  await using app = new Supervised(shellSpec("escapee", script, SLOW_STOP));
  await app.start().untilLine("escapee", "up");
  const tookMs = await app.stop(300);
  assert.ok(tookMs < SOON_MS, `${tookMs} ms`);
  assert.deepEqual(app.alive("escapee"), []);
});

Deno.test("Supervisor.stop finds a descendant without group and tag by its parents", async () => {
  const script = `env -i /usr/bin/setsid /bin/sleep 600 & echo pid $!; exec sleep 600`;
  await using app = new Supervised(shellSpec("untagged", script));
  await until(() => app.start().lines("untagged").length > 0, "a pid");
  const pid = Number(app.lines("untagged")[0]?.split(" ")[1]);
  await until(() => readProcess(pid)?.name === "sleep", "the stray to run");
  await app.stop(1_000);
  await until(
    () => readProcess(pid) === null || readProcess(pid)?.state === "Z",
    "the stray to die",
  );
});

Deno.test("Supervisor cleans up after a leader that ended by itself before the next incarnation starts", async () => {
  const script = `setsid sh -c "${DEAF}" & sleep 0.2; exit 3`;
  const spec = shellSpec("left-behind", script, {
    timeoutStopMs: 300,
    restart: "on-failure",
    startLimit: { burst: 2, intervalMs: 60_000, rearmMs: null },
  });
  await using app = new Supervised(spec);
  const outcome = await app.start().supervisor.outcome;
  assert.deepEqual([outcome.exitCode, outcome.decidedBy], [3, "left-behind"]);
  assert.deepEqual(app.names("killed-group"), ["left-behind", "left-behind"]);
  assert.deepEqual(app.alive("left-behind"), []);
  const order = app.events.filter((event) => event.type === "started" || event.type === "killed-group");
  assert.deepEqual(order.map((event) => event.type), [
    "started",
    "killed-group",
    "started",
    "killed-group",
  ]);
});

Deno.test("Supervisor.stop ends a process that is stopped by SIGSTOP", async () => {
  await using app = new Supervised(
    shellSpec("suspended", `kill -STOP $$; sleep 600`, SLOW_STOP),
  );
  await until(() => {
    const pid = app.start().status("suspended").pid;
    return pid !== null && readProcess(pid)?.state === "T";
  }, "state T");
  const tookMs = await app.stop(120_000);
  assert.ok(tookMs < SOON_MS, `${tookMs} ms`);
  assert.deepEqual(app.status("suspended").lastExit, {
    kind: "signal",
    signal: "SIGTERM",
    number: 15,
  });
});

Deno.test("Supervisor.stop right after start leaves nothing, whichever comes first", async () => {
  for (let turn = 0; turn < 20; turn++) {
    const specs = ["exit 0", "exit 1", "sleep 600"].map((script, i) =>
      shellSpec(`racer${i}`, script, { restart: "always", essential: false })
    );
    await using app = new Supervised(...specs);
    app.start();
    if (turn % 2 === 1) {
      await until(() => app.names("exited").length > 0, "an exit");
    }
    await app.stop(5_000);
    assert.deepEqual(
      ["racer0", "racer1", "racer2"].flatMap((name) => app.alive(name)),
      [],
    );
    assert.deepEqual(app.supervisor.status().map((process) => process.state), [
      "stopped",
      "stopped",
      "stopped",
    ]);
    const spawned = app.names("started").length;
    assert.equal(app.names("exited").length, spawned);
  }
});

Deno.test("Supervisor starts in order of dependency and stops in reverse", async () => {
  const sleep = "exec sleep 600";
  await using app = new Supervised(
    shellSpec("web", sleep, { dependsOn: { app: "ready" } }),
    shellSpec("app", sleep, {
      dependsOn: { migrate: "succeeded", db: "started" },
    }),
    shellSpec("migrate", "sleep 0.1; exit 0", { dependsOn: { db: "started" } }),
    shellSpec("db", sleep),
  );
  await app.start().untilState("web", "running");
  assert.deepEqual(app.names("started"), ["db", "migrate", "app", "web"]);
  await app.stop(5_000);
  assert.deepEqual(app.names("exited"), ["migrate", "web", "app", "db"]);
});

Deno.test(
  "Supervisor.stop leaves time to a dependency below one that hangs",
  () => unlessStalled(leavesTimeBelow),
);

/** A second: for a shell that may be asleep for a part of it. */
async function leavesTimeBelow(): Promise<void> {
  const polite = `trap 'echo asked; sleep 0.2; exit 0' TERM; echo up; while :; do sleep 0.05; done`;
  await using app = new Supervised(
    shellSpec("low", polite, SLOW_STOP),
    shellSpec("high", DEAF, { ...SLOW_STOP, dependsOn: { low: "started" } }),
  );
  await app.start().untilLine("high", "up");
  await app.untilLine("low", "up");
  const tookMs = await app.stop(3_000);
  assert.ok(tookMs < SOON_MS, `${tookMs} ms`);
  assert.ok(
    app.lines("low").includes("asked"),
    "killed without having been asked",
  );
}

Deno.test("Supervisor.hurry and shortenStop cut a stop short", async () => {
  for (const cut of ["hurry", "shorten"] as const) {
    await using app = new Supervised(
      shellSpec(`slow-${cut}`, DEAF, SLOW_STOP),
    );
    await app.start().untilLine(`slow-${cut}`, "up");
    const stopped = app.stop(120_000);
    await app.untilState(`slow-${cut}`, "stopping");
    if (cut === "hurry") app.supervisor.hurry();
    else app.supervisor.shortenStop(app.clock.monotonicMs() + 200);
    const tookMs = await stopped;
    assert.ok(tookMs < SOON_MS, `${cut}: ${tookMs} ms`);
    assert.deepEqual(app.alive(`slow-${cut}`), []);
  }
});

Deno.test("Supervisor.kill kills at once, and nothing starts after it", async () => {
  const spec = {
    restart: "always",
    restartDelayMs: 1,
    timeoutStopMs: 60_000,
    essential: false,
  } as const;
  await using app = new Supervised(
    shellSpec("fenced", DEAF, spec),
    shellSpec("looping", "exit 1", spec),
  );
  await app.start().untilLine("fenced", "up");
  const startMs = performance.now();
  await app.supervisor.kill();
  assert.ok(performance.now() - startMs < SOON_MS);
  const starts = app.names("started").length;
  app.supervisor.start();
  assert.throws(() => app.supervisor.startProcess("fenced"));
  assert.deepEqual([...app.alive("fenced"), ...app.alive("looping")], []);
  assert.equal(app.names("started").length, starts);
  await app.supervisor.outcome;
});

Deno.test("Supervisor frozen for two reasons goes on when both are taken back, and at once when it is to stop", async () => {
  await using app = new Supervised(shellSpec("twice", "while :; do sleep 0.05; done"));
  await app.start().untilState("twice", "running");
  const { supervisor } = app;
  supervisor.freeze("lease");
  supervisor.freeze("checkpoint");
  await until(() => supervisor.standsStill({ orWaiting: true }), "all stopped");
  supervisor.thaw("checkpoint");
  assert.equal(supervisor.isFrozenBy("checkpoint"), false);
  assert.ok(supervisor.standsStill({ orWaiting: true }), "the lease is still in doubt");
  supervisor.thaw("lease");
  await until(() => !supervisor.standsStill({ orWaiting: true }), "all going on");
  supervisor.freeze("checkpoint");
  await until(() => supervisor.standsStill({ orWaiting: true }), "all stopped again");
  await app.stop(5000);
  assert.equal(supervisor.isFrozenBy("checkpoint"), false, "whoever captures files is told");
  const [exit] = app.events.filter((event) => event.type === "exited");
  assert.ok(
    exit?.type === "exited" && exit.cause.kind === "signal" && exit.cause.signal === "SIGTERM",
    "asked, not killed",
  );
});

Deno.test("Supervisor.freeze stops all, strays too, and starts nothing until thaw", async () => {
  const script = `setsid sh -c "${DEAF}" & exec sleep 600`;
  await using app = new Supervised(
    shellSpec("ice", script),
    shellSpec("crasher", "exit 1", {
      restart: "always",
      restartDelayMs: 300,
      restartMaxDelayMs: 300,
      essential: false,
      startLimit: { burst: 0, intervalMs: 1, rearmMs: null },
    }),
  );
  await app.start().untilLine("ice", "up");
  await app.untilState("crasher", "backoff");
  app.supervisor.freeze("lease");
  // A shell caught between vfork and exec waits in D for its stopped child: it runs nothing either.
  const halted = (state: string) => state === "T" || state === "D";
  await until(
    () =>
      app.alive("ice").length >= 2 &&
      app.alive("ice").every((info) => halted(info.state)),
    "all stopped",
  );
  await app.untilState("crasher", "waiting");
  const starts = app.names("started").length;
  app.supervisor.thaw("lease");
  await until(
    () => app.names("started").length > starts,
    "the crasher to start again",
  );
  await until(
    () => app.alive("ice").every((info) => info.state !== "T"),
    "all going on",
  );
});

Deno.test("Supervisor.freeze lets nobody go on whose leader dies meanwhile: the stop signal comes with the thaw", async () => {
  const left = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done";
  const script = `sh -c "${left}" & exec sleep 600`;
  await using app = new Supervised(shellSpec("headless", script, { ...SLOW_STOP, essential: false }));
  await app.start().untilLine("headless", "up");
  app.supervisor.freeze("lease");
  await until(() => app.supervisor.standsStill({ orWaiting: true }), "all stopped");
  const { pid } = app.status("headless");
  assert.ok(pid);
  Deno.kill(pid, "SIGKILL");
  await app.untilState("headless", "draining");
  assert.ok(app.alive("headless").length > 0);
  assert.ok(app.supervisor.standsStill({ orWaiting: true }), "the lease is still in doubt");
  app.supervisor.thaw("lease");
  await app.untilLine("headless", "asked");
  await app.untilState("headless", "failed");
});

Deno.test("Supervisor frozen by the lease is killed as it stands when it is to stop or to hurry", async () => {
  for (const name of ["stopped", "hurried"]) {
    await using app = new Supervised(
      shellSpec(name, "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done", SLOW_STOP),
    );
    await app.start().untilLine(name, "up");
    app.supervisor.freeze("lease");
    await until(() => app.supervisor.standsStill({ orWaiting: true }), "all stopped");
    if (name === "hurried") app.supervisor.hurry();
    await app.stop(600_000);
    const { lastExit } = app.status(name);
    assert.ok(lastExit?.kind === "signal" && lastExit.signal === "SIGKILL", JSON.stringify(lastExit));
    assert.deepEqual(app.lines(name), ["up"]);
    assert.ok(app.supervisor.isFrozenBy("lease"));
  }
});
