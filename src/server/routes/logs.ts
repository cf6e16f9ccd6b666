/** `GET /processes/:name/logs`: what a process said and says; `GET /processes/:name/crashes`: what it said before it fell. */

import type { Hono } from "hono";
import { NAME_PATTERN } from "../../config/schema_values.ts";
import type { Control } from "../../manager/control.ts";
import type { Clock } from "../../platform/clock.ts";
import { StateManagerError } from "../../platform/errors.ts";
import type { ServerContext, ServerEnv } from "../env.ts";
import { type LogQuery, readLogQuery } from "../log_query.ts";
import { encoderFor, lineView, logStream } from "../log_stream.ts";
import { jsonResponse } from "../long_work.ts";

export interface LogRoutes {
  readonly control: Control;
  readonly clock: Clock;
}

export function addLogRoutes(app: Hono<ServerEnv>, { control, clock }: LogRoutes): void {
  app.get("/processes/:name/logs", function showLogs(c) {
    const name = c.req.param("name");
    if (!control.logs.has(name) && !isKnown(control, name)) throw unknown("show the output");
    const query = readLogQuery(c, clock.wallMs(), control.logs.runId);
    return query.follow ? follow(c, control, name, query, clock) : snapshot(control, name, query);
  });

  app.get("/processes/:name/crashes", async function listCrashes(c) {
    const name = c.req.param("name");
    const crashes = NAME_PATTERN.test(name) ? await control.crashes.list(name) : [];
    if (crashes.length === 0 && !isKnown(control, name)) throw unknown("list the crashes");
    return jsonResponse({ status: 200, body: { crashes } });
  });

  app.get("/processes/:name/crashes/:id", async function showCrash(c) {
    const name = c.req.param("name");
    if (!NAME_PATTERN.test(name)) throw unknown("show the crash");
    const bytes = await control.crashes.read(name, c.req.param("id"));
    return new Response(bytes, { headers: { "content-type": "text/plain; charset=utf-8" } });
  });
}

function isKnown(control: Control, name: string): boolean {
  return control.status().processes.some((process) => process.name === name);
}

function unknown(action: string): StateManagerError {
  return new StateManagerError("not-found", `${action}: no process has this name`, {
    hint: "GET /processes lists them",
  });
}

/** The last `tail` of the lines that are kept, wanted, and not with the client yet. */
function keptLines(control: Control, name: string, query: LogQuery) {
  const after = query.after ?? 0;
  const lines = control.logs.last(name).filter((line) => line.sequence > after && query.matches(line));
  return query.tail === Infinity ? lines : lines.slice(Math.max(0, lines.length - query.tail));
}

function snapshot(control: Control, name: string, query: LogQuery): Response {
  const lines = keptLines(control, name, query);
  const { runId } = control.logs;
  if (query.type === "application/json") {
    const body = { process: name, lines: lines.map((line) => lineView(line, runId)) };
    return jsonResponse({ status: 200, body });
  }
  const encode = encoderFor(query.type, runId);
  const type = query.type === "text/plain" ? "text/plain; charset=utf-8" : query.type;
  return new Response(lines.map(encode.line).join(""), { headers: { "content-type": type } });
}

function follow(c: ServerContext, control: Control, name: string, query: LogQuery, clock: Clock): Response {
  const { logs } = control;
  // Nothing can come between these lines: all of it is one turn.
  const kept = keptLines(control, name, query);
  const { first, last } = logs.numbers(name);
  const missed = query.after === null ? 0 : Math.max(0, first - query.after - 1);
  return logStream({
    query,
    runId: logs.runId,
    kept,
    after: last,
    missed,
    follower: logs.follow(name, last),
    clock,
    streams: c.env.streams,
  });
}
