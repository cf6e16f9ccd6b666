/** What happens to the processes, told in the log and in the catalog. */

import type { CatalogEvent } from "../database/mod.ts";
import { log } from "../platform/log.ts";
import { describeCause } from "../supervisor/mod.ts";
import type { SupervisorEvent } from "../supervisor/types.ts";

const logger = log("session");

export function tellProcessEvent(event: SupervisorEvent, record: (event: CatalogEvent) => void): void {
  if (event.type === "started") {
    const summary = `${event.name} started as pid ${event.pid}`;
    record({ kind: "process-start", subject: event.name, summary, detail: { ...event } });
  }
  if (event.type === "exited") {
    const summary = `${event.name}: ${describeCause(event.cause)}`;
    record({ kind: "process-exit", subject: event.name, summary, detail: { ...event } });
    const fields = { pid: event.pid, uptime_ms: Math.round(event.uptimeMs), requested: event.requested };
    if (event.requested) logger.info(summary, fields);
    else logger.warn(summary, { ...fields, last_lines: event.lastLines });
  }
  if (event.type === "readiness") {
    const summary = `${event.name} is ${event.ready ? "ready" : "not ready"}`;
    record({ kind: "process-ready", subject: event.name, summary, detail: { ...event } });
    const fields = event.reason === null ? {} : { reason: event.reason };
    if (event.ready) logger.info(summary, fields);
    else logger.warn(summary, fields);
  }
  if (event.type === "skipped-tick") {
    logger.warn(`${event.name} is not started by its schedule: the run before is not over`, {
      state: event.state,
    });
  }
  if (event.type === "watch-trouble") logger.warn(`${event.name} is not watched`, { reason: event.reason });
  if (event.type === "memory") {
    const summary = `${event.name} nears its memory_limit`;
    logger.warn(summary, { memory_bytes: event.bytes, limit_bytes: event.limitBytes });
  }
  if (event.type === "blocked") {
    const who = event.blockers.map(({ pid, name, state, wchan }) =>
      `${pid} (${name}, ${state}${wchan === null ? "" : `, ${wchan}`})`
    );
    const killed = event.killInMs === null ? {} : { killed_in_ms: event.killInMs };
    const running = event.command === null ? "" : `, its ${event.command} runs`;
    logger.warn(
      `${event.name} is slow to stop: waiting for ${who.join(", ") || "its output"}${running}`,
      killed,
    );
  }
  if (event.type === "hook-failed") {
    logger.warn(`${event.hook} of ${event.name} failed`, { reason: event.problem });
  }
  if (event.type === "killed-late") {
    logger.warn(`${event.name} had ended; killed who still bore its mark`, { pids: event.pids });
  }
  if (event.type === "state" && event.reason !== null) {
    const summary = `${event.name} is ${event.state}`;
    record({ kind: "process-state", subject: event.name, summary, detail: { ...event } });
    logger.warn(summary, { reason: event.reason });
  }
}
