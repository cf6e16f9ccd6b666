/** `GET /databases`, one of them, its restore points, and the barrier `POST /databases/:name/sync`. */

import type { Hono } from "hono";
import type { Control, DatabaseInfo } from "../../manager/control.ts";
import type { Clock } from "../../platform/clock.ts";
import { StateManagerError } from "../../platform/errors.ts";
import { invalid, readBody } from "../body.ts";
import type { ServerContext, ServerEnv } from "../env.ts";
import { jsonResponse } from "../long_work.ts";
import { MAX_PAGE, nothingSchema } from "../schemas.ts";
import { databaseView } from "../views.ts";

/** A caller that waits longer asks again: nothing is lost by it. */
const SYNC_LIMIT_MS = 10 * 60_000;
const POINTS_LIMIT_MS = 2 * 60_000;

export interface DatabaseRoutes {
  readonly control: Control;
  readonly clock: Clock;
}

/** The name of one that a pattern found has a slash, in a path written as %2F. */
export function addDatabaseRoutes(app: Hono<ServerEnv>, { control, clock }: DatabaseRoutes): void {
  app.get("/databases", function listDatabases(c) {
    const limit = numberOf(c, "limit", MAX_PAGE) ?? MAX_PAGE;
    const after = c.req.query("after") ?? "";
    // By name, so that a page goes on where one ended whose last database is gone by now.
    const rest = control.status().databases.filter(({ name }) => name > after)
      .sort((a, b) => a.name < b.name ? -1 : 1);
    const page = rest.slice(0, limit);
    return jsonResponse({
      status: 200,
      body: {
        databases: page.map(databaseView),
        next_after: rest.length > page.length ? page.at(-1)?.name ?? null : null,
      },
    });
  });

  app.get("/databases/:name", function showDatabase(c) {
    return jsonResponse({ status: 200, body: databaseView(find(control, c.req.param("name"))) });
  });

  app.post("/databases/:name/sync", async function syncDatabase(c) {
    await readBody(c, nothingSchema, clock);
    const { name } = find(control, c.req.param("name"));
    const { txid } = await control.syncDatabase(name, AbortSignal.timeout(SYNC_LIMIT_MS));
    return jsonResponse({ status: 200, body: { name, durable_txid: txid } });
  });

  app.get("/databases/:name/restore-points", async function listRestorePoints(c) {
    const { name } = find(control, c.req.param("name"));
    const query = { limit: numberOf(c, "limit", MAX_PAGE) ?? MAX_PAGE, afterTxid: numberOf(c, "after") ?? 0 };
    const { points, nextAfter } = await control.restorePoints(
      name,
      query,
      AbortSignal.timeout(POINTS_LIMIT_MS),
    );
    return jsonResponse({
      status: 200,
      body: {
        restore_points: points.map(({ txid, timeMs }) => ({
          txid,
          time: timeMs === null ? null : new Date(timeMs).toISOString(),
        })),
        next_after: nextAfter,
      },
    });
  });
}

function find(control: Control, name: string): DatabaseInfo {
  const found = control.status().databases.find((database) => database.name === name);
  if (found !== undefined) return found;
  throw new StateManagerError("not-found", "find the database: no database has this name", {
    hint: "GET /databases lists them",
  });
}

function numberOf(c: ServerContext, key: string, most = Number.MAX_SAFE_INTEGER): number | null {
  const text = c.req.query(key);
  if (text === undefined) return null;
  const number = /^\d{1,16}$/.test(text) ? Number(text) : 0;
  if (number >= 1 && number <= most) return number;
  throw invalid([{ pointer: "", detail: `${key}: want a number from 1 to ${most}` }]);
}
