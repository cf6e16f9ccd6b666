/** `/livez`, `/startupz`, `/readyz`: the status code is the answer; `?verbose` lists the checks to whom may see them. */

import type { Hono } from "hono";
import type { Control, HealthCheck } from "../../manager/control.ts";
import type { ServerContext, ServerEnv } from "../env.ts";

type Kind = keyof ReturnType<Control["health"]>;

function answerHealth(control: Control, kind: Kind) {
  return function answer(c: ServerContext): Response {
    const checks = control.health()[kind];
    const ok = checks.every((check) => check.ok);
    const detailed = c.req.query("verbose") !== undefined &&
      c.get("caller") !== null;
    const lines = detailed ? [...checks.map(checkLine), ok ? "ok" : "failed"] : [ok ? "ok" : "failed"];
    return new Response(lines.join("\n") + "\n", {
      status: ok ? 200 : 503,
      headers: { "content-type": "text/plain; charset=utf-8" },
    });
  };
}

function checkLine({ name, ok, detail }: HealthCheck): string {
  return `[${ok ? "+" : "-"}]${name} ${ok ? "ok" : "failed"}${detail === "" ? "" : `: ${detail}`}`;
}

export function addHealthRoutes(app: Hono<ServerEnv>, control: Control): void {
  app.get("/livez", answerHealth(control, "live"));
  app.get("/startupz", answerHealth(control, "started"));
  app.get("/readyz", answerHealth(control, "ready"));
}
