/** Runs with real processes: exits, restarts, output, spawn errors. */

import assert from "node:assert/strict";
import { spawnChild } from "../../src/platform/child_process.ts";
import { RING_LIMIT_BYTES } from "../../src/supervisor/line_ring.ts";
import { processSpec, shellSpec } from "../support/process_specs.ts";
import { Supervised, until } from "../support/supervised.ts";

Deno.test("Supervisor keeps all 256 exit codes", async () => {
  const codes = Array.from({ length: 256 }, (_, code) => code);
  await using app = new Supervised(
    ...codes.map((code) => shellSpec(`code${code}`, `exit ${code}`, { essential: false })),
  );
  const outcome = await app.start().supervisor.outcome;
  assert.equal(outcome.exitCode, 0);
  for (const code of codes) {
    const { lastExit, state } = app.status(`code${code}`);
    assert.deepEqual(lastExit, { kind: "exit", code });
    assert.equal(state, code === 0 ? "completed" : "failed");
  }
});

Deno.test("Supervisor gives a lone process's code or 128 + signal as the outcome", async () => {
  const cases: [string, number, string | null][] = [
    ["exit 0", 0, null],
    ["exit 42", 42, "lone"],
    ["kill -9 $$", 137, "lone"],
    ["kill -TERM $$", 143, "lone"],
  ];
  for (const [script, exitCode, decidedBy] of cases) {
    await using app = new Supervised(shellSpec("lone", script));
    const outcome = await app.start().supervisor.outcome;
    assert.deepEqual([outcome.exitCode, outcome.decidedBy], [
      exitCode,
      decidedBy,
    ], script);
  }
});

