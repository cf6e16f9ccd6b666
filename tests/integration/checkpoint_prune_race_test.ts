/**
 * Prunes on a real S3 service beside checkpoints, beside restores elsewhere, beside take-overs: in each round another
 * machine takes over while the holder prunes, and the former one goes on as far as it can. More rounds:
 * STATE_MANAGER_PRUNE_ROUNDS=100. The clocks pass 30 days over all rounds, so what was doomed in one is deleted in the next.
 */

import assert from "node:assert/strict";
import { readHead } from "../../src/checkpoint/head.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { findMinio, minioStore, startMinio } from "../support/minio.ts";
import { KEEP_NOTHING, PruneScene } from "../support/prune_scene.ts";
import { say } from "../support/say.ts";

const ROUNDS = Number(Deno.env.get("STATE_MANAGER_PRUNE_ROUNDS") ?? 5);
const DAYS_MS = 30 * 86_400_000;
const FILES = 10;

isRoot(); // loads libc once, which older runtimes count as a leak of the test that does it

function edit(scene: PruneScene, below: (limit: number) => number, names: Set<string>): void {
  for (let i = 0; i < 3; i++) {
    const name = `f${below(FILES)}`;
    if (names.delete(name) && below(3) === 0) {
      scene.remove(name);
      continue;
    }
    scene.write(name, 1000 + below(80_000));
    names.add(name);
  }
}

Deno.test({
  name:
    "prunes race with checkpoints, restores and take-overs, and every kept checkpoint comes back [needs minio]",
  ignore: findMinio() === null,
  async fn() {
    const minio = await startMinio();
    assert.ok(minio !== null);
    const store = minioStore(minio, "prune");
    const clock = systemClock();
    const seed = Number(Deno.env.get("STATE_MANAGER_TEST_SEED") ?? Date.now() % 1_000_000);
    say(`seed ${seed}`);
    const counts: Record<string, number> = {};
    const count = (what: string) => void (counts[what] = (counts[what] ?? 0) + 1);
    try {
      const model = new Map<string, readonly string[]>();
      await using one = new PruneScene(seed, store, model);
      await using two = new PruneScene(seed + 1, store, model);
      await using reader = new PruneScene(seed + 2, store, model);
      const below = (limit: number) => Math.floor(reader.random.float() * limit);
      const names = new Map([[one, new Set<string>()], [two, new Set<string>()]]);
      const change = (scene: PruneScene) => edit(scene, below, names.get(scene) ?? new Set());
      for (const scene of [one, two]) scene.keep = { ...KEEP_NOTHING, last: 4, daily: 3 };

      /** What a holder may hear when it is none any more, or when a checkpoint came first. */
      const unlessFenced = (work: Promise<unknown>, what: string) =>
        work.then(() => count(what), (error) => {
          if (!isError(error, "lease-lost", "cancelled", "busy")) throw error;
          count(`${what}: ${error.code}`);
        });
      const readElsewhere = async () => {
        const found = await readHead(store, { cipher: reader.cipher });
        const records = found?.head.checkpoints ?? [];
        const record = records[below(records.length)];
        if (found === null || record === undefined) return;
        await reader.restores(record, found.head);
        count("restore elsewhere");
      };

      let [holder, other] = [one, two];
      change(holder);
      await holder.checkpoint();
      for (let round = 0; round < ROUNDS; round++) {
        for (const scene of [one, two, reader]) scene.pass(DAYS_MS / ROUNDS);
        change(holder);
        await holder.checkpoint(below(6) === 0 ? { pinned: true } : {});
        await unlessFenced(holder.pruner().prune({ dryRun: false }), "prune");
        change(holder);
        const pruning = holder.pruner().prune({ dryRun: false });
        const takeOver = async () => {
          await clock.sleep(below(30));
          await other.takeOver(holder.token);
          count("take-over");
          change(other);
          await other.checkpoint();
          await other.pruner().prune({ dryRun: false });
        };
        const former = async () => {
          // Beside its own prune, which it ends; after the take-over it cannot commit.
          await clock.sleep(below(2) === 0 ? below(60) : 200 + below(200));
          await unlessFenced(holder.checkpoint(), "checkpoint of the former holder");
          await unlessFenced(holder.pruner().prune({ dryRun: false }), "second prune of the former holder");
        };
        await Promise.all([
          unlessFenced(pruning, "prune of the former holder"),
          former(),
          takeOver(),
          readElsewhere(),
          readElsewhere(),
        ]);
        [holder, other] = [other, holder];
        await readElsewhere();
      }
      await holder.restoresAll();
      for (let i = 0; i < 3; i++) {
        await holder.pruner().prune({ dryRun: false });
        holder.pass(DAYS_MS);
      }
      assert.deepEqual(await holder.unnamed(), []);
      await holder.restoresAll();
      say(
        `${ROUNDS} rounds, ${holder.head.checkpoints.length} checkpoints kept\n${
          JSON.stringify(counts, null, 1)
        }`,
      );
    } finally {
      await store.close();
      await minio.stop();
    }
  },
});
