/** Shapes of the supervisor: what to run, what is seen, and how it ended. Durations are milliseconds. */

import type { StateManagerError } from "../platform/errors.ts";
import type { OutputBatch } from "./lines.ts";
import type { InheritedFolder } from "./inherited.ts";
import type { CronSpec } from "../platform/cron.ts";
import type { ForwardedSignals } from "../platform/signals.ts";
import type { MemoryLimit } from "./memory_rules.ts";
import type { ProcessProbes } from "./probe_types.ts";

export type RestartPolicy = "always" | "on-failure" | "no";

/** As whom and within which bounds it runs. Where all is null and empty it runs as the manager does. */
export interface Execution {
  /** Names or numbers. */
  readonly user: string | null;
  readonly group: string | null;
  readonly umask: number | null;
  readonly nice: number | null;
  /** By the names that `ulimit` and systemd know ("nofile"); null: unlimited. */
  readonly limits: Readonly<Record<string, number | null>>;
}

export type StopMode = "group" | "mixed";

/** A command that is run for a process as it ends, by its key in the configuration. */
export type HookName = "stop_command" | "finish_command";

export interface WatchSpec {
  /** Absolute: folders with all below them, or files. */
  readonly paths: readonly string[];
  /** Patterns of names that do not count, at any depth. */
  readonly exclude: readonly string[];
  /** Absolute paths that do not count, with all below them and rotated files of their name. */
  readonly ignore: readonly string[];
}

/** One process to run. Everything is resolved: no defaults are applied below this line. */
export interface ProcessSpec {
  readonly name: string;
  /** argv; never empty. A shell command line is already ["/bin/sh", "-c", line]. */
  readonly command: readonly string[];
  readonly cwd: string | null;
  /** The environment of the child, under what comes next; nothing is inherited beyond these. */
  readonly env: Readonly<Record<string, string>>;
  /** Read at each start, in the place of `env`; null: there is no such folder. */
  readonly envDir: InheritedFolder | null;
  /** Files of variables, read at each start; they come over `env`. */
  readonly envFiles: readonly string[];
  /** Comes over `envFiles`. */
  readonly ownEnv: Readonly<Record<string, string>>;
  readonly execution: Execution;
  readonly dependsOn: Readonly<Record<string, "started" | "ready" | "completed" | "succeeded">>;
  /** Those of `dependsOn` beside whose one run it runs: it stops before they do, and starts after them (restart_edges.ts). */
  readonly restartWith: readonly string[];
  readonly restart: RestartPolicy;
  readonly restartDelayMs: number;
  readonly restartMaxDelayMs: number;
  readonly startLimit: {
    readonly burst: number;
    readonly intervalMs: number;
    /** It is tried anew so long after it hit the limit; null: it is failed. */
    readonly rearmMs: number | null;
  };
  readonly timeoutStopMs: number;
  /** Signal name, e.g. "SIGTERM". */
  readonly stopSignal: Deno.Signal;
  /** mixed: only the leader gets the stop signal, and who is left when it has ended is killed at once. */
  readonly stopMode: StopMode;
  /** argv; runs at a stop, before the stop signal. null: none. */
  readonly stopCommand: readonly string[] | null;
  /** argv; runs when nothing of an incarnation is left, before anything follows. null: none. */
  readonly finishCommand: readonly string[] | null;
  /** What counts as success besides exit code 0. */
  readonly successExit: readonly ExitMark[];
  /** After such an end it is not restarted, whatever the policy says. */
  readonly noRestartOn: readonly ExitMark[];
  /** When it fails for good, everything stops with its exit code. */
  readonly essential: boolean;
  readonly probes: ProcessProbes;
  /** Not ready this long after the spawn: it is restarted, as a failure. null: it may take as long as it likes. */
  readonly timeoutStartMs: number | null;
  /** When it is started, or with `restart: "always"` restarted; null: no such times (isJob in outcome.ts). */
  readonly schedule: CronSpec | null;
  /** Files whose change restarts it; null: none. */
  readonly watch: WatchSpec | null;
  /** Memory of all its members; null: no limit. */
  readonly memoryLimit: MemoryLimit | null;
  /** Signals that the manager passes on to this process when it gets them. */
  readonly forwardSignals: ForwardedSignals;
  /** Makes it read its own configuration again; null: it has no such signal. */
  readonly reloadSignal: Deno.Signal | null;
  /** "pipe": captured by line into the ring and passed on. "inherit": the child owns our stdin, stdout and
   * stderr, and the terminal where we have one. */
  readonly stdio: "pipe" | "inherit";
}

/** An exit code, or the name of the signal that ended it: 143 and SIGTERM are two different ends. */
export type ExitMark = number | Deno.Signal;

export type ProcessState =
  | "pending" // not wanted yet, or never started
  | "waiting" // wanted, a dependency's condition is not met yet
  | "starting"
  | "running"
  | "stopping"
  | "draining" // the leader is gone, the group or its output is not
  | "backoff"
  | "stopped" // as asked
  | "completed" // ended by itself, successfully, and is not to be restarted
  | "failed" // ended badly and is not to be restarted, or the start limit was hit
  | "skipped"; // a dependency's condition can never be met

/** Why we end an incarnation that is to be followed by another one. */
export type RestartReason =
  | "person"
  | "changed" // its definition
  | "watch" // a file it depends on
  | "schedule"
  | "dependency" // what it depends on, by `restartWith`
  | "startup" // it did not become ready in time, or its startup probe failed
  | "liveness"
  | "watchdog"
  | "memory";

