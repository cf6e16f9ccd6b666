/** `GET /openapi.json`: the API's description. Made when somebody asks for the first time. */

import type { Hono } from "hono";
import { buildInfo } from "../../platform/build_info.ts";
import type { ServerEnv } from "../env.ts";

export function addOpenApiRoute(app: Hono<ServerEnv>): void {
  let text: string | null = null;
  app.get("/openapi.json", async function describeApi() {
    if (text === null) {
      const { openApi } = await import("../openapi.ts");
      text = JSON.stringify(openApi(buildInfo().version)) + "\n";
    }
    return new Response(text, { headers: { "content-type": "application/json" } });
  });
}
