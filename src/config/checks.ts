/** Rules that need more than one key: what is impossible is a problem, what is only unwise is a warning. */

import { checkProbes } from "./probes.ts";
import { formatDuration } from "./duration.ts";
import type { HostPlatform } from "../platform/host_platform.ts";
import { backoffSpanMs } from "./backoff.ts";
import { isLoopback } from "./listen.ts";
import type { Problem } from "./problems.ts";
import { checkDatabases } from "./checks_databases.ts";
import type { ParsedConfig } from "./schema.ts";
import { isWithin } from "./schema_values.ts";
import type { Config } from "./types.ts";
import { didYouMean } from "./suggest.ts";

export interface CheckContext {
  readonly dataDir: string;
  readonly platform: HostPlatform | null;
  /** False: no storage is given, the manager only waits for its configuration. */
  readonly configured: boolean;
  readonly problems: Problem[];
  readonly warnings: string[];
}

/** The lease's own defaults (lease/holder.ts): longest wait for one request, and the time to fence before the end. */
function leaseRequestMs(ttlMs: number): number {
  return Math.min(2500, ttlMs / 6);
}
function leaseMarginMs(ttlMs: number): number {
  return Math.min(3000, ttlMs / 5);
}

export function checkTogether(parsed: ParsedConfig, config: Config, context: CheckContext): void {
  checkProcesses(parsed, config, context);
  checkLogFiles(config, context);
  checkInteractive(parsed, context.problems);
  checkDependencies(config, context.problems);
  checkFiles(config, context);
  checkDatabases(config, context);
  checkLease(config, context);
  checkServer(parsed, config, context);
  checkShutdown(parsed, config, context);
  checkGrace(config, context);
  checkStopSignals(config, context);
  checkEncryption(config, context);
  checkConsistency(config, context);
}

/** Hooks that are never run, and a wish for hooks with none, are mistakes that would show too late. */
function checkConsistency({ checkpoint }: Config, { problems }: CheckContext): void {
  const { consistency, before, after } = checkpoint;
  if (checkpoint.schedule !== null && checkpoint.intervalMs > 0) {
    problems.push({
      at: ["checkpoint", "schedule"],
      detail: "got both interval and schedule, wanted one of them",
    });
  }
  if (consistency === "hooks" && before === null && after === null) {
    problems.push({
      at: ["checkpoint", "consistency"],
      detail: 'got "hooks" without a command, wanted checkpoint.before or checkpoint.after beside it',
    });
  }
  if (consistency === "hooks") return;
  for (const [name, command] of [["before", before], ["after", after]] as const) {
    if (command === null) continue;
    problems.push({
      at: ["checkpoint", name],
      detail: `got a command with consistency ${
        JSON.stringify(consistency)
      }, wanted "hooks": only then it is run`,
    });
  }
}

/** Who asks for encryption must not believe that it is everywhere. */
function checkEncryption({ checkpoint, databases }: Config, { warnings, configured }: CheckContext): void {
  const names = Object.keys(databases);
  if (checkpoint.encryptionKeyFile === null || names.length === 0 || !configured) return;
  warnings.push(
    `checkpoint.encryption_key_file encrypts checkpoints only: the replicated databases (${
      names.join(", ")
    }) are NOT ` +
      "encrypted in the store; whoever can read it reads them",
  );
}

/** Two writers of one file would rotate it under each other. */
function checkLogFiles({ processes }: Config, { problems }: CheckContext): void {
  const owners = new Map<string, string>();
  for (const [name, { logs: { path } }] of Object.entries(processes)) {
    if (path === null || path.startsWith("/dev/")) continue;
    const owner = owners.get(path);
    owners.set(path, owner ?? name);
    if (owner === undefined) continue;
    problems.push({
      at: ["processes", name, "logs", "path"],
      detail: `got the file that ${owner} writes, wanted one of its own`,
    });
  }
}

/** There is one terminal, and what goes to it goes nowhere else. */
function checkInteractive(parsed: ParsedConfig, problems: Problem[]): void {
  const owners = Object.entries(parsed.processes ?? {}).filter(([, { interactive }]) => interactive === true);
  for (const [index, [name, { logs, probes = {} }]] of owners.entries()) {
    const at = ["processes", name];
    if (index > 0) {
      problems.push({
        at: [...at, "interactive"],
        detail: `got a second interactive process beside ${
          owners[0]?.[0]
        }, wanted one: there is one terminal`,
      });
    }
    if (logs?.path !== undefined) {
      problems.push({
        at: [...at, "logs", "path"],
        detail: "got a file for an interactive process, wanted none: its output goes to the terminal alone",
      });
    }
    for (const kind of ["startup", "readiness"] as const) {
      if (probes[kind]?.log === undefined) continue;
      problems.push({
        at: [...at, "probes", kind, "log"],
        detail: "got a line of an interactive process, whose output is not read; wanted another kind",
      });
    }
  }
}

