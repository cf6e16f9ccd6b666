/** Routes of single processes and of the reload: bodies, answers, who may ask. */

import assert from "node:assert/strict";
import type { Control } from "../../src/manager/control.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import type { ProcessStatus } from "../../src/supervisor/types.ts";
import { managerStatus, processStatus, reloadResult } from "../support/fake_control.ts";
import { testApp } from "../support/test_app.ts";

const TOKENS = [
  { name: "r", scope: "read", sha256: "f7f8ea28b7e097256410406c0f269af79c3ae81eed7e692a6c7816f53e9ec07c" },
] as const;

Deno.test("a process is shown with its uptime, its last exit and what it waits for", async () => {
  const waiting = processStatus({
    state: "waiting",
    pid: null,
    uptimeMs: null,
    changed: ["command"],
    waitingFor: [{ name: "db", condition: "ready", state: "stopped" }],
  });
  const { ask } = testApp({ status: () => managerStatus({ processes: [processStatus(), waiting] }) });
  const running = await (await ask("/processes/web")).json();
  assert.equal(running.uptime_seconds, 61.5);
  assert.deepEqual(running.last_exit, { kind: "signal", signal: "SIGKILL", number: 9 });
  assert.equal(running.stopped_by_request, false);
  assert.equal(running.stop, null);
  const { processes } = await (await ask("/processes")).json();
  assert.deepEqual(processes[1].waiting_for, [{ name: "db", condition: "ready", state: "stopped" }]);
  assert.deepEqual(processes[1].changed, ["command"]);
  assert.equal((await ask("/processes/none")).status, 404);
});

Deno.test("start, stop, restart and signal pass on what was asked for", async () => {
  const asked: unknown[] = [];
  const { ask } = testApp({
    startProcess: (name) => (asked.push(["start", name]), Promise.resolve(processStatus())),
    stopProcess: (name, options) => (asked.push(["stop", name, options]), Promise.resolve(processStatus())),
    restartProcess: (
      name,
      options,
    ) => (asked.push(["restart", name, options]), Promise.resolve(processStatus())),
    signalProcess: (name, wish) => (asked.push(["signal", name, wish]), Promise.resolve(processStatus())),
  });
  const post = async (path: string, json: unknown) => (await ask(path, { json })).status;
  assert.equal(await post("/processes/web/start", {}), 200);
  assert.equal(await post("/processes/web/stop", {}), 200);
  assert.equal(await post("/processes/web/restart", { wait: "1m" }), 200);
  assert.equal(await post("/processes/web/signal", { signal: "usr1", to: "group" }), 200);
  assert.equal(await post("/processes/web/signal", {}), 200);
  assert.deepEqual(asked, [
    ["start", "web"],
    ["stop", "web", { waitMs: null }],
    ["restart", "web", { waitMs: 60_000 }],
    ["signal", "web", { signal: "SIGUSR1", to: "group" }],
    ["signal", "web", { signal: null, to: "leader" }],
  ]);
});

Deno.test("a stop that is not over is 202 and names who is in the way", async () => {
  const stop = {
    blockers: [{ pid: 7, name: "sleep", state: "D", wchan: "nfs_wait" }],
    killMs: 1000,
    command: "stop_command",
  } as const;
  const stopping = processStatus({ state: "stopping", stop });
  const { ask } = testApp({ stopProcess: () => Promise.resolve(stopping) });
  const response = await ask("/processes/web/stop", { json: { wait: 0 } });
  assert.equal(response.status, 202);
  assert.deepEqual((await response.json()).stop, {
    blockers: [{ pid: 7, name: "sleep", state: "D", wchan: "nfs_wait" }],
    kill: "1970-01-01T00:00:01.000Z",
    command: "stop_command",
  });
});

