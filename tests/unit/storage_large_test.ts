/** Large puts where stores and decorators differ: what S3's multipart upload does when it fails, and who waits for whom. */

import assert from "node:assert/strict";
import { type Clock, systemClock } from "../../src/platform/clock.ts";
import { type ErrorCode, isError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { Secret } from "../../src/platform/secret.ts";
import {
  directoryStore,
  faulty,
  limited,
  memoryStore,
  observed,
  probeStore,
  retrying,
  s3Store,
  type StoreOperation,
} from "../../src/storage/mod.ts";
import { S3Server, type S3ServerOptions } from "../support/s3_server.ts";

const MEBIBYTE = 1024 * 1024;
const SIZE = 20 * MEBIBYTE;
const absent = { absent: true } as const;
const effects = { clock: systemClock(), random: systemRandom() };

/** Waits hardly, so that retries take no time; limits count in real time all the same. */
const hastyClock: Clock = {
  ...effects.clock,
  monotonicMs: () => effects.clock.monotonicMs(),
  wallMs: () => effects.clock.wallMs(),
  sleep: (ms, options) => effects.clock.sleep(Math.min(ms, 5), options),
};

async function* zeros(sizeBytes = SIZE): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for (let left = sizeBytes; left > 0; left -= MEBIBYTE) {
    yield await Promise.resolve(new Uint8Array(Math.min(left, MEBIBYTE)));
  }
}

async function onServer(
  work: (server: S3Server, store: ReturnType<typeof s3Store>) => Promise<void>,
  options: S3ServerOptions = {},
): Promise<void> {
  await using server = await S3Server.start(options);
  const { endpoint, bucket, region, accessKey, secretKey } = server;
  const credentials = {
    accessKey: new Secret(accessKey),
    secretKey: new Secret(secretKey),
    sessionToken: null,
  };
  const store = s3Store({
    endpoint,
    bucket,
    region,
    forcePathStyle: true,
    credentials: () => credentials,
    clock: hastyClock,
  });
  try {
    await work(server, store);
  } finally {
    await store.close();
  }
}

async function codeOf(promise: Promise<unknown>): Promise<ErrorCode | "done"> {
  try {
    await promise;
    return "done";
  } catch (error) {
    if (isError(error)) return error.code;
    throw error;
  }
}

const counts = (server: S3Server) =>
  Object.entries(Object.groupBy(server.requests, ({ operation }) => operation)).map(([operation, seen]) =>
    `${operation} ${seen.length}`
  );

Deno.test("s3 putLarge sends a part that failed again, and no other one", async () => {
  for (
    const fault of [
      { status: 503, code: "SlowDown", count: 2 },
      { reset: true, count: 2 },
      { reset: true, when: "after", count: 2 },
      { status: 500, when: "after", count: 2 },
    ] as const
  ) {
    await onServer(async (server, store) => {
      server.fail({ ...fault, operation: "put-part", skip: 1 });
      server.fail({ operation: "begin-upload", status: 503, count: 1 });
      const { etag } = await store.putLarge("a", zeros(), { sizeBytes: SIZE, condition: absent });
      assert.deepEqual(counts(server), ["begin-upload 2", "put-part 5", "complete-upload 1"]);
      assert.deepEqual([server.objects.get("a")?.etag, server.objects.get("a")?.body.length], [etag, SIZE]);
      assert.equal(server.uploads.open, 0);
    });
  }
});

Deno.test("s3 putLarge holds three parts and no more while the store is slow", async () => {
  await onServer(async (server, store) => {
    let done = 0;
    const { uploads } = server;
    const add = uploads.addPart.bind(uploads);
    uploads.addPart = (...call) => {
      done++;
      return add(...call);
    };
    server.fail({ operation: "put-part", delayMs: 30 });
    let most = 0;
    async function* watched() {
      let given = 0;
      for await (const piece of zeros(64 * MEBIBYTE)) {
        most = Math.max(most, given / (8 * MEBIBYTE) - done);
        yield piece;
        given += piece.length;
      }
    }
    await store.putLarge("a", watched(), { sizeBytes: 64 * MEBIBYTE });
    assert.ok(most > 1 && most <= 3, `${most} parts at a time`);
  });
});

