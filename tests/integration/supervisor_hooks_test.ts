/** Stop and finish commands and the mixed stop, with real processes. */

import assert from "node:assert/strict";
import type { ProcessSpec } from "../../src/supervisor/mod.ts";
import { processSpec, shellSpec } from "../support/process_specs.ts";
import { Supervised, until } from "../support/supervised.ts";

/** Ends by USR1 alone, and says what it gets. */
const CALLED =
  `trap 'echo asked' TERM; trap 'echo called; exit 0' USR1; echo up; while :; do sleep 0.02; done`;
const DEAF = `trap '' TERM; echo up; while :; do sleep 0.05; done`;
const line = (text: string) => ["/bin/sh", "-c", text];
/** Far more than a loaded machine takes: a test that gets there has failed. */
const LONG = { timeoutStopMs: 120_000 };
const problems = (all: Supervised) =>
  all.events.flatMap((event) => event.type === "hook-failed" ? [`${event.hook}: ${event.problem}`] : []);
const called = (name: string, change: Partial<ProcessSpec>) =>
  shellSpec(name, CALLED, { ...LONG, ...change });

Deno.test("a stop command ends its process by itself, with its variables, and its output is in the log", async () => {
  const stopCommand = line('echo "$WORD $MAINPID"; kill -USR1 "$MAINPID"');
  await using all = new Supervised(called("called", { ownEnv: { WORD: "stop" }, stopCommand })).start();
  await all.untilLine("called", "up");
  const { pid } = all.status("called");
  await all.supervisor.stopProcess("called");
  assert.deepEqual(all.status("called").lastExit, { kind: "exit", code: 0 });
  assert.ok(all.lines("called").includes(`stop ${pid}`), all.lines("called").join("; "));
  assert.deepEqual(problems(all), []);
});

Deno.test("a stop command that fails or cannot be started is told, and the stop signal follows", async () => {
  const commands = { fails: line("exit 3"), missing: ["/no/such/command"] };
  await using all = new Supervised(
    ...Object.entries(commands).map(([name, stopCommand]) =>
      shellSpec(name, "echo up; exec sleep 1000", { ...LONG, stopCommand })
    ),
  ).start();
  for (const name of Object.keys(commands)) {
    await all.untilLine(name, "up");
    await all.supervisor.stopProcess(name);
    assert.equal(all.status(name).lastExit?.kind, "signal", name);
  }
  assert.deepEqual(problems(all)[0], "stop_command: exit code 3");
  assert.match(problems(all)[1] ?? "", /^stop_command: .*not found/);
});

Deno.test("a stop command that hangs with all it started ends in its time, the signal still comes, and the status names it", async () => {
  const stopCommand = line(`setsid sh -c "${DEAF}" & echo hangs; ${DEAF}`);
  await using all = new Supervised(
    shellSpec("patient", `trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.02; done`, {
      timeoutStopMs: 4_000, // the last two seconds are for the signal
      stopCommand,
    }),
  ).start();
  await all.untilLine("patient", "ready");
  const stopped = all.supervisor.stopProcess("patient", { waitMs: 60_000 });
  await all.untilLine("patient", "hangs");
  const { state, stop, pid } = all.status("patient");
  assert.deepEqual([state, stop?.command], ["stopping", "stop_command"]);
  assert.ok(stop?.blockers.some((blocker) => blocker.pid === pid));
  await until(() => (all.status("patient").stop?.blockers.length ?? 0) > 2, "the command among them");
  await stopped;
  assert.deepEqual(all.status("patient").lastExit, { kind: "exit", code: 0 });
  assert.ok(all.lines("patient").includes("asked"));
  assert.deepEqual(problems(all), ["stop_command: its time was over: it was killed"]);
  assert.deepEqual(all.alive("patient:stop-1"), []);
});

Deno.test("a stop in a hurry or a fence kills the stop command, too", async () => {
  for (const end of ["hurry", "kill"] as const) {
    const spec = shellSpec(`rushed-${end}`, DEAF, { ...LONG, stopCommand: line(`echo hangs; ${DEAF}`) });
    await using all = new Supervised(spec).start();
    await all.untilLine(spec.name, "up");
    const stopped = all.stop(100_000);
    await all.untilLine(spec.name, "hangs");
    if (end === "hurry") all.supervisor.hurry();
    else await all.supervisor.kill();
    await stopped;
    assert.deepEqual([all.alive(spec.name), all.alive(`${spec.name}:stop-1`)], [[], []]);
  }
});

Deno.test("a mixed stop asks the leader alone, and kills who is left as soon as it has ended", async () => {
  const child = `trap 'echo child' TERM; echo up; while :; do sleep 0.02; done`;
  const script =
    `sh -c "${child}" & trap 'echo leader; sleep 0.3; exit 0' TERM; while :; do sleep 0.02; done`;
  await using all = new Supervised(shellSpec("mixed", script, { ...LONG, stopMode: "mixed" })).start();
  await all.untilLine("mixed", "up");
  await all.supervisor.stopProcess("mixed");
  assert.ok(all.lines("mixed").includes("leader"));
  assert.ok(!all.lines("mixed").includes("child"));
  assert.deepEqual(all.names("killed-group"), ["mixed"]);
  assert.deepEqual(all.alive("mixed"), []);
});

