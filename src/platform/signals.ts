/**
 * Signals to the manager. They must be installed before anything else: as PID 1 without listeners the kernel drops
 * TERM (a `docker stop` then hangs to its SIGKILL), and once the runtime has any listener at all, a HUP, INT or TERM
 * without a listener of its own ends PID 1 with a segmentation fault. So all are taken together, and never given back.
 * Not for a process that outlives its listeners, such as one that runs tests: the runtime goes on taking the signals, and
 * for one without a listener does what the kernel would have done. A SIGPIPE that was ignored before then ends it.
 */

import { lookForEnds } from "./libc_child.ts";
import { unblockSignals } from "./libc_process.ts";

/**
 * What somebody may send us for a program: those that mean something to programs. Of the others some cannot be taken,
 * some tell a fault or a limit of our own, and TERM, INT and CHLD are ours.
 */
export const PASSABLE = [
  "SIGHUP",
  "SIGQUIT",
  "SIGUSR1",
  "SIGUSR2",
  "SIGWINCH",
  "SIGALRM",
  "SIGIO",
  "SIGPWR",
  "SIGTSTP",
  "SIGURG",
] as const;
/** By the signal that comes to us: the one that a program gets for it. */
export type ForwardedSignals = Readonly<Partial<Record<Deno.Signal, Deno.Signal>>>;

/** Taken and told to the handler. Of TSTP nothing comes but that: a ctrl-Z must not stop the supervisor of all. */
const HANDLED = ["SIGINT", "SIGTERM", "SIGCHLD", ...PASSABLE] as const;
/** Taken so that they do nothing: a background write to the tty must not stop the supervisor of all. */
const IGNORED = ["SIGPIPE", "SIGTTIN", "SIGTTOU"] as const;

export type HandledSignal = typeof HANDLED[number];

/** Installs all listeners, for the life of the process. `handler` runs in the event loop, once per signal noticed. */
export function installSignals(handler: (signal: HandledSignal) => void): void {
  for (const signal of HANDLED) {
    Deno.addSignalListener(signal, () => {
      if (signal === "SIGCHLD") lookForEnds();
      handler(signal);
    });
  }
  for (const signal of IGNORED) {
    try {
      Deno.addSignalListener(signal, () => {});
    } catch {
      // A runtime that refuses one of these leaves its default, which only matters at a terminal.
    }
  }
  // With the listeners there: what waited meanwhile comes now, and must not end us.
  unblockSignals();
}
