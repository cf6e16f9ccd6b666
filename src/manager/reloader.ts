/**
 * Reloads: the configuration is read and checked whole, compared with the one in force, and what concerns processes is
 * taken over, at once where they run, else at their next start. Whatever is wrong with it leaves everything as it is.
 * Nothing is written: if we die in between, the next start reads the same configuration, whole.
 */

import { type LoadedConfig, otherStacks, redactedConfig, withProcessesOf } from "../config/mod.ts";
import type { CatalogEvent } from "../database/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import { log } from "../platform/log.ts";
import type { Supervisor } from "../supervisor/mod.ts";
import type { ReloadResult, ReloadWish } from "./process_control.ts";
import { specsOf } from "./process_specs.ts";
import { planReload, type ReloadSide } from "./reload_rules.ts";

/** A reload that comes while files are captured or programs are stopped for a restore waits for so long. */
const PATIENCE_MS = 60_000;
const LOOK_AGAIN_MS = 100;

const logger = log("reload");

export interface ReloaderOptions {
  readonly clock: Clock;
  /** Reads everything again. `showValues`: whether messages may show what is in the file. */
  readonly read: (options: { readonly showValues: boolean }) => Promise<LoadedConfig>;
  readonly inForce: () => LoadedConfig;
  readonly takeOver: (loaded: LoadedConfig) => void;
  /** Those that run; null: none do, and the next start takes what is in force then. `busy`: neither can be said now. */
  readonly supervisor: () => Supervisor | null;
  readonly record: (event: CatalogEvent) => void;
  /** Ends the wait for a moment in which a reload is possible. */
  readonly ended: AbortSignal;
}

export class Reloader {
  readonly #options: ReloaderOptions;
  #busy = false;
  /** SIGHUP came while one was under way: what that one read may be older. */
  #again = false;

  constructor(options: ReloaderOptions) {
    this.#options = options;
  }

  /** Errors: `config-invalid`, `wrong-state`, `busy`; each before anything is changed. */
  async reload(wish: ReloadWish): Promise<ReloadResult> {
    return await this.#alone(() => this.#reload(wish, { showValues: false }));
  }

  /** SIGHUP: nobody hears the answer but the log. */
  async hangUp(): Promise<void> {
    if (this.#busy) {
      this.#again = true;
      return;
    }
    try {
      await this.#alone(() => this.#reload({ dryRun: false, restart: false }, { showValues: true }));
    } catch (error) {
      const { code, message, hint, details } = asStateManagerError(error);
      logger.error("not reloaded, everything stays as it is", { error: message, code, hint, details });
    }
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    if (this.#busy) {
      throw new StateManagerError("busy", "reload: another one is under way", {
        hint: "try again in a moment",
      });
    }
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
      if (this.#again) {
        this.#again = false;
        void this.hangUp();
      }
    }
  }

  async #reload(wish: ReloadWish, options: { readonly showValues: boolean }): Promise<ReloadResult> {
    const { inForce, read, clock } = this.#options;
    if (inForce().config === null) {
      throw new StateManagerError("wrong-state", "reload: nothing is configured yet", {
        hint: "configure it first: POST /config",
      });
    }
    const next = await read(options);
    if (next.config === null) {
      throw new StateManagerError("config-invalid", `reload: ${next.file} names no store any more`, {
        hint: "give storage.bucket with storage.endpoint, or storage.directory",
        details: [{ pointer: "/storage", detail: "missing" }],
      });
    }
    const giveUpMs = clock.monotonicMs() + PATIENCE_MS;
    while (true) {
      try {
        return wish.dryRun ? this.#plan(next, wish) : this.#takeOver(next, wish);
      } catch (error) {
        if (!isError(error, "busy") || clock.monotonicMs() >= giveUpMs) throw error;
      }
      await clock.sleep(LOOK_AGAIN_MS, { signal: this.#options.ended });
    }
  }

  #plan(next: LoadedConfig, wish: ReloadWish): ReloadResult {
    const plan = planReload(sideOf(this.#options.inForce()), sideOf(next));
    const wouldRestart = new Set(
      plan.changed.filter(({ start }) => start.length > 0).map(({ name }) => name),
    );
    for (const { name, changed, stoppedByRequest } of this.#options.supervisor()?.status() ?? []) {
      if (changed.length > 0 && !plan.removed.includes(name)) wouldRestart.add(name);
      if (stoppedByRequest) wouldRestart.delete(name);
    }
    const restarted = wish.restart ? [...wouldRestart] : [];
    return { ...plan, dryRun: true, restarted, signalled: [], warnings: next.warnings };
  }

  /** In one turn: nobody sees the half of it. */
  #takeOver(next: LoadedConfig, { restart }: ReloadWish): ReloadResult {
    const { inForce, takeOver, record } = this.#options;
    const supervisor = this.#options.supervisor();
    const plan = planReload(sideOf(inForce()), sideOf(next));
    const merged = withProcessesOf(inForce(), next);
    const restarted = supervisor?.redefine(sideOf(merged).specs, { restart }) ?? [];
    takeOver(merged);
    const signalled = supervisor?.sendReloadSignals() ?? [];
    const result = { ...plan, dryRun: false, restarted, signalled, warnings: next.warnings };
    const changed = plan.changed.map(({ name }) => name);
    const told = { added: plan.added, removed: plan.removed, changed, restarted, signalled };
    logger.info("configuration reloaded", told);
    for (const warning of next.warnings) logger.warn(warning);
    if (plan.needsManagerRestart.length > 0) {
      logger.warn("some of what changed needs a restart of the manager", { keys: plan.needsManagerRestart });
    }
    record({
      kind: "config-version",
      subject: "config",
      summary: "configuration reloaded",
      detail: { ...told },
    });
    return result;
  }
}

function sideOf(loaded: LoadedConfig): ReloadSide {
  const { config } = loaded;
  if (config === null) return { specs: [], shown: {}, logs: {}, stacks: [], hidden: {} };
  const credentials = loaded.currentCredentials();
  return {
    specs: specsOf(loaded, config),
    logs: Object.fromEntries(Object.entries(config.processes).map(([name, { logs }]) => [name, logs])),
    shown: redactedConfig(config),
    stacks: otherStacks(config),
    hidden: {
      "storage.access_key": credentials?.accessKey.reveal() ?? null,
      "storage.secret_key": credentials?.secretKey.reveal() ?? null,
      "storage.session_token": credentials?.sessionToken?.reveal() ?? null,
      "server.tokens": JSON.stringify(config.server.tokens),
    },
  };
}
