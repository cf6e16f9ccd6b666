/**
 * The n-th store request of a whole life fails, for n = 1, 2, 3 …, and so does every one from the n-th on: whatever the
 * manager was doing, each program that starts finds the old or the new state, whole; an end that is not as asked says why
 * and what to do; and once the store is well again everything comes up by itself.
 * STATE_MANAGER_ALL_FAULT_POINTS=1 tries every point, else a sample of them.
 */

import assert from "node:assert/strict";
import { ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";
import { S3Server, type ServedObject } from "../support/s3_server.ts";

const ALL_POINTS = Deno.env.get("STATE_MANAGER_ALL_FAULT_POINTS") === "1";
const STATIC_FILES = 20;
/** A life that got nowhere by then is ended: it waits for the store. */
const PATIENCE_MS = 4_000;

/** Says which state it found and whether all of it is there, then makes the next one. Never changes the rest. */
const PROGRAM = `
cat value >> "$SEEN"; ls static | wc -l >> "$SEEN.files"
echo 2 > value.new; mv value.new value
exec sleep 1000`;

interface Machine {
  readonly root: string;
  readonly server: S3Server;
}

function start({ root, server }: Machine): ManagerProcess {
  Deno.mkdirSync(`${root}/files`, { recursive: true });
  return new ManagerProcess({
    args: [
      ...["run", "--bucket", server.bucket, "--endpoint", server.endpoint, "--prefix", "app"],
      ...["--files", `app=${root}/files`, "--data-dir", `${root}/data`, "--checkpoint-interval", "0"],
      ...["--lease-ttl", "3s", "--shutdown-budget", "4s", "--", "sh", "-c", `cd ${root}/files; ${PROGRAM}`],
    ],
    env: {
      AWS_ACCESS_KEY_ID: server.accessKey,
      AWS_SECRET_ACCESS_KEY: server.secretKey,
      STATE_MANAGER_SHUTDOWN_FLUSH_RESERVE: "2s",
      SEEN: `${root}/seen`,
    },
  });
}

function lines(path: string): string[] {
  try {
    return Deno.readTextFileSync(path).split("\n").filter((line) => line !== "");
  } catch {
    return [];
  }
}

/** Every state that a program found when it started. */
const seen = ({ root }: Machine) => lines(`${root}/seen`);

async function untilSeen(machine: Machine, count: number, manager: ManagerProcess): Promise<void> {
  await waitFor(`program start ${count}`, () => seen(machine).length >= count, 30_000, () => manager.tail());
}

/** An answer within patience, or null: the request that waits for the store is given up. */
async function ask(manager: ManagerProcess, path: string, json: unknown): Promise<number | null> {
  try {
    return await manager.statusOf(path, { json, signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch {
    return null;
  }
}

/** Start with a restore, checkpoint, restore to the past, stop. Returns the exit code. */
async function live(machine: Machine): Promise<{ code: number; manager: ManagerProcess }> {
  await using manager = start(machine);
  let ended = false;
  manager.ended.then(() => ended = true);
  const before = seen(machine).length;
  await waitFor("a start, an end or nothing", () => ended || seen(machine).length > before, PATIENCE_MS)
    .catch(() => {});
  if (!ended && seen(machine).length > before) {
    await manager.state("running", PATIENCE_MS).catch(() => {});
    await ask(manager, "/checkpoint", {});
    await ask(manager, "/restore", { checkpoint: "1" });
  }
  if (!ended) manager.signal("SIGTERM");
  return { code: await manager.exit(30_000), manager };
}

function check(machine: Machine): void {
  for (const value of seen(machine)) assert.match(value, /^[12]$/);
  for (const count of lines(`${machine.root}/seen.files`)) assert.equal(Number(count), STATIC_FILES);
}

/** Ends with what was asked for, or with a reason and an advice. */
function checkEnd(code: number, manager: ManagerProcess): void {
  if (code === 143) return;
  assert.ok([69, 74, 75].includes(code), `exit code ${code}\n${manager.tail()}`);
  const line = manager.stderr.split("\n").find((text) => text.includes(`ending with ${code}`));
  assert.ok(line !== undefined && line.includes('"hint"'), `no reason told for ${code}\n${manager.tail()}`);
}

/** A repository whose newest state is 1. */
async function makeTemplate(server: S3Server, root: string): Promise<Map<string, ServedObject>> {
  Deno.mkdirSync(`${root}/files/static`, { recursive: true });
  for (let n = 0; n < STATIC_FILES; n++) Deno.writeTextFileSync(`${root}/files/static/${n}`, `static ${n}\n`);
  Deno.writeTextFileSync(`${root}/files/value`, "1\n");
  await using manager = new ManagerProcess({
    args: [
      ...["run", "--bucket", server.bucket, "--endpoint", server.endpoint, "--prefix", "app", "--files"],
      ...[`app=${root}/files`, "--data-dir", `${root}/data`, "--checkpoint-interval", "0", "--", "true"],
    ],
    env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey },
  });
  assert.equal(await manager.exit(), 0, manager.tail());
  return new Map(server.objects);
}

/** The faulty life, then a well one on the same folder, then one on a new machine. */
async function tryPoint(
  server: S3Server,
  template: ReadonlyMap<string, ServedObject>,
  fault: Parameters<S3Server["fail"]>[0],
): Promise<boolean> {
  server.objects.clear();
  for (const [key, object] of template) server.objects.set(key, object);
  using scratch = scratchFolder();
  const machine = { root: `${scratch.path}/one`, server };
  Deno.mkdirSync(machine.root);
  const injected = server.fail(fault);
  const { code, manager } = await live(machine);
  injected.end();
  check(machine);
  checkEnd(code, manager);
  {
    await using well = start(machine);
    await untilSeen(machine, seen(machine).length + 1, well);
    well.signal("SIGTERM");
    assert.equal(await well.exit(), 143, well.tail());
    check(machine);
  }
  const other = { root: `${scratch.path}/two`, server };
  Deno.mkdirSync(other.root);
  await using elsewhere = start(other);
  await untilSeen(other, 1, elsewhere);
  assert.deepEqual(seen(other), ["2"], "the clean stop's state is what another machine gets");
  check(other);
  elsewhere.signal("SIGTERM");
  assert.equal(await elsewhere.exit(), 143, elsewhere.tail());
  return injected.hits > 0;
}

const CASES = [
  { what: "is done and its answer lost", stride: 6, fault: { reset: true, when: "after", count: 1 } },
  { what: "and every later one fails", stride: 16, fault: { status: 503, code: "SlowDown" } },
] as const;

for (const { what, stride, fault } of CASES) {
  Deno.test(`a life whose n-th store request ${what} ends with the old or the new state, whole`, async () => {
    using scratch = scratchFolder();
    await using server = await S3Server.start({ bucket: "bucket" });
    const template = await makeTemplate(server, scratch.path);
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
    console.log(`${tried} points tried`);
    assert.ok(tried > 3, `only ${tried} points`);
  });
}
