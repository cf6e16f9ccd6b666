/** Randomness, always passed in, so that a seed replays a run. */

export interface Random {
  /** Uniform in [0, 1). */
  float(): number;
  /** `count` random bytes. */
  bytes(count: number): Uint8Array<ArrayBuffer>;
}

/** The machine's cryptographic source. */
export function systemRandom(): Random {
  return {
    float: () => {
      const word = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
      return word / 0x1_0000_0000;
    },
    bytes: (count) => crypto.getRandomValues(new Uint8Array(count)),
  };
}

/** `byteCount` random bytes as lower-case hex; 16 make a nonce or a holder id. */
export function randomHex(random: Random, byteCount = 16): string {
  return Array.from(random.bytes(byteCount), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz";

/**
 * A ULID in lower case (26 characters; 48 bits of wall time, 80 random): sorts by time of making, unique
 * without coordination. Source: https://github.com/ulid/spec
 */
export function ulid(wallMs: number, random: Random): string {
  let time = Math.floor(wallMs);
  let text = "";
  for (let i = 0; i < 10; i++) {
    text = CROCKFORD[time % 32] + text;
    time = Math.floor(time / 32);
  }
  // Sixteen random bytes, five bits of each: 80 bits in all.
  for (const byte of random.bytes(16)) text += CROCKFORD[byte & 31];
  return text;
}
