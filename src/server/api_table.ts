/** Every route in a line or two: what it does, takes and answers. A test compares it with the routes that are served. */

import type * as v from "valibot";
import { CHECKPOINT_KINDS } from "../checkpoint/mod.ts";
import { CATALOG_KINDS } from "../database/mod.ts";
import type { AnswerName } from "./answer_schemas.ts";
import { PROGRESS } from "./event_query.ts";
import {
  checkpointSchema,
  credentialsSchema,
  MAX_PAGE,
  notesSchema,
  nothingSchema,
  pruneSchema,
  reloadSchema,
  repairSchema,
  restoreSchema,
  signalSchema,
  verifySchema,
  waitSchema,
} from "./schemas.ts";

export interface QueryParameter {
  readonly text: string;
  readonly schema: Readonly<Record<string, unknown>>;
}

export interface ApiRoute {
  readonly method: "get" | "post" | "put" | "patch" | "delete";
  /** As it is served, with `:name` for what varies. */
  readonly path: string;
  readonly text: string;
  /** `configuration`: as in the file. */
  readonly body?: v.GenericSchema | "configuration";
  readonly query?: Readonly<Record<string, QueryParameter>>;
  /** Status of success, and what it answers: JSON of this name, or another media type. */
  readonly answers: Readonly<Record<number, AnswerName | { readonly types: readonly string[] }>>;
  /** Says how the work goes where `Accept` asks for it. */
  readonly streams?: true;
  /** Needs no token. */
  readonly open?: true;
}

const flag = (text: string): QueryParameter => ({ text, schema: { type: "boolean", default: false } });
const words = (text: string): QueryParameter => ({ text, schema: { type: "string" } });
const oneOf = (text: string, values: readonly string[]): QueryParameter => ({
  text,
  schema: { type: "string", enum: values },
});
const severalOf = (text: string, values: readonly string[]): QueryParameter => ({
  text,
  schema: { type: "array", items: { type: "string", enum: values } },
});

const limit: QueryParameter = {
  text: "Most of one page.",
  schema: { type: "integer", minimum: 1, maximum: MAX_PAGE, default: MAX_PAGE },
};
const after = words("The next_after of the page before.");
const since = words("A time (RFC 3339), or a duration back: 10m.");
const plain = { types: ["text/plain"] } as const;
const health = { answers: { 200: plain, 503: plain }, open: true } as const;
const verbose = { verbose: flag("List the checks.") };
const STREAM_TYPES = ["text/event-stream", "application/x-ndjson"] as const;

