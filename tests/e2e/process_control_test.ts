/** The program as it ships: single processes by hand, reload of the configuration, the second and the third signal. */

import assert from "node:assert/strict";
import { type Json, ManagerProcess, runProgram, scratchFolder, waitFor } from "../support/manager_process.ts";

class Scene implements AsyncDisposable {
  readonly #scratch = scratchFolder();
  readonly root = this.#scratch.path;
  readonly file = `${this.root}/config.json`;
  readonly manager: ManagerProcess;

  constructor(config: Json) {
    this.write(config);
    this.manager = new ManagerProcess({ args: ["--config", this.file, "--data-dir", `${this.root}/data`] });
  }

  write(config: Json): void {
    const whole = { storage: { directory: `${this.root}/store` }, ...config };
    Deno.writeTextFileSync(this.file, JSON.stringify(whole), { mode: 0o600 });
  }

  async cli(...args: string[]) {
    return await runProgram([...args, "--data-dir", `${this.root}/data`]);
  }

  async process(name: string): Promise<Json> {
    return await this.manager.json(`/processes/${name}`);
  }

  async running(name: string): Promise<Json> {
    return await waitFor(
      `${name} to run`,
      async () => {
        const process = await this.process(name);
        return process.state === "running" ? process : null;
      },
      60_000,
      () => this.manager.tail(),
    );
  }

  async logged(pattern: RegExp): Promise<void> {
    await waitFor(
      `${pattern}`,
      () => pattern.test(this.manager.stderr + this.manager.stdout),
      60_000,
      () => this.manager.tail(),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.manager[Symbol.asyncDispose]();
    this.#scratch[Symbol.dispose]();
  }
}

const sleep = (change: Json = {}) => ({ command: ["sleep", "100000"], essential: false, ...change });

function isAlive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return false;
  }
}

Deno.test("processes are started, stopped, restarted and signalled by the command line, and stay as they were left", async () => {
  const noisy = 'trap "echo got-usr1" USR1; echo up; while :; do sleep 0.05; done';
  await using scene = new Scene({
    processes: {
      web: sleep({ essential: true }),
      noisy: { command: noisy, shell: true, reload_signal: "USR1" },
    },
  });
  await scene.manager.state("running");
  const { pid } = await scene.running("web");
  const stopped = await scene.cli("stop", "web");
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.match(stopped.stdout, /^web: stopped$/m);
  assert.ok(!isAlive(pid));
  assert.equal((await scene.process("web")).stopped_by_request, true);
  assert.equal((await scene.manager.json("/")).state, "running", "essential, but stopped by request");
  // A restore starts all programs anew, but not this one.
  await scene.manager.checkpoint();
  await scene.manager.json("/restore", { json: { checkpoint: "latest", safety: false } });
  await scene.manager.state("running");
  assert.equal((await scene.process("web")).state, "stopped");
  await scene.manager.json("/release-lease", { json: {} });
  assert.equal(await scene.manager.statusOf("/processes/web/start", { json: {} }), 409);
  await scene.manager.json("/acquire-lease", { json: {} });
  await scene.manager.state("running");
  assert.equal((await scene.process("web")).state, "stopped", "the next term leaves it down, too");
  const started = await scene.cli("start", "web", "--json");
  assert.equal(started.code, 0, started.stderr);
  const next = JSON.parse(started.stdout).processes[0];
  assert.ok(isAlive(next.pid));
  const ups = () => scene.manager.stdout.split("noisy | up").length;
  const before = ups();
  const restarted = await scene.cli("restart", "web", "noisy");
  assert.equal(restarted.code, 0, restarted.stderr);
  const last = await scene.running("web");
  assert.notEqual(last.pid, next.pid);
  // Until its trap is set the signal would end it.
  await waitFor("noisy to be up", () => ups() > before, 60_000, () => scene.manager.tail());
  assert.equal((await scene.cli("signal", "noisy")).code, 0);
  await scene.logged(/got-usr1/);
  const unknown = await scene.cli("stop", "nothing");
  assert.equal(unknown.code, 1);
  assert.match(unknown.stderr, /nothing/);
  assert.equal((await scene.cli("signal", "web", "SIGNOTHING")).code, 64);
});

