/**
 * What stands between a database and its replica fails: the store, the network before it, the local disk of the data
 * folder, the whole holder. Lag grows and nothing is lost; it catches up alone; the program never notices. Outages here
 * are shorter than the lease allows: what a longer one does is outage_test.ts's.
 */

import assert from "node:assert/strict";
import { listAll } from "../../src/storage/mod.ts";
import { chainProgram, checkChain, readJournal } from "../support/chain.ts";
import { type FaultProxy, type ProxyFault, startFaultProxy } from "../support/fault_proxy.ts";
import {
  descendants,
  type Json,
  ManagerProcess,
  runProgram,
  scratchFolder,
  waitFor,
} from "../support/manager_process.ts";
import { findMinio, type Minio, minioStore, startMinio } from "../support/minio.ts";
import { canMount, tool } from "../support/mounts.ts";
import { say } from "../support/say.ts";
import { signalAll } from "../support/signal_all.ts";

const PER_SECOND = 200;
/** A lag that no healthy store gives: a capture each second, sent at once. */
const GROWN_LAG_SECONDS = 3;
/** Beyond every pause between tries that such an outage leads to. */
const CATCH_UP_LIMIT_MS = 60_000;
const PREFIX = "faults";

interface Place {
  readonly root: string;
  readonly database: string;
  readonly journal: string;
}

function placeAt(root: string): Place {
  Deno.mkdirSync(`${root}/db`, { recursive: true });
  Deno.mkdirSync(`${root}/data`);
  return { root, database: `${root}/db/app.db`, journal: `${root}/journal` };
}

/** A bucket, by a way that fails as told and by one that does not. */
class Scene implements AsyncDisposable {
  readonly #minio: Minio;
  readonly #scratch = scratchFolder();
  readonly proxy: FaultProxy;

  private constructor(minio: Minio) {
    this.#minio = minio;
    this.proxy = startFaultProxy(minio.endpoint);
  }

  static async start(): Promise<Scene> {
    const minio = await startMinio();
    if (minio === null) throw new Error("MinIO was found before and does not start now");
    return new Scene(minio);
  }

  place(name: string): Place {
    return placeAt(`${this.#scratch.path}/${name}`);
  }

