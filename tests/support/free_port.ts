/** A port of loopback that was free a moment ago, for programs that can't take "any". */

/**
 * Below the numbers that the kernel gives to connections on their way out, on Linux from 32768 on: what is told as free
 * is then taken by nobody but another test that asks.
 */
const FIRST_PORT = 12_000;
const LAST_PORT = 32_000;
/** More are never taken at a time. */
const TRIES = 1000;
const given = new Set<number>();

export function freePort(): number {
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT));
    if (given.has(port)) continue;
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
    } catch {
      continue;
    }
    given.add(port);
    return port;
  }
  throw new Error(`no port of loopback from ${FIRST_PORT} to ${LAST_PORT} is free`);
}