Deno.test("Supervisor says 127 for a missing program and 126 for one that cannot run, and does not try again", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const script = `${folder}/script`;
    await Deno.writeTextFile(script, "#!/bin/sh\n", { mode: 0o644 });
    const cases: [Parameters<typeof processSpec>[0], number, RegExp][] = [
      [{ command: ["no-such-program-here"] }, 127, /not found/],
      [{ command: [`${folder}/none`] }, 127, /not found/],
      [{ command: [script] }, 126, /permission denied/],
      [
        { command: ["true"], cwd: `${folder}/none` },
        126,
        /working folder .* does not exist/,
      ],
    ];
    for (const [change, code, reason] of cases) {
      await using app = new Supervised(
        processSpec({ ...change, restart: "always" }),
      );
      const outcome = await app.start().supervisor.outcome;
      assert.equal(outcome.exitCode, code);
      assert.equal(outcome.error?.code, "spawn-failed");
      assert.match(app.status("app").reason ?? "", reason);
      assert.equal(app.status("app").state, "failed");
      assert.deepEqual(app.names("started"), []);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("Supervisor restarts a crashing process until the start limit, then fails with its last lines", async () => {
  const script = `echo about to fail >&2; printf 'no newline'; exit 9`;
  await using app = new Supervised(
    shellSpec("loop", script, { restart: "on-failure" }),
  );
  const outcome = await app.start().supervisor.outcome;
  assert.deepEqual([outcome.exitCode, outcome.decidedBy], [9, "loop"]);
  const { restarts, reason, lastLines, state } = app.status("loop");
  assert.deepEqual([state, restarts, reason], [
    "failed",
    2,
    "exit code 9; failed 3 times within 60 s",
  ]);
  assert.deepEqual([...lastLines.slice(-2)].sort(), [
    "about to fail",
    "no newline",
  ]);
  assert.equal(app.names("exited").length, 3);
  // A person starts it again: counters start anew.
  app.supervisor.startProcess("loop");
  await until(() => app.names("exited").length === 6, "three more");
});

Deno.test("Supervisor skips what can never start, and says why", async () => {
  await using app = new Supervised(
    shellSpec("broken", "exit 1", { essential: false }),
    shellSpec("needs-it", "exit 0", { dependsOn: { broken: "succeeded" } }),
    shellSpec("needs-that", "exit 0", {
      dependsOn: { "needs-it": "started" },
      essential: false,
    }),
  );
  const outcome = await app.start().supervisor.outcome;
  assert.deepEqual([outcome.exitCode, outcome.decidedBy], [1, "needs-it"]);
  await app.untilState("needs-that", "skipped");
  assert.equal(
    app.status("needs-it").reason,
    "broken is failed, succeeded was wanted",
  );
  assert.deepEqual(app.names("started"), ["broken"]);
});

Deno.test("Supervisor stays bounded on ten megabytes without a newline, and loses none of them", async () => {
  const size = 10 * 1024 * 1024;
  await using app = new Supervised(
    shellSpec("endless", `head -c ${size} /dev/zero | tr '\\0' x`),
  );
  await app.start().supervisor.outcome;
  const sizes = app.output.map(({ text }) => text.length);
  assert.equal(sizes.reduce((sum, length) => sum + length, 0), size);
  assert.ok(Math.max(...sizes) <= 16 * 1024);
  assert.ok(app.output.every(({ partial }) => partial));
  const kept = app.supervisor.lines("endless").reduce(
    (sum, line) => sum + line.text.length,
    0,
  );
  assert.ok(kept <= RING_LIMIT_BYTES, `${kept}`);
});

Deno.test("Supervisor shows a prompt without newline while the process lives", async () => {
  await using app = new Supervised(
    shellSpec("prompt", `printf 'Password: '; exec sleep 600`),
  );
  await app.start().untilLine("prompt", "Password: ");
  assert.equal(app.status("prompt").pid === null, false);
  assert.equal(app.output[0]?.partial, true);
});

Deno.test("Supervisor gives the process its environment and nothing of ours", async () => {
  Deno.env.set("SM_TEST_SECRET", "leaked");
  try {
    const env = { PATH: Deno.env.get("PATH") ?? "", GREETING: "hello" };
    await using app = new Supervised(
      processSpec({ name: "env", command: ["env"], env }),
    );
    await app.start().supervisor.outcome;
    const names = app.lines("env").map((line) => line.split("=")[0]).sort();
    assert.deepEqual(names, ["GREETING", "PATH", "SM_UNIT"]);
  } finally {
    Deno.env.delete("SM_TEST_SECRET");
  }
});

Deno.test("Supervisor forwards only the signals that a process wants", async () => {
  const script = (name: string) => `trap 'echo ${name}' USR1; echo up; while :; do sleep 0.02; done`;
  await using app = new Supervised(
    shellSpec("wants", script("got it"), { forwardSignals: { SIGUSR1: "SIGUSR1" } }),
    shellSpec("refuses", script("got it")),
  );
  await app.start().untilLine("wants", "up");
  await app.untilLine("refuses", "up");
  app.supervisor.forward("SIGUSR1");
  await app.untilLine("wants", "got it");
  assert.deepEqual(app.lines("refuses"), ["up"]);
});

Deno.test("Supervisor restarts one process on request, and a stopped one is no end", async () => {
  await using app = new Supervised(shellSpec("one", "exec sleep 600"));
  await until(() => app.start().status("one").pid !== null, "a pid");
  const first = app.status("one").pid;
  app.supervisor.restartProcess("one");
  await until(() => app.names("started").length === 2, "a second start");
  assert.notEqual(app.status("one").pid, first);
  assert.equal(app.status("one").restarts, 0);
  await app.supervisor.stopProcess("one");
  assert.equal(app.status("one").state, "stopped");
  const settled = await Promise.race([
    app.supervisor.outcome,
    Promise.resolve("open"),
  ]);
  assert.equal(settled, "open");
  app.supervisor.startProcess("one");
  await until(() => app.names("started").length === 3, "a third start");
});

Deno.test("Supervisor's output that stalls nobody: a process that ends with a daemon on its pipe still ends", async () => {
  // The daemon cleared its environment and cut its chain of parents: not ours to find, and not to be waited for.
  const folder = await Deno.makeTempDir();
  try {
    const daemon = `env -i /usr/bin/setsid /bin/sleep 30 & echo $! > ${folder}/pid`;
    await using app = new Supervised(
      shellSpec("daemonizer", `sh -c '${daemon}'; exit 0`),
    );
    const outcome = await app.start().supervisor.outcome;
    assert.equal(outcome.exitCode, 0);
    Deno.kill(Number(await Deno.readTextFile(`${folder}/pid`)), "SIGKILL");
    await until(
      () => app.status("daemonizer").state === "completed",
      "completed",
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("spawnChild gives pipes and the signal that ended the child", async () => {
  const child = spawnChild({
    command: "sh",
    args: ["-c", "read line; echo $line; kill -9 $$"],
    stdin: "piped",
    stdout: "piped",
  });
  const writer = child.stdin?.getWriter();
  await writer?.write(new TextEncoder().encode("ping\n"));
  await writer?.close();
  assert.equal(await new Response(child.stdout).text(), "ping\n");
  assert.deepEqual(await child.status, { code: 137, signal: "SIGKILL" });
});