  #storeArgs(endpoint: string): string[] {
    const { bucket } = this.#minio;
    return ["--bucket", bucket, "--endpoint", endpoint, "--region", "us-east-1", "--prefix", PREFIX];
  }

  get #storeEnv(): Record<string, string> {
    return { AWS_ACCESS_KEY_ID: this.#minio.accessKey, AWS_SECRET_ACCESS_KEY: this.#minio.secretKey };
  }

  run(
    { root, database, journal }: Place,
    options: { readonly direct?: boolean; readonly ttl?: readonly [string, string] } = {},
  ): ManagerProcess {
    const [ttl, renew] = options.ttl ?? ["30s", "5s"];
    const endpoint = options.direct === true ? this.#minio.endpoint : this.proxy.endpoint;
    return new ManagerProcess({
      args: [
        ...["run", ...this.#storeArgs(endpoint), "--database", `app=${database}`],
        ...["--data-dir", `${root}/data`, "--"],
        ...chainProgram({ database, journal, perSecond: PER_SECOND }),
      ],
      env: { ...this.#storeEnv, STATE_MANAGER_LEASE_TTL: ttl, STATE_MANAGER_LEASE_RENEW: renew },
    });
  }

  /** By the command line, past the proxy; gives the length of the chain. */
  async restored(name: string): Promise<number> {
    const to = `${this.#scratch.path}/${name}.db`;
    const args = ["db", "restore", "app", ...this.#storeArgs(this.#minio.endpoint), "--to", to];
    const done = await runProgram(args, { env: this.#storeEnv });
    assert.equal(done.code, 0, done.stderr);
    return checkChain(to);
  }

  /** Keys of the database's files with their content's tags, past the proxy. */
  async files(): Promise<Map<string, string>> {
    const store = minioStore(this.#minio, PREFIX);
    try {
      const files = new Map<string, string>();
      for await (const { key, etag } of listAll(store, "databases/")) files.set(key, etag);
      return files;
    } finally {
      await store.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy[Symbol.asyncDispose]();
    await this.#minio.stop();
    this.#scratch[Symbol.dispose]();
  }
}

function newestRow({ journal }: Place): number {
  return readJournal(journal).rows.at(-1)?.n ?? 0;
}

async function untilRow(place: Place, manager: ManagerProcess, n: number): Promise<void> {
  await waitFor(`row ${n}`, () => newestRow(place) >= n, 60_000, () => manager.tail());
}

async function status(manager: ManagerProcess): Promise<Json> {
  const { databases: [first] } = await manager.json("/databases");
  return first;
}

/** Ends it in order, and all that was ever committed is in the store, in one chain, by one uninterrupted program. */
async function proveWhole(scene: Scene, place: Place, manager: ManagerProcess): Promise<void> {
  manager.signal("SIGTERM");
  assert.equal(await manager.exit(60_000), 0, manager.tail());
  const { starts, rows } = readJournal(place.journal);
  assert.deepEqual(starts, [0], "the program has run once, from its first row on");
  rows.forEach(({ n }, at) => assert.equal(n, at + 1, "a commit has failed"));
  const longest = rows.reduce((most, { atMs }, at) => Math.max(most, atMs - (rows[at - 1]?.atMs ?? atMs)), 0);
  say(`${rows.length} rows, at most ${Math.round(longest)} ms between two`);
  assert.equal(await scene.restored("end"), rows.length);
}

/** Waits while `fault` is on until much is not durable, ends it, and waits until all is. */
async function outlive(
  place: Place,
  manager: ManagerProcess,
  fault: { begin(): void; end(): void },
): Promise<void> {
  const tail = () => manager.tail();
  await waitFor("a healthy replica", async () => (await status(manager)).lag_seconds < 2, 60_000, tail);
  const row = newestRow(place);
  fault.begin();
  const grown = await waitFor(
    "lag to grow",
    async () => {
      const now = await status(manager);
      return now.lag_seconds >= GROWN_LAG_SECONDS ? now : null;
    },
    60_000,
    tail,
  );
  say(
    `lag ${grown.lag_seconds} s, ${grown.waiting.files} files wait; ${
      grown.last_error?.message ?? "no error"
    }`,
  );
  assert.ok(newestRow(place) > row, "the program goes on");
  const confirmed = newestRow(place);
  fault.end();
  await waitFor(
    "the replica to catch up",
    async () => {
      const now = await status(manager);
      return now.lag_seconds < 2 && now.durable_txid > grown.durable_txid && now.state === "following";
    },
    CATCH_UP_LIMIT_MS,
    tail,
  );
  await untilRow(place, manager, confirmed + PER_SECOND);
}

interface StoreFault {
  readonly name: string;
  readonly rules?: readonly ProxyFault[];
  readonly outage?: "silent" | "refused";
}

const ALWAYS = { count: Infinity } as const;

const FAULTS: readonly StoreFault[] = [
  { name: "503 to everything", rules: [{ status: 503, ...ALWAYS }] },
  { name: "connections that end before the work", rules: [{ reset: true, ...ALWAYS }] },
  {
    name: "connections that end after a put is done, and answers to no question about it",
    rules: [
      { operation: "put", reset: true, when: "after", ...ALWAYS },
      { operation: "get", status: 503, ...ALWAYS },
      { operation: "head", status: 503, ...ALWAYS },
    ],
  },
  { name: "answers that are cut short", rules: [{ cutAfter: 30, ...ALWAYS }] },
  { name: "no answers, and work dropped", outage: "silent" },
  {
    name: "connections that end before a put, which is done late",
    // Its sender thinks that it failed. It lands before the fault ends, so that the first one that is answered is refused.
    rules: [{ operation: "put", keyPrefix: `${PREFIX}/databases/`, lateMs: 2_000, ...ALWAYS }],
  },
  { name: "no connections", outage: "refused" },
];

const ignore = findMinio() === null;

for (const { name, rules = [], outage } of FAULTS) {
  Deno.test({
    name: `a database survives ${name}: lag grows, nothing is lost, it catches up alone [needs minio]`,
    ignore,
    async fn() {
      await using scene = await Scene.start();
      const place = scene.place("one");
      await using manager = scene.run(place);
      await untilRow(place, manager, PER_SECOND);
      const { proxy } = scene;
      let active: { readonly hits: number; end(): void }[] = [];
      await outlive(place, manager, {
        begin() {
          active = rules.map((rule) => proxy.fail(rule));
          if (outage !== undefined) proxy.outage(outage);
        },
        end() {
          for (const each of active) each.end();
          proxy.outage(false);
        },
      });
      if (rules.length > 0) assert.ok((active[0]?.hits ?? 0) > 0, "the fault has struck");
      if (rules.some(({ lateMs }) => lateMs !== undefined)) {
        assert.ok(
          proxy.requests.some(({ status }) => status === 412),
          "a put was refused by its own former try",
        );
      }
      await proveWhole(scene, place, manager);
    },
  });
}

Deno.test({
  name:
    "a put whose answer is lost counts by what the store has: replication goes on through all of them [needs minio]",
  ignore,
  async fn() {
    await using scene = await Scene.start();
    const place = scene.place("one");
    await using manager = scene.run(place);
    await untilRow(place, manager, PER_SECOND);
    const lost = scene.proxy.fail({
      operation: "put",
      keyPrefix: `${PREFIX}/databases/`,
      reset: true,
      when: "after",
      ...ALWAYS,
    });
    const confirmed = newestRow(place);
    const { durable_txid } = await manager.json("/databases/app/sync", { method: "POST" });
    assert.ok(lost.hits > 0, "the fault has struck");
    assert.ok(durable_txid > 0);
    assert.ok(await scene.restored("meanwhile") >= confirmed, "what was confirmed is there");
    lost.end();
    await proveWhole(scene, place, manager);
  },
});

Deno.test({
  name:
    "a database survives a data folder on a full disk: lag grows, nothing is lost, it catches up alone [needs minio] [needs mount]",
  ignore: ignore || !canMount,
  async fn() {
    await using scene = await Scene.start();
    const place = scene.place("one");
    const disk = `${place.root}/data`;
    assert.ok(tool("mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "none", disk));
    try {
      await using manager = scene.run(place);
      await untilRow(place, manager, PER_SECOND);
      const filler = `${disk}/filler`;
      await outlive(place, manager, {
        begin: () => void tool("dd", "if=/dev/zero", `of=${filler}`, "bs=64k"), // to the last byte
        end: () => Deno.removeSync(filler),
      });
      await proveWhole(scene, place, manager);
    } finally {
      assert.ok(tool("umount", disk));
    }
  },
});

Deno.test({
  name:
    "a whole holder that was stopped while another took over adds nothing to what a restore sees [needs minio]",
  ignore,
  async fn() {
    await using scene = await Scene.start();
    const ttl = ["3s", "800ms"] as const;
    const [one, two] = [scene.place("one"), scene.place("two")];
    await using former = scene.run(one, { ttl });
    await untilRow(one, former, PER_SECOND);
    const confirmed = newestRow(one);
    await former.json("/databases/app/sync", { method: "POST" });
    // Its next commit is on its way when it is stopped, and is done only when another has taken over.
    const { proxy } = scene;
    const mark = proxy.requests.length;
    proxy.outage("late");
    const underWay = () =>
      proxy.requests.slice(mark).filter(({ operation, key }) =>
        operation === "put" && key.startsWith(`${PREFIX}/databases/app/0000/`)
      );
    await waitFor("a commit on its way", () => underWay().length > 0, 60_000, () => former.tail());
    const pids = [former.pid, ...descendants(former.pid)];
    signalAll(pids, "SIGSTOP");

    await using holder = scene.run(two, { ttl, direct: true });
    await untilRow(two, holder, 1);
    const [found = 0] = readJournal(two.journal).starts;
    assert.ok(found >= confirmed, `${found} rows came back, a barrier confirmed ${confirmed}`);
    await untilRow(two, holder, found + PER_SECOND);
    await holder.json("/databases/app/sync", { method: "POST" });
    const before = await scene.files();

    const late = underWay();
    proxy.outage(false);
    await waitFor("the late commits to be answered", () => late.every(({ status }) => status !== null));
    assert.deepEqual(late.map(({ status }) => status), late.map(() => 412), "its slot is taken");
    signalAll(pids, "SIGCONT");
    assert.equal(await former.exit(), 75, former.tail());

    const after = await scene.files();
    for (const [key, tag] of before) {
      if (after.has(key)) assert.equal(after.get(key), tag, key); // else merged and removed by its holder
    }
    const last = newestRow(two);
    await untilRow(two, holder, last + PER_SECOND);
    holder.signal("SIGTERM");
    assert.equal(await holder.exit(), 0, holder.tail());
    assert.equal(checkChain(two.database), newestRow(two));
    assert.equal(await scene.restored("end"), newestRow(two), "the chain is the holder's, whole");
  },
});
