/**
 * The n-th store request of a whole life fails, for n = 1, 2, 3 …, and so does every one from the n-th on: whatever the
 * manager was doing, each program that starts finds the old or the new state, whole; an end that is not as asked says why
 * and what to do; and once the store is well again everything comes up by itself.
 * STATE_MANAGER_ALL_FAULT_POINTS=1 tries every point, else a sample of them.
 */

import assert from "node:assert/strict";
import { say } from "../support/say.ts";
import { scratchFolder } from "../support/manager_process.ts";
import { S3Server, type ServedObject } from "../support/s3_server.ts";
import { check, checkEnd, live, type Machine, makeFirstState, proveRecovery } from "../support/whole_life.ts";

const ALL_POINTS = Deno.env.get("STATE_MANAGER_ALL_FAULT_POINTS") === "1";

function machineOn(server: S3Server, root: string): Machine {
  Deno.mkdirSync(root);
  return {
    root,
    store: {
      args: ["--bucket", server.bucket, "--endpoint", server.endpoint, "--prefix", "app"],
      env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey },
    },
  };
}

/** False when the life has no such request any more. */
async function tryPoint(
  server: S3Server,
  template: ReadonlyMap<string, ServedObject>,
  fault: Parameters<S3Server["fail"]>[0],
): Promise<boolean> {
  server.objects.clear();
  for (const [key, object] of template) server.objects.set(key, object);
  using scratch = scratchFolder();
  const machine = machineOn(server, `${scratch.path}/one`);
  const injected = server.fail(fault);
  const { code, manager } = await live(machine);
  injected.end();
  check(machine);
  checkEnd(code, manager);
  await proveRecovery(machine, `${scratch.path}/two`);
  return injected.hits > 0;
}

const CASES = [
  { what: "is done and its answer lost", stride: 6, fault: { reset: true, when: "after", count: 1 } },
  { what: "and every later one fails", stride: 12, fault: { status: 503, code: "SlowDown" } },
] as const;

for (const { what, stride, fault } of CASES) {
  Deno.test(`a life whose n-th store request ${what} ends with the old or the new state, whole`, async () => {
    using scratch = scratchFolder();
    await using server = await S3Server.start({ bucket: "bucket" });
    await makeFirstState(machineOn(server, `${scratch.path}/first`));
    const template = new Map(server.objects);
    let tried = 0;
    for (let skip = 0;; skip += ALL_POINTS ? 1 : stride) {
      let hit: boolean;
      try {
        hit = await tryPoint(server, template, { ...fault, skip });
      } catch (error) {
        throw new Error(`request ${skip + 1}: ${error instanceof Error ? error.message : error}`, {
          cause: error,
        });
      }
      if (!hit) break; // the life had no more requests than that
      tried++;
    }
    say(`${tried} points tried`);
    // How many requests a life makes until its patience ends is the machine's: at least the start and what follows it.
    assert.ok(tried > 1, `only ${tried} points`);
  });
}