Deno.test("the page and the metrics show who is in the way of a stop, and the page what is waited for", async () => {
  const blockers = [
    { pid: 7, name: "<b>", state: "D", wchan: "nfs_wait" },
    { pid: 8, name: "sh", state: "S", wchan: null },
  ];
  const stopping = processStatus({ state: "stopping", stop: { blockers, killMs: 1000, command: null } });
  const waitingFor = [{ name: "web", condition: "ready", state: "stopping" as const }];
  const waiting = processStatus({ name: "late", state: "waiting", waitingFor });
  const { ask } = testApp({ status: () => managerStatus({ processes: [stopping, waiting] }) });
  const page = await (await ask("/", { headers: { accept: "text/html" } })).text();
  assert.match(
    page,
    /waits for 7 \(&lt;b&gt;, D, nfs_wait\), 8 \(sh, S\); killed at 1970-01-01T00:00:01.000Z/,
  );
  assert.match(page, /waits for web to be ready, it is stopping/);
  const metrics = await (await ask("/metrics")).text();
  assert.match(metrics, /^state_manager_process_stop_blockers\{process="web",state="D"\} 1$/m);
  assert.match(metrics, /^state_manager_process_stop_blockers\{process="web",state="S"\} 1$/m);
  assert.doesNotMatch(metrics, /process_stop_blockers\{process="late"/);
});

Deno.test("wrong bodies are 422 and do not come back, unknown names 404, wrong states 409", async () => {
  const refuse = (error: StateManagerError) => () => Promise.reject(error);
  const { ask } = testApp({
    startProcess: refuse(new StateManagerError("not-found", "find process")),
    stopProcess: refuse(new StateManagerError("wrong-state", "stop: frozen")),
    restartProcess: refuse(new StateManagerError("busy", "restart: frozen")),
  });
  const cases: [string, unknown][] = [
    ["/processes/web/signal", { signal: "SIGNOTHING" }],
    ["/processes/web/signal", { signal: "SIGCHLD" }],
    ["/processes/web/signal", { signal: 9 }],
    ["/processes/web/signal", { signal: "SIGHUP", to: "hunter2" }],
    ["/processes/web/stop", { wait: "hunter2" }],
    ["/processes/web/stop", { wait: -1 }],
    ["/processes/web/start", { hunter2: 1 }],
    ["/config/reload", { dry_run: "hunter2" }],
  ];
  for (const [path, json] of cases) {
    const response = await ask(path, { json });
    assert.equal(response.status, 422, path);
    assert.ok(!(await response.text()).includes("hunter2"), path);
  }
  assert.equal((await ask("/processes/web/start", { json: {} })).status, 404);
  assert.equal((await ask("/processes/web/stop", { json: {} })).status, 409);
  assert.equal((await ask("/processes/web/restart", { json: {} })).status, 409);
  assert.equal((await ask("/processes/web/start")).status, 405);
});

Deno.test("changing needs the write scope", async () => {
  const change: Partial<Control> = {
    access: () => ({ tokens: TOKENS, setupToken: null, behindTlsProxy: false }),
  };
  const { ask } = testApp(change);
  for (const path of ["/processes/web/stop", "/processes/web/signal", "/config/reload"]) {
    const headers = { authorization: "Bearer only-reads" };
    assert.equal((await ask(path, { json: {}, headers })).status, 403, path);
    assert.equal((await ask(path, { json: {} })).status, 401, path);
  }
});

Deno.test("a reload answers with its plan", async () => {
  const wishes: unknown[] = [];
  const { ask } = testApp({
    reload: (wish) => (wishes.push(wish), Promise.resolve(reloadResult({ dryRun: wish.dryRun }))),
  });
  const response = await ask("/config/reload", { json: { dry_run: true, restart: true } });
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {
    dry_run: true,
    added: ["worker"],
    removed: ["old"],
    changed: [{ name: "web", live: ["restart_delay"], next_start: ["command"] }],
    unchanged: ["db"],
    restarted: [],
    signalled: [],
    needs_manager_restart: ["checkpoint.interval"],
    warnings: [],
  });
  await ask("/config/reload", { method: "POST" });
  assert.deepEqual(wishes, [{ dryRun: true, restart: true }, { dryRun: false, restart: false }]);
});

Deno.test("process_up is 1 for all that have a process, and 0 for others", async () => {
  const up = async (change: Partial<ProcessStatus>) => {
    const app = testApp({ status: () => managerStatus({ processes: [processStatus(change)] }) });
    const text = await (await app.ask("/metrics")).text();
    return /^state_manager_process_up\{process="web"\} (.*)$/m.exec(text)?.[1];
  };
  assert.equal(await up({}), "1");
  assert.equal(await up({ state: "starting", ready: false }), "1");
  assert.equal(await up({ state: "stopping" }), "1");
  assert.equal(await up({ state: "backoff", pid: null }), "0");
});
