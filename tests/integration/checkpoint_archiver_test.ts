import assert from "node:assert/strict";
import { Archiver, type ArchiverOptions } from "../../src/checkpoint/archiver_client.ts";
import { PROTOCOL } from "../../src/checkpoint/archiver_protocol.ts";
import { plainCipher, sealingCipher } from "../../src/checkpoint/cipher.ts";
import { type HeadSession, openRepository } from "../../src/checkpoint/mod.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { readProcess } from "../../src/platform/proc.ts";
import { systemRandom, ulid } from "../../src/platform/random.ts";
import { Secret } from "../../src/platform/secret.ts";
import { openStore } from "../../src/storage/mod.ts";
import { filesRoot } from "../support/checkpoint_runs.ts";
import { listTree } from "../support/tree_listing.ts";
import { takeOverHead } from "../support/take_over_head.ts";

const clock = systemClock();
const random = systemRandom();

class Place implements AsyncDisposable {
  readonly folder = Deno.makeTempDirSync({ prefix: "sm-archiver-" });
  readonly files = `${this.folder}/files`;
  readonly settings = {
    kind: "directory",
    directory: `${this.folder}/store`,
    keyPrefix: "a/b",
  } as const;
  readonly dir = {
    cache: `${this.folder}/cache`,
    scratch: `${this.folder}/scratch`,
  };
  readonly store = openStore(this.settings, { clock, random });
  readonly #archivers: Archiver[] = [];

  constructor() {
    for (const path of [this.files, this.dir.cache, this.dir.scratch]) {
      Deno.mkdirSync(path);
    }
  }

  archiver(more: Partial<ArchiverOptions> = {}): Archiver {
    const archiver = new Archiver({
      store: this.settings,
      cipher: plainCipher,
      dir: this.dir,
      clock,
      ...more,
    });
    this.#archivers.push(archiver);
    return archiver;
  }

  async head(): Promise<HeadSession> {
    const repo = await openRepository(this.store, { name: "test", random });
    return await takeOverHead(this.store, {
      repo,
      token: 1,
      assertHeld: () => {},
    });
  }

