/** Probes in the configuration: what they become, what is refused, and how they are shown. */

import assert from "node:assert/strict";
import { redactedConfig } from "../../src/config/redact.ts";
import { FOLDER_STORE, load, problemsOf } from "../support/config_files.ts";

function part(web: Record<string, unknown>) {
  return { ...FOLDER_STORE, processes: { web: { command: ["web"], ...web } } };
}

async function accepted(web: Record<string, unknown>, environment: Record<string, string> = {}) {
  const { config } = await load({ file: part(web), environment });
  assert.ok(config !== null);
  const process = config.processes["web"];
  assert.ok(process !== undefined);
  const shown = redactedConfig(config)["processes"] as Record<string, Record<string, unknown>>;
  return { ...process, shown: shown["web"] ?? {} };
}

async function refused(web: Record<string, unknown>): Promise<Record<string, string>> {
  const problems = await problemsOf(load({ file: part(web) }));
  return Object.fromEntries(
    Object.entries(problems).map(([at, text]) => [at.replace("/processes/web/", ""), text]),
  );
}

Deno.test("config gives probes their defaults, and a limit to the start where one tells of it", async () => {
  const { probes, timeoutStartMs } = await accepted({
    probes: { readiness: { http: { port: 3000 } }, liveness: { exec: { command: ["true", "${A}"] } } },
  });
  assert.deepEqual(probes, {
    startup: null,
    readiness: {
      check: { kind: "http", host: "127.0.0.1", port: 3000, path: "/", headers: {} },
      initialDelayMs: 0,
      periodMs: 10_000,
      timeoutMs: 2_000,
      failureThreshold: 3,
      successThreshold: 1,
    },
    liveness: { ...probes.readiness, check: { kind: "exec", command: ["true", "${A}"] } },
  });
  assert.equal(timeoutStartMs, 60_000);
  assert.equal((await accepted({})).timeoutStartMs, null);
  assert.equal((await accepted({ probes: { liveness: { tcp: { port: 1 } } } })).timeoutStartMs, null);
  const startup = { startup: { log: { contains: "*ready on *:80" } } };
  assert.equal((await accepted({ probes: startup, timeout_start: "5m" })).timeoutStartMs, 300_000);
  const never = await accepted({ probes: startup, timeout_start: 0 });
  assert.equal(never.timeoutStartMs, null);
  assert.deepEqual(never.probes.startup?.check, { kind: "log", pieces: ["ready on ", ":80"] });
});

Deno.test("config refuses probes without a meaning, each at its place", async () => {
  const tcp = { tcp: { port: 1 } };
  const cases: [Record<string, unknown>, string, RegExp][] = [
    [{ probes: { startup: {} } }, "probes/startup", /got none, wanted exactly one of http/],
    [{ probes: { startup: { ...tcp, notify: {} } } }, "probes/startup", /got tcp and notify/],
    [{ probes: { liveness: { log: { contains: "x" } } } }, "probes/liveness/log", /got a line/],
    [{ probes: { liveness: { notify: {} } } }, "probes/liveness/notify/watchdog", /wanted how often/],
    [
      { probes: { readiness: { notify: { watchdog: 5 } } } },
      "probes/readiness/notify/watchdog",
      /liveness only/,
    ],
    [{ probes: { readiness: { notify: {}, period: 5 } } }, "probes/readiness/period", /nothing is asked/],
    [
      { probes: { liveness: { ...tcp, success_threshold: 2 } } },
      "probes/liveness/success_threshold",
      /wanted 1/,
    ],
    [{ timeout_start: "5s" }, "timeout_start", /wanted probes.startup or probes.readiness/],
    [{ probes: { liveness: tcp }, timeout_start: "5s" }, "timeout_start", /nothing else tells/],
    [{ probes: { startup: { tcp: { port: 0 } } } }, "probes/startup/tcp/port", /from 1 to 65535/],
    [{ probes: { startup: { exec: { command: [] } } } }, "probes/startup/exec/command", /a program/],
    [{ probes: { startup: { http: { port: 1, path: "x y" } } } }, "probes/startup/http/path", /begins with/],
    [{ probes: { startup: { log: { contains: "**" } } } }, "probes/startup/log/contains", /besides \*/],
    [{ probes: { startup: { ...tcp, period: "1ms" } } }, "probes/startup/period", /from 100ms/],
    [{ probes: { startup: { tcpp: { port: 1 } } } }, "probes/startup/tcpp", /tcp/],
  ];
  for (const [web, at, text] of cases) {
    const problems = await refused(web);
    assert.match(problems[at] ?? "", text, JSON.stringify([web, problems]));
  }
});

Deno.test("config takes a probe's header from a variable and shows none of them", async () => {
  const http = { port: 80, path: "/ok?full", headers: { authorization: "Bearer ${PROBE_TOKEN}" } };
  const { probes, shown } = await accepted(
    {
      probes: { liveness: { http, period: "30s" }, startup: { notify: { socket: true } } },
      timeout_start: "90s",
    },
    { PROBE_TOKEN: "hush" },
  );
  const { check } = probes.liveness ?? {};
  assert.ok(check?.kind === "http");
  assert.deepEqual(check.headers, { authorization: "Bearer hush" });
  assert.deepEqual(probes.startup?.check, { kind: "notify", watchdogMs: null, socket: true });
  assert.deepEqual(shown["probes"], {
    startup: { notify: { socket: true } },
    liveness: {
      http: { host: "127.0.0.1", port: 80, path: "/ok?full", headers: { authorization: "***" } },
      initial_delay: "0s",
      period: "30s",
      timeout: "2s",
      failure_threshold: 3,
      success_threshold: 1,
    },
  });
  assert.equal(shown["timeout_start"], "1m30s");
  const line = "secret\nvalue";
  const problems = await refused({ probes: { liveness: { http: { port: 80, headers: { token: line } } } } });
  assert.deepEqual(Object.keys(problems), ["probes/liveness/http/headers/token"]);
  assert.ok(!JSON.stringify(problems).includes("secret"), JSON.stringify(problems));
});