/** How one incarnation ended; a signal is never turned into a code here. */
export type ExitCause =
  | { readonly kind: "exit"; readonly code: number }
  | {
    readonly kind: "signal";
    readonly signal: string;
    readonly number: number;
    /** The kernel killed it for want of memory. */
    readonly oom?: true;
    /** The kernel wrote a core file. */
    readonly dumped?: true;
  }
  | { readonly kind: "spawn-error"; readonly error: string; readonly code: 126 | 127 };

/** One of those that a stop waits for. */
export interface StopBlocker {
  readonly pid: number;
  readonly name: string;
  /** As in /proc: S sleeping, D in the kernel and not to be killed, T stopped, … */
  readonly state: string;
  /** Function of the kernel that it sleeps in; null where that is not told. */
  readonly wchan: string | null;
}

export interface ProcessStatus {
  readonly name: string;
  readonly wanted: "up" | "down";
  readonly state: ProcessState;
  /** It accepts work: by its probes, or running for a second where it has none. */
  readonly ready: boolean;
  /** The last failure of a probe that has not succeeded since, such as "readiness: HTTP 503". */
  readonly probeFailure: string | null;
  readonly pid: number | null;
  /** Wall time in milliseconds of the last start; null before the first. */
  readonly startedMs: number | null;
  /** How long this incarnation has run; null while none does. */
  readonly uptimeMs: number | null;
  /** Restarts by policy since the manager started. */
  readonly restarts: number;
  readonly lastExit: ExitCause | null;
  /** Wall time in milliseconds of the next start, in backoff or by schedule. */
  readonly nextStartMs: number | null;
  /** A person stopped it: it stays down until a person starts it. */
  readonly stoppedByRequest: boolean;
  /** Keys of the configuration that were changed by a reload and count from its next start on. */
  readonly changed: readonly string[];
  /** What it waits for before it starts; empty but in state waiting. */
  readonly waitingFor: readonly {
    readonly name: string;
    readonly condition: string;
    readonly state: ProcessState;
  }[];
  /** While it is being stopped: who is left, at most twenty, and when (wall time) all of it is killed. */
  readonly stop: {
    readonly blockers: readonly StopBlocker[];
    readonly killMs: number | null;
    /** The command that runs for it now, its processes are among the blockers. */
    readonly command: HookName | null;
  } | null;
  /** Why it is failed, skipped or slow to stop (pids that still live); null when nothing is wrong. */
  readonly reason: string | null;
  /** The last lines of output, oldest first, kept when it failed. */
  readonly lastLines: readonly string[];
  /** Of the whole incarnation, a few seconds old at most; null while nothing of it runs. */
  readonly use: ProcessUsage | null;
}

export interface ProcessUsage {
  /** Resident; what several of its processes share counts for each. */
  readonly memoryBytes: number;
  readonly cpuSeconds: number;
  readonly processes: number;
}

/** Facts for the catalog, the log and the status; in order. */
export type SupervisorEvent =
  | { readonly type: "started"; readonly name: string; readonly pid: number; readonly incarnation: number }
  | {
    readonly type: "exited";
    readonly name: string;
    readonly pid: number | null;
    readonly incarnation: number;
    readonly cause: ExitCause;
    /** We asked it to end, and not because it was unwell. */
    readonly requested: boolean;
    /** Why we ended it to start it anew; null where it is not. */
    readonly restartFor: RestartReason | null;
    readonly uptimeMs: number;
    readonly lastLines: readonly string[];
  }
  | {
    readonly type: "state";
    readonly name: string;
    readonly state: ProcessState;
    readonly reason: string | null;
  }
  | {
    readonly type: "readiness";
    readonly name: string;
    readonly ready: boolean;
    readonly reason: string | null;
  }
  /** Its run before is not over. */
  | { readonly type: "skipped-tick"; readonly name: string; readonly state: ProcessState }
  /** Its watched files cannot be watched, or change too often. */
  | { readonly type: "watch-trouble"; readonly name: string; readonly reason: string }
  /** It nears the limit of its memory. */
  | {
    readonly type: "memory";
    readonly name: string;
    readonly bytes: number;
    readonly limitBytes: number;
  }
  /** A stop that takes long: said again after growing pauses. */
  | {
    readonly type: "blocked";
    readonly name: string;
    readonly blockers: readonly StopBlocker[];
    readonly killInMs: number | null;
    readonly command: HookName | null;
  }
  /** Its stop or finish command failed, was cut short or not run; what it was run for goes on all the same. */
  | { readonly type: "hook-failed"; readonly name: string; readonly hook: HookName; readonly problem: string }
  | { readonly type: "killed-group"; readonly name: string; readonly pids: readonly number[] }
  /** Some that bore the mark of an incarnation after its end. */
  | { readonly type: "killed-late"; readonly name: string; readonly pids: readonly number[] };

/**
 * Hears all output, in order per stream. Must neither block nor throw. A promise asks for a pause: that stream is read on
 * when it resolves, and the program waits in its own write meanwhile.
 */
export type OutputHandler = (name: string, batch: OutputBatch) => Promise<void> | null;

/** How everything together ended. */
export interface SupervisorOutcome {
  /** The exit code that the manager should end with: 0, the essential process's, 128+n, 126, 127. */
  readonly exitCode: number;
  /** Name of the process that decided; null when all ended well or by request. */
  readonly decidedBy: string | null;
  readonly error: StateManagerError | null;
}