function checkProcesses(parsed: ParsedConfig, config: Config, { problems }: CheckContext): void {
  for (const [name, process] of Object.entries(parsed.processes ?? {})) {
    const at = ["processes", name];
    const effective = config.processes[name];
    if (effective === undefined) continue;
    if (typeof process.command === "string" && process.shell !== true) {
      problems.push({
        at: [...at, "command"],
        detail: "got a text, wanted a list of texts, or shell: true beside it",
      });
    }
    if (typeof process.command !== "string" && process.shell === true) {
      problems.push({ at: [...at, "command"], detail: "got a list with shell: true, wanted one text" });
    }
    if (Array.isArray(process.command) && process.command[0] === "") {
      problems.push({ at: [...at, "command", "0"], detail: "got an empty text, wanted a program" });
    }
    const { memoryLimit } = effective;
    if (memoryLimit !== null && memoryLimit.warnBytes > memoryLimit.maxBytes) {
      problems.push({
        at: [...at, "memory_limit", "warn"],
        detail: "got more than max, wanted at most as much",
      });
    }
    checkProbes(process, at, problems);
    const { restartDelayMs, restartMaxDelayMs, startLimit: { burst, intervalMs } } = effective;
    if (restartDelayMs > restartMaxDelayMs) {
      problems.push({
        at: [...at, "restart_max_delay"],
        detail: `got ${formatDuration(restartMaxDelayMs)}, wanted at least restart_delay, ${
          formatDuration(restartDelayMs)
        }`,
      });
    } else if (effective.restart !== "no") {
      const span = backoffSpanMs(restartDelayMs, restartMaxDelayMs, burst);
      if (span >= intervalMs) {
        problems.push({
          at: [...at, "start_limit"],
          detail:
            `got ${burst} failures in ${formatDuration(intervalMs)}, which the restart delays alone make ` +
            `impossible; wanted an interval over ${formatDuration(span)}`,
        });
      }
    }
  }
}

function checkDependencies(config: Config, problems: Problem[]): void {
  const names = Object.keys(config.processes);
  for (const [name, { dependsOn }] of Object.entries(config.processes)) {
    for (const other of Object.keys(dependsOn)) {
      if (names.includes(other) && other !== name) continue;
      const got = other === name
        ? "the process itself"
        : `a process that is not configured${didYouMean(other, names)}`;
      problems.push({
        at: ["processes", name, "depends_on", other],
        detail: `got ${got}, wanted another process`,
      });
    }
  }
  const cycle = findCycle(config);
  const [first, second] = cycle;
  if (first !== undefined && second !== undefined) {
    problems.push({
      at: ["processes", first, "depends_on", second],
      detail: `got a cycle ${cycle.join(" → ")}, wanted none`,
    });
  }
}

/** One cycle of at least two, closed (`a`, `b`, `a`), or empty. Depth is bounded by the number of processes. */
function findCycle(config: Config): string[] {
  const done = new Set<string>();
  const visit = (name: string, trail: readonly string[]): string[] => {
    const start = trail.indexOf(name);
    if (start >= 0) return [...trail.slice(start), name];
    if (done.has(name)) return [];
    for (const other of Object.keys(config.processes[name]?.dependsOn ?? {})) {
      if (other === name) continue; // told by itself
      const found = visit(other, [...trail, name]);
      if (found.length > 0) return found;
    }
    done.add(name);
    return [];
  };
  for (const name of Object.keys(config.processes)) {
    const found = visit(name, []);
    if (found.length > 0) return found;
  }
  return [];
}

function checkFiles(config: Config, { dataDir, configured, problems }: CheckContext): void {
  const roots = Object.entries(config.files);
  const store = configured && config.storage.kind === "directory" ? config.storage.directory : null;
  if (store === "/") {
    problems.push({ at: ["storage", "directory"], detail: 'got "/", wanted a folder of its own' });
  }
  for (const [index, [name, { path }]] of roots.entries()) {
    const at = ["files", name, "path"];
    if (path === "/") problems.push({ at, detail: 'got "/", wanted a folder below it' });
    else if (["/proc", "/sys", "/dev"].some((system) => isWithin(path, system))) {
      problems.push({ at, detail: "got a folder of the kernel's, wanted one with files" });
    } else if (isWithin(path, dataDir)) {
      problems.push({ at, detail: "got a folder inside the data folder, wanted one outside" });
    } else if (store !== null && isWithin(path, store)) {
      problems.push({ at, detail: "got a folder inside the store, wanted one outside" });
    }
    for (const [otherName, other] of roots.slice(0, index)) {
      if (!isWithin(path, other.path) && !isWithin(other.path, path)) continue;
      problems.push({
        at,
        detail: `got a folder that overlaps with that of files.${otherName}, wanted separate ones`,
      });
    }
  }
}

