/**
 * The manager: the life of one process from start to exit code, and what the API may ask of it. It holds no state of
 * the data itself; each period between taking and giving up the lease is one `Session`.
 */

import type { CheckpointNotes, DiffResult, FolderListing, VerifyResult } from "../checkpoint/mod.ts";
import type { CheckpointRecord } from "../checkpoint/types.ts";
import type { LoadedConfig, StoreCredentials } from "../config/mod.ts";
import type { Config } from "../config/types.ts";
import type { Catalog } from "../database/mod.ts";
import type { LeaseMemory } from "../lease/types.ts";
import { buildInfo } from "../platform/build_info.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { log } from "../platform/log.ts";
import { type Random, randomHex } from "../platform/random.ts";
import type { ProcessStatus } from "../supervisor/types.ts";
import type { Secret } from "../platform/secret.ts";
import type {
  AccessRules,
  CheckpointRequest,
  CheckpointResult,
  Control,
  DiffWish,
  FolderWish,
  HealthCheck,
  LongWork,
  ManagerState,
  ManagerStatus,
  PruneResult,
  RepairOutcome,
  RepairWish,
  RestorePoints,
  RestorePointsQuery,
  RestoreRequest,
  RestoreResult,
  VerifyWish,
} from "./control.ts";
import { type DataDir, hasYielded, isReleased, setReleased, setYielded } from "./data_dir.ts";
import { CredentialChange, type CredentialsResult } from "./credential_change.ts";
import { EventHub } from "./event_hub.ts";
import { hasDatabases, probeConfiguredStore } from "./opening.ts";
import type { ReloadResult, ReloadWish, SignalWish } from "./process_control.ts";
import { logSpec, specsOf } from "./process_specs.ts";
import { Reloader } from "./reloader.ts";
import type { RunGuard } from "./run_guard.ts";
import { Session, type SessionEnd } from "./session.ts";
import { growthOf } from "./storage_meter.ts";
import type { CrashFiles, ProcessLogs } from "../supervisor/mod.ts";

export interface ManagerOptions {
  readonly dir: DataDir;
  /** What the start found; null config: unconfigured. */
  readonly loaded: LoadedConfig;
  /** Reads the configuration again, as a start does. `showValues`: whether messages may show what is in the file. */
  readonly reread: (options: { readonly showValues: boolean }) => Promise<LoadedConfig>;
  /** Validates a body for `POST /config` and keeps it; returns what is then in force. */
  readonly configure: (
    body: unknown,
    probe: (config: Config) => Promise<void>,
  ) => Promise<LoadedConfig>;
  /** "run": the exit code is the command's. */
  readonly mode: "run" | "server";
  readonly clock: Clock;
  readonly random: Random;
  readonly pid: number;
  readonly hostname: string;
  readonly guard: RunGuard;
  readonly leaseMemory: LeaseMemory;
  readonly setupToken: Secret | null;
  /** Called once the first programs run, which it must not delay, or when somebody asks for the history before. */
  readonly openCatalog: (config: Config) => Catalog;
  readonly logs: ProcessLogs;
  readonly crashes: CrashFiles;
  readonly warnings: readonly string[];
}

const logger = log("manager");

/** Resolves once, from outside. */
interface Gate {
  readonly promise: Promise<void>;
  open(): void;
}

function gate(): Gate {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { promise, open: resolve };
}

export class Manager implements Control {
  readonly #options: ManagerOptions;
  readonly #holder: string;
  readonly #startedWallMs: number;
  readonly #startedMonotonicMs: number;
  #loaded: LoadedConfig;
  #state: ManagerState = "unconfigured";
  #reason: string | null = null;
  #session: Session | null = null;
  readonly #events: EventHub;
  #setupToken: Secret | null;
  #configuring = false;
  #stopSignals: string[] = [];
  #wake = gate();
  /** Open when the session that ran last is over, and the state says so. */
  #sessionOver = gate();
  readonly #stopAsked = new AbortController();
  /** Names of processes that a person stopped: down until a person starts them, whatever else begins anew. */
  readonly #heldDown = new Set<string>();
  readonly #reloader: Reloader;
  readonly #credentials: CredentialChange;
  #released = false;
  #yielded = false;
  #ended = false;

