/**
 * From options to a living manager and its exit code. The order is the argument: signals before all else (PID 1
 * without listeners cannot be stopped), then the data folder's lock, the end of what an earlier run left, the guard, the
 * configuration, the API, the manager; and on the way out the API first, then what must be told, then the guard.
 */

import {
  type ConfigFlags,
  findDataDir,
  isLoopback,
  loadConfig,
  persistConfig,
  validateBody,
} from "../config/mod.ts";
import type { LoadedConfig } from "../config/mod.ts";
import { openCatalog } from "../database/mod.ts";
import {
  beginRun,
  type BegunRun,
  type DataDir,
  Manager,
  openDataDir,
  writeExitRecord,
} from "../manager/mod.ts";
import { type Clock, systemClock } from "../platform/clock.ts";
import { currentFolder, environmentVariables, inContainer, isRoot } from "../platform/environment.ts";
import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import { removeIfPresent, writeFileAtomically } from "../platform/files.ts";
import { keepHeapSmall } from "../platform/heap.ts";
import { raiseFileLimit } from "../platform/libc_process.ts";
import { giveBackMemory } from "../platform/libc_memory.ts";
import { configureLog, flushLog, log } from "../platform/log.ts";
import { exitNow } from "../platform/parent_pipe.ts";
import { type Random, randomHex, systemRandom } from "../platform/random.ts";
import { Secret } from "../platform/secret.ts";
import { ownPid } from "../platform/proc.ts";
import { affectedSqlite, keepAliveOnErrors, machineName } from "../platform/self.ts";
import { type HandledSignal, installSignals } from "../platform/signals.ts";
import { standardError, standardOutput } from "../platform/standard_output.ts";
import { createApp, type RunningServer, startServer } from "../server/mod.ts";
import { CrashFiles, endEverything, ProcessLogs, startReaper } from "../supervisor/mod.ts";
import { passThrough } from "./pass_through.ts";

/** Longest wait for requests under way at the end: the budget is spent by then. */
const SERVER_STOP_MS = 200;
/** When a start is over, as a rule. */
const FIRST_GIVE_BACK_MS = 8_000;
/** Some two milliseconds of another thread each time. */
const GIVE_BACK_EVERY_MS = 300_000;
/** Longest wait for the programs' log files at the end. */
const LOGS_CLOSE_MS = 500;
/** Longest wait for our own output at the end. */
const FLUSH_MS = 500;
/** PID 1 gives what is left of others this long between TERM and KILL. */
const LAST_GRACE_MS = 200;

const logger = log("main");
const STOP_SIGNALS: readonly HandledSignal[] = ["SIGTERM", "SIGINT", "SIGQUIT"];

interface Parts {
  readonly clock: Clock;
  readonly random: Random;
  readonly flags: ConfigFlags;
  readonly mode: "run" | "server";
  /** Set as soon as there is a manager; signals before that are kept. */
  readonly signals: SignalDesk;
}

/** Takes signals from the first instruction on, and hands them to the manager once there is one. */
class SignalDesk {
  #early: HandledSignal[] = [];
  #manager: Manager | null = null;
  readonly #stopAsked = new AbortController();
  onChild: () => void = () => {};
  onReopen: () => void = () => {};

  /** Aborted by the first signal that asks for a stop. */
  get stopAsked(): AbortSignal {
    return this.#stopAsked.signal;
  }

