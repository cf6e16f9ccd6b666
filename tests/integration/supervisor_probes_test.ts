/** Probes of real processes: servers, commands, lines, the notify descriptor; what hangs, and what is left behind. */

import assert from "node:assert/strict";
import type { ProbeCheck, ProbeSpec } from "../../src/supervisor/probe_types.ts";
import { NO_PROBES } from "../../src/supervisor/probe_types.ts";
import { isAlive, readProcesses } from "../../src/platform/proc.ts";
import type { SupervisorEvent } from "../../src/supervisor/types.ts";
import { findTool } from "../support/find_tool.ts";
import { freePort } from "../support/free_port.ts";
import { scratchFolder } from "../support/manager_process.ts";
import { TELL } from "../support/notify_sender.ts";
import { processSpec, shellSpec } from "../support/process_specs.ts";
import { Supervised, until } from "../support/supervised.ts";

function probe(check: ProbeCheck, change: Partial<ProbeSpec> = {}): ProbeSpec {
  return {
    check,
    initialDelayMs: 0,
    periodMs: 50,
    timeoutMs: 2_000,
    failureThreshold: 3,
    successThreshold: 1,
    ...change,
  };
}
const http = (port: number, path = "/", headers = {}): ProbeCheck => ({
  kind: "http",
  host: "127.0.0.1",
  port,
  path,
  headers,
});
const exec = (script: string): ProbeCheck => ({ kind: "exec", command: ["/bin/sh", "-c", script] });
const NOTIFY: ProbeCheck = { kind: "notify", watchdogMs: null, socket: false };
const SOCKET: ProbeCheck = { kind: "notify", watchdogMs: null, socket: true };

/** A server of our own whose answer the test chooses. */
function answering(answer: (request: Request) => Response | Promise<Response>) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, answer);
  return { port: server.addr.port, [Symbol.asyncDispose]: () => server.shutdown() };
}

const restartsOf = (app: Supervised, name: string) =>
  app.events.filter((event): event is SupervisorEvent & { type: "exited" } =>
    event.type === "exited" && event.name === name
  ).map(({ restartFor, requested }) => ({ restartFor, requested }));

const aliveWith = (text: string) =>
  readProcesses().filter((info) => isAlive(info) && commandLine(info.pid).includes(text));

