/**
 * A follower in a process of its own that kills itself at one of its steps: `path folder nth`. Prints its end. With
 * `joint` it also takes in what an application commits, together with the sync, as often as it can.
 */

import { DatabaseSync } from "node:sqlite";

import { Follower } from "../../src/database/follower.ts";
import { systemClock } from "../../src/platform/clock.ts";

const [path = "", folder = "", nth = "", joint = ""] = Deno.args;
let left = Number(nth);
const clock = systemClock();

const follower = new Follower({
  path,
  folder,
  clock,
  baseline: null,
  token: 7,
  journal: "follow",
  limits: joint === "joint"
    ? { checkpointPages: 1, barrierPages: 1, jointPages: 1e9 }
    : { checkpointPages: 1, syncBytes: 30_000 },
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
if (joint === "joint") {
  const app = new DatabaseSync(path); // never closed: that would take the locks of the whole process
  app.exec("PRAGMA wal_autocheckpoint=0");
  await follower.sync(); // the first after a start is a plain one, as is the one after a log began anew
  for (let i = 0; i < 2; i++) {
    app.exec("INSERT INTO t(b) VALUES(randomblob(5000)), (randomblob(9))");
    await follower.sync();
  }
  if (follower.status.checkpoints === 0) throw new Error("the syncs made no checkpoint");
} else {
  await follower.checkpointIfNeeded();
  await clock.sleep(30); // so that the file's time is old enough to be noted
  await follower.sync();
  await follower.touch();
  await follower.close();
}
Deno.stdout.writeSync(new TextEncoder().encode("whole"));