  request(session: HeadSession) {
    const [id, time] = [ulid(clock.wallMs(), random), clock.wallMs()];
    const roots = [filesRoot("data", this.files)];
    return {
      id,
      kind: "request",
      time,
      comment: "c",
      labels: {},
      token: 1,
      head: session.head,
      roots,
      always: false,
    } as const;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const archiver of this.#archivers) await archiver.close();
    await this.store.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** A stand-in for the child: a shell script. */
const script = (text: string) => ({
  command: { command: "/bin/sh", args: ["-c", text] },
});

const HELLO = `echo '{"type":"hello","protocol":${PROTOCOL},"build":"test"}'`;

Deno.test("archiver makes a checkpoint and brings it back, by a child of its own", async () => {
  await using place = new Place();
  const session = await place.head();
  const archiver = place.archiver();
  await new Deno.Command("cp", {
    args: ["-a", new URL("../../src", import.meta.url).pathname, place.files],
  }).output();
  const phases = new Set<string>();
  const captured: string[] = [];
  const request = place.request(session);
  const { record, indexes, warnings } = await archiver.create(request, {
    onProgress: ({ phase }) => void phases.add(phase),
    onCaptured: (id) => void captured.push(id),
  });
  assert.ok(record !== null);
  assert.deepEqual(warnings, []);
  assert.deepEqual(captured, [request.id]);
  assert.ok(phases.has("scan") && phases.has("read"));
  await session.commit((head) => ({
    ...head,
    checkpoints: [record],
    indexes,
    current: record.id,
  }));

  assert.equal((await archiver.create(place.request(session))).record, null);

  const { totals } = await archiver.plan({
    head: session.head,
    record,
    roots: [{ name: "data", into: "/" }],
    paths: 0,
  });
  assert.equal(totals.bytes, record.files["data"]?.bytes);
  const stage = `${place.folder}/stage`;
  await archiver.stage({
    head: session.head,
    record,
    roots: [{ name: "data", stage }],
  });
  assert.deepEqual(await listTree(stage), await listTree(place.files));

  const { record: composed } = await archiver.composeRestore({
    id: ulid(clock.wallMs(), random),
    time: clock.wallMs(),
    token: 1,
    head: session.head,
    source: record,
    names: ["data"],
  });
  assert.equal(composed.n, 2);
  assert.equal(composed.restored_from, record.id);
});

Deno.test("archiver that is aborted in the middle leaves nothing that stands in the way of the next one", async () => {
  await using place = new Place();
  const session = await place.head();
  const archiver = place.archiver();
  for (let i = 0; i < 40; i++) {
    const bytes = new Uint8Array(1024 * 1024);
    for (let at = 0; at < bytes.length; at += 65536) {
      crypto.getRandomValues(bytes.subarray(at, at + 65536));
    }
    await Deno.writeFile(`${place.files}/${i}`, bytes);
  }
  for (const phase of ["scan", "read", "upload"]) {
    const abort = new AbortController();
    const stopAt = (progress: { phase: string }) => {
      if (progress.phase === phase) {
        abort.abort(new StateManagerError("cancelled", "test"));
      }
    };
    await assert.rejects(
      archiver.create(place.request(session), {
        signal: abort.signal,
        onProgress: stopAt,
      }),
      (error) => isError(error, "cancelled"),
    );
  }
  const { record, indexes } = await archiver.create(place.request(session));
  assert.ok(record !== null);
  await session.commit((head) => ({
    ...head,
    checkpoints: [record],
    indexes,
    current: record.id,
  }));
  const stage = `${place.folder}/stage`;
  await archiver.stage({
    head: session.head,
    record,
    roots: [{ name: "data", stage }],
  });
  assert.deepEqual(await listTree(stage), await listTree(place.files));
});

Deno.test("archiver passes on the error of its child with code and hint", async () => {
  await using place = new Place();
  const session = await place.head();
  await Deno.remove(place.files);
  await assert.rejects(
    place.archiver().create(place.request(session)),
    (error) => isError(error, "source-missing") && error.hint !== undefined,
  );
});

Deno.test("archiver that is aborted kills its child and gives the reason", async () => {
  await using place = new Place();
  const session = await place.head();
  const pidFile = `${place.folder}/pid`;
  // It ignores the end of its stdin and every polite signal.
  const stubborn = script(
    `trap '' TERM INT HUP; echo $$ > ${pidFile}; ${HELLO}; while :; do sleep 1; done`,
  );
  const abort = new AbortController();
  const running = place.archiver(stubborn).create(place.request(session), {
    signal: abort.signal,
  });
  running.catch(() => {});
  const pid = await eventually(async () => Number(await Deno.readTextFile(pidFile)) || null);
  abort.abort(new StateManagerError("lease-lost", "test"));
  await assert.rejects(running, (error) => isError(error, "lease-lost"));
  assert.equal(
    await Deno.stat(`/proc/${pid}`).then(() => true, () => false),
    false,
  );
});

Deno.test("archiver that crashes, or is killed, is a clear error", async () => {
  await using place = new Place();
  const session = await place.head();
  await assert.rejects(
    place.archiver(script(`${HELLO}; echo 'out of luck' >&2; exit 3`)).create(
      place.request(session),
    ),
    /ended early \(exit code 3\): out of luck/,
  );
  await assert.rejects(
    place.archiver(script(`${HELLO}; kill -9 $$`)).create(
      place.request(session),
    ),
    /SIGKILL/,
  );
  await assert.rejects(
    place.archiver(script("echo rubbish")).create(place.request(session)),
    /not a line of JSON/,
  );
  const other = script(
    `echo '{"type":"hello","protocol":99,"build":"new"}'; cat > /dev/null`,
  );
  await assert.rejects(
    place.archiver(other).create(place.request(session)),
    /protocol 99/,
  );
});

Deno.test("archiver's child is marked and told of in the turn of its spawn, and told gone when it has ended", async () => {
  await using place = new Place();
  const session = await place.head();
  const told: string[] = [];
  let count = 0;
  const archiver = place.archiver({
    ...script('echo "mark $MARK" >&2; exit 3'),
    watchChild: () => {
      const name = `child-${++count}`;
      const alive = (pid: number) => readProcess(pid)?.groupId === pid;
      return {
        env: { MARK: name },
        started: (pid) => told.push(`${name} started ${alive(pid)}`),
        gone: (pid) => told.push(`${name} gone ${alive(pid)}`),
      };
    },
  });
  for (const name of ["child-1", "child-2"]) {
    const running = archiver.create(place.request(session));
    assert.equal(told.at(-1), `${name} started true`);
    await assert.rejects(running, new RegExp(`mark ${name}`));
    assert.equal(told.at(-1), `${name} gone false`);
  }
});

Deno.test("archiver that falls silent is ended", async () => {
  await using place = new Place();
  const session = await place.head();
  const silent = place.archiver({
    ...script(`${HELLO}; cat > /dev/null`),
    silenceLimitMs: 100,
  });
  await assert.rejects(
    silent.create(place.request(session)),
    (error) => isError(error, "timeout"),
  );
});

Deno.test("archiver's child gets secrets by its stdin alone, and ends when that closes", async () => {
  await using place = new Place();
  const session = await place.head();
  const secret = "very-secret-value";
  const seen = `${place.folder}/seen`;
  const spy = script(
    `${HELLO}; head -n 1 > ${seen}.line; cat /proc/$$/cmdline /proc/$$/environ > ${seen}.process; touch ${seen}; cat`,
  );
  const dataKey = btoa("0123456789abcdef".repeat(2));
  const archiver = place.archiver({
    ...spy,
    cipher: sealingCipher({ repoId: "ab".repeat(16), dataKey: new Secret(dataKey) }, random),
    store: {
      kind: "s3",
      bucket: "b",
      endpoint: "http://127.0.0.1:1",
      region: "us-east-1",
      credentials: () => ({
        accessKey: new Secret("id"),
        secretKey: new Secret(secret),
        sessionToken: null,
      }),
      forcePathStyle: true,
    },
  });
  const running = archiver.create(place.request(session));
  running.catch(() => {});
  await eventually(async () => await Deno.stat(seen));
  const [line, visible] = await Promise.all(
    ["line", "process"].map((name) => Deno.readTextFile(`${seen}.${name}`)),
  );
  for (const each of [secret, dataKey]) {
    assert.ok(line?.includes(each));
    assert.ok(visible !== undefined && !visible.includes(each));
  }
  await archiver.close();
  await assert.rejects(running, (error) => isError(error, "cancelled"));
});

Deno.test("archive subcommand ends by itself when its parent goes away", async () => {
  const { selfCommand } = await import("../../src/platform/entry.ts");
  const { command, args } = selfCommand(["__archive"]);
  const child = new Deno.Command(command, {
    args,
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  await child.stdin.close();
  const { code } = await child.output();
  assert.equal(code, 0);
});

/** What `look` gives once it gives something; a throw is nothing yet. */
async function eventually<T>(look: () => Promise<T | null>): Promise<T> {
  const deadline = clock.monotonicMs() + 60_000;
  for (;;) {
    const found = await look().catch(() => null);
    if (found !== null) return found;
    assert.ok(clock.monotonicMs() < deadline, "it did not happen in time");
    await clock.sleep(10);
  }
}

Deno.test("archiver verifies in its child, and tells what it finds and how far it is", async () => {
  await using place = new Place();
  await Deno.writeTextFile(`${place.files}/a`, "content");
  const head = await place.head();
  const archiver = place.archiver();
  const { record, indexes } = await archiver.create(place.request(head));
  if (record === null) throw new Error("a checkpoint was expected");
  await head.commit((before) => ({ ...before, checkpoints: [record], current: record.id, indexes }));
  const phases = new Set<string>();
  const verify = (checkpoint: string | null) =>
    archiver.verify(
      { head: head.head, checkpoint, level: 4, percent: 100 },
      { onProgress: ({ phase }) => void phases.add(phase) },
    );
  assert.deepEqual((await verify(null)).findings, []);
  assert.ok(phases.has("check") && phases.has("fetch"), [...phases].join());
  await place.store.delete(record.root);
  assert.deepEqual((await verify(record.id)).findings.map(({ object }) => object), [record.root]);
  assert.deepEqual(
    [...Deno.readDirSync(place.dir.scratch)].map(({ name }) => name).filter((name) => name === "verify"),
    [],
  );
});

Deno.test("archiver keeps to the upload limit, and stands back behind running programs only", async () => {
  await using place = new Place();
  const session = await place.head();
  const noise = crypto.getRandomValues(new Uint8Array(60_000));
  for (let n = 0; n < 40; n++) {
    noise[0] = n;
    await Deno.writeFile(`${place.files}/${n}`, noise);
  }
  /** Nice values of the child's threads; of those that live until they have been read. */
  const nice = (pid: number) => {
    try {
      return [...Deno.readDirSync(`/proc/${pid}/task`)].map(({ name }) => {
        const stat = Deno.readTextFileSync(`/proc/${pid}/task/${name}/stat`);
        return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]);
      });
    } catch {
      return []; // what it told before its end may come after that
    }
  };
  const UPLOAD = 1_000_000;
  const run = async (kind: "request" | "stop") => {
    let child = 0;
    const seen = new Set<number | undefined>();
    const archiver = place.archiver({
      rates: { upload: UPLOAD, download: 0 },
      watchChild: () => ({ env: {}, started: (pid) => child = pid, gone: () => {} }),
    });
    const onProgress = () => nice(child).forEach((value) => seen.add(value));
    const begin = performance.now();
    const { totals } = await archiver.create({ ...place.request(session), kind }, { onProgress });
    return { ms: performance.now() - begin, sent: totals.bytesTransferred, seen: [...seen].join() };
  };
  const limited = await run("request");
  // What is sent after the packs waits until these had their time: never sooner, whatever the machine does.
  const packs = 40 * 60_000;
  assert.ok(
    limited.sent > packs && limited.ms >= packs * 1000 / UPLOAD,
    `${limited.sent} bytes in ${limited.ms} ms`,
  );
  assert.ok(limited.seen.split(",").includes("15"), limited.seen);
  // Nothing was seen where all that the child told came after its end.
  let seen = "";
  for (let round = 0; seen === "" && round < 20; round++) {
    await Deno.remove(place.dir.cache, { recursive: true });
    seen = (await run("stop")).seen;
  }
  const [own] = nice(Deno.pid); // the tests' own, which is not 0 where somebody has niced them
  assert.equal(seen, String(own));
});

Deno.test("archiver keeps to the download limit of a restore", async () => {
  await using place = new Place();
  const session = await place.head();
  const FILE = 65_536;
  const FILES = 130;
  for (let n = 0; n < FILES; n++) {
    await Deno.writeFile(`${place.files}/${n}`, crypto.getRandomValues(new Uint8Array(FILE)));
  }
  const { record, indexes } = await place.archiver().create(place.request(session));
  assert.ok(record !== null);
  await session.commit((head) => ({ ...head, checkpoints: [record], indexes, current: record.id }));
  const DOWNLOAD = 4 * 1024 * 1024;
  const limited = place.archiver({ rates: { upload: 0, download: DOWNLOAD } });
  const stage = `${place.folder}/stage`;
  const begin = performance.now();
  const roots = [{ name: "data", stage }];
  const { totals } = await limited.stage({ head: session.head, record, roots });
  const ms = performance.now() - begin;
  // The last of the ranges waits until all others had their time: never sooner, whatever the machine does.
  const LARGEST_RANGE = 4 * 1024 * 1024;
  const least = (FILES * FILE - LARGEST_RANGE) * 1000 / DOWNLOAD;
  assert.ok(totals.bytesTransferred > FILES * FILE && ms >= least, `${totals.bytesTransferred} in ${ms} ms`);
  assert.deepEqual(await listTree(stage), await listTree(place.files));
});
