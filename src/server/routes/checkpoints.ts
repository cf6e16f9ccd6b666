/** `POST /checkpoint`, `POST /restore`, `GET /checkpoints`, one of them and its `DELETE`, `POST /checkpoints/prune`. */

import type { Hono } from "hono";
import type { CheckpointRecord } from "../../checkpoint/types.ts";
import type { Control, RestoreRequest } from "../../manager/control.ts";
import type { Clock } from "../../platform/clock.ts";
import { isError, StateManagerError } from "../../platform/errors.ts";
import type { Log } from "../../platform/log.ts";
import { invalid, readBody } from "../body.ts";
import { toRestoreRequest } from "../restore_body.ts";
import {
  CHECKPOINT_KINDS,
  type CheckpointFilter,
  findCheckpoint,
  isCheckpointKind,
  matchesFilter,
  parseCheckpointReference,
  parseLabelFilter,
} from "../../checkpoint/mod.ts";
import type { ServerContext, ServerEnv } from "../env.ts";
import { IdempotencyKeys } from "../idempotency.ts";
import { jsonResponse, waitFor } from "../long_work.ts";
import { Operation } from "../operation.ts";
import { checkpointSchema, MAX_PAGE, pruneSchema, restoreSchema } from "../schemas.ts";
import {
  checkpointResultView,
  checkpointView,
  listedView,
  listFacts,
  pruneResultView,
  restoreResultView,
} from "../views.ts";

export interface CheckpointRoutes {
  readonly control: Control;
  readonly clock: Clock;
  readonly log: Log;
}

export function addCheckpointRoutes(
  app: Hono<ServerEnv>,
  { control, clock, log }: CheckpointRoutes,
): void {
  const keys = new IdempotencyKeys(clock);

  app.post("/checkpoint", async function createCheckpoint(c) {
    const untilCaptured = wantsCaptured(c);
    const request = await readBody(c, checkpointSchema, clock);
    const begin = () =>
      keys.once(
        c,
        request,
        () => new Operation((work) => control.checkpoint(request, work)),
      );
    return await waitFor(c, {
      clock,
      log,
      begin,
      untilCaptured,
      answerOf: (result) => ({
        status: 201,
        headers: { location: `/checkpoints/${result.checkpoint.id}` },
        body: checkpointResultView(result),
      }),
    });
  });

  app.post("/restore", async function restore(c) {
    const body = await readBody(c, restoreSchema, clock);
    const request = toRestoreRequest(body, clock.wallMs());
    const begin = () =>
      keys.once(
        c,
        request,
        () =>
          new Operation((work) =>
            control.restore(request, work).catch((error) => asRequestFault(error, request))
          ),
      );
    return await waitFor(c, {
      clock,
      log,
      begin,
      untilCaptured: false,
      answerOf: (result) => ({ status: 200, body: restoreResultView(result) }),
    });
  });

  app.get("/checkpoints", async function listCheckpoints(c) {
    const { limit, after } = pageOf(c);
    const filter = filterOf(c);
    const records = [...await control.checkpoints()].sort((a, b) => a.n - b.n);
    const afterOrdinal = after === null ? 0 : ordinalOf(records, after);
    const rest = records.filter((record) => record.n > afterOrdinal && matchesFilter(record, filter));
    const page = rest.slice(0, limit);
    const last = page.at(-1);
    const more = last !== undefined && rest.length > page.length;
    const current = control.status().checkpoint.current?.id ?? null;
    const facts = listFacts(records, current);
    const query = new URL(c.req.url).searchParams;
    query.set("limit", String(limit));
    query.set("after", String(last?.n ?? 0));
    return jsonResponse({
      status: 200,
      headers: more ? { link: `</checkpoints?${query}>; rel="next"` } : {},
      body: {
        checkpoints: page.map((record) => listedView(record, facts)),
        next_after: more ? String(last.n) : null,
      },
    });
  });

  app.get("/checkpoints/:id", async function showCheckpoint(c) {
    const current = control.status().checkpoint.current?.id ?? null;
    const list = { checkpoints: await control.checkpoints(), current };
    const found = findCheckpoint(list, { checkpoint: c.req.param("id") });
    return jsonResponse({ status: 200, body: listedView(found, listFacts(list.checkpoints, current)) });
  });

  app.delete("/checkpoints/:id", async function deleteCheckpoint(c) {
    const record = await control.deleteCheckpoint(c.req.param("id"), { force: wantsForce(c) });
    return jsonResponse({ status: 200, body: { deleted: checkpointView(record) } });
  });

  app.post("/checkpoints/prune", async function prune(c) {
    const { dry_run } = await readBody(c, pruneSchema, clock);
    return await waitFor(c, {
      clock,
      log,
      begin: () => new Operation((work) => control.prune({ dryRun: dry_run }, work)),
      untilCaptured: false,
      answerOf: (result) => ({ status: 200, body: pruneResultView(result) }),
    });
  });
}

