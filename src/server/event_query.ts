/** Which events a request wants, behind which one, and how events look. */

import { CATALOG_KINDS, type CatalogKind, type EventPlace } from "../database/mod.ts";
import { type EventRecord, isOver, type WorkProgress } from "../manager/event_hub.ts";
import { invalid } from "./body.ts";
import type { ServerContext } from "./env.ts";
import { MAX_PAGE } from "./schemas.ts";
import { parseSince } from "./times.ts";
import type { View } from "./views.ts";

/** A kind that is never kept: how far long work is. */
export const PROGRESS = "progress";

const EVENT_ID = /^([0-9a-f]{1,32})-(\d{1,15})$/;

export interface EventWish {
  /** Null: all. */
  readonly kinds: ReadonlySet<CatalogKind> | null;
  readonly progress: boolean;
}

function wrong(detail: string) {
  return invalid([{ pointer: "", detail }]);
}

function isKind(text: string): text is CatalogKind {
  return CATALOG_KINDS.some((kind) => kind === text);
}

/** `kind=` once or more, each with one or more between commas. */
function kindsOf(c: ServerContext, others: readonly string[]): string[] | null {
  const named = (c.req.queries("kind") ?? []).flatMap((text) => text.split(","));
  if (named.length === 0) return null;
  if (!named.every((kind) => isKind(kind) || others.includes(kind))) {
    throw wrong(`kind: want one or more of ${[...CATALOG_KINDS, ...others].join(", ")}`);
  }
  return [...new Set(named)];
}

export function readEventWish(c: ServerContext): EventWish {
  const named = kindsOf(c, [PROGRESS]);
  if (named === null) return { kinds: null, progress: true };
  return { kinds: new Set(named.filter(isKind)), progress: named.includes(PROGRESS) };
}

/** Throws `invalid-request` for what is no id of ours. */
export function placeOf(text: string | undefined): EventPlace | null {
  if (text === undefined || text === "") return null;
  const [, run, number] = EVENT_ID.exec(text) ?? [];
  if (run === undefined) throw wrong("after: want the id of an event");
  return { run, sequence: Number(number) };
}

export interface HistoryWish {
  readonly kinds: readonly CatalogKind[] | null;
  readonly sinceMs: number | null;
  readonly untilMs: number | null;
  readonly after: EventPlace | null;
  readonly limit: number;
}

export function readHistoryWish(c: ServerContext, nowMs: number): HistoryWish {
  const limitText = c.req.query("limit") ?? String(MAX_PAGE);
  const limit = /^\d{1,4}$/.test(limitText) ? Number(limitText) : 0;
  if (limit < 1 || limit > MAX_PAGE) throw wrong(`limit: want a number from 1 to ${MAX_PAGE}`);
  return {
    kinds: kindsOf(c, [])?.filter(isKind) ?? null,
    sinceMs: timeOf(c, "since", nowMs),
    untilMs: timeOf(c, "until", nowMs),
    after: placeOf(c.req.query("after")),
    limit,
  };
}

function timeOf(c: ServerContext, name: string, nowMs: number): number | null {
  const text = c.req.query(name);
  if (text === undefined) return null;
  const time = parseSince(text, nowMs);
  if (time === null) {
    throw wrong(`${name}: want a time as in RFC 3339 with its zone, or a duration such as 10m`);
  }
  return time;
}

export function eventId({ run, sequence }: EventPlace): string {
  return `${run}-${sequence}`;
}

export function eventView({ place, timeMs, kind, subject, summary, detail }: EventRecord): View {
  return { id: eventId(place), time: new Date(timeMs).toISOString(), kind, subject, summary, detail };
}

export function workView(progress: WorkProgress): View {
  const { work, phase, entries, bytes, totalBytes, bytes_per_second, seconds_left } = progress;
  return {
    work,
    state: isOver(progress) ? phase : "running",
    phase: isOver(progress) ? null : phase,
    entries,
    bytes,
    total_bytes: totalBytes,
    bytes_per_second,
    seconds_left,
  };
}