Deno.test("SIGHUP takes over what concerns processes; a broken file changes nothing", async () => {
  const noisy = 'trap "echo got-hup" HUP; echo up; while :; do sleep 0.05; done';
  const processes: Json = {
    web: sleep(),
    gone: sleep(),
    noisy: { command: noisy, shell: true, reload_signal: "HUP" },
  };
  await using scene = new Scene({ processes });
  await scene.manager.state("running");
  const web = await scene.running("web");
  const gone = await scene.running("gone");
  const noisyPid = (await scene.running("noisy")).pid;

  const secret = "hunter2hunter2";
  const broken = { processes: { ...processes, web: sleep({ restart: secret }), extra: sleep() } };
  scene.write(broken);
  scene.manager.signal("SIGHUP");
  await scene.logged(/not reloaded, everything stays as it is/);
  const refused = await scene.manager.fetch("/config/reload", { json: {} });
  assert.equal(refused.status, 422);
  const problem = await refused.text();
  assert.match(problem, /\/processes\/web\/restart/);
  assert.ok(!problem.includes(secret), problem);
  Deno.writeTextFileSync(scene.file, "{ this is no JSON");
  assert.equal(await scene.manager.statusOf("/config/reload", { json: {} }), 422);
  assert.deepEqual((await scene.manager.json("/processes")).processes.map(({ pid }: Json) => pid), [
    web.pid,
    gone.pid,
    noisyPid,
  ]);

  const next = {
    checkpoint: { interval: "1h" },
    processes: {
      web: sleep({ command: ["sleep", "200000"], timeout_stop: "7s" }),
      noisy: processes.noisy,
      extra: sleep({ depends_on: { web: "started" } }),
    },
  };
  scene.write(next);
  const plan = await scene.manager.json("/config/reload", { json: { dry_run: true, restart: true } });
  assert.deepEqual(plan, {
    dry_run: true,
    added: ["extra"],
    removed: ["gone"],
    changed: [{ name: "web", live: ["timeout_stop"], next_start: ["command"] }],
    unchanged: ["noisy"],
    restarted: ["web"],
    signalled: [],
    needs_manager_restart: ["checkpoint.interval"],
    warnings: plan.warnings,
  });
  assert.ok(isAlive(gone.pid), "a dry run changes nothing");
  assert.equal((await scene.manager.json("/processes")).processes.length, 3);

  scene.manager.signal("SIGHUP");
  await scene.running("extra");
  await waitFor("gone to be gone", () => !isAlive(gone.pid));
  await scene.logged(/got-hup/);
  await scene.logged(/needs a restart of the manager/);
  const changed = await scene.process("web");
  assert.equal(changed.pid, web.pid);
  assert.deepEqual(changed.changed, ["command"]);
  const shown = await scene.manager.json("/config");
  assert.equal(shown.processes.web.timeout_stop, "7s");
  assert.equal(shown.checkpoint.interval, "5m", "what needs a restart is not told as in force");

  const restarted = await scene.cli("config", "reload", "--restart");
  assert.equal(restarted.code, 0, restarted.stderr);
  assert.match(restarted.stdout, /^web: restarted$/m);
  const anew = await scene.running("web");
  assert.notEqual(anew.pid, web.pid);
  assert.match(Deno.readTextFileSync(`/proc/${anew.pid}/cmdline`), /200000/);
  assert.equal((await scene.process("noisy")).pid, noisyPid);
  scene.manager.signal("SIGTERM");
  assert.equal(await scene.manager.exit(), 0, scene.manager.tail());
  for (const pid of [anew.pid, noisyPid]) assert.ok(!isAlive(pid));
});

const STUBBORN = 'trap "" TERM INT; echo $$ > "$1/pid"; while :; do date +%s%N > "$1/last"; sleep 0.02; done';

function stubborn(root: string): ManagerProcess {
  Deno.mkdirSync(`${root}/files`);
  return new ManagerProcess({
    args: [
      ...[
        "run",
        "--directory",
        `${root}/store`,
        "--files",
        `app=${root}/files`,
        "--data-dir",
        `${root}/data`,
      ],
      ...["--checkpoint-interval", "1h", "--shutdown-budget", "120s"],
      ...["--", "sh", "-c", STUBBORN, "sh", `${root}/files`],
    ],
  });
}

Deno.test("a second signal takes the grace away, not the last checkpoint; who was in the way was shown", async () => {
  using scratch = scratchFolder();
  const root = scratch.path;
  await using manager = stubborn(root);
  await manager.state("running");
  const pid = await waitFor("the program", () => Number(Deno.readTextFileSync(`${root}/files/pid`)) || null);
  manager.signal("SIGTERM");
  const { stop, leader } = await waitFor("the one in the way to be told", async () => {
    const { processes: [{ state, stop }] } = await manager.state("stopping");
    const leader = stop?.blockers.find((blocker: Json) => blocker.pid === pid);
    return state === "stopping" && leader !== undefined ? { stop, leader } : null;
  });
  assert.equal(leader.name, "sh");
  assert.ok(Date.parse(stop.kill) > Date.now() + 30_000, stop.kill);
  await waitFor(
    "the log to tell",
    () => manager.stderr.includes("is slow to stop: waiting for"),
    60_000,
    () => manager.tail(),
  );
  assert.ok(isAlive(pid));
  const begin = performance.now();
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(60_000), 137, manager.tail());
  assert.ok(performance.now() - begin < 40_000, "the budget of two minutes was not used up");
  assert.match(manager.stderr, /no more grace for the programs/);
  const last = Deno.readTextFileSync(`${root}/files/last`);
  const restored = await runProgram(["restore", "--directory", `${root}/store`, "--to", `${root}/restored`]);
  assert.equal(restored.code, 0, restored.stderr);
  assert.equal(Deno.readTextFileSync(`${root}/restored/app/last`), last);
});

Deno.test("a third signal ends the manager at once with 130, and the guard ends the program", async () => {
  using scratch = scratchFolder();
  const root = scratch.path;
  await using manager = stubborn(root);
  await manager.state("running");
  const pid = await waitFor("the program", () => Number(Deno.readTextFileSync(`${root}/files/pid`)) || null);
  // Three of different names: equal ones that wait are one.
  for (const name of ["SIGTERM", "SIGINT", "SIGQUIT"] as const) manager.signal(name);
  assert.equal(await manager.exit(), 130, manager.tail());
  await waitFor("the program to end", () => !isAlive(pid));
});

Deno.test("a restart of what does not run answers when it was started, however long it may wait", async () => {
  await using scene = new Scene({ processes: { web: sleep({ essential: true }) } });
  await scene.manager.state("running");
  await scene.running("web");
  await scene.manager.json("/processes/web/stop", { json: {} });
  const restarted = scene.manager.json("/processes/web/restart", { json: { wait: "1h" } });
  await scene.running("web");
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer to the restart\n${scene.manager.tail()}`)), 60_000);
  });
  try {
    assert.equal((await Promise.race([restarted, late])).stopped_by_request, false);
  } finally {
    clearTimeout(timer);
  }
});