export const API: readonly ApiRoute[] = [
  { method: "get", path: "/livez", text: "Whether it lives.", query: verbose, ...health },
  { method: "get", path: "/startupz", text: "Whether the API is up.", query: verbose, ...health },
  { method: "get", path: "/readyz", text: "Whether every program is ready.", query: verbose, ...health },
  {
    method: "get",
    path: "/",
    text: "The state; a page where Accept prefers HTML.",
    answers: { 200: "Status" },
  },
  { method: "get", path: "/config", text: "The configuration, secrets hidden.", answers: { 200: "Object" } },
  { method: "post", path: "/config", text: "Configures.", body: "configuration", answers: { 201: "Status" } },
  {
    method: "post",
    path: "/config/reload",
    text: "Takes over what changed in the file.",
    body: reloadSchema,
    answers: { 200: "Object" },
  },
  {
    method: "put",
    path: "/credentials",
    text: "New storage keys, proven before they replace the old.",
    body: credentialsSchema,
    answers: { 200: "CredentialsResult" },
  },
  { method: "get", path: "/lease", text: "The lease.", answers: { 200: "Lease" } },
  {
    method: "post",
    path: "/release-lease",
    text: "Stops all and gives the lease back.",
    body: nothingSchema,
    answers: { 200: "Status" },
  },
  {
    method: "post",
    path: "/acquire-lease",
    text: "Takes the lease again.",
    body: nothingSchema,
    answers: { 200: "Status" },
  },
  {
    method: "post",
    path: "/checkpoint",
    text: "Makes a checkpoint.",
    body: checkpointSchema,
    query: { wait: oneOf("For what the answer waits.", ["durable", "captured"]) },
    answers: { 201: "CheckpointResult", 202: "Object" },
    streams: true,
  },
  {
    method: "post",
    path: "/restore",
    text: "Brings an old state back, as new history.",
    body: restoreSchema,
    answers: { 200: "RestoreResult" },
    streams: true,
  },
  {
    method: "get",
    path: "/checkpoints",
    text: "Checkpoints, oldest first.",
    query: {
      limit,
      after,
      kind: severalOf("Only of these kinds.", CHECKPOINT_KINDS),
      label: words("Only with this label: name or name=value."),
      pinned: oneOf("Only pinned ones, or only others.", ["true", "false"]),
    },
    answers: { 200: "Checkpoints" },
  },
  { method: "get", path: "/checkpoints/:id", text: "One checkpoint.", answers: { 200: "Checkpoint" } },
  {
    method: "delete",
    path: "/checkpoints/:id",
    text: "Takes one off the list.",
    query: { force: flag("Also a pinned one.") },
    answers: { 200: "Object" },
  },
  {
    method: "patch",
    path: "/checkpoints/:id",
    text: "Changes what is said of one.",
    body: notesSchema,
    answers: { 200: "Checkpoint" },
  },
  {
    method: "post",
    path: "/checkpoints/prune",
    text: "Deletes those that the keep rules do not want.",
    body: pruneSchema,
    answers: { 200: "Object" },
    streams: true,
  },
  {
    method: "post",
    path: "/checkpoints/:id/verify",
    text: "Whether one (all: every one) can be brought back.",
    body: verifySchema,
    answers: { 200: "Object" },
    streams: true,
  },
  {
    method: "post",
    path: "/storage/repair",
    text: "Makes lost or damaged indexes anew.",
    body: repairSchema,
    answers: { 200: "Object" },
    streams: true,
  },
  {
    method: "get",
    path: "/checkpoints/:id/files",
    text: "What is in a folder of a checkpoint.",
    query: {
      path: words("ROOT/PATH; left out: the roots."),
      recursive: flag("With all below it."),
      limit,
      after,
    },
    answers: { 200: "Object" },
  },
  {
    method: "get",
    path: "/checkpoints/:id/diff/:other",
    text: "What differs between two checkpoints.",
    query: { limit, after },
    answers: { 200: "Object" },
  },
  {
    method: "get",
    path: "/databases",
    text: "Replicated databases, by name.",
    query: { limit, after },
    answers: { 200: "Databases" },
  },
  { method: "get", path: "/databases/:name", text: "One of them.", answers: { 200: "Database" } },
  {
    method: "post",
    path: "/databases/:name/sync",
    text: "Answers when all that was committed before is in the store.",
    body: nothingSchema,
    answers: { 200: "Synced" },
  },
  {
    method: "get",
    path: "/databases/:name/restore-points",
    text: "States that can be restored, oldest first.",
    query: { limit, after },
    answers: { 200: "RestorePoints" },
  },
  { method: "get", path: "/processes", text: "Processes.", answers: { 200: "Processes" } },
  { method: "get", path: "/processes/:name", text: "One of them.", answers: { 200: "Process" } },
  {
    method: "post",
    path: "/processes/:name/start",
    text: "Starts it.",
    body: nothingSchema,
    answers: { 200: "Process" },
  },
  {
    method: "post",
    path: "/processes/:name/stop",
    text: "Stops it; 202 where not all of it is gone in time.",
    body: waitSchema,
    answers: { 200: "Process", 202: "Process" },
  },
  {
    method: "post",
    path: "/processes/:name/restart",
    text: "Restarts it; 202 where not all of it is gone in time.",
    body: waitSchema,
    answers: { 200: "Process", 202: "Process" },
  },
  {
    method: "post",
    path: "/processes/:name/signal",
    text: "Sends it a signal.",
    body: signalSchema,
    answers: { 200: "Process" },
  },
  {
    method: "get",
    path: "/processes/:name/logs",
    text: "What it said, and says.",
    query: {
      follow: flag("Go on with what comes."),
      tail: words("So many of the last lines, or all."),
      since,
      stream: oneOf("Only this one.", ["stdout", "stderr", "note"]),
      text: words("Only lines that hold it."),
      after: words("Behind the line of this id, as the header Last-Event-ID."),
    },
    answers: { 200: { types: ["application/json", "text/plain", ...STREAM_TYPES] } },
  },
  {
    method: "get",
    path: "/processes/:name/crashes",
    text: "Its unexpected ends.",
    answers: { 200: "Object" },
  },
  {
    method: "get",
    path: "/processes/:name/crashes/:id",
    text: "What it said before one (latest: the newest).",
    answers: { 200: plain },
  },
  {
    method: "get",
    path: "/storage",
    text: "How much is in the store.",
    query: { refresh: flag("List it now.") },
    answers: { 200: "Storage" },
  },
  {
    method: "get",
    path: "/events",
    text: "What happens, as a stream behind the last event that the client has.",
    query: {
      kind: severalOf("Only of these kinds.", [...CATALOG_KINDS, PROGRESS]),
      after: words("Behind the event of this id, as the header Last-Event-ID."),
    },
    answers: { 200: { types: STREAM_TYPES } },
  },
  {
    method: "get",
    path: "/history",
    text: "What happened, newest first.",
    query: { kind: severalOf("Only of these kinds.", CATALOG_KINDS), since, until: since, limit, after },
    answers: { 200: "History" },
  },
  { method: "get", path: "/metrics", text: "Prometheus' text format.", answers: { 200: plain } },
  { method: "get", path: "/openapi.json", text: "This.", answers: { 200: "Object" } },
];
