/** kill -9 at every step of a follower, one after the other: the next one proves where it is, or takes all pages. */

import assert from "node:assert/strict";
import { FollowedDatabase, rows } from "../support/followed_database.ts";
import { say } from "../support/say.ts";

const config = new URL("../../deno.json", import.meta.url).pathname;
const child = new URL("../support/follower_process.ts", import.meta.url).pathname;

async function follow(scene: FollowedDatabase, nth: number, how: string): Promise<string> {
  const { stdout, stderr, signal, success } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--quiet",
      "--no-check",
      "--config",
      config,
      child,
      scene.path,
      scene.stateFolder,
      `${nth}`,
      how,
    ],
    env: { NO_COLOR: "1" },
  }).output();
  const step = new TextDecoder().decode(stdout);
  assert.ok(step === "whole" ? success : signal === "SIGKILL", new TextDecoder().decode(stderr));
  return step;
}

function names(scene: FollowedDatabase): string[] {
  return [...Deno.readDirSync(`${scene.stateFolder}/ltx/0`)].map(({ name }) => name).sort();
}

const WAYS = {
  "beside": "beside an application",
  "alone": "alone with the database",
  "joint": "and checkpoints",
};

for (const [how, who] of Object.entries(WAYS)) {
  const open = how !== "alone";
  Deno.test(`follower that is killed at any step ${who} goes on without a gap`, async () => {
    const steps: string[] = [];
    let snapshots = 0;
    const after: string[] = [];
    // What comes before a checkpoint is as beside an application.
    for (let nth = how === "joint" ? 11 : 1; steps.at(-1) !== "whole"; nth++) {
      await using scene = await FollowedDatabase.wal();
      await scene.program.run("app", rows(50));
      await scene.start();
      await scene.follower.sync();
      await scene.pull();
      await scene.stop();
      for (let i = 0; i < 3; i++) await scene.program.run("app", rows(40));
      if (!open) await scene.program.kill(); // the log is left, nobody has taken it in
      steps.push(await follow(scene, nth, how));
      if (open) await scene.program.run("app", rows(3));
      const follower = await scene.start();
      assert.ok(names(scene).every((name) => !name.endsWith(".tmp")), `swept after ${steps.at(-1)}`);
      for (let more = true; more;) {
        const result = await follower.sync();
        more = result.changed && result.more;
        if (result.changed && result.snapshot !== null) {
          snapshots++;
          after.push(`${nth} ${steps.at(-1)} (${result.snapshot})`);
        }
      }
      await scene.assertSame(`after ${steps.at(-1)}, the ${nth}th step`);
    }
    say(
      `${steps.length - 1} steps, ${snapshots} times all pages: ${steps.join(" ")}; all pages after ${
        after.join(", ")
      }`,
    );
    const wanted = ["scanned", "encoded", "position-written", "renamed", "gate", "checkpointed"];
    const others = how === "joint" ? ["gate-opened"] : ["verified", "sealed"];
    for (const step of [...wanted, ...others, "read-lock-dropped"]) assert.ok(steps.includes(step), step);
    // Only in the moments after a checkpoint, before the note said so.
    assert.ok(snapshots <= 10, `${snapshots} times all pages`);
  });
}
