/** What `GET /config` shows: every key that can be set, in a form that means the same when it is read again. */

import assert from "node:assert/strict";
import { redactedConfig } from "../../src/config/redact.ts";
import { checkpointSchema } from "../../src/config/schema.ts";
import { processSchema } from "../../src/config/schema_process.ts";
import { FOLDER_STORE, load } from "../support/config_files.ts";

/** A value for each key of a process; `command` says it all where `shell` would. */
const PROCESS = {
  command: ["web"],
  cwd: "/srv",
  env: { A: "b" },
  env_file: ["/etc/web.env"],
  env_from: ["AWS_REGION"],
  user: "nobody",
  group: "daemon",
  umask: "027",
  nice: 5,
  limits: { nofile: 1024, core: "unlimited" },
  schedule: { cron: "0 3 * * *", time_zone: "Europe/Berlin" },
  watch: { paths: ["/srv/a"], exclude: ["*.tmp"] },
  memory_limit: { max: "512MiB", warn: "400MiB", for: "20s" },
  depends_on: { other: { condition: "ready", restart_with: true } },
  restart: "on-failure",
  restart_delay: "2s",
  restart_max_delay: "20s",
  start_limit: { burst: 5, interval: "10m", rearm: "1h" },
  timeout_start: "30s",
  timeout_stop: "20s",
  stop_signal: "SIGINT",
  stop_mode: "mixed",
  stop_command: ["stop", "it"],
  finish_command: ["/bin/sh", "-c", "rm -f /run/web.sock"],
  success_exit: [3],
  no_restart_on: [4],
  essential: false,
  probes: { readiness: { tcp: { port: 80 } } },
  forward_signals: ["SIGUSR2"],
  reload_signal: "SIGHUP",
  interactive: false,
  logs: { path: "/var/log/web", rate_limit: { lines_per_second: 10 }, pass_through: true, format: "json" },
} as const;

async function configOf(web: Record<string, unknown>, checkpoint: Record<string, unknown> = {}) {
  const processes = { other: { command: ["other"] }, web };
  const { config } = await load({ file: { ...FOLDER_STORE, processes, checkpoint } });
  assert.ok(config !== null);
  return config;
}

Deno.test("the shown configuration of a process has every key, and reads back as the same", async () => {
  assert.deepEqual(
    Object.keys(PROCESS).sort(),
    Object.keys(processSchema.entries).filter((key) => key !== "shell").sort(),
    "the test has a value for each key",
  );
  const config = await configOf(PROCESS);
  const shown = redactedConfig(config)["processes"] as Record<string, Record<string, unknown>>;
  const web = shown["web"] ?? {};
  assert.deepEqual(Object.keys(PROCESS).filter((key) => !(key in web)), []);
  for (const [key, value] of Object.entries(PROCESS)) {
    if (typeof value !== "object" || Array.isArray(value)) continue;
    const shownKeys = Object.keys(web[key] ?? {});
    assert.deepEqual(Object.keys(value).filter((each) => !shownKeys.includes(each)), [], `of ${key}`);
  }
  assert.deepEqual(web["start_limit"], PROCESS.start_limit);
  assert.deepEqual(web["env"], { A: "***" });
  const again = await configOf({ ...web, env: PROCESS.env });
  // What is watched has the standard exclusions added once more.
  const { watch: _shown, ...rest } = again.processes["web"] ?? {};
  const { watch: _given, ...wanted } = config.processes["web"] ?? {};
  assert.deepEqual(rest, wanted);
});

Deno.test("the shown configuration of checkpoints has every key", async () => {
  const parts = [
    { interval: "5m", before: ["a"], after: ["b"], consistency: "hooks", encryption_key_file: "/key" },
    { schedule: "@daily" },
  ];
  const keys = new Set<string>();
  for (const part of parts) {
    const shown = redactedConfig(await configOf(PROCESS, part))["checkpoint"] as Record<string, unknown>;
    for (const key of Object.keys(shown)) keys.add(key);
  }
  assert.deepEqual([...keys].sort(), Object.keys(checkpointSchema.entries).sort());
});