function checkLease({ lease }: Config, { problems, warnings, configured }: CheckContext): void {
  const room = lease.ttlMs - leaseMarginMs(lease.ttlMs) - leaseRequestMs(lease.ttlMs);
  if (2 * lease.renewMs >= room) {
    problems.push({
      at: ["lease", "renew"],
      detail:
        `got ${formatDuration(lease.renewMs)}, wanted less than ${formatDuration(Math.floor(room / 2))}, ` +
        `so that two tries fit into the ttl of ${formatDuration(lease.ttlMs)}`,
    });
  }
  if (lease.mode === "none" && configured) {
    warnings.push("lease.mode is none: nothing protects the data from a second manager on the same prefix");
  }
}

function checkServer(parsed: ParsedConfig, { server }: Config, { problems, configured }: CheckContext): void {
  (parsed.server?.tokens ?? []).forEach((token, index, all) => {
    const at = ["server", "tokens", String(index)];
    if ((token.token_file === undefined) === (token.hash === undefined)) {
      problems.push({ at, detail: "got both or neither of token_file and hash, wanted one of them" });
    }
    if (token.name === "environment") {
      problems.push({
        at: [...at, "name"],
        detail: "got the name of the variable's token, wanted another name",
      });
    }
    if (all.findIndex((other) => other.name === token.name) !== index) {
      problems.push({ at: [...at, "name"], detail: "got a name twice, wanted different names" });
    }
  });
  if (configured && !isLoopback(server.listen.hostname) && server.tokens.length === 0) {
    problems.push({
      at: ["server", "listen"],
      detail: `got ${server.listen.hostname}, which others can reach, with no token; ` +
        "wanted server.tokens or STATE_MANAGER_TOKEN, or 127.0.0.1",
    });
  }
}

/** One signal cannot both stop the manager and be passed on to a program that goes on. */
function checkStopSignals({ shutdown: { signals }, processes }: Config, { problems }: CheckContext): void {
  for (const [name, { forwardSignals }] of Object.entries(processes)) {
    for (const signal of signals) {
      if (!Object.hasOwn(forwardSignals, signal)) continue;
      problems.push({
        at: ["processes", name, "forward_signals"],
        detail: `got ${signal}, which stops the manager by shutdown.signals; wanted it in one of them`,
      });
    }
  }
}

/** A budget beyond what the platform waits ends in SIGKILL in the midst of the last checkpoint. */
function checkGrace({ shutdown }: Config, { platform, configured, warnings }: CheckContext): void {
  const { budgetMs, platformGraceMs } = shutdown;
  if (!configured) return;
  if (platformGraceMs !== null) {
    if (budgetMs <= platformGraceMs) return;
    warnings.push(
      `shutdown.budget ${formatDuration(budgetMs)} is more than shutdown.platform_grace ` +
        `${
          formatDuration(platformGraceMs)
        }: the manager would be killed while it still ships the last state; ` +
        "lower the budget, or raise both",
    );
    return;
  }
  if (platform === null || budgetMs <= platform.graceMs) return;
  const advice = platform.setting === null
    ? "lower the budget, since nothing raises that"
    : `raise that by ${platform.setting} and tell it by shutdown.platform_grace, or lower the budget`;
  warnings.push(
    `shutdown.budget ${formatDuration(budgetMs)} is more than the ${formatDuration(platform.graceMs)} that ` +
      `${platform.name} waits by default before it kills: ${advice}`,
  );
}

function checkShutdown(parsed: ParsedConfig, config: Config, { problems, warnings }: CheckContext): void {
  const { budgetMs, flushReserveMs } = config.shutdown;
  if (flushReserveMs >= budgetMs) {
    problems.push({
      at: ["shutdown", "flush_reserve"],
      detail: `got ${formatDuration(flushReserveMs)}, wanted less than the budget of ${
        formatDuration(budgetMs)
      }`,
    });
    return;
  }
  const left = budgetMs - flushReserveMs;
  // Only what somebody wrote: the default of 90 s conflicts with the default budget in every container.
  const written = [
    { key: "supervisor.timeout_stop", ms: parsed.supervisor?.timeout_stop },
    ...Object.entries(parsed.processes ?? {})
      .map(([name, process]) => ({ key: `processes.${name}.timeout_stop`, ms: process.timeout_stop })),
  ];
  for (const { key, ms } of written) {
    if (ms === undefined || ms <= left) continue;
    warnings.push(
      `${key} ${formatDuration(ms)} is cut to ${formatDuration(left)} when the manager stops: ` +
        `shutdown.budget ${formatDuration(budgetMs)} less flush_reserve ${formatDuration(flushReserveMs)}`,
    );
  }
}
