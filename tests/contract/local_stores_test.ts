/** The store's contract in memory and in a folder, bare and in the whole stack. */

import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { directoryStore, memoryStore, type ObjectStore, openStore } from "../../src/storage/mod.ts";
import { testObjectStore } from "./object_store_contract.ts";

const effects = { clock: systemClock(), random: systemRandom() };

function inFolder(open: (path: string) => ObjectStore) {
  return async () => {
    const path = await Deno.makeTempDir({ prefix: "state-manager-contract-" });
    return { store: open(`${path}/made/by/put`), finish: () => Deno.remove(path, { recursive: true }) };
  };
}

testObjectStore({
  name: "memory store",
  open: () => Promise.resolve({ store: memoryStore(), finish: () => Promise.resolve() }),
});

testObjectStore({
  name: "folder store",
  open: inFolder((path) => directoryStore({ path, ...effects })),
});

testObjectStore({
  name: "folder store in the whole stack, under a prefix",
  open: inFolder((directory) =>
    openStore({ kind: "directory", directory, keyPrefix: "/team/app/" }, effects)
  ),
});
