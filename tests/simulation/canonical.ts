/** Equal encodings for states of a walk that differ only in absolute time and in the names of random ids. */

/** Bytes that are written one by one, and random ids by the order in which they come. */
export class Encoding {
  #bytes = new Uint8Array(1 << 16);
  #length = 0;
  readonly #ids: string[] = [];

  clear(): void {
    this.#length = 0;
    this.#ids.length = 0;
  }

  byte(value: number): void {
    // Cut off, it would be taken for another.
    if (!(value >= 0 && value < 256 && this.#length < this.#bytes.length)) {
      throw new Error(`byte ${value} at ${this.#length}: not one, or no room for it`);
    }
    this.#bytes[this.#length++] = value;
  }

  /** `null` is 0, the first id 1, and so on. */
  id(id: string | null): void {
    if (id === null) return this.byte(0);
    const known = this.#ids.indexOf(id);
    this.byte(known === -1 ? this.#ids.push(id) : known + 1);
  }

  text(text: string): void {
    for (let i = 0; i < text.length; i++) this.byte(text.charCodeAt(i));
    this.byte(0);
  }

  /** Of two encodings of one state, in which equal parts have changed their places, the lesser. Nothing may follow. */
  lesser(first: () => void, second: () => void): void {
    const start = this.#length;
    const known = this.#ids.length;
    first();
    const middle = this.#length;
    this.#ids.length = known;
    second();
    const bytes = this.#bytes;
    const length = Math.max(middle - start, this.#length - middle);
    for (let i = 0; i < length; i++) {
      const difference = (start + i < middle ? bytes[start + i] ?? 0 : -1) -
        (middle + i < this.#length ? bytes[middle + i] ?? 0 : -1);
      if (difference < 0) break;
      if (difference === 0) continue;
      bytes.copyWithin(start, middle, this.#length);
      this.#length -= middle - start;
      return;
    }
    this.#length = middle;
  }

  /** What was written, for a comparison byte by byte. */
  toString(): string {
    return String.fromCharCode(...this.#bytes.subarray(0, this.#length));
  }

  /** Two words, never both zero (cyrb53's mixing, kept whole). */
  hash(): [number, number] {
    const bytes = this.#bytes;
    let a = 0xdeadbeef;
    let b = 0x41c6ce57;
    for (let i = 0; i < this.#length; i++) {
      const byte = bytes[i] ?? 0;
      a = Math.imul(a ^ byte, 2654435761);
      b = Math.imul(b ^ byte, 1597334677);
      a ^= a >>> 15;
      b ^= b >>> 13;
    }
    a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
    b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
    return [a >>> 0, (b >>> 0) || 1];
  }
}

/** Keys that end in "Ms" are points in time, save these, which are durations. */
const DURATIONS = new Set(["ttlMs", "renewMs", "marginMs", "pollMs"]);
/** The moment itself, how many ids were made so far, and texts for people. */
const UNTOLD = new Set(["nowMs", "idsMade", "lastError", "error", "told", "etag"]);
const RANDOM_ID = /n\d+/g;

/**
 * All of any state, without knowing what it means: what a model that leaves things out is compared with. Times become
 * relative to `nowMs`; what is further back than `horizonMs` is all the same.
 */
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
