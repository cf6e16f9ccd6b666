/** How it is found out whether a process started, accepts work and is well. Durations are milliseconds. */

/** One way to ask. */
export type ProbeCheck =
  | {
    readonly kind: "http";
    readonly host: string;
    readonly port: number;
    /** With the query, as it stands in the request line. */
    readonly path: string;
    readonly headers: Readonly<Record<string, string>>;
  }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "exec"; readonly command: readonly string[] }
  /** A line of its output that holds these pieces in this order; once seen it holds for this incarnation. */
  | { readonly kind: "log"; readonly pieces: readonly string[] }
  /**
   * The process tells by itself, on a descriptor that it inherits. `watchdogMs`: it must do so at least that often.
   * `socket`: it may also send datagrams, in systemd's way.
   */
  | { readonly kind: "notify"; readonly watchdogMs: number | null; readonly socket: boolean };

/** One probe; times and thresholds mean what they mean in Kubernetes. */
export interface ProbeSpec {
  readonly check: ProbeCheck;
  readonly initialDelayMs: number;
  readonly periodMs: number;
  readonly timeoutMs: number;
  readonly failureThreshold: number;
  readonly successThreshold: number;
}

/** `startup` gates the other two; `readiness` moves the flag only; `liveness` restarts. */
export interface ProcessProbes {
  readonly startup: ProbeSpec | null;
  readonly readiness: ProbeSpec | null;
  readonly liveness: ProbeSpec | null;
}

export const NO_PROBES: ProcessProbes = { startup: null, readiness: null, liveness: null };

/** True where a probe says when it is ready; else having lived for a while counts. */
export function awaitsReadiness(probes: ProcessProbes): boolean {
  return probes.startup !== null || probes.readiness !== null;
}

/** Environment variables of the two conventions for telling that one is ready and alive. */
export const NOTIFY_VARIABLE = "NOTIFY_FD";
/** systemd's: the path of a socket for datagrams. */
export const NOTIFY_SOCKET_VARIABLE = "NOTIFY_SOCKET";
/** systemd's: the longest time between two heartbeats, in microseconds. */
export const WATCHDOG_VARIABLE = "WATCHDOG_USEC";

function notifyChecks({ startup, readiness, liveness }: ProcessProbes) {
  const checks = [startup, readiness, liveness].flatMap((probe) => probe?.check ?? []);
  return checks.filter((check) => check.kind === "notify");
}

/** True where one of them wants the socket. */
export function wantsNotifySocket(probes: ProcessProbes): boolean {
  return notifyChecks(probes).some(({ socket }) => socket);
}

/** What a process that is to tell us something finds in its environment; null where none of its probes listens. */
export function notifyVariables(
  probes: ProcessProbes,
  descriptor: number,
  socketPath: string | null,
): Readonly<Record<string, string>> | null {
  const notify = notifyChecks(probes);
  if (notify.length === 0) return null;
  const watchdogMs = notify.find((check) => check.watchdogMs !== null)?.watchdogMs ?? null;
  return {
    [NOTIFY_VARIABLE]: String(descriptor),
    ...(socketPath === null ? {} : { [NOTIFY_SOCKET_VARIABLE]: socketPath }),
    ...(watchdogMs === null ? {} : { [WATCHDOG_VARIABLE]: String(watchdogMs * 1_000) }),
  };
}

/** True where a probe asks, listens or waits for anything. */
export function hasProbes({ startup, readiness, liveness }: ProcessProbes): boolean {
  return startup !== null || readiness !== null || liveness !== null;
}

/** True where a process finds the same in its environment for both: then one may follow the other while it runs. */
export function isToldAlike(one: ProcessProbes, other: ProcessProbes): boolean {
  const told = (probes: ProcessProbes) =>
    JSON.stringify(notifyVariables(probes, 0, wantsNotifySocket(probes) ? "there" : null));
  return told(one) === told(other);
}
