/** What the main answers look like, for who writes a client; a test holds the answers against them. */

import * as v from "valibot";

const text = v.string();
const flag = v.boolean();
const number = v.number();
const time = v.pipe(v.string(), v.isoTimestamp());
const maybe = <Schema extends v.GenericSchema>(schema: Schema) => v.nullable(schema);
const any = v.unknown();
const anyObject = v.record(v.string(), v.unknown());

const checkpoint = v.object({
  id: text,
  n: number,
  time,
  kind: text,
  comment: text,
  labels: v.record(v.string(), v.string()),
  parent: maybe(text),
  restored_from: maybe(text),
  token: number,
  files: anyObject,
  databases: anyObject,
  warnings: number,
  pinned: flag,
});

const listedCheckpoint = v.object({
  ...checkpoint.entries,
  parent_n: maybe(number),
  restored_from_n: maybe(number),
  current: flag,
});

const process = v.object({
  name: text,
  wanted: text,
  state: text,
  ready: maybe(flag),
  probe_failure: maybe(text),
  pid: maybe(number),
  started: maybe(time),
  uptime_seconds: maybe(number),
  restarts: number,
  stopped_by_request: flag,
  waiting_for: v.array(anyObject),
  stop: maybe(anyObject),
  last_exit: maybe(anyObject),
  next_start: maybe(time),
  reason: maybe(text),
  use: maybe(v.object({ memory_bytes: number, cpu_seconds: number, processes: number })),
});

const database = v.object({
  name: text,
  path: text,
  origin: maybe(text),
  state: text,
  txid: v.exactOptional(number),
  durable_txid: v.exactOptional(number),
  lag_seconds: v.exactOptional(number),
  last_error: v.exactOptional(maybe(anyObject)),
  last_drill: maybe(anyObject),
});

const lease = v.object({
  state: text,
  token: maybe(number),
  holder: maybe(text),
  remaining_seconds: maybe(number),
  held_by: maybe(anyObject),
  last_error: maybe(text),
});

const status = v.object({
  state: text,
  reason: maybe(text),
  version: text,
  build: text,
  name: maybe(text),
  repo_id: maybe(text),
  holder: text,
  pid: number,
  started: time,
  uptime_seconds: number,
  storage: maybe(v.object({ description: text, key_prefix: text, encrypted: flag })),
  lease: maybe(lease),
  processes: v.array(process),
  files: v.array(anyObject),
  databases: v.array(database),
  checkpoint: v.object({
    current: maybe(checkpoint),
    last_finished: maybe(time),
    last_error: maybe(text),
    running: flag,
    next: maybe(time),
  }),
  warnings: v.array(text),
});

const totals = v.object({
  entries: number,
  bytes: number,
  bytes_read: number,
  bytes_transferred: number,
  bytes_reused: number,
  duration_seconds: number,
});

const amount = v.object({ objects: number, bytes: number });

const event = v.object({ id: text, time, kind: text, subject: text, summary: text, detail: any });

const page = { next_after: maybe(text) };

/** By the name under which the API's description has them. */
export const ANSWERS = {
  Status: status,
  Lease: lease,
  Checkpoint: listedCheckpoint,
  Checkpoints: v.object({ checkpoints: v.array(listedCheckpoint), ...page }),
  CheckpointResult: v.object({ checkpoint, unchanged: flag, totals, file_warnings_total: number }),
  RestoreResult: v.object({
    source: maybe(checkpoint),
    checkpoint: maybe(checkpoint),
    safety: maybe(checkpoint),
    files: v.array(text),
    databases: anyObject,
    dry_run: flag,
    totals: maybe(totals),
    plan: maybe(v.array(anyObject)),
  }),
  Processes: v.object({ processes: v.array(process) }),
  Process: process,
  Databases: v.object({ databases: v.array(database), ...page }),
  Database: database,
  Synced: v.object({ name: text, durable_txid: number }),
  RestorePoints: v.object({
    restore_points: v.array(v.object({ txid: number, time: maybe(time) })),
    next_after: maybe(number),
  }),
  Storage: v.object({
    time,
    objects: number,
    bytes: number,
    kinds: v.record(v.string(), amount),
    databases: v.record(v.string(), amount),
    growth: maybe(v.object({ since: time, objects: number, bytes: number, bytes_per_day: number })),
  }),
  History: v.object({ events: v.array(event), ...page }),
  CredentialsResult: v.object({ persisted: flag, source: maybe(text) }),
  Problem: v.object({
    type: text,
    title: text,
    status: number,
    detail: text,
    instance: text,
    code: text,
    hint: v.exactOptional(text),
    errors: v.exactOptional(v.array(v.object({ pointer: text, detail: text }))),
  }),
  Object: anyObject,
} as const;

export type AnswerName = keyof typeof ANSWERS;
