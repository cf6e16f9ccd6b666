/**
 * A writer of a folder store, a process of its own: `store_writer.ts FOLDER NAME COUNT`. Increments "counter" by
 * swaps, COUNT times won (0: until it is killed); each win is a line "<value>" on stdout, written before the next try.
 */

import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { randomHex, systemRandom } from "../../src/platform/random.ts";
import { directoryStore } from "../../src/storage/mod.ts";

if (import.meta.main) {
  const [path = "", name = "", count = "0"] = Deno.args;
  const random = systemRandom();
  const store = directoryStore({ path, clock: systemClock(), random });
  const decoder = new TextDecoder();
  for (let wins = 0; count === "0" || wins < Number(count);) {
    const { body, etag } = await store.get("counter");
    const value = Number(decoder.decode(body).split(" ")[0]) + 1;
    const own = `${value} ${name} ${randomHex(random, 8)}`;
    try {
      await store.put("counter", new TextEncoder().encode(own), { condition: { etag } });
    } catch (error) {
      if (isError(error, "precondition-failed")) continue;
      if (!isError(error, "outcome-unknown")) throw error;
      if (decoder.decode((await store.get("counter")).body) !== own) continue; // may have won: counts as not told
    }
    wins++;
    Deno.stdout.writeSync(new TextEncoder().encode(`${value}\n`));
  }
}
