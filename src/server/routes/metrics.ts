/** `GET /metrics` in Prometheus' text format 0.0.4: only numbers that the status has, none that costs a request. */

import type { Hono } from "hono";
import type {
  Control,
  DatabaseInfo,
  ManagerState,
  ManagerStatus,
  VerifySummary,
} from "../../manager/control.ts";
import type { Clock } from "../../platform/clock.ts";
import type { ProcessUsage } from "../../supervisor/types.ts";
import type { ServerEnv } from "../env.ts";

const STATES: readonly ManagerState[] = [
  "unconfigured",
  "waiting",
  "restoring",
  "starting",
  "running",
  "frozen",
  "stopping",
  "released",
  "fenced",
  "failed",
];

interface Metric {
  readonly name: string;
  readonly type: "gauge" | "counter";
  readonly help: string;
  readonly samples: readonly {
    readonly labels: Readonly<Record<string, string>>;
    readonly value: number;
  }[];
}

export interface MetricsRoute {
  readonly control: Control;
  readonly clock: Clock;
}

export function addMetricsRoute(app: Hono<ServerEnv>, { control, clock }: MetricsRoute): void {
  app.get("/metrics", function showMetrics() {
    const body = metricsOf(control.status(), clock.wallMs()).map(textOf).join("");
    return new Response(body, { headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" } });
  });
}

function metricsOf(status: ManagerStatus, nowMs: number): Metric[] {
  const { checkpoint, databases, lease } = status;
  return [
    {
      name: "state",
      type: "gauge",
      help: "1 for the state that the manager is in",
      samples: STATES.map((state) => ({ labels: { state }, value: state === status.state ? 1 : 0 })),
    },
    gauge("uptime_seconds", "Since the manager's start", status.uptime_seconds),
    gauge("lease_token", "Fencing token of the term; 0: none", lease?.token ?? 0),
    gauge(
      "lease_remaining_seconds",
      "Until the term ends without a renewal",
      (lease?.remainingMs ?? 0) / 1000,
    ),
    ...(checkpoint.last_finished === null ? [] : [
      gauge(
        "checkpoint_age_seconds",
        "Since the last checkpoint that ended well, an unchanged one included",
        Math.max(0, nowMs - Date.parse(checkpoint.last_finished)) / 1000,
      ),
    ]),
    {
      name: "process_up",
      type: "gauge",
      help: "1 while the process runs, also before it is ready and while it is being stopped",
      samples: status.processes.map(({ name, pid }) => ({
        labels: { process: name },
        value: pid === null ? 0 : 1,
      })),
    },
    {
      name: "process_ready",
      type: "gauge",
      help: "1 while the process accepts work, by its probes or by running for a second where it has none",
      samples: status.processes.map(({ name, ready }) => ({
        labels: { process: name },
        value: ready ? 1 : 0,
      })),
    },
    {
      name: "process_restarts_total",
      type: "counter",
      help: "Restarts since the manager's start",
      samples: status.processes.map(({ name, restarts }) => ({ labels: { process: name }, value: restarts })),
    },
    {
      name: "process_stop_blockers",
      type: "gauge",
      help: "Who is in the way of a stop, by state as in /proc; D hangs in the kernel and cannot be killed",
      samples: status.processes.flatMap(blockerSamples),
    },
    ...useMetrics(status.processes),
    ...verifyMetrics(checkpoint.verify.last),
    ...databaseMetrics(databases),
  ];
}

/** None where it is not being stopped. */
function blockerSamples({ name, stop }: ManagerStatus["processes"][number]): Metric["samples"] {
  if (stop === null) return [];
  const states = [...new Set(stop.blockers.map(({ state }) => state))].sort();
  return states.map((state) => ({
    labels: { process: name, state },
    value: stop.blockers.filter((each) => each.state === state).length,
  }));
}

/** Of those that run. */
function useMetrics(processes: ManagerStatus["processes"]): Metric[] {
  const samples = (value: (use: ProcessUsage) => number) =>
    processes.flatMap(({ name, use }) =>
      use === null ? [] : [{ labels: { process: name }, value: value(use) }]
    );
  return [
    {
      name: "process_memory_bytes",
      type: "gauge",
      help: "Resident memory of all processes of its group and of those that left it",
      samples: samples(({ memoryBytes }) => memoryBytes),
    },
    {
      name: "process_cpu_seconds_total",
      type: "counter",
      help: "CPU time of its current incarnation",
      samples: samples(({ cpuSeconds }) => cpuSeconds),
    },
    {
      name: "process_members",
      type: "gauge",
      help: "Processes of its group and those that left it",
      samples: samples(({ processes }) => processes),
    },
  ];
}

function verifyMetrics(last: VerifySummary | null): Metric[] {
  if (last === null) return [];
  const readSince = last.all_read_since;
  return [
    gauge("last_verify_timestamp_seconds", "When the last verification ended", Date.parse(last.time) / 1000),
    ...(last.outcome === "not-run" ? [] : [
      gauge(
        "last_verify_ok",
        "1 when it found nothing missing or damaged",
        Number(last.outcome === "passed"),
      ),
      gauge("verify_damaged_objects", "Missing or damaged objects that it found", last.damaged),
    ]),
    ...(readSince === null ? [] : [
      gauge(
        "verify_all_read_timestamp_seconds",
        "Every pack was read at least once since then",
        Date.parse(readSince) / 1000,
      ),
    ]),
  ];
}

type OfDatabase = (database: DatabaseInfo) => number | null | undefined;

function databaseMetrics(databases: readonly DatabaseInfo[]): Metric[] {
  const metric = (name: string, type: Metric["type"], help: string, value: OfDatabase): Metric => ({
    name,
    type,
    help,
    samples: databases.flatMap((database) => {
      const number = value(database);
      return number === null || number === undefined
        ? []
        : [{ labels: { database: database.name }, value: number }];
    }),
  });
  return [
    metric(
      "replication_lag_seconds",
      "gauge",
      "Age of the oldest commit that is not in the bucket",
      (database) => database.followed === null ? null : database.followed.lagMs / 1000,
    ),
    metric("txid", "gauge", "Newest captured transaction", ({ followed }) => followed?.txid),
    metric(
      "durable_txid",
      "gauge",
      "Newest transaction in the bucket",
      ({ followed }) => followed?.durableTxid,
    ),
    metric("wal_bytes", "gauge", "Size of the write-ahead log", ({ followed }) => followed?.walBytes),
    metric(
      "replication_waiting_bytes",
      "gauge",
      "Captured and not yet in the bucket",
      ({ followed }) => followed?.waitingBytes,
    ),
    metric(
      "replication_syncs_total",
      "counter",
      "Files of commits made",
      ({ followed }) => followed?.counts.syncs,
    ),
    metric(
      "replication_snapshots_total",
      "counter",
      "Of these, with all pages",
      ({ followed }) => followed?.counts.snapshots,
    ),
    metric(
      "replication_checkpoints_total",
      "counter",
      "SQLite checkpoints that the follower ran",
      ({ followed }) => followed?.counts.checkpoints,
    ),
    metric(
      "replication_compactions_total",
      "counter",
      "Merges of files in the bucket",
      ({ followed }) => followed?.counts.compactions,
    ),
    metric(
      "replication_requests_total",
      "counter",
      "Requests to the store, every try",
      ({ followed }) => followed?.counts.requests,
    ),
    metric(
      "replication_sent_bytes_total",
      "counter",
      "Bytes sent to the store",
      ({ followed }) => followed?.counts.sentBytes,
    ),
    metric(
      "replication_errors_total",
      "counter",
      "Tries that failed",
      ({ followed }) => followed?.counts.errors,
    ),
    metric(
      "last_restore_check_timestamp_seconds",
      "gauge",
      "When the last restore drill ended",
      ({ lastDrill }) => lastDrill === null ? null : lastDrill.atMs / 1000,
    ),
    metric(
      "last_restore_check_ok",
      "gauge",
      "1 when the last restore drill found a whole database",
      ({ lastDrill }) =>
        lastDrill === null || lastDrill.outcome === "not-run" ? null : Number(lastDrill.outcome === "passed"),
    ),
  ];
}

function gauge(name: string, help: string, value: number): Metric {
  return { name, type: "gauge", help, samples: [{ labels: {}, value }] };
}

/** Empty where there is no sample: a type line alone says nothing. */
function textOf({ name, type, help, samples }: Metric): string {
  if (samples.length === 0) return "";
  const full = `state_manager_${name}`;
  const lines = samples.map(({ labels, value }) => {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escaped(text)}"`);
    return `${full}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${value}\n`;
  });
  return `# HELP ${full} ${help}.\n# TYPE ${full} ${type}\n${lines.join("")}`;
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
