/**
 * kill -9 of the follower at every named point of its work (docs/replication.md), while 500 rows a second are
 * committed. STATE_MANAGER_CRASH_ROUNDS: how often each (default 1); from the second round on whole machines die, too.
 */

import assert from "node:assert/strict";
import { haveStrace } from "../support/call_trap.ts";
import { CRASH_POINTS } from "../support/crash_points.ts";
import { type CrashDeath, walkOfCrashPoints } from "../support/crash_walk.ts";
import { scratchFolder } from "../support/manager_process.ts";
import { findMinio, startMinio } from "../support/minio.ts";
import { say } from "../support/say.ts";

const rounds = Number(Deno.env.get("STATE_MANAGER_CRASH_ROUNDS") ?? "1");
const PER_SECOND = 500;

function lineOf(point: string, deaths: readonly CrashDeath[]): string {
  const of = deaths.filter((death) => death.point === point);
  const mostMs = Math.max(0, ...of.map(({ lostMs }) => lostMs));
  const mostRows = Math.max(0, ...of.map(({ lostRows }) => lostRows));
  const after = Object.entries(Object.groupBy(of, ({ aftermath }) => aftermath))
    .map(([aftermath, some]) => `${some.length} ${aftermath}`).join(", ");
  return `${point.padEnd(21)} ${of.length} deaths (${after}); at most ${mostRows} rows, ` +
    `${Math.round(mostMs)} ms were not in the store`;
}

Deno.test({
  name:
    "rows that were confirmed survive a follower that dies at any named point, in one chain [needs minio] [needs strace]",
  ignore: findMinio() === null || !haveStrace,
  async fn() {
    using scratch = scratchFolder();
    const minio = await startMinio();
    assert.ok(minio !== null, "MinIO was found before and does not start now");
    try {
      const deaths = await walkOfCrashPoints({
        root: scratch.path,
        minio,
        rounds,
        perSecond: PER_SECOND,
        onDeath: (death) => rounds > 1 && say(JSON.stringify(death)),
      });
      for (const { name } of CRASH_POINTS) {
        say(lineOf(name, deaths));
        assert.equal(deaths.filter(({ point }) => point === name).length, rounds, name);
      }
    } finally {
      await minio.stop();
    }
  },
});

Deno.test("every named point of a follower's death is in the documentation, in this order", async () => {
  const text = await Deno.readTextFile(new URL("../../docs/replication.md", import.meta.url));
  const [, table = ""] = text.split("## If we die here, then …");
  const names = [...table.split("\n## ")[0]?.matchAll(/^\| `([a-z-]+)` \|/gm) ?? []].map(([, name]) => name);
  assert.deepEqual(names, CRASH_POINTS.map(({ name }) => name));
});