function commandLine(pid: number): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`);
  } catch {
    return "";
  }
}

Deno.test("Supervisor starts what depends on a server only when it answers well, and tells readiness", async () => {
  let status = 503;
  const seen: string[] = [];
  await using server = answering((request) => {
    seen.push(`${request.method} ${new URL(request.url).pathname} ${request.headers.get("x-probe")}`);
    return new Response("x".repeat(100_000), { status, headers: { location: "http://192.0.2.1/" } });
  });
  await using app = new Supervised(
    shellSpec("server", "sleep 1000", {
      probes: { ...NO_PROBES, readiness: probe(http(server.port, "/ok?a=b", { "x-probe": "yes" })) },
    }),
    shellSpec("client", "sleep 1000", { dependsOn: { server: "ready" } }),
  );
  app.start();
  await until(() => app.status("server").probeFailure === "readiness: HTTP 503", "the failure to be shown");
  assert.equal(app.status("server").state, "starting");
  assert.equal(app.status("client").state, "waiting");
  status = 302; // not followed, and good enough
  await app.untilState("client", "running");
  assert.deepEqual([app.status("server").ready, app.status("server").probeFailure], [true, null]);
  assert.ok(seen.every((line) => line === "GET /ok yes"));
  status = 500;
  await until(() => !app.status("server").ready, "readiness to be lost");
  assert.equal(app.status("server").state, "running");
  assert.equal(app.status("client").state, "running", "who waited for it is left alone");
  status = 200;
  await until(() => app.status("server").ready, "readiness to come back");
  const told = app.events.flatMap((event) => event.type === "readiness" ? [event.ready] : []);
  assert.deepEqual(told, [true, false, true]);
  assert.equal(app.status("server").restarts, 0);
});

Deno.test("Supervisor sees a server that listens late, by its port", async () => {
  const port = freePort();
  using scratch = scratchFolder();
  const go = `${scratch.path}/go`;
  const code = `const look = setInterval(() => {
    try { Deno.statSync("${go}"); } catch { return; }
    clearInterval(look);
    Deno.listen({ hostname: "127.0.0.1", port: ${port} });
    setInterval(() => {}, 1e6);
  }, 20)`;
  await using app = new Supervised(processSpec({
    name: "late",
    command: [Deno.execPath(), "eval", code],
    env: { PATH: "/usr/bin:/bin", HOME: Deno.env.get("HOME") ?? "/tmp", DENO_NO_UPDATE_CHECK: "1" },
    probes: {
      ...NO_PROBES,
      startup: probe({ kind: "tcp", host: "127.0.0.1", port }, { failureThreshold: 100_000 }),
    },
  }));
  app.start();
  await until(() => /refused/i.test(app.status("late").probeFailure ?? ""), "a refused connection");
  Deno.writeTextFileSync(go, "");
  await app.untilState("late", "running");
  assert.equal(app.status("late").ready, true);
});

Deno.test("Supervisor restarts a process whose liveness fails, counts it as a failure, and gives up at the limit", async () => {
  await using server = answering(() => new Response("no", { status: 500 }));
  await using app = new Supervised(shellSpec("sick", "trap 'exit 0' TERM; sleep 1000 & wait", {
    restart: "always",
    startLimit: { burst: 3, intervalMs: 60_000, rearmMs: null },
    probes: { ...NO_PROBES, liveness: probe(http(server.port)) },
  }));
  const outcome = await app.start().supervisor.outcome;
  assert.equal(outcome.decidedBy, "sick");
  assert.notEqual(outcome.exitCode, 0);
  const { state, restarts, reason } = app.status("sick");
  assert.deepEqual([state, restarts], ["failed", 2]);
  assert.equal(reason, "liveness: HTTP 500; failed 3 times within 60 s");
  assert.deepEqual(restartsOf(app, "sick"), Array(3).fill({ restartFor: "liveness", requested: false }));
});

Deno.test("Supervisor counts a server that takes the connection and never answers as failed", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const taken: Deno.Conn[] = [];
  const taking = (async () => {
    for await (const connection of listener) taken.push(connection);
  })();
  const { port } = listener.addr as Deno.NetAddr;
  await using app = new Supervised(shellSpec("mute", "sleep 1000", {
    probes: { ...NO_PROBES, readiness: probe(http(port), { timeoutMs: 100 }) },
  }));
  app.start();
  await until(
    () => app.status("mute").probeFailure === "readiness: no answer within 0.1 s",
    "the time limit",
  );
  await until(() => taken.length >= 2, "a second run after the first");
  await app.stop(2_000);
  listener.close();
  await taking;
  for (const connection of taken) connection.close();
});

Deno.test("Supervisor kills a command that hangs, with all its children, and leaves no zombie", async () => {
  const mark = `9${Date.now()}`;
  await using app = new Supervised(shellSpec("app", "sleep 1000", {
    restart: "no",
    probes: {
      ...NO_PROBES,
      liveness: probe(exec(`echo looking; setsid sleep ${mark} & sleep ${mark}`), {
        timeoutMs: 1_500,
        failureThreshold: 2,
      }),
    },
  }));
  app.start();
  await until(() => aliveWith(mark).length >= 2, "the command and its child to run");
  await app.untilState("app", "failed");
  assert.match(app.status("app").reason ?? "", /^liveness: took longer than 1.5 s: looking$/);
  await until(() => aliveWith(mark).length === 0, "all of it to be gone");
  const zombies = () => readProcesses().filter((info) => info.parentPid === Deno.pid && info.state === "Z");
  await until(() => zombies().length === 0, "none to be left as a zombie");
});

Deno.test("Supervisor runs a command where and with what the process runs, and ends it with the process", async () => {
  const folder = await Deno.makeTempDir();
  const mark = `8${Date.now()}`;
  try {
    Deno.env.set("AWS_SECRET_ACCESS_KEY_OF_TEST", "hidden");
    await using app = new Supervised(shellSpec("app", "sleep 1000", {
      cwd: folder,
      env: { PATH: "/usr/bin:/bin", GREETING: "hello" },
      probes: {
        ...NO_PROBES,
        readiness: probe(exec("env > seen.part && mv seen.part seen")),
        liveness: probe(exec(`sleep ${mark}`), { timeoutMs: 60_000 }),
      },
    }));
    app.start();
    await app.untilState("app", "running");
    const seen = await Deno.readTextFile(`${folder}/seen`);
    assert.match(seen, /^GREETING=hello$/m);
    assert.doesNotMatch(seen, /hidden/);
    await until(() => aliveWith(mark).length > 0, "the other command to run");
    await app.stop(2_000);
    await until(() => aliveWith(mark).length === 0, "the command to end with the process");
  } finally {
    Deno.env.delete("AWS_SECRET_ACCESS_KEY_OF_TEST");
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("Supervisor takes a line of output as readiness, whichever stream it is on", async () => {
  const log: ProbeCheck = { kind: "log", pieces: ["listening on ", ":80"] };
  await using app = new Supervised(
    shellSpec("app", "echo listening; echo; echo now listening on 127.0.0.1:80 >&2; sleep 1000", {
      probes: { ...NO_PROBES, readiness: probe(log) },
    }),
    shellSpec("never", "echo listening on; sleep 1000", {
      probes: { ...NO_PROBES, readiness: probe(log) },
      timeoutStartMs: 300,
      essential: false,
    }),
  );
  app.start();
  await app.untilState("app", "running");
  await app.untilState("never", "failed");
  assert.equal(app.status("never").reason, "startup: not ready after 0 s");
  assert.deepEqual(restartsOf(app, "never"), [{ restartFor: "startup", requested: false }]);
});

Deno.test("Supervisor hears a process on its notify descriptor, in systemd's words and in s6's", async () => {
  for (const word of ["READY=1", "", "up"]) {
    await using app: Supervised = new Supervised(
      shellSpec(
        "app",
        `echo STATUS=soon >&$NOTIFY_FD; read x < /dev/null; echo out; echo ${word} >&3; sleep 1000`,
        {
          probes: { ...NO_PROBES, readiness: probe(NOTIFY) },
        },
      ),
      shellSpec("other", "exit 0", { dependsOn: { app: "ready" } }),
    );
    app.start();
    await app.untilState("other", "completed");
    assert.deepEqual([app.status("app").state, app.status("app").ready], ["running", true]);
    await app.untilLine("app", "out"); // another pipe: it may come after the word
    assert.deepEqual(app.lines("app"), ["out"]);
  }
});

Deno.test("Supervisor keeps exit codes, signals, output and start errors of a process with a notify descriptor", async () => {
  const probes = { ...NO_PROBES, startup: probe(NOTIFY) };
  const cases: [string, unknown][] = [
    ["echo out; echo err >&2; exit 7", { kind: "exit", code: 7 }],
    ["kill -SEGV $$", { kind: "signal", signal: "SIGSEGV", number: 11 }],
  ];
  for (const [script, exit] of cases) {
    await using app = new Supervised(shellSpec("app", script, { probes }));
    await app.start().supervisor.outcome;
    assert.deepEqual(app.status("app").lastExit, exit);
    if (script.startsWith("echo")) assert.deepEqual(app.lines("app").toSorted(), ["err", "out"]);
  }
  await using missing = new Supervised(processSpec({ command: ["no-such-program-here"], probes }));
  assert.equal((await missing.start().supervisor.outcome).exitCode, 127);
  await using env = new Supervised(
    shellSpec("app", "env; exit 0", { probes, env: { PATH: "/usr/bin:/bin", A: "b" } }),
  );
  await env.start().supervisor.outcome;
  // The runtime tells its own kind about the descriptor; it says nothing of ours.
  const names = env.lines("app").map((line) => line.split("=")[0]).filter((name) =>
    name !== "DENO_EXTRA_STDIO_FDS"
  ).toSorted();
  assert.deepEqual(names, ["A", "NOTIFY_FD", "PATH", "PWD", "SM_UNIT"]);
});

Deno.test("Supervisor restarts a process whose heartbeat stops, and not one that is frozen", async () => {
  const probes = {
    ...NO_PROBES,
    readiness: probe(NOTIFY),
    liveness: probe({ kind: "notify", watchdogMs: 2_000, socket: false }),
  };
  await using app = new Supervised(
    shellSpec(
      "beats",
      'test "$WATCHDOG_USEC" = 2000000 || exit 9; echo READY=1 >&3; while :; do echo WATCHDOG=1 >&3; sleep 0.05; done',
      { probes },
    ),
    shellSpec("stops", "echo READY=1 >&3; echo WATCHDOG=1 >&3; sleep 1000", {
      probes,
      restart: "on-failure",
      essential: false,
    }),
  );
  app.start();
  await until(() => app.status("stops").restarts > 0, "a restart");
  assert.deepEqual(restartsOf(app, "stops")[0], { restartFor: "watchdog", requested: false });
  await app.untilState("beats", "running");
  app.supervisor.freeze("checkpoint");
  const frozenAtMs = app.clock.monotonicMs();
  await until(() => app.clock.monotonicMs() > frozenAtMs + 2_500, "more than an interval to pass");
  app.supervisor.thaw("checkpoint");
  const thawedAtMs = app.clock.monotonicMs();
  await until(() => app.clock.monotonicMs() > thawedAtMs + 2_500, "another");
  assert.equal(app.status("beats").state, "running");
  assert.deepEqual([app.status("beats").restarts, restartsOf(app, "beats")], [0, []]);
});

Deno.test("Supervisor takes over other probes while the process runs, but a descriptor only at its next start", async () => {
  await using server = answering(() => new Response("no", { status: 500 }));
  const spec = shellSpec("app", "sleep 1000", { restart: "always" });
  await using app = new Supervised(spec);
  app.start();
  await app.untilState("app", "running");
  const { pid } = app.status("app");
  const failing = { ...NO_PROBES, readiness: probe(http(server.port)) };
  app.supervisor.redefine([{ ...spec, probes: failing }], { restart: false });
  await until(() => !app.status("app").ready, "the new probe to fail");
  assert.deepEqual([app.status("app").pid, app.status("app").changed], [pid, []]);
  app.supervisor.redefine([spec], { restart: false });
  assert.deepEqual([app.status("app").ready, app.status("app").probeFailure], [true, null]);
  app.supervisor.redefine([{ ...spec, probes: { ...NO_PROBES, readiness: probe(NOTIFY) } }], {
    restart: false,
  });
  assert.deepEqual([app.status("app").ready, app.status("app").changed], [true, ["probes"]]);
  assert.equal(app.status("app").pid, pid);
});

/** Files in a folder, as far as it is there. */
function namesIn(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name);
  } catch {
    return [];
  }
}

Deno.test("Supervisor hears what is sent to NOTIFY_SOCKET by a process that has ended by now", async () => {
  using root = scratchFolder();
  const notifyFolder = `${root.path}/notify`;
  Deno.mkdirSync(notifyFolder);
  Deno.writeTextFileSync(`${notifyFolder}/app`, "left by an earlier manager");
  const notify = findTool("systemd-notify");
  const senders = [
    TELL + "tell 'READY=1\\nSTATUS=up'",
    ...(notify === null ? [] : [`${notify} --ready --status=up`]),
  ];
  for (const sender of senders) {
    await using app: Supervised = new Supervised(
      { notifyFolder },
      shellSpec("app", `${TELL} tell STATUS=soon MAINPID=1; ${sender} || exit 9; sleep 1000`, {
        probes: { ...NO_PROBES, readiness: probe(SOCKET) },
      }),
      shellSpec("other", "exit 0", { dependsOn: { app: "ready" } }),
    );
    app.start();
    await app.untilState("other", "completed");
    assert.deepEqual([app.status("app").state, app.status("app").ready], ["running", true]);
    assert.deepEqual(namesIn(notifyFolder), ["app"]);
    assert.equal((Deno.statSync(`${notifyFolder}/app`).mode ?? 0) & 0o777, 0o600);
    await app.stop(5_000);
    assert.deepEqual([app.lines("app"), namesIn(notifyFolder)], [[], []]);
  }
});

Deno.test("Supervisor takes readiness away and gives it back as NOTIFY_SOCKET says, and ignores what is no message", async () => {
  using root = scratchFolder();
  const wait = (name: string) => `until test -e ${root.path}/${name}; do sleep 0.02; done; `;
  const script =
    `${TELL} tell READY "$(head -c 4097 /dev/zero | tr '\\0' x)" '' 'READY=1\\nup'; ${
      wait("a")
    } tell READY=1; ` +
    `${wait("b")} tell 'STOPPING=1'; ${wait("c")} tell READY=1; sleep 1000`;
  await using app = new Supervised(
    { notifyFolder: `${root.path}/notify` },
    shellSpec("app", script, { probes: { ...NO_PROBES, readiness: probe(SOCKET) } }),
  );
  app.start();
  const note = "state-manager: app sent to NOTIFY_SOCKET what is no list of NAME=value";
  await app.untilLine("app", note);
  assert.equal(app.status("app").ready, false);
  const go = (name: string) => Deno.writeTextFileSync(`${root.path}/${name}`, "");
  go("a");
  await app.untilState("app", "running");
  assert.equal(app.status("app").ready, true);
  go("b");
  await until(() => !app.status("app").ready, "readiness to be taken away");
  go("c");
  await until(() => app.status("app").ready, "readiness to come back");
  assert.deepEqual(app.lines("app"), [note], "told once");
});

Deno.test("Supervisor restarts a process whose heartbeat to NOTIFY_SOCKET stops", async () => {
  using root = scratchFolder();
  const probes = {
    ...NO_PROBES,
    readiness: probe(SOCKET),
    liveness: probe({ kind: "notify", watchdogMs: 30_000, socket: true }),
  };
  const quick = { ...probes, liveness: probe({ kind: "notify", watchdogMs: 300, socket: true }) };
  await using app = new Supervised(
    { notifyFolder: `${root.path}/notify` },
    shellSpec("beats", `${TELL} tell READY=1; while :; do tell WATCHDOG=1; sleep 0.2; done`, { probes }),
    shellSpec("stops", `${TELL} tell READY=1; tell WATCHDOG=1; sleep 1000`, {
      probes: quick,
      restart: "on-failure",
      essential: false,
    }),
  );
  app.start();
  await until(() => app.status("stops").restarts > 0, "a restart");
  assert.deepEqual(restartsOf(app, "stops")[0], { restartFor: "watchdog", requested: false });
  assert.equal(app.status("beats").restarts, 0);
});

Deno.test("Supervisor says why it cannot listen for NOTIFY_SOCKET", async () => {
  using root = scratchFolder();
  const long = `${root.path}/${"x".repeat(120)}`;
  const probes = { ...NO_PROBES, readiness: probe(SOCKET) };
  await using app = new Supervised({ notifyFolder: long }, shellSpec("app", "sleep 1000", { probes }));
  await app.start().supervisor.outcome;
  assert.match(app.status("app").reason ?? "", /NOTIFY_SOCKET: got a path of \d+ bytes, wanted at most 107/);
  await using none = new Supervised(shellSpec("app", "sleep 1000", { probes }));
  await none.start().supervisor.outcome;
  assert.match(none.status("app").reason ?? "", /no folder for NOTIFY_SOCKET/);
});
