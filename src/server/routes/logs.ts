/** `GET /processes/:name/logs`: what a process said and says; `GET /processes/:name/crashes`: what it said before it fell. */

import type { Hono } from "hono";
import { NAME_PATTERN } from "../../config/schema_values.ts";
import type { Control } from "../../manager/control.ts";
import type { Clock } from "../../platform/clock.ts";
import { StateManagerError } from "../../platform/errors.ts";
import { localFileError } from "../../platform/files.ts";
import type { LogHistory } from "../../supervisor/mod.ts";
import type { ServerContext, ServerEnv } from "../env.ts";
import { type LogQuery, readLogQuery } from "../log_query.ts";
import { logStream } from "../log_stream.ts";
import { jsonResponse } from "../long_work.ts";

export interface LogRoutes {
  readonly control: Control;
  readonly clock: Clock;
}

export function addLogRoutes(app: Hono<ServerEnv>, { control, clock }: LogRoutes): void {
  app.get("/processes/:name/logs", async function showLogs(c) {
    const name = c.req.param("name");
    if (!control.logs.has(name) && !isKnown(control, name)) throw unknown("show the output");
    const query = readLogQuery(c, clock.wallMs(), control.logs.runId);
    return await output(c, control, name, query, clock);
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

/** Whether what is kept in memory may be less than what is asked for. */
function reachesBack(control: Control, name: string, query: LogQuery, found: number): boolean {
  // Files do not know streams and numbers.
  if (!query.asksBack || query.stream !== undefined || query.after !== null || found >= query.tail) {
    return false;
  }
  const [oldest] = control.logs.last(name);
  return oldest === undefined || oldest.wallMs >= query.sinceMs;
}

async function historyOf({ logs }: Control, name: string): Promise<LogHistory | null> {
  try {
    return await logs.history(name);
  } catch (error) {
    throw localFileError(`read the log files of ${name}`, error);
  }
}

async function output(
  c: ServerContext,
  control: Control,
  name: string,
  query: LogQuery,
  clock: Clock,
): Promise<Response> {
  const { logs } = control;
  // Nothing can come between these: all of it is one turn.
  const kept = keptLines(control, name, query);
  const { first, last } = logs.numbers(name);
  const follower = query.follow ? logs.follow(name, last) : null;
  const opening = reachesBack(control, name, query, kept.length) ? historyOf(control, name) : null;
  try {
    const history = await opening;
    return logStream({
      process: name,
      query,
      runId: logs.runId,
      past: history === null ? null : { history, query: query.ofFiles(query.tail - kept.length) },
      kept,
      after: last,
      missed: query.follow && query.after !== null ? Math.max(0, first - query.after - 1) : 0,
      follower,
      clock,
      streams: c.env.streams,
    });
  } catch (error) {
    follower?.close();
    throw error;
  }
}