Deno.test("a finish command runs when all is gone and before the next start, and is told how it ended", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const child = `trap 'sleep 0.2; echo left; exit 0' TERM; : > $FILE; while :; do sleep 0.02; done`;
    const spec = (name: string, script: string, change: Partial<ProcessSpec> = {}) =>
      shellSpec(name, script, {
        essential: false,
        ownEnv: { FILE: `${folder}/${name}` },
        finishCommand: line('echo "finish $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS ${MAINPID:-none}"'),
        ...change,
      });
    const startLimit = { burst: 2, intervalMs: 60_000, rearmMs: null };
    const waits = 'until test -e "$FILE"; do sleep 0.01; done; rm "$FILE"; exit 3';
    await using all = new Supervised(
      spec("code", `sh -c "${child}" & ${waits}`, { restart: "on-failure", startLimit, ...LONG }),
      spec("signal", "kill -KILL $$"),
      spec("good", "exit 0"),
      spec("deaf", DEAF, { timeoutStopMs: 100 }),
    ).start();
    for (const name of ["code", "signal"]) await all.untilState(name, "failed");
    await all.untilState("good", "completed");
    await all.untilLine("deaf", "up");
    await all.supervisor.stopProcess("deaf");
    const once = ["left", "finish exit-code exited 3 none"];
    const said = all.lines("code").filter((text) => text !== "Terminated"); // some shells'
    assert.deepEqual(said, [...once, ...once]);
    assert.deepEqual(all.lines("signal"), ["finish signal killed KILL none"]);
    assert.deepEqual(all.lines("good"), ["finish success exited 0 none"]);
    assert.deepEqual(all.lines("deaf"), ["up", "finish timeout killed KILL none"]);
    assert.deepEqual(problems(all), []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a finish command that hangs is killed with its group by the deadline, and named until then", async () => {
  const finishCommand = line(`setsid sh -c "${DEAF}" & echo hangs; ${DEAF}`);
  await using all = new Supervised(
    shellSpec("hanging", "echo ready; exec sleep 1000", { ...LONG, finishCommand }),
  ).start();
  await all.untilLine("hanging", "ready");
  const stopped = all.stop(2_000);
  await all.untilLine("hanging", "hangs");
  const { state, stop, pid } = all.status("hanging");
  assert.deepEqual([state, stop?.command, pid], ["draining", "finish_command", null]);
  assert.ok((stop?.blockers.length ?? 0) > 0);
  assert.ok((await stopped) < 30_000);
  assert.deepEqual(problems(all), ["finish_command: its time was over: it was killed"]);
  assert.deepEqual([all.status("hanging").state, all.alive("hanging:finish-1")], ["stopped", []]);
});

Deno.test("a finish command does not run after a fence, nor while all stands still", async () => {
  const spec = (name: string) =>
    shellSpec(name, CALLED, { finishCommand: line("echo finished"), essential: false });
  await using all = new Supervised(spec("fenced"), spec("frozen")).start();
  for (const name of ["fenced", "frozen"]) await all.untilLine(name, "up");
  const { pid } = all.status("frozen");
  all.supervisor.freeze("checkpoint");
  assert.ok(pid);
  Deno.kill(pid, "SIGKILL");
  await until(() => all.status("frozen").stop?.command === "finish_command", "it is due");
  assert.ok(all.supervisor.standsStill({ orWaiting: true }) && !all.lines("frozen").includes("finished"));
  all.supervisor.thaw("checkpoint");
  await all.untilLine("frozen", "finished");
  await all.untilState("frozen", "failed");
  await all.supervisor.kill();
  assert.equal(all.status("fenced").state, "stopped");
  assert.ok(!all.lines("fenced").includes("finished"));
});

Deno.test("a restart runs stop and finish command, and the next incarnation starts after both", async () => {
  const spec = processSpec({
    ...LONG,
    name: "again",
    command: line(`echo start; ${CALLED}`),
    restart: "always",
    stopCommand: line('echo stop; kill -USR1 "$MAINPID"'),
    finishCommand: line("sleep 0.2; echo finish"),
  });
  await using all = new Supervised(spec).start();
  await all.untilLine("again", "up");
  all.supervisor.restartProcess("again");
  await until(() => all.lines("again").filter((text) => text === "up").length === 2, "it is up again");
  const words = ["start", "stop", "called", "finish"];
  assert.deepEqual(all.lines("again").filter((text) => words.includes(text)), [
    "start",
    "stop",
    "called",
    "finish",
    "start",
  ]);
  assert.equal(all.status("again").restarts, 0);
});