Deno.test("s3 putLarge whose last answer is lost is outcome-unknown, sent once and aborted", async () => {
  for (const when of ["before", "after"] as const) {
    for (const fault of [{ reset: true }, { status: 500 }, { status: 503 }, { status: 409 }]) {
      await onServer(async (server, store) => {
        server.fail({ ...fault, when, operation: "complete-upload" });
        const put = store.putLarge("a", zeros(), { sizeBytes: SIZE, condition: absent });
        assert.equal(await codeOf(put), "outcome-unknown");
        assert.deepEqual(counts(server).slice(2), ["complete-upload 1", "abort-upload 1"]);
        assert.deepEqual([server.objects.has("a"), server.uploads.open], [when === "after", 0]);
      });
    }
  }
});

Deno.test("s3 putLarge does not believe an answer of 200 that holds an error or nothing", async () => {
  const document = (code: string) => `<?xml version="1.0"?>\n <Error><Code>${code}</Code></Error>`;
  for (
    const [body, code] of [
      [document("InternalError"), "outcome-unknown"],
      [document("SlowDown"), "outcome-unknown"],
      [document("PreconditionFailed"), "precondition-failed"],
      [document("ConditionalRequestConflict"), "outcome-unknown"],
      [document("InvalidPart"), "store-refused"],
      [document("AccessDenied"), "store-access-denied"],
      ["", "outcome-unknown"],
      ["<html>welcome</html>", "outcome-unknown"],
      ["<CompleteMultipartUploadResult><ETag>", "outcome-unknown"],
    ] as const
  ) {
    await onServer(async (server, store) => {
      server.fail({ operation: "complete-upload", status: 200, body });
      const options = { sizeBytes: 5, inParts: true, condition: absent } as const;
      assert.equal(await codeOf(store.putLarge("a", zeros(5), options)), code, body);
      assert.deepEqual([server.objects.size, server.uploads.open], [0, 0]);
    });
  }
});

Deno.test("s3 putLarge whose end was sent twice by the line is outcome-unknown, not refused", async () => {
  await onServer(async (server, store) => {
    server.fail({ operation: "complete-upload", duplicate: true });
    const put = store.putLarge("a", zeros(), { sizeBytes: SIZE });
    assert.equal(await codeOf(put), "outcome-unknown");
    assert.ok(server.objects.has("a"));
  });
});

Deno.test("s3 putLarge ends with the reason, closes its source and aborts when a part fails for good", async () => {
  for (
    const [fault, code] of [
      [{ status: 403, code: "AccessDenied" }, "store-access-denied"],
      [{ status: 507 }, "store-full"],
      [{ status: 404, code: "NoSuchUpload" }, "store-refused"],
      [{ status: 503 }, "store-unreachable"],
      [{ reset: true }, "store-unreachable"],
    ] as const
  ) {
    await onServer(async (server, store) => {
      server.fail({ ...fault, operation: "put-part", skip: 1 });
      let closed = false;
      async function* source() {
        try {
          yield* zeros(200 * MEBIBYTE);
        } finally {
          closed = true;
        }
      }
      const put = store.putLarge("a", source(), { sizeBytes: 200 * MEBIBYTE });
      assert.equal(await codeOf(put), code);
      assert.deepEqual([closed, server.objects.size, server.uploads.open], [true, 0, 0]);
    });
  }
});

Deno.test("s3 putLarge keeps the reason of its failure when the abort fails too", async () => {
  await onServer(async (server, store) => {
    server.fail({ operation: "put-part", status: 403 });
    server.fail({ operation: "abort-upload", status: 500 });
    assert.equal(await codeOf(store.putLarge("a", zeros(), { sizeBytes: SIZE })), "store-access-denied");
    assert.equal(server.uploads.open, 1);
  });
});

Deno.test("s3 putLarge that is too slow says whether anything can have landed", async () => {
  for (
    const [operation, code] of [["put-part", "store-unreachable"], [
      "complete-upload",
      "outcome-unknown",
    ]] as const
  ) {
    await onServer(async (server, store) => {
      const hanging = server.fail({ operation, delayMs: 1500 });
      const options = { sizeBytes: 5, inParts: true, timeoutMs: 300 };
      assert.equal(await codeOf(store.putLarge("a", zeros(5), options)), code);
      assert.equal(hanging.hits, 1);
    });
  }
});

