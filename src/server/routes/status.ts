/** `GET /`, `/config`, `/lease`, and the two lease requests: what is, in a snapshot. */

import type { Hono } from "hono";
import { accepts } from "hono/accepts";
import type { LeaseStatus } from "../../lease/types.ts";
import type { Control, ManagerStatus } from "../../manager/control.ts";
import type { Clock } from "../../platform/clock.ts";
import { StateManagerError } from "../../platform/errors.ts";
import { type Random, randomHex } from "../../platform/random.ts";
import { readBody, readJson } from "../body.ts";
import type { ServerEnv } from "../env.ts";
import { jsonResponse } from "../long_work.ts";
import { credentialsSchema, nothingSchema, reloadSchema } from "../schemas.ts";
import { statusPage } from "../status_page.ts";
import { leaseView, reloadView, statusView } from "../views.ts";

export interface StatusRoutes {
  readonly control: Control;
  readonly clock: Clock;
  readonly random: Random;
}

export function addStatusRoutes(
  app: Hono<ServerEnv>,
  { control, clock, random }: StatusRoutes,
): void {
  app.get("/", function showStatus(c) {
    const supports = ["application/json", "text/html"];
    const type = accepts(c, {
      header: "Accept",
      supports,
      default: "application/json",
    });
    const status = control.status();
    c.header("vary", "accept");
    if (type !== "text/html") {
      return jsonResponse({
        status: 200,
        headers: { vary: "accept" },
        body: statusView(status),
      });
    }
    return statusPage(status, {
      nowMs: clock.wallMs(),
      nonce: randomHex(random, 16),
    });
  });

  app.get("/config", function showConfiguration() {
    const configuration = control.configuration();
    if (configuration === null) {
      throw new StateManagerError(
        "not-found",
        "show the configuration: there is none yet",
        {
          hint: "send one with POST /config",
        },
      );
    }
    return jsonResponse({ status: 200, body: configuration });
  });

  app.post("/config", async function configure(c) {
    const status = await control.configure(await readJson(c, clock));
    return jsonResponse({
      status: 201,
      headers: { location: "/config" },
      body: statusView(status),
    });
  });

  app.post("/config/reload", async function reload(c) {
    const { dry_run: dryRun, restart } = await readBody(c, reloadSchema, clock);
    return jsonResponse({ status: 200, body: reloadView(await control.reload({ dryRun, restart })) });
  });

  app.put("/credentials", async function replaceCredentials(c) {
    const { access_key: accessKey, secret_key: secretKey, session_token: sessionToken } = await readBody(
      c,
      credentialsSchema,
      clock,
    );
    const next = { accessKey, secretKey, sessionToken: sessionToken ?? null };
    return jsonResponse({ status: 200, body: { ...await control.replaceCredentials(next) } });
  });

  app.get("/lease", function showLease() {
    const status = control.status();
    if (status.lease === null && control.configuration() === null) {
      throw new StateManagerError(
        "not-found",
        "show the lease: there is none, as nothing is configured yet",
        {
          hint: "send a configuration with POST /config",
        },
      );
    }
    return jsonResponse({ status: 200, body: leaseView(status.lease ?? noLease(status)) });
  });

  app.post("/release-lease", async function releaseLease(c) {
    await readBody(c, nothingSchema, clock);
    return jsonResponse({
      status: 200,
      body: statusView(await control.releaseLease()),
    });
  });

  app.post("/acquire-lease", async function acquireLease(c) {
    await readBody(c, nothingSchema, clock);
    return jsonResponse({
      status: 200,
      body: statusView(await control.acquireLease()),
    });
  });
}

/** Given back, or not asked for yet: the store may be out of reach. */
function noLease({ state, holder, reason }: ManagerStatus): LeaseStatus {
  return {
    state: state === "released" ? "released" : "idle",
    token: null,
    holder,
    remainingMs: null,
    heldBy: null,
    lastError: state === "waiting" ? reason : null,
  };
}
