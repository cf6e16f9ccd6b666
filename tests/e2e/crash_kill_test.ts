/**
 * kill -9 of the manager, and of everything at once, at random points of its life: the next start is whole, nothing
 * that a finished checkpoint held is lost, and never do two programs run. STATE_MANAGER_CHAOS_KILLS sets how many kills
 * each store sees, STATE_MANAGER_CHAOS_SEED replays the choices of a run.
 */

import { say } from "../support/say.ts";
import { summaryTable, walkOfKills } from "../support/chaos_kills.ts";
import { testOnStores } from "../support/test_stores.ts";

const kills = Number(Deno.env.get("STATE_MANAGER_CHAOS_KILLS") ?? "10");
const givenSeed = Deno.env.get("STATE_MANAGER_CHAOS_SEED");
const TTL_MS = 3000;

testOnStores(
  "a start after kill -9 at any point is whole and alone, and loses nothing finished",
  async (store) => {
    const seed = givenSeed === undefined ? Math.trunc(Math.random() * 1e9) : Number(givenSeed);
    say(`seed ${seed}`);
    const summary = await walkOfKills(store, {
      kills,
      seed,
      ttlMs: TTL_MS,
      database: true,
      onKill: ({ phase, kind, inside }, n) =>
        kills > 20 && say(`${n + 1} ${phase}, ${kind}${inside ? "" : ", after its end"}`),
    });
    say(summaryTable(summary));
  },
);
