/** `GET /storage`: how much is in the store, by what it is for, and how it grew. */

import type { Hono } from "hono";
import type { Control } from "../../manager/control.ts";
import { invalid } from "../body.ts";
import type { ServerEnv } from "../env.ts";
import { jsonResponse } from "../long_work.ts";
import { storageView } from "../views_storage.ts";

export function addStorageRoutes(app: Hono<ServerEnv>, { control }: { readonly control: Control }): void {
  app.get("/storage", async function showStorage(c) {
    const refresh = c.req.query("refresh") ?? "false";
    if (refresh !== "true" && refresh !== "false") {
      throw invalid([{ pointer: "", detail: "refresh: want true or false" }]);
    }
    const { usage, growth } = await control.storage({ refresh: refresh === "true" });
    return jsonResponse({ status: 200, body: storageView(usage, growth) });
  });
}
