/** `GET /processes`, one of them, and what may be asked of it: start, stop, restart, signal. */

import type { Hono } from "hono";
import type { Control } from "../../manager/control.ts";
import type { Clock } from "../../platform/clock.ts";
import { StateManagerError } from "../../platform/errors.ts";
import type { ProcessStatus } from "../../supervisor/types.ts";
import { readBody } from "../body.ts";
import type { ServerEnv } from "../env.ts";
import { jsonResponse } from "../long_work.ts";
import { nothingSchema, signalSchema, waitSchema } from "../schemas.ts";
import { processView } from "../views.ts";

export interface ProcessRoutes {
  readonly control: Control;
  readonly clock: Clock;
}

export function addProcessRoutes(app: Hono<ServerEnv>, { control, clock }: ProcessRoutes): void {
  app.get("/processes", function listProcesses() {
    return jsonResponse({
      status: 200,
      body: { processes: control.status().processes.map(processView) },
    });
  });

  app.get("/processes/:name", function showProcess(c) {
    const found = control.status().processes.find(({ name }) => name === c.req.param("name"));
    if (found === undefined) {
      throw new StateManagerError("not-found", "show the process: no process has this name", {
        hint: "GET /processes lists them",
      });
    }
    return jsonResponse({ status: 200, body: processView(found) });
  });

  app.post("/processes/:name/start", async function startProcess(c) {
    await readBody(c, nothingSchema, clock);
    return jsonResponse({ status: 200, body: processView(await control.startProcess(c.req.param("name"))) });
  });

  app.post("/processes/:name/stop", async function stopProcess(c) {
    const { wait } = await readBody(c, waitSchema, clock);
    return answerOfStop(await control.stopProcess(c.req.param("name"), { waitMs: wait ?? null }));
  });

  app.post("/processes/:name/restart", async function restartProcess(c) {
    const { wait } = await readBody(c, waitSchema, clock);
    return answerOfStop(await control.restartProcess(c.req.param("name"), { waitMs: wait ?? null }));
  });

  app.post("/processes/:name/signal", async function signalProcess(c) {
    const { signal, to } = await readBody(c, signalSchema, clock);
    const status = await control.signalProcess(c.req.param("name"), { signal: signal ?? null, to });
    return jsonResponse({ status: 200, body: processView(status) });
  });
}

/** 202: not all of it is gone yet; the body names who is left, and it goes on. */
function answerOfStop(process: ProcessStatus): Response {
  return jsonResponse({ status: process.stop === null ? 200 : 202, body: processView(process) });
}
