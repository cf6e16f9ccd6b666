/** What goes wrong in a simulated history, how often, and the count of it. */

/** Per request or effect a probability; per node a rate each second. */
export interface Faults {
  readonly lostRequest: number;
  readonly lostReply: number;
  readonly lateLanding: number;
  readonly doubled: number;
  /** 503: not carried out; 500: carried out, and the answer says otherwise; 409: not carried out. */
  readonly unavailable: number;
  readonly failsAfter: number;
  readonly conflict: number;
  readonly crashAtEffect: number;
  readonly stageFails: number;
  readonly pauseManagerPerSecond: number;
  readonly suspendPerSecond: number;
  readonly crashPerSecond: number;
  readonly clockStepPerSecond: number;
  readonly stopPerSecond: number;
  readonly restorePerSecond: number;
  readonly outagePerSecond: number;
  readonly longestPauseMs: number;
  /** Of the crashes: the container with all in it, the machine rebooted, the machine lost, a copy of its disk elsewhere. */
  readonly wholeContainer: number;
  readonly reboot: number;
  readonly machineLost: number;
  readonly cloned: number;
}

export const FAULTS: Faults = {
  lostRequest: 0.02,
  lostReply: 0.03,
  lateLanding: 0.03,
  doubled: 0.03,
  unavailable: 0.03,
  failsAfter: 0.015,
  conflict: 0.01,
  crashAtEffect: 0.012,
  stageFails: 0.05,
  pauseManagerPerSecond: 0.006,
  suspendPerSecond: 0.005,
  crashPerSecond: 0.006,
  clockStepPerSecond: 0.004,
  stopPerSecond: 0.008,
  restorePerSecond: 0.03,
  outagePerSecond: 0.002,
  longestPauseMs: 40_000,
  wholeContainer: 0.3,
  reboot: 0.1,
  machineLost: 0.1,
  cloned: 0.05,
};

/** How often each must be hit in 20,000 histories, at least; a test of fewer expects its share. */
export const MINIMA = {
  "put of an earlier term reaches the store after the successor's first write": 1_000,
  "crash inside a restore": 500,
  "request lost": 20_000,
  "reply lost": 20_000,
  "request late": 20_000,
  "request twice": 20_000,
  "503": 20_000,
  "500 after it was carried out": 10_000,
  "409": 8_000,
  "412": 20_000,
  "late put after its sender's death": 1_000,
  "store outage": 2_000,
  "manager paused beyond the TTL": 2_000,
  "machine suspended beyond the TTL": 2_000,
  "wall clock stepped": 2_000,
  "lease in doubt": 1_000,
  "manager crashed": 5_000,
  "container crashed": 1_000,
  "machine rebooted": 500,
  "machine lost": 500,
  "disk cloned": 200,
  "crash before or after a put": 500,
  "crash at roll-swap": 100,
  "crash at finish-swap": 100,
  "crash at write-marker": 500,
  "crash at move-aside": 50,
  "crash at swap-files": 100,
  "crash at swap-head": 200,
  "crash at take-over-head": 200,
  "crash at settle-head": 50,
  "crash at upload": 500,
  "crash at stage": 200,
  "crash at compose": 50,
  "stage failed": 500,
  "guard killed at the deadline": 500,
  "guard killed after the manager's death": 2_000,
  "fast return": 1_000,
  "hand-over": 500,
  "frozen and thawed": 500,
  "restore done": 2_000,
  "intent finished by a successor": 50,
  "data moved aside": 1_000,
  "data of unknown origin refused": 100,
  "clean stop": 2_000,
  "checkpoint done": 40_000,
} as const;

export type Tallied = keyof typeof MINIMA;

export type Tally = Partial<Record<Tallied, number>>;