  receive(signal: HandledSignal): void {
    if (signal === "SIGCHLD") return this.onChild();
    if (signal === "SIGQUIT" && this.#manager?.passesOn(signal) === true) return;
    const stops = STOP_SIGNALS.includes(signal) || this.#manager?.isStoppedBy(signal) === true;
    if (stops) {
      this.#stopAsked.abort(new StateManagerError("cancelled", `start: ended by ${signal}`));
    }
    if (signal === "SIGUSR1") this.onReopen();
    if (signal === "SIGUSR2") this.#manager?.tellState();
    if (this.#manager === null) {
      this.#early.push(signal);
      return;
    }
    if (!stops) return this.#manager.forward(signal);
    const times = this.#manager.requestStop(signal);
    logger.info(
      `${signal}: ${
        ["stopping", "no more grace for the programs", "leaving at once"][times - 1] ?? "leaving"
      }`,
    );
    if (times >= 3) exitNow(130);
  }

  attach(manager: Manager): void {
    this.#manager = manager;
    for (const signal of this.#early.splice(0)) this.receive(signal);
  }
}

/** Runs the manager to its end and gives the exit code of the process. Never throws. */
export async function runManager(flags: ConfigFlags, mode: "serve" | "run"): Promise<number> {
  const clock = systemClock();
  keepHeapSmall();
  const signals = new SignalDesk();
  installSignals((signal) => signals.receive(signal));
  configureLog({ format: "auto", level: "info" });
  keepAliveOnErrors((error) =>
    logger.error("unexpected error, going on", { error: asStateManagerError(error) })
  );
  raiseFileLimit();
  const reaper = startReaper(clock);
  signals.onChild = () => reaper.childExited();
  const parts: Parts = {
    clock,
    random: systemRandom(),
    flags,
    mode: mode === "run" ? "run" : "server",
    signals,
  };
  let failure: unknown = null;
  try {
    const { exitCode, error } = await live(parts);
    failure = error;
    return exitCode;
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    reaper.stop();
    // Who is asked to end may write once more, which nobody of ours may now that the lease is another's.
    const graceMs = isError(failure, "lease-lost") ? 0 : LAST_GRACE_MS;
    await endEverything(clock, { graceMs, selfPid: ownPid() });
    await Promise.all([
      flushLog(FLUSH_MS),
      standardOutput().flush(FLUSH_MS),
      standardError().flush(FLUSH_MS),
    ]);
  }
}

interface Ended {
  readonly exitCode: number;
  readonly error: StateManagerError | null;
}

async function live(parts: Parts): Promise<Ended> {
  const { clock, flags } = parts;
  const environment = environmentVariables();
  const folder = currentFolder();
  // Its own error goes to the command line, which tells it and exits: there is no folder to keep an exit record in.
  const path = findDataDir(flags, environment, { isRoot: isRoot(), inContainer: inContainer(), folder });
  const { dir, lock } = await openDataDir(path);
  await removeIfPresent(dir.exitRecord);
  let run: BegunRun | null = null;
  try {
    const { signals, random } = parts;
    run = await beginRun({ dir, lock }, { clock, random, environment, signal: signals.stopAsked });
    const surroundings = { environment, flags, dataDir: path, folder };
    const { exitCode, error } = await serve({ ...parts, ...run }, dir, surroundings);
    await writeExitRecord(dir.exitRecord, exitCode, error ?? "ended", clock.wallMs());
    if (error !== null) {
      logger.error(`ending with ${exitCode}: ${error.message}`, { code: error.code, hint: error.hint });
    } else logger.info(`ending with ${exitCode}`);
    return { exitCode, error };
  } catch (error) {
    await writeExitRecord(dir.exitRecord, asStateManagerError(error).meaning.exit, error, clock.wallMs());
    throw error;
  } finally {
    // All programs are stopped. What could not be ended is the guard's from here on; it keeps its lock for it.
    await run?.guard.end();
    lock.release();
  }
}

type Surroundings = Parameters<typeof loadConfig>[0];

async function serve(
  parts: Parts & BegunRun,
  dir: DataDir,
  surroundings: Surroundings,
): Promise<Ended> {
  const { clock, mode, random, signals, guard, leaseMemory } = parts;
  const loaded = await loadConfig(surroundings);
  if (mode === "run" && loaded.config === null) {
    throw new StateManagerError(
      "usage",
      "run: no store is named, wanted --directory DIR or --bucket B --endpoint URL",
      {
        hint: "name a store by options, by STATE_MANAGER_STORAGE_… variables or in a file with --config",
      },
    );
  }
  configureLog(loaded.log);
  const warnings = startWarnings();
  for (const warning of [...warnings, ...loaded.warnings]) logger.warn(warning);
  const { logs, crashes } = openLogs(dir, clock, random);
  const manager = new Manager({
    dir,
    loaded,
    reread: ({ showValues }) => loadConfig({ ...surroundings, showValues }),
    configure: (body, probe) => configure(body, surroundings, clock, probe),
    mode,
    clock,
    random,
    pid: ownPid(),
    hostname: machineName(),
    guard,
    leaseMemory,
    setupToken: await setupToken(loaded, dir, random),
    openCatalog: (config) =>
      openCatalog({ path: config.catalog.path ?? dir.catalog, clock, log: log("catalog") }),
    logs,
    crashes,
    warnings,
  });
  signals.attach(manager);
  signals.onReopen = () => logs.reopen();
  const app = createApp({ control: manager, clock, random, log: log("http") });
  const server = await listen(loaded, dir, app, clock);
  const over = new AbortController();
  void keepSmall(clock, over.signal);
  try {
    return await manager.run();
  } finally {
    over.abort();
    await Promise.all([
      server.stop(SERVER_STOP_MS),
      logs.close(LOGS_CLOSE_MS),
      crashes.flush(clock, LOGS_CLOSE_MS),
    ]);
  }
}

/** What the start, and later each checkpoint, needed and freed goes back to the system. */
async function keepSmall(clock: Clock, signal: AbortSignal): Promise<void> {
  for (let waitMs = FIRST_GIVE_BACK_MS; !signal.aborted; waitMs = GIVE_BACK_EVERY_MS) {
    await clock.sleep(waitMs, { signal }).catch(() => {});
    if (!signal.aborted) await giveBackMemory();
  }
}

function openLogs(dir: DataDir, clock: Clock, random: Random): { logs: ProcessLogs; crashes: CrashFiles } {
  const told = log("logs");
  const logs = new ProcessLogs({
    clock,
    random,
    passOn: passThrough(),
    timesFolder: dir.logTimes,
    onTrouble(name, path, error) {
      if (error === null) told.info(`the log file of ${name} is written again`, { path });
      else {told.warn(`the log file of ${name} cannot be written: lines are dropped and counted`, {
          path,
          error,
        });}
    },
  });
  const crashes = new CrashFiles(
    dir.crashes,
    (error) => told.warn("a crash file was not written", { error }),
  );
  return { logs, crashes };
}

async function listen(
  loaded: LoadedConfig,
  dir: DataDir,
  app: ReturnType<typeof createApp>,
  clock: Clock,
): Promise<RunningServer> {
  const { listen, socket, tls } = loaded.server;
  const server = await startServer({ app, clock, listen, tls, socket: { path: socket, dataDir: dir.path } });
  logger.info("listening", { urls: server.urls });
  return server;
}

/** `POST /config`: checked and probed before it is kept, kept before anything starts. */
async function configure(
  body: unknown,
  surroundings: Surroundings,
  clock: Clock,
  probe: (config: NonNullable<LoadedConfig["config"]>) => Promise<void>,
): Promise<LoadedConfig> {
  const checked = await validateBody(body, surroundings);
  if (checked.config === null) {
    throw new StateManagerError("config-invalid", "configure: no storage, wanted a bucket or a directory", {
      hint: "give storage.bucket with storage.endpoint, or storage.directory",
      details: [{ pointer: "/storage", detail: "missing" }],
    });
  }
  await probe(checked.config);
  await persistConfig(checked.file, checked.raw, clock.wallMs());
  await removeIfPresent(setupTokenFile(surroundings.dataDir)).catch(() => {}); // its token opens nothing any more
  return checked;
}

function setupTokenFile(dataDir: string): string {
  return `${dataDir}/setup-token`;
}

/** An unconfigured manager that listens beyond loopback with no token makes one, for one use. */
async function setupToken(loaded: LoadedConfig, dir: DataDir, random: Random): Promise<Secret | null> {
  const { listen, tokens } = loaded.server;
  if (loaded.config !== null || tokens.length > 0 || isLoopback(listen.hostname)) return null;
  const token = randomHex(random, 32);
  const path = setupTokenFile(dir.path);
  await writeFileAtomically(path, token + "\n");
  standardError().write(
    new TextEncoder().encode(`set-up token for POST /config (also in ${path}): ${token}\n`),
  );
  return new Secret(token);
}

function startWarnings(): string[] {
  const version = affectedSqlite();
  if (version === null) return [];
  return [
    `the built-in SQLite ${version} has the WAL-reset bug (3.7.0 to 3.51.2): build with a newer runtime when you can`,
  ];
}
