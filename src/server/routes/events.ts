/** `GET /events`: what happens, as a stream that goes on where a client was; `GET /history`: what happened, in pages. */

import type { Hono } from "hono";
import { accepts } from "hono/accepts";
import type { Control } from "../../manager/control.ts";
import type { Clock } from "../../platform/clock.ts";
import type { ServerEnv } from "../env.ts";
import { eventId, eventView, placeOf, readEventWish, readHistoryWish } from "../event_query.ts";
import { eventStream, type EventStreamType } from "../event_stream.ts";
import { jsonResponse } from "../long_work.ts";

export interface EventRoutes {
  readonly control: Control;
  readonly clock: Clock;
}

export function addEventRoutes(app: Hono<ServerEnv>, { control, clock }: EventRoutes): void {
  app.get("/events", function followEvents(c) {
    const type = accepts(c, {
      header: "Accept",
      supports: ["text/event-stream", "application/x-ndjson"],
      default: "text/event-stream",
    }) as EventStreamType;
    const wish = readEventWish(c);
    // A browser that comes back sends the header beside the address that it was given first.
    const after = placeOf(c.req.header("last-event-id")) ?? placeOf(c.req.query("after"));
    return eventStream({ events: control.events, wish, type, after, clock, streams: c.env.streams });
  });

  app.get("/history", async function listEvents(c) {
    const { kinds, sinceMs, untilMs, after, limit } = readHistoryWish(c, clock.wallMs());
    const events = await control.events.history({
      order: "newest-first",
      limit,
      ...(kinds === null ? {} : { kinds }),
      ...(sinceMs === null ? {} : { sinceMs }),
      ...(untilMs === null ? {} : { untilMs }),
      ...(after === null ? {} : { after }),
    });
    const oldest = events.at(-1);
    return jsonResponse({
      status: 200,
      body: {
        events: events.map(eventView),
        next_after: oldest === undefined || events.length < limit ? null : eventId(oldest.place),
      },
    });
  });
}
