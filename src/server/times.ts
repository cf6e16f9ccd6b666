/** Times in requests and options. */

import { parseDuration } from "../config/duration.ts";

const RFC_3339 = /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$/;

/** Milliseconds since the epoch, or null when `text` is no RFC 3339 time. */
export function parseTime(text: string): number | null {
  if (!RFC_3339.test(text)) return null;
  const ms = Date.parse(text.replace(" ", "T"));
  return Number.isFinite(ms) ? ms : null;
}

/** A time, or a duration back from now. */
export function parseSince(text: string, nowMs: number): number | null {
  const time = parseTime(text);
  if (time !== null) return time;
  const ago = parseDuration(text);
  return ago === null ? null : nowMs - ago;
}
