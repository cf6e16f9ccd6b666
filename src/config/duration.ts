/** Durations as people write them: `1h30m`, `250ms`, or a number of seconds. Strict: what is unclear is refused. */

const UNIT_MS: Readonly<Record<string, number>> = {
  d: 86_400_000,
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
};
/** Largest unit first, each at most once: `30m1h` and `1h1h` are typing errors, not durations. */
const UNITS = ["d", "h", "m", "s", "ms"] as const;

/** What the parser takes as text; the JSON schema shows it to editors. */
export const DURATION_PATTERN =
  /^(?:\d{1,9}(?:\.\d{1,6})?|(?=\d)(?:\d{1,9}d)?(?:\d{1,9}h)?(?:\d{1,9}m(?!s))?(?:\d{1,9}(?:\.\d{1,3})?s)?(?:\d{1,9}ms)?)$/;

/**
 * Milliseconds (whole, at least 0), or null when `value` is not a duration. A bare number, or text that is only a
 * number (as from a variable), counts seconds. Fractions are allowed for seconds alone: `1.5s`, `0.25`.
 */
export function parseDuration(value: string | number): number | null {
  if (typeof value === "number") {
    return Number.isFinite(value) && value >= 0 && value < 1e9 ? Math.round(value * 1000) : null;
  }
  if (!DURATION_PATTERN.test(value)) return null;
  if (/^[\d.]+$/.test(value)) return Math.round(Number(value) * 1000);
  let total = 0;
  for (const [, amount, unit] of value.matchAll(/([\d.]+)(ms|[dhms])/g)) {
    total += Number(amount) * (UNIT_MS[unit ?? ""] ?? 0);
  }
  return Math.round(total);
}

/** The shortest text that `parseDuration` reads as `ms`: `1h30m`, `250ms`, `0s`. */
export function formatDuration(ms: number): string {
  let rest = Math.max(0, Math.round(ms));
  let text = "";
  for (const unit of UNITS) {
    const size = UNIT_MS[unit] ?? 1;
    const amount = Math.floor(rest / size);
    if (amount > 0) text += `${amount}${unit}`;
    rest -= amount * size;
  }
  return text === "" ? "0s" : text;
}
