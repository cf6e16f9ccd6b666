/**
 * The manager's side of the guard: one child for the manager's whole life. It is told of every unit and deadline, in
 * order, without ever being waited for; one that dies or does not answer is replaced at once and told everything anew.
 * All that is known here is state (units, deadline), so a replacement is never behind.
 */

import { type Child, spawnChild } from "../platform/child_process.ts";
import type { Clock } from "../platform/clock.ts";
import { selfCommand } from "../platform/entry.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import type { Log } from "../platform/log.ts";
import { GuardLink } from "./guard_link.ts";
import { GUARD_PROTOCOL, type GuardLine, type GuardReport } from "./guard_protocol.ts";
import type { UnitWatch, WatchedUnit } from "./units.ts";

/** Asked this often whether it still listens; it says hello after 40 ms, on a machine under heavy load after seconds. */
const PING_INTERVAL_MS = 5_000;
/** Pings without an answer before it is replaced. Counted, not timed: a suspend or a frozen tree makes no difference. */
const PINGS_UNANSWERED = 3;
/** Pause before the second try of a replacement, doubled to the longest; the first comes at once. */
const RESTART_FIRST_MS = 50;
const RESTART_LONGEST_MS = 5_000;
/** With nothing left to kill it ends in milliseconds after the goodbye. */
const END_LIMIT_MS = 2_000;
/** What a runtime needs to start this program again, from source too. Nothing else: no credentials, no tokens. */
const PASSED_VARIABLES = ["PATH", "HOME", "DENO_DIR", "XDG_CACHE_HOME", "TMPDIR", "LD_LIBRARY_PATH"];

export interface GuardOptions {
  /** The guard's lock file in the data folder, absolute. */
  readonly lockPath: string;
  /** Part of the tag of every unit of this manager process. */
  readonly runId: string;
  readonly clock: Clock;
  readonly log: Log;
  /** The manager's own; only what the guard needs is passed on. */
  readonly environment: Readonly<Record<string, string>>;
  /** argv of the child; the default is this program. */
  readonly command?: { readonly command: string; readonly args: readonly string[] };
  /** Hears what it killed at a deadline, and what it cannot kill. */
  readonly onReport?: (report: GuardReport & { type: "killed" | "stuck" }) => void;
}

export interface GuardStatus {
  readonly pid: number | null;
  readonly state: "starting" | "guarding" | "replacing" | "ended" | "failed";
}

/** Starts a guard and resolves when it holds its lock. Errors: `spawn-failed`, `busy` when another one holds it. */
export async function startGuard(options: GuardOptions): Promise<Guard> {
  const guard = new Guard(options);
  guard.start();
  await guard.ready();
  return guard;
}

