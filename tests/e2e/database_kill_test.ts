/**
 * kill -9 of the program, the follower, the manager and all of them at random moments while rows are committed: nothing
 * confirmed is lost, nothing older than two seconds, and what comes back is a prefix of the chain. Environment:
 * STATE_MANAGER_CHAIN_KILLS (per store), STATE_MANAGER_CHAIN_SEED.
 */

import { summaryOfChainKills, walkOfChainKills } from "../support/chain_kills.ts";
import { scratchFolder } from "../support/manager_process.ts";
import { say } from "../support/say.ts";
import { testOnStores } from "../support/test_stores.ts";

const kills = Number(Deno.env.get("STATE_MANAGER_CHAIN_KILLS") ?? "10");
const givenSeed = Deno.env.get("STATE_MANAGER_CHAIN_SEED");
const PER_SECOND = 500;

testOnStores(
  "rows that were confirmed or two seconds old survive kill -9 of anything, in one chain",
  async (store) => {
    using scratch = scratchFolder();
    const seed = givenSeed === undefined ? Math.trunc(Math.random() * 1e9) : Number(givenSeed);
    say(`seed ${seed}`);
    const reports = await walkOfChainKills(store, {
      root: scratch.path,
      kills,
      seed,
      perSecond: PER_SECOND,
      onKill: (report, n) => kills > 20 && say(`${n + 1} ${JSON.stringify(report)}`),
    });
    say(summaryOfChainKills(reports));
  },
);
