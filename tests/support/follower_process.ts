/** A follower in a process of its own that kills itself at one of its steps: `path folder nth`. Prints its end. */

import { Follower } from "../../src/database/follower.ts";
import { systemClock } from "../../src/platform/clock.ts";

const [path = "", folder = "", nth = ""] = Deno.args;
let left = Number(nth);
const clock = systemClock();

const follower = new Follower({
  path,
  folder,
  clock,
  baseline: null,
  token: 7,
  journal: "follow",
  limits: { checkpointPages: 1, syncBytes: 30_000 },
  onStep(step) {
    if (--left > 0) return;
    Deno.stdout.writeSync(new TextEncoder().encode(step));
    Deno.kill(Deno.pid, "SIGKILL");
    for (;;); // the signal comes in a moment
  },
});
await follower.start();
for (let more = true; more;) {
  const result = await follower.sync();
  more = result.changed && result.more;
}
await follower.checkpointIfNeeded();
await clock.sleep(30); // so that the file's time is old enough to be noted
await follower.sync();
await follower.touch();
await follower.close();
Deno.stdout.writeSync(new TextEncoder().encode("whole"));
