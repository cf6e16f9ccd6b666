/** Probes of the program as it ships: who waits, what is shown, and what happens to what is not well. */

import assert from "node:assert/strict";
import { TELL } from "../support/notify_sender.ts";
import { ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { freePort } from "../support/free_port.ts";
import { isRoot } from "../support/small_root.ts";

type Process = {
  name: string;
  state: string;
  ready: boolean;
  probe_failure: string | null;
  restarts: number;
  pid: number;
};

function start(root: string, processes: Record<string, unknown>): ManagerProcess {
  const config = {
    storage: { directory: `${root}/store` },
    processes,
    shutdown: { budget: "6s", flush_reserve: "2s" },
  };
  Deno.writeTextFileSync(`${root}/config.json`, JSON.stringify(config), { mode: 0o600 });
  return new ManagerProcess({ args: ["--config", `${root}/config.json`, "--data-dir", `${root}/data`] });
}

async function processes(manager: ManagerProcess): Promise<Record<string, Process>> {
  const { processes } = await manager.json("/processes") as { processes: Process[] };
  return Object.fromEntries(processes.map((process) => [process.name, process]));
}

/** Waits until the process is as wanted, and gives it. */
function when(manager: ManagerProcess, name: string, what: string, is: (process: Process) => boolean) {
  let last: Process | undefined;
  return waitFor(
    `${name} ${what}`,
    async () => {
      last = (await processes(manager))[name];
      return last !== undefined && is(last) ? last : null;
    },
    60_000,
    () => JSON.stringify(last),
  );
}

Deno.test("the program holds back dependents and /readyz until all are ready, and restarts what is not well", async () => {
  using root = scratchFolder();
  const port = freePort();
  // Answers by the file `status`; told by a notify descriptor that it listens.
  await using answers = answering(port);
  const serving =
    `echo STATUS=soon >&$NOTIFY_FD; until test -e ${root.path}/go; do sleep 0.05; done; echo READY=1 >&3; sleep 1000`;
  const sh = (script: string) => ["/bin/sh", "-c", script];
  await using manager = start(root.path, {
    told: { command: sh(serving), probes: { readiness: { notify: {} } } },
    web: {
      command: sh("sleep 1000"),
      probes: { readiness: { http: { port, path: "/ready" }, period: "200ms", failure_threshold: 1 } },
    },
    after: { command: sh("sleep 1000"), depends_on: { told: "ready", web: "ready" } },
    // Well while the file is there; the command leaves a child behind each time.
    sick: {
      command: sh("sleep 1000"),
      restart_delay: "50ms",
      restart_max_delay: "100ms",
      start_limit: { burst: 3, interval: "1m" },
      probes: {
        liveness: { exec: { command: sh(`sleep 1000 & test ! -e ${root.path}/ill`) }, period: "200ms" },
      },
    },
  });
  await when(
    manager,
    "web",
    "fails its probe",
    ({ probe_failure }) => probe_failure === "readiness: HTTP 503",
  );
  assert.equal((await processes(manager))["after"]?.state, "waiting");
  assert.equal((await processes(manager))["told"]?.ready, false);
  assert.equal(await manager.statusOf("/readyz"), 503);
  const verbose = await (await manager.fetch("/readyz?verbose")).text();
  assert.match(verbose, /^\[-\]process web failed: starting; readiness: HTTP 503$/m);
  Deno.writeTextFileSync(`${root.path}/go`, "");
  await when(manager, "told", "is ready", ({ ready }) => ready);
  answers.status = 200;
  await when(manager, "after", "runs", ({ state }) => state === "running");
  await waitFor("readyz", async () => await manager.statusOf("/readyz") === 200);

  answers.status = 500;
  const web = await when(manager, "web", "is not ready", ({ ready }) => !ready);
  assert.deepEqual([web.state, web.restarts], ["running", 0]);
  assert.equal((await processes(manager))["after"]?.state, "running");
  assert.equal(await manager.statusOf("/readyz"), 503);
  const metrics = await (await manager.fetch("/metrics")).text();
  assert.match(metrics, /process_ready\{process="web"\} 0/);
  assert.match(metrics, /process_ready\{process="told"\} 1/);
  answers.status = 204;
  await when(manager, "web", "is ready again", ({ ready }) => ready);

  Deno.writeTextFileSync(`${root.path}/ill`, "");
  await when(manager, "sick", "failed", ({ state, restarts }) => state === "failed" && restarts === 2);
  const { reason } = (await processes(manager))["sick"] as Process & { reason: string };
  assert.equal(reason, "liveness: exit code 1; failed 3 times within 60 s");
  const { pid } = await when(manager, "told", "runs", ({ state }) => state === "running");
  Deno.kill(manager.pid, "SIGTERM");
  assert.equal(await manager.exit(), 0, manager.stderr);
  assert.throws(() => Deno.kill(pid, "SIGCONT"), "the process is gone");
});

Deno.test({
  name: "the program gives a notify descriptor to a process of another user, through its helper",
  ignore: !isRoot,
  async fn() {
    using root = scratchFolder();
    await using manager = start(root.path, {
      told: {
        command: ["/bin/sh", "-c", "echo READY=1 >&3; while sleep 0.1; do echo WATCHDOG=1 >&3; done"],
        user: "65534",
        group: "65534",
        probes: { startup: { notify: {} }, liveness: { notify: { watchdog: "5s" } } },
      },
    });
    const { pid } = await when(manager, "told", "is ready", ({ ready }) => ready);
    assert.match(Deno.readTextFileSync(`/proc/${pid}/status`), /^Uid:\s65534\s/m);
    Deno.kill(manager.pid, "SIGTERM");
    assert.equal(await manager.exit(), 0, manager.stderr);
  },
});

Deno.test({
  name:
    "the program hears NOTIFY_SOCKET, of another user too where he can reach it, and restarts who says no more [needs root]",
  ignore: !isRoot,
  async fn() {
    using root = scratchFolder();
    for (const path of [root.path, `${root.path}/data`]) {
      Deno.mkdirSync(path, { recursive: true });
      Deno.chmodSync(path, 0o711);
    }
    const probes = {
      startup: { notify: { socket: true } },
      liveness: { notify: { watchdog: "2s", socket: true } },
    };
    const beats = `${TELL} tell READY=1 || exit 3; n=0; while sleep 0.1; do `;
    const user = { user: "65534", group: "65534" };
    const told = {
      command: ["/bin/sh", "-c", `${beats} tell WATCHDOG=1; done`],
      ...user,
      probes: { ...probes, liveness: { notify: { watchdog: "30s" } } },
    };
    const mute = { command: ["/bin/sh", "-c", `${beats} true; done`], probes };
    {
      await using manager = start(root.path, { told, mute });
      const { pid } = await when(manager, "told", "is ready", ({ ready }) => ready);
      assert.match(Deno.readTextFileSync(`/proc/${pid}/status`), /^Uid:\s65534\s/m);
      await when(manager, "mute", "was restarted", ({ restarts }) => restarts > 0);
      assert.equal((await processes(manager))["told"]?.restarts, 0);
      Deno.kill(manager.pid, "SIGTERM");
      assert.equal(await manager.exit(), 0, manager.stderr);
    }
    assert.deepEqual([...Deno.readDirSync(`${root.path}/data/notify`)], []);
    Deno.chmodSync(`${root.path}/data`, 0o700);
    await using manager = start(root.path, { told });
    assert.notEqual(await manager.exit(), 0);
    assert.match(manager.stderr, /data cannot be entered by uid 65534: allow that/);
  },
});

function answering(port: number) {
  const answers = { status: 503 };
  const options = { hostname: "127.0.0.1", port, onListen: () => {} };
  const server = Deno.serve(options, () => new Response(null, { status: answers.status }));
  return Object.assign(answers, { [Symbol.asyncDispose]: () => server.shutdown() });
}