  constructor(options: ManagerOptions) {
    this.#options = options;
    this.#holder = randomHex(options.random);
    this.#startedWallMs = options.clock.wallMs();
    this.#startedMonotonicMs = options.clock.monotonicMs();
    this.#loaded = options.loaded;
    this.#setupToken = options.setupToken;
    this.#events = new EventHub({
      runId: options.logs.runId,
      clock: options.clock,
      openCatalog: () => this.#openCatalog(),
    });
    this.#reloader = new Reloader({
      clock: options.clock,
      read: options.reread,
      inForce: () => this.#loaded,
      takeOver: (loaded) => {
        this.#loaded = loaded;
        this.#configureLogs();
      },
      supervisor: () => this.#session?.programsIfAny ?? null,
      record: (event) => this.#events.record(event),
      ended: this.#stopAsked.signal,
    });
    this.#credentials = new CredentialChange({
      clock: options.clock,
      random: options.random,
      inForce: () => this.#loaded,
      repoId: () => this.#session?.status().repoId ?? null,
      large: () => this.#loaded.config !== null && hasDatabases(this.#loaded.config),
      onChanged: () => this.#session?.renewCredentials(),
      record: (event) => this.#events.record(event),
    });
  }

  get holder(): string {
    return this.#holder;
  }

  /** Lives until a stop is asked for, the programs end, or the lease is lost. Never rejects. */
  async run(): Promise<{ exitCode: number; error: StateManagerError | null }> {
    try {
      this.#released = await isReleased(this.#options.dir);
      this.#yielded = await hasYielded(this.#options.dir);
      return await this.#live();
    } catch (error) {
      const wrapped = asStateManagerError(error);
      this.#setState("failed", wrapped.message);
      return { exitCode: wrapped.meaning.exit, error: wrapped };
    } finally {
      this.#ended = true;
      this.#sessionOver.open();
      await this.#events.close(CATALOG_CLOSE_MS);
    }
  }

  async #live(): Promise<
    { exitCode: number; error: StateManagerError | null }
  > {
    while (true) {
      if (this.#stopSignals.length > 0) {
        return { exitCode: this.#idleExitCode(), error: null };
      }
      const config = this.#loaded.config;
      if (config === null) {
        this.#setState("unconfigured", "no configuration: POST /config");
        await this.#nextWake();
        continue;
      }
      if (this.#released) {
        this.#setState("released", "released by request: POST /acquire-lease");
        this.#sessionOver.open();
        await this.#nextWake();
        continue;
      }
      const end = await this.#runSession(config);
      if (end.kind === "ended") return end;
      if (end.kind === "released") this.#released = true;
    }
  }

  async #runSession(config: Config): Promise<SessionEnd> {
    const session = new Session({
      ...this.#options,
      config,
      environment: this.#loaded.environment,
      specs: () => specsOf(this.#loaded, config),
      configureLogs: () => this.#configureLogs(),
      heldDown: this.#heldDown,
      credentials: () => this.#loaded.currentCredentials(),
      holder: this.#holder,
      onState: (state, reason) => this.#setState(state, reason),
      record: (event) => this.#events.record(event),
      onWork: (work, step) => this.#events.progress(work, step),
      // Not before: it must not delay the programs. Nothing waits for it.
      onProgramsStarted: () => this.#events.openCatalog(),
      persistReleased: (released) => setReleased(this.#options.dir, released),
      yielded: () => this.#yielded,
      persistYielded: (yielded) => this.#setYielded(yielded),
    });
    this.#session = session;
    this.#sessionOver = gate();
    if (this.#stopSignals.length > 0) session.requestStop();
    const rotation = setInterval(() => this.#refreshCredentials(), CREDENTIALS_CHECK_MS);
    try {
      return await session.run();
    } finally {
      clearInterval(rotation);
      this.#session = null;
    }
  }

  #openCatalog(): Catalog | null {
    const { config } = this.#loaded;
    return config === null ? null : this.#options.openCatalog(config);
  }

  /** Mounted secrets rotate without a restart; on an error the old ones stay in use and it is tried again. */
  #refreshCredentials(): void {
    this.#loaded.refreshCredentials().then((changed) => {
      if (!changed) return;
      logger.info("storage credentials changed");
      this.#session?.renewCredentials();
    }, (error) => {
      logger.warn("storage credentials not read again", { error: asStateManagerError(error).message });
    });
  }

  #configureLogs(): void {
    const standard = this.#options.mode === "run" ? "plain" : "prefix";
    for (const [name, process] of Object.entries(this.#loaded.config?.processes ?? {})) {
      this.#options.logs.configure(name, logSpec(process, standard));
    }
  }

  async #nextWake(): Promise<void> {
    await this.#wake.promise;
    this.#wake = gate();
  }

  #setState(state: ManagerState, reason: string | null): void {
    if (this.#state === state && this.#reason === reason) return;
    this.#state = state;
    this.#reason = reason;
    logger.info(`state: ${state}`, reason === null ? {} : { reason });
    this.#events.record({ kind: "state", subject: state, summary: `state: ${state}`, detail: { reason } });
  }

  /** SIGTERM and its like while no session runs. */
  #idleExitCode(): number {
    if (this.#options.mode === "server") return 0;
    return this.#stopSignals[0] === "SIGINT" ? 130 : 143;
  }

  /** First: stop in order. Second: no grace for the programs, but still flush. Third: the caller exits at once. */
  requestStop(signal: string): number {
    this.#stopSignals.push(signal);
    this.#stopAsked.abort(new StateManagerError("cancelled", "the manager is being stopped"));
    if (this.#stopSignals.length === 1) this.#session?.requestStop();
    if (this.#stopSignals.length === 2) this.#session?.hurry();
    this.#wake.open();
    return this.#stopSignals.length;
  }

  /** One that `shutdown.signals` names. */
  isStoppedBy(signal: Deno.Signal): boolean {
    return this.#loaded.config?.shutdown.signals.includes(signal) ?? false;
  }

  /** A signal that stops us unless a program is to have it: true where one is, and got it if it runs. */
  passesOn(signal: Deno.Signal): boolean {
    return this.#state === "running" && (this.#session?.forward(signal) ?? false);
  }

  /** Passed on to those that ask for it. HUP is the manager's own, too, but in the place of a command (`run`). */
  forward(signal: Deno.Signal): void {
    this.#session?.forward(signal);
    if (signal === "SIGHUP" && this.#options.mode === "server") void this.#reloader.hangUp();
  }

  /** SIGUSR2: the state into the log, for one who has only a shell; in the place of a command it is the command's. */
  tellState(): void {
    if (this.#options.mode === "run") return;
    const { processes, lease, checkpoint, warnings } = this.status();
    logger.info(`state: ${this.#state}`, {
      reason: this.#reason,
      lease: lease === null ? null : { state: lease.state, token: lease.token },
      checkpoint: { current: checkpoint.current?.n ?? null, last_error: checkpoint.last_error },
      processes: processes.map(({ name, state, ready, pid, restarts, reason }) => ({
        name,
        state,
        ready,
        pid,
        restarts,
        reason,
      })),
      warnings,
    });
  }

  // ---- Control

  get logs(): ProcessLogs {
    return this.#options.logs;
  }

  get events(): EventHub {
    return this.#events;
  }

  get crashes(): CrashFiles {
    return this.#options.crashes;
  }

  status(): ManagerStatus {
    const { clock, pid, warnings } = this.#options;
    const session = this.#session?.status() ?? null;
    const build = buildInfo();
    return {
      state: this.#state,
      reason: this.#reason ?? session?.waitingFor ?? null,
      version: build.version,
      build: build.build,
      name: this.#loaded.config?.name ?? null,
      repo_id: session?.repoId ?? null,
      holder: this.#holder,
      pid,
      started: new Date(this.#startedWallMs).toISOString(),
      uptime_seconds: Math.round((clock.monotonicMs() - this.#startedMonotonicMs) / 10) / 100,
      storage: session?.storage ?? null,
      lease: session?.lease ?? null,
      processes: session?.processes ?? [],
      files: session?.files ?? [],
      databases: session?.databases ?? [],
      checkpoint: session?.checkpoint ??
        {
          current: null,
          last_finished: null,
          last_error: null,
          running: false,
          in_progress: null,
          next: null,
          verify: { running: false, next: null, last: null },
        },
      warnings: [
        ...warnings,
        ...this.#loaded.warnings,
        ...(session?.warnings ?? []),
      ],
    };
  }

  configuration(): Record<string, unknown> | null {
    return this.#loaded.config === null ? null : this.#loaded.redacted();
  }

  async configure(body: unknown): Promise<ManagerStatus> {
    if (this.#configuring) {
      throw new StateManagerError("busy", "configure: another configuration is being checked", {
        hint: "wait for the answer to that one, then look at GET /config",
      });
    }
    if (this.#loaded.config !== null) {
      throw new StateManagerError(
        "already-configured",
        "configure: this manager is configured already",
        {
          hint:
            "change the configuration file and restart; POST /config works once, on an unconfigured manager",
        },
      );
    }
    this.#configuring = true;
    try {
      this.#loaded = await this.#options.configure(
        body,
        (config) => probeConfiguredStore(config, this.#options),
      );
      this.#setupToken = null;
      const detail = this.#loaded.redacted() ?? {};
      this.#events.record({
        kind: "config-version",
        subject: "config",
        summary: "configured over the API",
        detail,
      });
      this.#setState("waiting", null);
      this.#wake.open();
      return this.status();
    } finally {
      this.#configuring = false;
    }
  }

  #running(action: string): Session {
    const session = this.#session;
    if (session === null) {
      const hint = this.#loaded.config === null
        ? "configure it first: POST /config"
        : "take the lease first: POST /acquire-lease";
      throw new StateManagerError(
        "wrong-state",
        `${action}: the state is ${this.#state}, wanted running`,
        { hint },
      );
    }
    return session;
  }

  async checkpoint(
    request: CheckpointRequest,
    work: LongWork = {},
  ): Promise<CheckpointResult> {
    return await this.#running("make checkpoint").checkpoint(request, work);
  }

  async checkpoints(): Promise<readonly CheckpointRecord[]> {
    return await Promise.resolve(
      this.#running("list checkpoints").opened.head.head.checkpoints,
    );
  }

  async verify(request: VerifyWish, work: LongWork = {}): Promise<VerifyResult> {
    return await this.#running("verify").opened.verifier.verify(request, work);
  }

  async repair(request: RepairWish, work: LongWork = {}): Promise<RepairOutcome> {
    return await this.#running("repair").repairer("repair").repair(request, work);
  }

  async deleteCheckpoint(
    reference: string,
    options: { readonly force: boolean },
  ): Promise<CheckpointRecord> {
    const action = "delete checkpoint";
    return await this.#running(action).pruner(action).remove(reference, options);
  }

  async annotateCheckpoint(reference: string, notes: CheckpointNotes): Promise<CheckpointRecord> {
    const action = "annotate checkpoint";
    return await this.#running(action).pruner(action).annotate(reference, notes);
  }

  async checkpointFiles(reference: string, wish: FolderWish, signal?: AbortSignal): Promise<FolderListing> {
    return await this.#running("look into a checkpoint").opened.browser.files(reference, wish, signal);
  }

  async diffCheckpoints(wish: DiffWish, signal?: AbortSignal): Promise<DiffResult> {
    return await this.#running("compare checkpoints").opened.browser.diff(wish, signal);
  }

  async prune(request: { readonly dryRun: boolean }, work: LongWork = {}): Promise<PruneResult> {
    return await this.#running("prune").pruner("prune").prune(request, work);
  }

  async restore(
    request: RestoreRequest,
    work: LongWork = {},
  ): Promise<RestoreResult> {
    return await this.#running("restore").restore(request, work);
  }

  async startProcess(name: string): Promise<ProcessStatus> {
    const programs = this.#running("start").programs("start");
    programs.startProcess(name);
    return await Promise.resolve(programs.processStatus(name));
  }

  async stopProcess(name: string, { waitMs }: { readonly waitMs: number | null }): Promise<ProcessStatus> {
    const programs = this.#running("stop").programs("stop");
    await programs.stopProcess(name, waitMs === null ? {} : { waitMs });
    return programs.processStatus(name);
  }

  async restartProcess(name: string, { waitMs }: { readonly waitMs: number | null }): Promise<ProcessStatus> {
    const programs = this.#running("restart").programs("restart");
    // One that did not run has no end to wait for: what runs now is the new one already.
    if (programs.restartProcess(name)) await programs.restarted(name, waitMs === null ? {} : { waitMs });
    return programs.processStatus(name);
  }

  async signalProcess(name: string, { signal, to }: SignalWish): Promise<ProcessStatus> {
    const programs = this.#running("signal").programs("signal");
    programs.signalProcess(name, signal, to);
    return await Promise.resolve(programs.processStatus(name));
  }

  async reload(wish: ReloadWish): Promise<ReloadResult> {
    return await this.#reloader.reload(wish);
  }

  async syncDatabase(name: string, signal?: AbortSignal): Promise<{ readonly txid: number }> {
    return await this.#running("sync the database").opened.databases.sync(name, signal);
  }

  async restorePoints(
    name: string,
    query: RestorePointsQuery,
    signal?: AbortSignal,
  ): Promise<RestorePoints> {
    return await this.#running("list restore points").opened.databases.points(name, query, signal);
  }

  async replaceCredentials(next: StoreCredentials): Promise<CredentialsResult> {
    return await this.#credentials.replace(next);
  }

  async storage({ refresh }: { readonly refresh: boolean }) {
    const usage = await this.#running("measure the store").opened.meter.usage({ refresh });
    const query = { kinds: ["storage"] as const, order: "newest-first" as const, limit: EARLIER_LISTINGS };
    // Growth is a convenience: an answer without it is better than none.
    const earlier = await this.#events.history(query).catch(() => []);
    return { usage, growth: growthOf(usage, earlier) };
  }

  async releaseLease(): Promise<ManagerStatus> {
    if (this.#loaded.config === null) this.#running("release lease");
    const session = this.#session;
    if (session !== null) {
      await session.release();
      await this.#sessionOver.promise;
    } else {
      await setReleased(this.#options.dir, true);
      this.#released = true;
    }
    return this.status();
  }

  async acquireLease(): Promise<ManagerStatus> {
    if (this.#loaded.config === null) this.#running("acquire lease");
    // What was asked for last counts: a release that is under way ends first.
    const releasing = this.#session?.releasing ?? null;
    if (releasing !== null && await releasing.then(() => true, () => false)) await this.#sessionOver.promise;
    await setReleased(this.#options.dir, false);
    if (this.#released && this.#session === null) this.#setState("waiting", null);
    this.#released = false;
    // A person wants it here: one that waits, having handed over before, asks the holder from now on.
    if (this.#yielded) await this.#setYielded(false);
    this.#wake.open();
    return this.status();
  }

  async #setYielded(yielded: boolean): Promise<void> {
    await setYielded(this.#options.dir, yielded);
    this.#yielded = yielded;
  }

  health(): {
    live: HealthCheck[];
    started: HealthCheck[];
    ready: HealthCheck[];
  } {
    const fenced = this.#state === "fenced";
    const live: HealthCheck[] = [{
      name: "lease",
      ok: !fenced,
      detail: fenced ? "fenced: the lease was lost" : "not fenced",
    }];
    const standby = this.#state === "waiting" && this.#loaded.config?.lease.standbyReady === true;
    const ready: HealthCheck[] = [
      { name: "state", ok: this.#state === "running" || standby, detail: this.#state },
      ...(standby ? [] : this.#session?.readiness() ?? []),
    ];
    return {
      live,
      started: [{ name: "api", ok: !this.#ended, detail: "serving" }],
      ready,
    };
  }

  access(): AccessRules {
    const { tokens, behindTlsProxy } = this.#loaded.server;
    return { tokens, setupToken: this.#setupToken, behindTlsProxy };
  }
}

/** Two days of one each hour. */
const EARLIER_LISTINGS = 50;
/** Longest wait for the catalog's queue at exit: it is never needed for recovery. */
const CATALOG_CLOSE_MS = 300;
/** Rotated secrets are valid side by side for minutes at least; reading a small folder costs nothing. */
const CREDENTIALS_CHECK_MS = 15_000;
