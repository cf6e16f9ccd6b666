/** What happens to running programs when the lease cannot be renewed, and when it is lost. */

import assert from "node:assert/strict";
import { stateOfProcess } from "../support/chaos_scene.ts";
import { unlessStalled } from "../support/machine_stall.ts";
import { descendants, ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { S3Server } from "../support/s3_server.ts";

const BEATS = "while :; do date +%s%N > $ROOT/beat.new; mv $ROOT/beat.new $ROOT/beat; sleep 0.05; done";

function start(root: string, server: S3Server, env: Record<string, string> = {}): ManagerProcess {
  Deno.mkdirSync(`${root}/files`, { recursive: true });
  return new ManagerProcess({
    args: [
      "run",
      ...["--bucket", server.bucket, "--endpoint", server.endpoint, "--region", "us-east-1"],
      ...["--files", `app=${root}/files`, "--data-dir", `${root}/data`],
      ...["--lease-ttl", env["TTL"] ?? "3s", "--checkpoint-interval", "1h"],
      "--",
      ...["sh", "-c", `${env["BEFORE"] ?? ":"}; ${BEATS}`],
    ],
    env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey, ROOT: root, ...env },
  });
}

const beat = (root: string) => Deno.readTextFileSync(`${root}/beat`);

/** The last beat of programs that stand still; the one that was on its way when they were stopped counts, too. */
async function lastBeat(root: string): Promise<string> {
  return await waitFor("the beats to end", async () => {
    const before = beat(root);
    await new Promise((resolve) => setTimeout(resolve, 400)); // eight beats of a program that runs
    return beat(root) === before ? before : null;
  });
}

async function moves(root: string): Promise<void> {
  const before = await waitFor("a beat", () => beat(root));
  await waitFor("another beat", () => beat(root) !== before);
}

/** A good part of the tenth of the TTL that lies between the freeze and the guard's kill. */
const STALL_MS = 300;

Deno.test(
  "programs are frozen before the lease ends, go on when it is proven ours, and are killed by a stop meanwhile",
  () => unlessStalled(frozenThenStopped, STALL_MS),
);

async function frozenThenStopped(root: string): Promise<void> {
  await using server = await S3Server.start({ bucket: "bucket" });
  await using manager = start(root, server, { TTL: "6s" });
  await manager.state("running");
  await moves(root);

  const outage = server.fail({ status: 503, code: "SlowDown" });
  await manager.state("frozen");
  await lastBeat(root);
  assert.equal((await manager.json("/lease")).state, "suspended");
  outage.end();
  await manager.state("running");
  await moves(root);

  server.fail({ status: 503, code: "SlowDown" });
  await manager.state("frozen");
  const stoppedAt = await lastBeat(root);
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(), 74, manager.tail());
  assert.equal(beat(root), stoppedAt, "nothing runs while the lease is in doubt");
}

Deno.test("with on_unreachable stop the programs are killed and the manager ends with 75", async () => {
  using scratch = scratchFolder();
  await using server = await S3Server.start({ bucket: "bucket" });
  await using manager = start(scratch.path, server, { STATE_MANAGER_LEASE_ON_UNREACHABLE: "stop" });
  await manager.state("running");
  server.fail({ status: 503, code: "SlowDown" });
  assert.equal(await manager.exit(), 75, manager.tail());
  const last = beat(scratch.path);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(beat(scratch.path), last);
});

Deno.test("a manager that was stopped past its lease ends with 75 and its programs die when another took over", async () => {
  using scratch = scratchFolder();
  await using server = await S3Server.start({ bucket: "bucket" });
  await using first = start(`${scratch.path}/a`, server);
  await first.state("running");
  first.signal("SIGSTOP");
  await using second = start(`${scratch.path}/b`, server);
  await second.state("running");
  first.signal("SIGCONT");
  assert.equal(await first.exit(), 75, first.tail());
  const last = beat(`${scratch.path}/a`);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(beat(`${scratch.path}/a`), last);
  assert.equal((await second.json("/lease")).token, 2);
  await moves(`${scratch.path}/b`);
});

Deno.test("a manager that loses its lease while it stops ends with 75, and leaves the other alone", async () => {
  using scratch = scratchFolder();
  await using server = await S3Server.start({ bucket: "bucket" });
  const stubborn = { BEFORE: "trap '' TERM", STATE_MANAGER_SHUTDOWN_BUDGET: "100s" };
  await using first = start(`${scratch.path}/a`, server, stubborn);
  await first.state("running");
  await moves(`${scratch.path}/a`);
  first.signal("SIGTERM");
  await first.state("stopping");
  first.signal("SIGSTOP");
  await using second = start(`${scratch.path}/b`, server, stubborn);
  await second.state("running");
  first.signal("SIGCONT");
  assert.equal(await first.exit(60_000), 75, first.tail());
  assert.match(first.stderr, /ending with 75: .*it was lost/);
  const last = beat(`${scratch.path}/a`);
  await moves(`${scratch.path}/b`);
  assert.equal(beat(`${scratch.path}/a`), last);
});

Deno.test("a manager that was stopped past its lease in the restore of a start ends with 75: its restore ended at the deadline", async () => {
  using scratch = scratchFolder();
  const [a, b, c] = ["a", "b", "c"].map((name) => `${scratch.path}/${name}`) as [string, string, string];
  await using server = await S3Server.start({ bucket: "bucket" });
  {
    await using before = start(a, server);
    await before.state("running");
    Deno.writeTextFileSync(`${a}/files/x`, "kept");
    before.signal("SIGTERM");
    assert.equal(await before.exit(), 143, before.tail());
  }
  // No pack comes as long as it restores.
  const slow = server.fail({ operation: "get", keyPrefix: "checkpoints/", delayMs: 600_000 });
  await using first = start(b, server);
  await first.state("restoring");
  const archiver = await waitFor("the archiver", () => descendants(first.pid).find(isArchiver));
  await waitFor("it to restore", () => slow.hits > 0);
  first.signal("SIGSTOP");
  await waitFor("the guard to end it", () => stateOfProcess(archiver) === null);
  slow.end();
  await using second = start(c, server);
  await second.state("running");
  first.signal("SIGCONT");
  assert.equal(await first.exit(), 75, first.tail());
  // By whomever it is told first: the guard, or the store's record.
  assert.match(first.stderr, /ending with 75: lease lost: /);
  assert.deepEqual([...Deno.readDirSync(`${b}/files`)], [], "nothing came in its place");
  assert.equal(Deno.readTextFileSync(`${c}/files/x`), "kept");
  assert.equal((await second.json("/lease")).token, 3);
  await moves(c);
});

function isArchiver(pid: number): boolean {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0").includes("__archive");
  } catch {
    return false; // it has ended
  }
}