export class Guard implements AsyncDisposable {
  readonly units: UnitWatch = {
    watch: (unit) => {
      this.#units.set(unit.groupId, unit);
      this.#tell({ type: "watch", unit });
    },
    forget: (groupId) => {
      if (this.#units.delete(groupId)) this.#tell({ type: "forget", groupId });
    },
  };
  readonly #options: GuardOptions;
  readonly #units = new Map<number, WatchedUnit>();
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended = new AbortController();
  #deadlineMs: number | null = null;
  #state: GuardStatus["state"] = "starting";
  #link: GuardLink | null = null;
  /** Resolves when there is another link, or none any more. */
  #changed = Promise.withResolvers<void>();
  #life: Promise<void> = Promise.resolve();

  constructor(options: GuardOptions) {
    this.#options = options;
    // Whoever needs it waits for `ready`; a start that fails before anybody does must not end the process.
    this.#ready.promise.catch(() => {});
  }

  /** Starts the child. Units and deadlines may be told from now on. */
  start(): void {
    this.#life = this.#keepAlive();
  }

  /**
   * Resolves when it holds its lock for the first time and all that was told before this call is in the pipe of one that
   * lives: from then on it outlives us with that knowledge. Errors: `spawn-failed`, `busy`, the signal's reason.
   */
  async ready(signal?: AbortSignal): Promise<void> {
    const { promise: interrupted, reject } = Promise.withResolvers<never>();
    interrupted.catch(() => {});
    const onAbort = () => reject(signal?.reason);
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      await Promise.race([interrupted, this.#ready.promise.then(() => this.#alive())]);
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /**
   * What runs at `killAtMs` on CLOCK_BOOTTIME is killed; a later deadline replaces it. Null: none (no lease, or nothing
   * that could write runs). Resolves when it is in the pipe of a guard that lives, where our own death does not undo it: of
   * the next one where this one is being replaced. Also when there is to be none any more.
   */
  deadline(killAtMs: number | null): Promise<void> {
    this.#deadlineMs = killAtMs;
    this.#tell({ type: "deadline", killAtMs });
    return this.#told();
  }

  status(): GuardStatus {
    return { pid: this.#link?.pid ?? null, state: this.#state };
  }

  /**
   * Says goodbye and waits for its end, at most two seconds. One that still has something to kill stays, with its lock,
   * until that is dead; one that has nothing and does not answer is killed.
   */
  async end(): Promise<void> {
    if (!this.#ended.signal.aborted) {
      this.#ended.abort();
      this.#link?.send({ type: "bye" });
    }
    const { clock, log } = this.#options;
    const timer = new AbortController();
    const late = clock.sleep(END_LIMIT_MS, { signal: timer.signal }).then(() => "late" as const, () => null);
    const outcome = await Promise.race([this.#life, late]);
    timer.abort();
    if (outcome !== "late") return;
    if (this.#units.size > 0) {
      log.warn("the guard stays until the last programs are dead", { pid: this.#link?.pid });
      return;
    }
    log.warn("the guard does not answer, killing it", { pid: this.#link?.pid });
    this.#link?.kill();
    await this.#life;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }

  #tell(line: GuardLine): void {
    this.#link?.send(line);
  }

  /** A pipe that nobody reads any more says so only to who writes to it. */
  #alive(): Promise<void> {
    this.#tell({ type: "ping", n: 0 });
    return this.#told();
  }

  /** A guard learns all that is known when it is made: who waits for the next one misses nothing. */
  async #told(): Promise<void> {
    for (;;) {
      const link = this.#link;
      if (link === null) {
        if (this.#state === "ended" || this.#state === "failed") return;
        await this.#changed.promise;
      } else if (await link.written() && link === this.#link) return;
      else if (link === this.#link) await this.#changed.promise; // its pipe is broken, its end is about to be heard of
    }
  }

  #change(link: GuardLink | null): void {
    this.#link = link;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  /** One child after another until the end. Never rejects. */
  async #keepAlive(): Promise<void> {
    const { clock, log } = this.#options;
    let pauseMs = 0;
    while (!this.#ended.signal.aborted) {
      const failure = await this.#oneLife(() => pauseMs = 0);
      if (this.#ended.signal.aborted) break;
      if (this.#state === "starting") {
        this.#state = "failed";
        this.#change(null);
        this.#ready.reject(failure);
        return;
      }
      this.#state = "replacing";
      log.error(
        "the guard ended, starting another: until then a death of the manager leaves its programs running",
        {
          error: failure.message,
        },
      );
      if (pauseMs > 0) await clock.sleep(pauseMs, { signal: this.#ended.signal }).catch(() => {});
      pauseMs = Math.min(Math.max(RESTART_FIRST_MS, pauseMs * 2), RESTART_LONGEST_MS);
    }
    this.#state = "ended";
    this.#change(null);
    this.#ready.reject(new StateManagerError("cancelled", "start guard: the manager ends"));
  }

  /** From spawn to exit; resolves with why it ended. */
  async #oneLife(onHello: () => void): Promise<StateManagerError> {
    const { runId } = this.#options;
    const over = new AbortController();
    let verdict: StateManagerError | null = null;
    const giveUp = (error: StateManagerError) => {
      verdict ??= error;
      link.kill();
    };
    let link: GuardLink;
    try {
      link = new GuardLink(this.#spawn(), () => giveUp(unusable("it does not read what it is told")));
    } catch (error) {
      return asStateManagerError(error, "spawn-failed");
    }
    this.#change(link);
    // Into the pipe before it runs: if we die now, it still learns what to kill.
    link.send({ type: "run", protocol: GUARD_PROTOCOL, runId });
    for (const unit of this.#units.values()) link.send({ type: "watch", unit });
    link.send({ type: "deadline", killAtMs: this.#deadlineMs });
    let unanswered = 0;
    void this.#ping(link, over.signal, () => {
      if (++unanswered > PINGS_UNANSWERED) giveUp(unusable(`it did not answer ${PINGS_UNANSWERED} times`));
    });
    try {
      for await (const report of link.reports()) {
        unanswered = 0;
        if (report.type === "hello" && report.protocol === GUARD_PROTOCOL) {
          this.#state = "guarding";
          this.#ready.resolve();
          onHello();
        } else if (report.type === "hello") giveUp(otherProtocol(report));
        else if (report.type === "busy") giveUp(lockedOut());
        else this.#hear(report);
      }
    } catch (error) {
      giveUp(asStateManagerError(error));
    }
    const { code, signal } = await link.status;
    over.abort();
    this.#change(null);
    const text = await link.errors;
    return verdict ??
      unusable(`it ended (${signal ?? `exit code ${code}`})${text === "" ? "" : `: ${text}`}`);
  }

  #spawn(): Child & { readonly stdin: NonNullable<Child["stdin"]> } {
    const { lockPath, environment, command } = this.#options;
    const env: Record<string, string> = {};
    for (const name of PASSED_VARIABLES) {
      const value = environment[name];
      if (value !== undefined) env[name] = value;
    }
    const child = spawnChild({
      ...(command ?? selfCommand(["__guard", lockPath])),
      cwd: "/", // holds no file system but the root busy
      env,
      clearEnv: true,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
      detached: true, // its own session: a Ctrl-C, and a KILL to the manager's group, must not reach it
    });
    const { stdin } = child;
    if (stdin === null) throw unusable("it has no stdin");
    return { ...child, stdin };
  }

  #hear(report: GuardReport): void {
    const { log, onReport } = this.#options;
    if (report.type === "killed") {
      log.error(`the guard killed what still ran (${report.reason})`, { pids: report.pids });
      onReport?.(report);
    } else if (report.type === "stuck") {
      log.error("the guard cannot kill some, in the kernel or of another user", {
        processes: report.processes,
      });
      onReport?.(report);
    }
  }

  async #ping(link: GuardLink, over: AbortSignal, beforeEach: () => void): Promise<void> {
    for (let n = 1; !over.aborted; n++) {
      beforeEach();
      link.send({ type: "ping", n });
      await this.#options.clock.sleep(PING_INTERVAL_MS, { signal: over }).catch(() => {});
    }
  }
}

function unusable(what: string): StateManagerError {
  return new StateManagerError("spawn-failed", `guard: ${what}`, {
    hint: "the machine may be short of memory, processes or time",
  });
}

function lockedOut(): StateManagerError {
  return new StateManagerError("busy", "start guard: another guard holds the data folder's guard.lock", {
    hint: "it ends when all programs of the manager before are dead: see which of them still run",
  });
}

function otherProtocol(hello: GuardReport & { type: "hello" }): StateManagerError {
  return new StateManagerError(
    "wrong-state",
    `start guard: it (build ${hello.build}) speaks protocol ${hello.protocol}, wanted ${GUARD_PROTOCOL}`,
    { hint: "the program was replaced while it ran: restart the manager" },
  );
}
