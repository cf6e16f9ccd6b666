/** The Hono app: what is in front of every route, in order, and the routes. Nothing here opens a socket. */

import { Hono } from "hono";
import type { Control } from "../manager/control.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { Random } from "../platform/random.ts";
import { requireAccess } from "./access.ts";
import type { ServerEnv } from "./env.ts";
import { loadLimit } from "./load_limit.ts";
import { answerNotFound, methodNotAllowed, problemHandler } from "./problems.ts";
import { requestId, requestLog } from "./request_log.ts";
import { addCheckpointRoutes } from "./routes/checkpoints.ts";
import { addDatabaseRoutes } from "./routes/databases.ts";
import { addEventRoutes } from "./routes/events.ts";
import { addHealthRoutes } from "./routes/health.ts";
import { addHistoryRoutes } from "./routes/history.ts";
import { addLogRoutes } from "./routes/logs.ts";
import { addMetricsRoute } from "./routes/metrics.ts";
import { addOpenApiRoute } from "./routes/openapi.ts";
import { addProcessRoutes } from "./routes/processes.ts";
import { addStatusRoutes } from "./routes/status.ts";
import { addStorageRoutes } from "./routes/storage.ts";
import { addVerifyRoutes } from "./routes/verify.ts";
import { securityHeaders } from "./security_headers.ts";
import { endUnreadBody } from "./stream_response.ts";

export interface AppOptions {
  readonly control: Control;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export type App = Hono<ServerEnv>;

export function createApp({ control, clock, random, log }: AppOptions): App {
  const app = new Hono<ServerEnv>();
  app.onError(problemHandler(log));
  app.notFound(answerNotFound);
  app.use(
    requestId(random),
    requestLog({ clock, log }),
    securityHeaders(),
    requireAccess(() => control.access()),
    loadLimit(),
    endUnreadBody(),
  );
  addHealthRoutes(app, control);
  addStatusRoutes(app, { control, clock, random });
  addCheckpointRoutes(app, { control, clock, log });
  addVerifyRoutes(app, { control, clock, log });
  addHistoryRoutes(app, { control, clock });
  addDatabaseRoutes(app, { control, clock });
  addProcessRoutes(app, { control, clock });
  addLogRoutes(app, { control, clock });
  addStorageRoutes(app, { control });
  addEventRoutes(app, { control, clock });
  addMetricsRoute(app, { control, clock });
  addOpenApiRoute(app);
  addMethodNotAllowed(app);
  return app;
}

/** After all routes: their paths with any other method are 405, not 404. */
function addMethodNotAllowed(app: App): void {
  const methodsOf = new Map<string, Set<string>>();
  for (const { path, method } of app.routes) {
    if (method === "ALL") continue; // middleware
    const methods = methodsOf.get(path) ?? new Set();
    methodsOf.set(path, methods.add(method));
  }
  for (const [path, methods] of methodsOf) {
    app.all(path, methodNotAllowed([...methods].sort()));
  }
}
