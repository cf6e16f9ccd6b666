/**
 * `POST /checkpoints/:id/verify`: whether what was kept can be brought back (`all` in place of an id: every checkpoint), and
 * `POST /storage/repair` for what cannot.
 */

import type { Hono } from "hono";
import type * as v from "valibot";
import { findCheckpoint } from "../../checkpoint/mod.ts";
import type { Control, VerifyWish } from "../../manager/control.ts";
import type { Clock } from "../../platform/clock.ts";
import type { Log } from "../../platform/log.ts";
import { readBody } from "../body.ts";
import type { ServerEnv } from "../env.ts";
import { waitFor } from "../long_work.ts";
import { Operation } from "../operation.ts";
import { repairSchema, verifySchema } from "../schemas.ts";
import { repairView, verifyResultView } from "../views.ts";

/** In place of a checkpoint's id. */
export const ALL = "all";

export interface VerifyRoutes {
  readonly control: Control;
  readonly clock: Clock;
  readonly log: Log;
}

export function addVerifyRoutes(app: Hono<ServerEnv>, { control, clock, log }: VerifyRoutes): void {
  app.post("/checkpoints/:id/verify", async function verifyCheckpoint(c) {
    const wanted = c.req.param("id");
    const depth = depthOf(await readBody(c, verifySchema, clock));
    const current = control.status().checkpoint.current?.id ?? null;
    const checkpoint = wanted === ALL
      ? null
      : findCheckpoint({ checkpoints: await control.checkpoints(), current }, { checkpoint: wanted }).id;
    const begin = () => new Operation((work) => control.verify({ ...depth, checkpoint }, work));
    return await waitFor(c, {
      clock,
      log,
      begin,
      untilCaptured: false,
      answerOf: (result) => ({ status: 200, body: verifyResultView(result, checkpoint) }),
    });
  });

  app.post("/storage/repair", async function repairStorage(c) {
    const { dry_run: dryRun, read } = await readBody(c, repairSchema, clock);
    return await waitFor(c, {
      clock,
      log,
      begin: () => new Operation((work) => control.repair({ dryRun, readPacks: read }, work)),
      untilCaptured: false,
      answerOf: ({ checkpoint, ...result }) => ({
        status: 200,
        body: repairView(result, { dryRun, checkpoint }),
      }),
    });
  });
}

/** A share of the packs alone means the level that reads them; level 3 alone reads all of them. */
export function depthOf(
  { level, percent }: v.InferOutput<typeof verifySchema>,
): Pick<VerifyWish, "level" | "percent"> {
  return { level: level ?? (percent === undefined ? 2 : 3), percent: percent ?? 100 };
}
