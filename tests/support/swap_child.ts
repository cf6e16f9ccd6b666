/** A process that does to a swap what a manager does: begins it, or rolls it forward as at boot. To be killed at will. */

import { finishSwaps, rollSwaps, swapIn } from "../../src/checkpoint/swap.ts";
import type { SwapScene } from "./swap_scene.ts";

const [command, text = ""] = Deno.args;
const scenes: SwapScene[] = JSON.parse(text);
const journalPath = scenes[0]?.journalPath ?? "";

if (command === "begin") {
  const roots = scenes.map(({ root, place, paths }) => ({
    root,
    place,
    ...(paths === undefined ? {} : { paths }),
  }));
  await swapIn({ journalPath, id: "01test", roots });
} else {
  await rollSwaps(journalPath);
}
await finishSwaps(journalPath, { keepOld: command === "roll-keep" });
