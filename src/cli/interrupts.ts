/**
 * Signals that ask a command on its own, without a manager, for an end. Commands get them by their context: a process
 * that takes them takes them for good, and so must be the command's own.
 */

import { StateManagerError } from "../platform/errors.ts";
import { exitNow } from "../platform/parent_pipe.ts";
import { installSignals } from "../platform/signals.ts";

/** Aborts at the first signal that asks for an end; the second ends the process at once. */
export function interrupts(action: string): AbortSignal {
  const stop = new AbortController();
  installSignals((name) => {
    if (name === "SIGCHLD" || name === "SIGUSR1" || name === "SIGUSR2") return;
    if (stop.signal.aborted) exitNow(130);
    stop.abort(new StateManagerError("cancelled", `${action}: ended by ${name}`));
  });
  return stop.signal;
}
