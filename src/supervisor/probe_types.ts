/** How it is found out whether a process started, accepts work and is well. Durations are milliseconds. */

/** One way to ask. */
export type ProbeCheck =
  | {
    readonly kind: "http";
    /** http: or https:, with host and port. */
    readonly url: string;
    readonly headers: Readonly<Record<string, string>>;
  }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "exec"; readonly command: readonly string[] }
  /** A line of its output; once seen it holds for this incarnation. */
  | { readonly kind: "log"; readonly matches: (line: string) => boolean }
  /** The process tells by itself, on a descriptor that it inherits. `watchdogMs`: it must do so at least that often. */
  | { readonly kind: "notify"; readonly watchdogMs: number | null };

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
