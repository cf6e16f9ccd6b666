/** Probes of the configuration: defaults, rules over several keys, and how they are shown. */

import { formatDuration } from "./duration.ts";
import type { KeyPath, Problem } from "./problems.ts";
import type { ParsedProbe, ParsedProbes } from "./schema_probes.ts";
import type { ProbeCheckConfig, ProbeConfig, ProbesConfig } from "./types.ts";

/** Those of Kubernetes, but for a second more to answer in. */
const PERIOD_MS = 10_000;
const TIMEOUT_MS = 2_000;
const FAILURE_THRESHOLD = 3;
const SUCCESS_THRESHOLD = 1;
/** Where something says when it is ready; it is never waited for without end unless that is asked for. */
const TIMEOUT_START_MS = 60_000;
const LOOPBACK = "127.0.0.1";

const KINDS = ["http", "tcp", "exec", "log", "notify"] as const;
/** What has no meaning where nobody asks: the process tells by itself. */
const OF_THOSE_THAT_ASK = [
  "initial_delay",
  "period",
  "timeout",
  "failure_threshold",
  "success_threshold",
] as const;

export function probesOf(parsed: ParsedProbes | undefined): ProbesConfig {
  const one = (probe: ParsedProbe | undefined) => probe === undefined ? null : probeOf(probe);
  return {
    startup: one(parsed?.startup),
    readiness: one(parsed?.readiness),
    liveness: one(parsed?.liveness),
  };
}

function probeOf(parsed: ParsedProbe): ProbeConfig | null {
  const check = checkOf(parsed);
  return check === null ? null : {
    check,
    initialDelayMs: parsed.initial_delay ?? 0,
    periodMs: parsed.period ?? PERIOD_MS,
    timeoutMs: parsed.timeout ?? TIMEOUT_MS,
    failureThreshold: parsed.failure_threshold ?? FAILURE_THRESHOLD,
    successThreshold: parsed.success_threshold ?? SUCCESS_THRESHOLD,
  };
}

/** null where there is none, which `checkProbes` tells. */
function checkOf({ http, tcp, exec, log, notify }: ParsedProbe): ProbeCheckConfig | null {
  if (http !== undefined) {
    const { port, host = LOOPBACK, path = "/", headers = {} } = http;
    return { kind: "http", host, port, path, headers };
  }
  if (tcp !== undefined) return { kind: "tcp", host: tcp.host ?? LOOPBACK, port: tcp.port };
  if (exec !== undefined) return { kind: "exec", command: exec.command };
  if (log !== undefined) {
    return {
      kind: "log",
      pieces: log.contains.split("*").filter((piece) => piece !== ""),
    };
  }
  if (notify === undefined) return null;
  return { kind: "notify", watchdogMs: notify.watchdog ?? null, socket: notify.socket ?? false };
}

/** null: no limit. */
export function timeoutStartOf(timeoutMs: number | undefined, probes: ProbesConfig): number | null {
  if (timeoutMs !== undefined) return timeoutMs === 0 ? null : timeoutMs;
  return probes.startup === null && probes.readiness === null ? null : TIMEOUT_START_MS;
}

export function checkProbes(
  parsed: { readonly probes?: ParsedProbes | undefined; readonly timeout_start?: number | undefined },
  at: KeyPath,
  problems: Problem[],
): void {
  const { probes = {}, timeout_start } = parsed;
  if (timeout_start !== undefined && probes.startup === undefined && probes.readiness === undefined) {
    problems.push({
      at: [...at, "timeout_start"],
      detail:
        "got a limit, wanted probes.startup or probes.readiness beside it: nothing else tells when it is ready",
    });
  }
  for (const name of ["startup", "readiness", "liveness"] as const) {
    const probe = probes[name];
    if (probe !== undefined) checkProbe(probe, name, [...at, "probes", name], problems);
  }
}

function checkProbe(probe: ParsedProbe, name: keyof ProbesConfig, at: KeyPath, problems: Problem[]): void {
  const kinds = KINDS.filter((kind) => probe[kind] !== undefined);
  const [kind] = kinds;
  if (kind === undefined || kinds.length > 1) {
    const got = kind === undefined ? "none" : kinds.join(" and ");
    problems.push({ at, detail: `got ${got}, wanted exactly one of ${KINDS.join(", ")}` });
    return;
  }
  if (kind === "log" && name === "liveness") {
    problems.push({
      at: [...at, "log"],
      detail: "got a line, which says nothing later; wanted another kind",
    });
  }
  if (probe.notify !== undefined && (name === "liveness") !== (probe.notify.watchdog !== undefined)) {
    problems.push({
      at: [...at, "notify", "watchdog"],
      detail: name === "liveness"
        ? "got none, wanted how often it says WATCHDOG=1"
        : "got an interval, wanted it at liveness only",
    });
  }
  if (name !== "readiness" && (probe.success_threshold ?? 1) !== 1) {
    problems.push({ at: [...at, "success_threshold"], detail: `got more than one, wanted 1 for ${name}` });
  }
  if (kind !== "log" && kind !== "notify") return;
  for (const key of OF_THOSE_THAT_ASK) {
    if (probe[key] === undefined) continue;
    problems.push({ at: [...at, key], detail: `got a value beside ${kind}, wanted none: nothing is asked` });
  }
}

/** In the file's names. Values of headers are hidden all: a token may be among them. */
export function shownProbes(probes: ProbesConfig, hidden: string): Record<string, unknown> | null {
  const shown = Object.entries(probes).flatMap(([name, probe]: [string, ProbeConfig | null]) =>
    probe === null ? [] : [[name, shownProbe(probe, hidden)] as const]
  );
  return shown.length === 0 ? null : Object.fromEntries(shown);
}

function shownProbe(probe: ProbeConfig, hidden: string): Record<string, unknown> {
  const { check } = probe;
  const kind = { [check.kind]: shownCheck(check, hidden) };
  if (check.kind === "log" || check.kind === "notify") return kind;
  return {
    ...kind,
    initial_delay: formatDuration(probe.initialDelayMs),
    period: formatDuration(probe.periodMs),
    timeout: formatDuration(probe.timeoutMs),
    failure_threshold: probe.failureThreshold,
    success_threshold: probe.successThreshold,
  };
}

function shownCheck(check: ProbeCheckConfig, hidden: string): Record<string, unknown> {
  switch (check.kind) {
    case "http": {
      const { host, port, path } = check;
      const headers = Object.fromEntries(Object.keys(check.headers).map((name) => [name, hidden]));
      return { host, port, path, headers };
    }
    case "tcp":
      return { host: check.host, port: check.port };
    case "exec":
      return { command: check.command };
    case "log":
      return { contains: check.pieces.join("*") };
    case "notify":
      return {
        ...(check.watchdogMs === null ? {} : { watchdog: formatDuration(check.watchdogMs) }),
        ...(check.socket ? { socket: true } : {}),
      };
  }
}