function wantsForce(c: ServerContext): boolean {
  const force = c.req.query("force") ?? "false";
  if (force !== "true" && force !== "false") {
    throw invalid([{ pointer: "", detail: "force: want true or false" }]);
  }
  return force === "true";
}

/** `kind` (repeated: one of them), `label` (`name` or `name=value`; repeated: all of them), `pinned`. */
function filterOf(c: ServerContext): CheckpointFilter {
  const kinds = c.req.queries("kind") ?? [];
  if (!kinds.every(isCheckpointKind)) {
    throw invalid([{ pointer: "", detail: `kind: want ${CHECKPOINT_KINDS.join(", ")}` }]);
  }
  const pinned = c.req.query("pinned");
  if (pinned !== undefined && pinned !== "true" && pinned !== "false") {
    throw invalid([{ pointer: "", detail: "pinned: want true or false" }]);
  }
  return {
    kinds,
    labels: (c.req.queries("label") ?? []).map(parseLabelFilter),
    pinned: pinned === undefined ? null : pinned === "true",
  };
}

function wantsCaptured(c: ServerContext): boolean {
  const wait = c.req.query("wait") ?? "durable";
  if (wait !== "durable" && wait !== "captured") {
    throw invalid([{ pointer: "", detail: "wait: want durable or captured" }]);
  }
  return wait === "captured";
}

function pageOf(c: ServerContext): { limit: number; after: string | null } {
  const limitText = c.req.query("limit") ?? String(MAX_PAGE);
  const limit = /^\d{1,4}$/.test(limitText) ? Number(limitText) : 0;
  if (limit < 1 || limit > MAX_PAGE) {
    throw invalid([{
      pointer: "",
      detail: `limit: want a number from 1 to ${MAX_PAGE}`,
    }]);
  }
  const afterText = c.req.query("after");
  const after = afterText === undefined ? null : parseCheckpointReference(afterText);
  if (afterText !== undefined && (after === null || after === "latest")) {
    throw invalid([{
      pointer: "",
      detail: "after: want the id or ordinal that the page before ended with",
    }]);
  }
  return { limit, after };
}

/** Pages go on by ordinal, so that one may be deleted meanwhile; an id must still be there. */
function ordinalOf(
  records: readonly CheckpointRecord[],
  after: string,
): number {
  if (/^\d{1,15}$/.test(after)) return Number(after);
  const found = records.find(({ id }) => id === after);
  if (found === undefined) {
    throw invalid([{
      pointer: "",
      detail: "after: no checkpoint has this id",
    }]);
  }
  return found.n;
}

/** A checkpoint that the body names and that is not there is the body's fault (422), not a missing route (404). */
function asRequestFault(error: unknown, request: RestoreRequest): never {
  if (!isError(error, "checkpoint-not-found", "not-found")) throw error;
  const { target, paths } = request;
  if (paths !== null && error.code === "not-found") {
    throw new StateManagerError("invalid-request", "restore: the checkpoint does not have that path", {
      hint: error.hint ?? "GET /checkpoints/:id/files lists what it has",
      details: [{ pointer: "/paths", detail: "names a path that is not in the checkpoint" }],
      cause: error,
    });
  }
  const pointer = "checkpoint" in target ? "/checkpoint" : "txid" in target ? "/txid" : "/at";
  throw new StateManagerError(
    "invalid-request",
    "restore: no state is there for what was asked",
    {
      hint: error.hint ?? "GET /checkpoints lists them",
      details: [{
        pointer,
        detail: pointer === "/at" ? "is before the oldest state that is kept" : "names no state that is kept",
      }],
      cause: error,
    },
  );
}
