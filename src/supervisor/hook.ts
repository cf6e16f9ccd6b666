/**
 * One run of a stop or finish command: in a group of its own, with environment, user and limits of its process, into
 * that one's log. It has no time limit of its own: states.ts says when it is over. All that it started ends with it.
 */

import type { Clock } from "../platform/clock.ts";
import { startTicksOf } from "../platform/proc.ts";
import { runCommand } from "./command.ts";
import { launchOf } from "./launch.ts";
import type { Machine } from "./machine.ts";
import { type Unit, UNIT_VARIABLE } from "./members.ts";
import { isSuccess } from "./restart.ts";
import type { HookName, OutputHandler, ProcessSpec, RestartReason } from "./types.ts";
import { everybodyOf, membersOf, type Seen, signalMembers } from "./unit_members.ts";
import { childWatches, type UnitWatch } from "./units.ts";

/** Longer than any stop may take. */
const LIMIT_MS = 2 * 86_400_000;
const NO_TIME = "there was no time left for it";

export interface HookOptions {
  readonly hook: HookName;
  readonly spec: ProcessSpec;
  readonly incarnation: number;
  /** Over the environment of the process. */
  readonly variables: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly runId: string;
  readonly units: UnitWatch;
  readonly output: OutputHandler;
  /** Nothing of it is left; null: it succeeded. Called once. */
  readonly onEnd: (problem: string | null) => void;
}

export class Hook {
  readonly #options: HookOptions;
  readonly #abort = new AbortController();
  #isStarted = false;
  #unit: Unit | null = null;

  constructor(options: HookOptions) {
    this.#options = options;
  }

  /** Once: more calls change nothing. */
  start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    void this.#run().then((problem) => {
      this.#unit = null;
      this.#options.onEnd(problem);
    });
  }

  /** Its time is over: it is killed. */
  end(): void {
    this.#abort.abort();
    if (this.#isStarted) return;
    this.#isStarted = true;
    this.#options.onEnd(NO_TIME);
  }

  /** Everybody of it who can still run; null: nothing of it does. */
  members(): Seen | null {
    return this.#unit === null ? null : everybodyOf(this.#unit, { isAlive: true });
  }

  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    if (this.#unit === null) return;
    signalMembers(this.#unit, membersOf(this.#unit), signal, { leaderAlive: false });
  }

  async #run(): Promise<string | null> {
    const { hook, spec, incarnation, variables, clock, runId, units, output } = this.#options;
    const argv = hook === "stop_command" ? spec.stopCommand : spec.finishCommand;
    if (argv === null) return null; // a reload has just taken it away
    const word = hook === "stop_command" ? "stop" : "finish";
    const watch = childWatches({ name: `${spec.name}:${word}-${incarnation}`, runId, units })();
    const started = (pid: number) => {
      watch.started(pid);
      const startTicks = startTicksOf(pid);
      this.#unit = { groupId: pid, startTicks, tag: watch.env[UNIT_VARIABLE] ?? "", strays: new Map() };
    };
    try {
      const { command, args, env } = launchOf({ ...spec, command: argv });
      await runCommand({
        name: spec.name,
        argv: [command, ...args],
        env: { ...env, ...variables },
        cwd: spec.cwd,
        limitMs: LIMIT_MS,
        clock,
        output,
        watch: { ...watch, started },
        signal: this.#abort.signal,
      });
      return null;
    } catch (error) {
      if (this.#abort.signal.aborted) return "its time was over: it was killed";
      const text = error instanceof Error ? error.message : String(error);
      return text.replace(`run ${spec.name}: `, "");
    }
  }
}

/** How the incarnation ended, in systemd's words (systemd.exec(5)). */
export function endVariables(
  spec: ProcessSpec,
  machine: Machine,
  restartFor: RestartReason | null,
): Record<string, string> {
  const { exit } = machine;
  const result = { SERVICE_RESULT: resultOf(spec, machine, restartFor) };
  if (exit === null || exit.kind === "spawn-error") return result;
  if (exit.kind === "exit") return { ...result, EXIT_CODE: "exited", EXIT_STATUS: String(exit.code) };
  const EXIT_STATUS = exit.signal.replace(/^SIG/, "");
  return { ...result, EXIT_CODE: exit.dumped === true ? "dumped" : "killed", EXIT_STATUS };
}

function resultOf(
  spec: ProcessSpec,
  { exit, killed, stopRequested }: Machine,
  restartFor: RestartReason | null,
): string {
  if (killed || restartFor === "startup") return "timeout";
  if (restartFor === "watchdog" || restartFor === "liveness") return "watchdog";
  if (restartFor === "memory" || (exit?.kind === "signal" && exit.oom === true)) return "oom-kill";
  if (stopRequested || exit === null || isSuccess(spec, exit)) return "success";
  if (exit.kind !== "signal") return "exit-code";
  return exit.dumped === true ? "core-dump" : "signal";
}
