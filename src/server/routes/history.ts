/** What checkpoints hold and how they differ: `GET …/files`, `GET …/diff/…`; and `PATCH /checkpoints/:id`. */

import type { Hono } from "hono";
import type { Control } from "../../manager/control.ts";
import type { Clock } from "../../platform/clock.ts";
import { invalid, readBody } from "../body.ts";
import type { ServerContext, ServerEnv } from "../env.ts";
import { jsonResponse } from "../long_work.ts";
import { MAX_PAGE, notesSchema } from "../schemas.ts";
import { diffView, folderView, listedView, listFacts } from "../views.ts";

/** Reading the lists of a large tree from a slow store takes minutes, not more. */
const READING_LIMIT_MS = 5 * 60_000;
/** As long as a path can be, with each byte shown as four characters. */
const PATH_LIMIT = 20_000;

export interface HistoryRoutes {
  readonly control: Control;
  readonly clock: Clock;
}

export function addHistoryRoutes(app: Hono<ServerEnv>, { control, clock }: HistoryRoutes): void {
  app.patch("/checkpoints/:id", async function annotateCheckpoint(c) {
    const notes = await readBody(c, notesSchema, clock);
    const record = await control.annotateCheckpoint(c.req.param("id"), notes);
    const current = control.status().checkpoint.current?.id ?? null;
    const facts = listFacts(await control.checkpoints(), current);
    return jsonResponse({ status: 200, body: listedView(record, facts) });
  });

  app.get("/checkpoints/:id/files", async function listFiles(c) {
    const path = c.req.query("path") ?? "";
    if (path.length > PATH_LIMIT) throw invalid([{ pointer: "", detail: "path: is too long" }]);
    const recursive = c.req.query("recursive") ?? "false";
    if (recursive !== "true" && recursive !== "false") {
      throw invalid([{ pointer: "", detail: "recursive: want true or false" }]);
    }
    const wish = { ...pageOf(c), path, recursive: recursive === "true" };
    const listing = await control.checkpointFiles(
      c.req.param("id"),
      wish,
      AbortSignal.timeout(READING_LIMIT_MS),
    );
    return jsonResponse({ status: 200, body: folderView(listing) });
  });

  app.get("/checkpoints/:id/diff/:other", async function diffCheckpoints(c) {
    const wish = { ...pageOf(c), before: c.req.param("id"), after: c.req.param("other") };
    const result = await control.diffCheckpoints(wish, AbortSignal.timeout(READING_LIMIT_MS));
    return jsonResponse({ status: 200, body: diffView(result) });
  });
}

/** Checkpoints do not change: pages go on by number. */
function pageOf(c: ServerContext): { readonly skip: number; readonly limit: number } {
  const [limitText, afterText] = [c.req.query("limit") ?? String(MAX_PAGE), c.req.query("after") ?? "0"];
  const limit = /^\d{1,4}$/.test(limitText) ? Number(limitText) : 0;
  if (limit < 1 || limit > MAX_PAGE) {
    throw invalid([{ pointer: "", detail: `limit: want a number from 1 to ${MAX_PAGE}` }]);
  }
  if (!/^\d{1,12}$/.test(afterText)) {
    throw invalid([{ pointer: "", detail: "after: want the next_after of the page before" }]);
  }
  return { skip: Number(afterText), limit };
}
