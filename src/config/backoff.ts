/** What restart delays add up to, for the rule that a start limit must be reachable. */

/** The supervisor spreads each delay by this share either way, so that programs do not come back in one beat. */
const DELAY_JITTER = 0.2;

/** With no delay at all, what ends within a second waits this long first (supervisor/restart.ts). */
const LEAST_DELAY_MS = 10;

/** Longest time that `burst` failures in a row take by the back-off alone. */
export function backoffSpanMs(delayMs: number, maxDelayMs: number, burst: number): number {
  let total = 0;
  let delay = delayMs === 0 ? LEAST_DELAY_MS : delayMs;
  for (let failure = 1; failure < burst; failure++) {
    total += Math.min(delay, maxDelayMs) * (1 + DELAY_JITTER);
    delay = Math.min(delay * 2, maxDelayMs);
  }
  return Math.round(total);
}
