/**
 * Signals to the manager. They must be installed before anything else: as PID 1 without listeners the kernel drops
 * TERM (a `docker stop` then hangs to its SIGKILL), and once the runtime has any listener at all, a HUP, INT or TERM
 * without a listener of its own ends PID 1 with a segmentation fault. So all are taken together, and never given back.
 */

/** Taken and told to the handler. */
const HANDLED = ["SIGHUP", "SIGINT", "SIGTERM", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD"] as const;
/** Taken so that they do nothing: a background write to the tty or a ctrl-Z must not stop the supervisor of all. */
const IGNORED = ["SIGPIPE", "SIGTTIN", "SIGTTOU", "SIGTSTP"] as const;

export type HandledSignal = typeof HANDLED[number];

/** Installs all listeners, for the life of the process. `handler` runs in the event loop, once per signal noticed. */
export function installSignals(handler: (signal: HandledSignal) => void): void {
  for (const signal of HANDLED) Deno.addSignalListener(signal, () => handler(signal));
  for (const signal of IGNORED) {
    try {
      Deno.addSignalListener(signal, () => {});
    } catch {
      // A runtime that refuses one of these leaves its default, which only matters at a terminal.
    }
  }
}
