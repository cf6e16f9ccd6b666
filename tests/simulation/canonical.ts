/** Equal texts for states of a walk that differ only in absolute time and in the names of random ids. */

/** Keys that end in "Ms" are points in time, save these, which are durations. */
const DURATIONS = new Set(["ttlMs", "renewMs", "marginMs", "pollMs"]);
/** The moment itself, how many ids were made so far, and texts for people. */
const UNTOLD = new Set(["nowMs", "idsMade", "lastError", "error", "told", "etag"]);
const RANDOM_ID = /n\d+/g;

/** Times become relative to `nowMs`; what is further back than `horizonMs` is all the same. */
export function canonicalText(state: unknown, nowMs: number, horizonMs: number): string {
  const parts: string[] = [];
  append(parts, state, nowMs, horizonMs);
  const names = new Map<string, string>();
  return parts.join("").replaceAll(RANDOM_ID, (id) => {
    const known = names.get(id);
    if (known !== undefined) return known;
    const name = `n${names.size}`;
    names.set(id, name);
    return name;
  });
}

function append(parts: string[], value: unknown, nowMs: number, horizonMs: number): void {
  if (typeof value !== "object" || value === null) {
    parts.push(String(value));
    return;
  }
  if (Array.isArray(value)) {
    parts.push("[");
    for (const item of value) {
      append(parts, item, nowMs, horizonMs);
      parts.push(",");
    }
    parts.push("]");
    return;
  }
  if ("nonce" in value && "token" in value) {
    // A record of the lease: its other fields are its holder's.
    const { nonce, token, state } = value as { nonce: unknown; token: unknown; state?: unknown };
    parts.push(`${nonce} ${token} ${state}`);
    return;
  }
  parts.push("{");
  for (const [key, item] of Object.entries(value)) {
    if (UNTOLD.has(key)) continue;
    parts.push(key, ":");
    if (typeof item === "number" && key.endsWith("Ms") && !DURATIONS.has(key)) {
      parts.push(String(Math.max(item - nowMs, -horizonMs)));
    } else append(parts, item, nowMs, horizonMs);
    parts.push(",");
  }
  parts.push("}");
}
