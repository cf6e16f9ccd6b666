/** The program as it ships: what is asked of the lease while something else is under way. */

import assert from "node:assert/strict";
import { type Json, ManagerProcess, scratchFolder, waitFor } from "../support/manager_process.ts";

/** Ignores SIGTERM until `end` exists, and says so. */
const stubborn = (starts: string, end: string) =>
  `trap "" TERM; echo started >> ${starts}; until [ -e ${end} ]; do sleep 0.05; done`;

class Scene implements AsyncDisposable {
  readonly #scratch = scratchFolder();
  readonly root = this.#scratch.path;
  readonly starts = `${this.root}/starts`;
  readonly end = `${this.root}/end`;
  readonly files = `${this.root}/files`;
  #manager: ManagerProcess | null = null;

  constructor() {
    Deno.mkdirSync(this.files);
  }

  config(change: Json = {}): Json {
    return {
      storage: { directory: `${this.root}/store` },
      files: { data: { path: this.files } },
      processes: { web: { command: stubborn(this.starts, this.end), shell: true, timeout_stop: "10m" } },
      shutdown: { budget: "10m" },
      ...change,
    };
  }

  start(config: Json | null): ManagerProcess {
    if (config !== null) {
      Deno.mkdirSync(`${this.root}/data`, { recursive: true });
      Deno.writeTextFileSync(`${this.root}/data/config.json`, JSON.stringify(config), { mode: 0o600 });
    }
    return this.#manager = new ManagerProcess({ args: ["--data-dir", `${this.root}/data`] });
  }

  /** How often the program has started. */
  started(): number {
    try {
      return Deno.readTextFileSync(this.starts).split("\n").length - 1;
    } catch {
      return 0;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#manager?.[Symbol.asyncDispose]();
    this.#scratch[Symbol.dispose]();
  }
}

async function answered(response: Promise<Response>): Promise<[number, Json]> {
  const { status } = await response;
  return [status, await (await response).json()];
}

Deno.test("a release is answered when it is done, and who asks meanwhile hears of the same one", async () => {
  await using scene = new Scene();
  const manager = scene.start(scene.config());
  await manager.state("running");
  await waitFor("the program", () => scene.started() === 1);
  const first = answered(manager.fetch("/release-lease", { json: {} }));
  await manager.state("stopping");
  const second = answered(manager.fetch("/release-lease", { json: {} }));
  assert.equal(await manager.statusOf("/checkpoint", { json: {} }), 409);
  Deno.writeTextFileSync(scene.end, "");
  for (const answer of [first, second]) {
    const [status, { state }] = await answer;
    assert.deepEqual([status, state], [200, "released"]);
  }
  const lease = await manager.json("/lease");
  assert.deepEqual([lease.state, lease.token, lease.remaining_seconds], ["released", null, null]);

  // Nothing is ended by the second: it is what was asked for last that counts.
  Deno.removeSync(scene.end);
  assert.equal((await manager.json("/acquire-lease", { json: {} })).state, "waiting");
  await manager.state("running");
  await waitFor("the program again", () => scene.started() === 2);
  const released = answered(manager.fetch("/release-lease", { json: {} }));
  await manager.state("stopping");
  const acquired = answered(manager.fetch("/acquire-lease", { json: {} }));
  assert.equal((await manager.json("/lease")).state, "held");
  Deno.writeTextFileSync(scene.end, "");
  assert.equal((await released)[0], 200);
  assert.equal((await acquired)[0], 200);
  await manager.state("running");
});

Deno.test("a release during a stop is refused, not left without an answer", async () => {
  await using scene = new Scene();
  const manager = scene.start(scene.config());
  await manager.state("running");
  await waitFor("the program", () => scene.started() === 1);
  manager.signal("SIGTERM");
  await manager.state("stopping");
  const [status, { code }] = await answered(manager.fetch("/release-lease", { json: {} }));
  assert.deepEqual([status, code], [409, "wrong-state"]);
  Deno.writeTextFileSync(scene.end, "");
  assert.equal(await manager.exit(), 0);
});

Deno.test("during a restore a release is refused, and a stop starts no program again", async () => {
  await using scene = new Scene();
  const bytes = crypto.getRandomValues(new Uint8Array(64 * 1024));
  // Three packs: what is fetched after the first waits for the time that it should have taken.
  for (let n = 0; n < 192; n++) Deno.writeFileSync(`${scene.files}/${n}`, bytes.map((byte) => byte ^ n));
  const manager = scene.start(scene.config({
    // Minutes for the restore: nobody waits for its end.
    checkpoint: { interval: 0, download_limit: "32KiB" },
    processes: { web: { command: ["sh", "-c", `echo started >> ${scene.starts}; exec sleep 100000`] } },
  }));
  await manager.state("running");
  await waitFor("the program", () => scene.started() === 1);
  const { checkpoint } = await manager.checkpoint();
  for (let n = 0; n < 192; n++) Deno.removeSync(`${scene.files}/${n}`);
  const restored = answered(manager.fetch("/restore", { json: { checkpoint: checkpoint.id } }));
  await manager.state("restoring");
  const [status, { code }] = await answered(manager.fetch("/release-lease", { json: {} }));
  assert.deepEqual([status, code], [409, "busy"]);
  assert.equal((await manager.json("/")).state, "restoring");
  manager.signal("SIGTERM");
  assert.equal((await restored)[0], 499);
  assert.equal(await manager.exit(), 0);
  assert.equal(scene.started(), 1, manager.tail());
});