Deno.test("limited lets a large put read its source from the same store", async () => {
  const memory = memoryStore();
  const store = limited(memory, { concurrency: 1, clock: effects.clock });
  await store.put("from", new Uint8Array(10));
  async function* copied() {
    for (let start = 0; start < 10; start += 5) {
      yield (await store.get("from", { range: { start, end: start + 5 } })).body;
    }
  }
  await Promise.all(
    ["a", "b", "c"].map((key) => store.putLarge(key, copied(), { sizeBytes: 10, timeoutMs: 30_000 })),
  );
  assert.equal((await store.head("c")).sizeBytes, 10);
});

Deno.test("observed tells a large put as a put of its size", async () => {
  const seen: StoreOperation[] = [];
  const store = observed(memoryStore(), effects.clock, (operation) => seen.push(operation));
  await store.putLarge("a", zeros(3 * MEBIBYTE), { sizeBytes: 3 * MEBIBYTE });
  await codeOf(store.putLarge("a", zeros(1), { sizeBytes: 2 }));
  assert.deepEqual(seen.map(({ kind, bytes, outcome }) => [kind, bytes, outcome]), [
    ["put", 3 * MEBIBYTE, "ok"],
    ["put", 0, "invalid-request"],
  ]);
});

Deno.test("retrying repeats a large put never, and a small one as a put", async () => {
  for (const error of ["outcome-unknown", "store-unreachable"] as const) {
    const store = faulty(memoryStore(), { clock: effects.clock });
    const retried = retrying(store, { ...effects, baseDelayMs: 1 });
    const end = store.inject({ operation: "put", error, when: "after" });
    const put = retried.putLarge("large", zeros(), { sizeBytes: SIZE, condition: absent });
    assert.deepEqual([await codeOf(put), store.hits], [error, 1]);
    assert.equal((await store.head("large")).sizeBytes, SIZE);
    end();
    store.inject({ operation: "put", error, when: "before", count: 2 });
    const options = { sizeBytes: 5, condition: absent };
    assert.equal(await codeOf(retried.putLarge("small", zeros(5), options)), "done");
  }
});

Deno.test("faulty lets a large put through whatever its condition says when told so", async () => {
  const store = faulty(memoryStore(), {
    clock: effects.clock,
    rules: [{ operation: "put", ignoreConditions: true, count: Infinity }],
  });
  for (let i = 0; i < 2; i++) await store.putLarge("a", zeros(5), { sizeBytes: 5, condition: absent });
  assert.equal((await store.head("a")).sizeBytes, 5);
});

Deno.test("folder putLarge leaves a plain file of exactly the body and no temporary", async () => {
  const path = await Deno.makeTempDir({ prefix: "state-manager-large-" });
  try {
    const store = directoryStore({ path, ...effects });
    const key = "databases/app/ltx/9/0000000000000001-0000000000000001.ltx";
    await store.putLarge(key, zeros(), { sizeBytes: SIZE, condition: absent });
    const folder = `${path}/databases/app/ltx/9`;
    assert.deepEqual(await Array.fromAsync(Deno.readDir(folder), ({ name }) => name), [
      "0000000000000001-0000000000000001.ltx",
    ]);
    assert.equal((await Deno.stat(`${path}/${key}`)).size, SIZE);
    assert.deepEqual(await Array.fromAsync(Deno.readDir(`${path}/.tmp`)), []);
    const broken = (async function* () {
      yield* zeros(MEBIBYTE);
      throw new Error("broken");
    })();
    await assert.rejects(store.putLarge("b", broken, { sizeBytes: SIZE }), /broken/);
    assert.deepEqual(await Array.fromAsync(Deno.readDir(`${path}/.tmp`)), []);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
});

Deno.test("probe refuses a store that knows no conditions of large puts, when asked about them", async () => {
  for (
    const [options, large, code] of [
      [{}, true, "done"],
      [{ unconditionalUploads: true }, false, "done"],
      [{ unconditionalUploads: true }, true, "store-unsafe"],
    ] as const
  ) {
    await onServer(async (server, store) => {
      assert.equal(await codeOf(probeStore(store, { ...effects, large })), code);
      assert.deepEqual([server.objects.size, server.uploads.open], [0, 0]);
    }, options);
  }
});
