/** The S3 store against a service that refuses, lies, breaks off and is slow: every answer has its one meaning. */

import assert from "node:assert/strict";
import { systemClock } from "../../src/platform/clock.ts";
import { type ErrorCode, isError, StateManagerError } from "../../src/platform/errors.ts";
import { Secret } from "../../src/platform/secret.ts";
import { type ObjectStore, s3Store, type S3StoreOptions } from "../../src/storage/mod.ts";
import { providerHeaders, requestUrl } from "../../src/storage/s3/request.ts";
import { retryAfterMs } from "../../src/storage/store_errors.ts";
import { freePort } from "../support/free_port.ts";
import { VirtualClock } from "../support/virtual_clock.ts";
import { type S3Fault, S3Server, type S3ServerOptions } from "../support/s3_server.ts";

/** One for all tests: it opens a library that it never closes. */
const machineClock = systemClock();
const bytes = (text: string) => new TextEncoder().encode(text);
const absent = { absent: true } as const;

function storeOn(server: S3Server, changed: Partial<S3StoreOptions> = {}): ObjectStore {
  const { accessKey, secretKey, sessionToken } = server;
  return s3Store({
    bucket: server.bucket,
    endpoint: server.endpoint,
    region: server.region,
    forcePathStyle: true,
    clock: machineClock,
    credentials: () => ({
      accessKey: new Secret(accessKey),
      secretKey: new Secret(secretKey),
      sessionToken: sessionToken === null ? null : new Secret(sessionToken),
    }),
    ...changed,
  });
}

async function onServer(
  body: (server: S3Server, store: ObjectStore) => Promise<void>,
  options: S3ServerOptions = {},
): Promise<void> {
  await using server = await S3Server.start(options);
  const store = storeOn(server);
  try {
    await body(server, store);
  } finally {
    await store.close();
  }
}

async function failure(promise: Promise<unknown>): Promise<StateManagerError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof StateManagerError, `not an error of ours: ${error}`);
    return error;
  }
  throw new assert.AssertionError({ message: "succeeded, wanted a failure" });
}

async function until(holds: () => boolean): Promise<void> {
  const end = performance.now() + 60_000;
  while (!holds()) {
    assert.ok(performance.now() < end, "did not happen");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

type Expected = readonly [read: ErrorCode, write: ErrorCode, conditional: ErrorCode];

const unreachable = "store-unreachable";
const unknown = "outcome-unknown";
const denied = "store-access-denied";

/** What a service answers → what a get, a put and a conditional put make of it. */
const ANSWERS: readonly (readonly [S3Fault, ...Expected])[] = [
  [{ status: 503, code: "SlowDown" }, unreachable, unknown, unknown],
  [{ status: 500, code: "InternalError" }, unreachable, unknown, unknown],
  [{ status: 502, body: "<html>Bad Gateway</html>" }, unreachable, unknown, unknown],
  [{ status: 504, body: "" }, unreachable, unknown, unknown],
  [{ status: 408, code: "RequestTimeout" }, unreachable, unknown, unknown],
  [{ status: 400, code: "RequestTimeout" }, unreachable, unknown, unknown],
  [{ status: 429, code: "TooManyRequests" }, unreachable, unreachable, unreachable],
  [{ status: 409, code: "ConditionalRequestConflict" }, "store-refused", unknown, unknown],
  [
    { status: 412, code: "PreconditionFailed" },
    "store-refused",
    "precondition-failed",
    "precondition-failed",
  ],
  [{ status: 404, code: "NoSuchKey" }, "object-not-found", "store-not-found", "precondition-failed"],
  [{ status: 404, code: "NoSuchBucket" }, "store-not-found", "store-not-found", "store-not-found"],
  // A gateway's or a web server's: it says nothing of the object.
  [{ status: 404, body: "404 page not found" }, unreachable, unknown, unknown],
  [{ status: 404, body: "<html><body>Not Found</body></html>" }, unreachable, unknown, unknown],
  [{ status: 404, body: "<Error><Message>not found</Message></Error>" }, unreachable, unknown, unknown],
  [{ status: 404, body: "" }, unreachable, unknown, unknown],
  [{ status: 403, code: "InvalidAccessKeyId" }, denied, denied, denied],
  [{ status: 403, code: "AccessDenied" }, denied, denied, denied],
  [{ status: 400, code: "ExpiredToken" }, denied, denied, denied],
  [{ status: 401, body: "" }, denied, denied, denied],
  [{ status: 507, body: "" }, "store-full", "store-full", "store-full"],
  [{ status: 507, code: "XMinioStorageFull" }, "store-full", "store-full", "store-full"],
  [{ status: 403, code: "QuotaExceeded" }, "store-full", "store-full", "store-full"],
  [{ status: 501, code: "NotImplemented" }, "store-refused", "store-refused", "store-unsafe"],
  [{ status: 400, code: "InvalidArgument" }, "store-refused", "store-refused", "store-refused"],
  [{ status: 301, code: "PermanentRedirect" }, "store-refused", "store-refused", "store-refused"],
  [{ status: 307, body: "" }, "store-refused", "store-refused", "store-refused"],
  [{ status: 403, body: "<Error><Code>Access" }, denied, denied, denied],
  [{ reset: true }, unreachable, unknown, unknown],
  [{ reset: true, when: "after" }, unreachable, unknown, unknown],
];

Deno.test("s3 store gives every refusal its one meaning, for reads, puts and conditional puts", () =>
  onServer(async (server, store) => {
    server.objects.set("seen", { body: bytes("x"), etag: '"1"', modifiedMs: 0, metadata: {} });
    for (const [fault, read, write, conditional] of ANSWERS) {
      const active = server.fail(fault);
      const what = JSON.stringify(fault);
      assert.equal((await failure(store.get("seen"))).code, read, `get: ${what}`);
      assert.equal((await failure(store.put("a", bytes("x")))).code, write, `put: ${what}`);
      const create = store.put(`b-${server.requests.length}`, bytes("x"), { condition: absent });
      assert.equal((await failure(create)).code, conditional, `conditional put: ${what}`);
      active.end();
    }
  }));

Deno.test("s3 store takes no web page for the absence of an object", () =>
  onServer(async (server, store) => {
    assert.equal((await failure(store.head("a"))).code, "object-not-found"); // has no document
    await store.delete("a");
    const page = {
      status: 404,
      body: "<html></html>",
      headers: { "content-type": "text/html; charset=utf-8" },
    };
    server.fail(page);
    for (const call of [() => store.head("a"), () => store.delete("a"), () => store.list({ prefix: "" })]) {
      const error = await failure(call());
      assert.equal(error.code, unreachable, error.message);
      assert.match(`${error.message} ${error.hint}`, /gateway.*storage\.endpoint/);
    }
  }));

Deno.test("s3 store says which part of the credentials is wrong, and never shows one", () =>
  onServer(async (server) => {
    const secret = "very/Secret+value";
    const token = "session-Token-value";
    const keys = (accessKey: string, secretKey: string, sessionToken: string | null = null) => () => ({
      accessKey: new Secret(accessKey),
      secretKey: new Secret(secretKey),
      sessionToken: sessionToken === null ? null : new Secret(sessionToken),
    });
    const late = { ...machineClock, wallMs: () => Date.now() - 20 * 60_000 };
    const cases: readonly (readonly [Partial<S3StoreOptions>, ErrorCode, RegExp])[] = [
      [{ credentials: keys("other-key-id", secret) }, denied, /access key.*InvalidAccessKeyId/],
      [{ credentials: keys(server.accessKey, secret) }, denied, /secret key.*SignatureDoesNotMatch/],
      [{ credentials: keys(server.accessKey, server.secretKey, token) }, denied, /session token/],
      [{ clock: late }, denied, /clock/],
      [{ region: "eu-central-1" }, "store-refused", /region/],
      [{ bucket: "other" }, "store-not-found", /no such bucket/],
    ];
    for (const [changed, code, message] of cases) {
      const store = storeOn(server, changed);
      for (
        const call of [
          () => store.get("a"),
          () => store.put("a", bytes("x")),
          () => store.list({ prefix: "" }),
        ]
      ) {
        const error = await failure(call());
        assert.equal(error.code, code, error.message);
        assert.match(error.message, message);
        assert.ok(error.hint !== undefined);
        const shown = Deno.inspect(error) + JSON.stringify(error) + error.message + error.hint;
        for (const hidden of [secret, token, server.secretKey, "Signature="]) {
          assert.ok(!shown.includes(hidden), `${hidden} in ${shown}`);
        }
      }
      await store.close();
    }
  }));

Deno.test("s3 store signs by the store's clock once that has refused the machine's, and tells what time it is there", async () => {
  const storeMs = () => Date.now() - 30 * 24 * 3_600_000;
  await onServer(async (server, store) => {
    assert.equal(store.clockMs(), null);
    assert.equal((await failure(store.head("a"))).code, "object-not-found"); // a refusal that has no reason in it
    await store.put("a", bytes("x"), { condition: absent });
    assert.deepEqual([server.refusals.length, server.requests.length], [1, 2]);
    assert.ok(Math.abs((store.clockMs() ?? 0) - storeMs()) < 60_000);
  }, { clockMs: storeMs });
  await onServer(async (server, store) => {
    const both = await Promise.all(
      ["a", "b"].map((key) => store.put(key, bytes(key), { condition: absent })),
    );
    assert.equal(both.length, 2);
    await Array.fromAsync(["a", "b"], async (key) => assert.equal((await store.get(key)).body.length, 1));
    assert.ok(server.refusals.every((code) => code === "RequestTimeTooSkewed"));
    // A refusal of the credentials is one, whatever the time.
    const { accessKey } = server;
    const secretKey = new Secret("wrong");
    const other = storeOn(server, {
      credentials: () => ({ accessKey: new Secret(accessKey), secretKey, sessionToken: null }),
    });
    assert.match((await failure(other.put("a", bytes("x")))).message, /secret key/);
    await other.close();
  }, { clockMs: storeMs });
});

Deno.test("s3 store gives each put a checksum where the bucket keeps objects for a time, in parts too", async () => {
  const pieces = async function* () {
    for (let part = 0; part < 3; part++) yield await Promise.resolve(new Uint8Array(8 * 1024 * 1024));
  };
  await onServer(async (server, store) => {
    await Promise.all(["a", "b"].map((key) => store.put(key, bytes(key), { condition: absent })));
    await store.put("a", bytes("again"));
    const [, last] = [...server.requests].filter(({ key }) => key === "a").slice(-2);
    assert.ok(last?.headers.has("x-amz-checksum-sha256") && !last.headers.has("content-md5"));
    await store.putLarge("large", pieces(), { sizeBytes: 24 * 1024 * 1024, condition: absent });
    assert.deepEqual([...server.objects.keys()].sort(), ["a", "b", "large"]);
    const [read] = [await store.get("a"), await store.list({ prefix: "" }), await store.delete("b")];
    assert.equal(new TextDecoder().decode(read.body), "again");
  }, { objectLock: true });
  await onServer(async (server, store) => {
    await store.put("a", bytes("a"));
    assert.ok(server.requests.every(({ headers }) => !headers.has("x-amz-checksum-sha256")));
  });
});

Deno.test("s3 store names the region that a bucket is in, where the answer tells it", () =>
  onServer(async (server, store) => {
    const fault = { status: 301, code: "PermanentRedirect", headers: { "x-amz-bucket-region": "eu-west-3" } };
    const active = server.fail(fault);
    for (
      const call of [
        () => store.put("a", bytes("x")),
        () => store.head("a"),
        () => store.list({ prefix: "" }),
      ]
    ) {
      const error = await failure(call());
      assert.equal(error.code, "store-refused");
      assert.match(`${error.message} ${error.hint}`, /region eu-west-3.*storage\.region to "eu-west-3"/);
    }
    active.end();
    server.fail({ ...fault, headers: { "x-amz-bucket-region": "<script>" } });
    assert.doesNotMatch(Deno.inspect(await failure(store.head("a"))), /script/);
  }));

Deno.test("s3 store gives one version one tag, however the service writes it", () =>
  onServer(async (server, store) => {
    const { etag } = await store.put("a", bytes("x"));
    for (const written of [etag, etag.slice(1, -1), `W/${etag}`]) {
      const fault = server.fail({
        operation: "head",
        status: 200,
        headers: { etag: written, "content-length": "1" },
      });
      assert.equal((await store.head("a")).etag, etag);
      fault.end();
    }
    await store.put("a", bytes("y"), { condition: { etag } });
  }));

Deno.test("s3 store asks for the credentials anew for each request", () =>
  onServer(async (server) => {
    let secretKey = "not yet";
    const store = storeOn(server, {
      credentials: () => ({
        accessKey: new Secret(server.accessKey),
        secretKey: new Secret(secretKey),
        sessionToken: null,
      }),
    });
    assert.equal((await failure(store.put("a", bytes("x")))).code, denied);
    secretKey = server.secretKey;
    await store.put("a", bytes("x"));
    await store.close();
  }));

Deno.test("s3 store hands on how long the store asked to wait", () =>
  onServer(async (server, store) => {
    const cases = [["7", 7_000], ["0", 0], ["100000", 300_000], ["soon", null]] as const;
    for (const [text, wanted] of cases) {
      const active = server.fail({ status: 503, code: "SlowDown", headers: { "retry-after": text } });
      assert.equal(retryAfterMs(await failure(store.get("a"))), wanted);
      active.end();
    }
    const inTen = new Date(Date.now() + 10_000).toUTCString();
    server.fail({ status: 429, code: "SlowDown", headers: { "retry-after": inTen } });
    const waitMs = retryAfterMs(await failure(store.put("a", bytes("x")))) ?? 0;
    assert.ok(waitMs > 7_000 && waitMs <= 10_000, String(waitMs));
  }));

Deno.test("s3 store never takes a cut body for the object", () =>
  onServer(async (server, store) => {
    await store.put("a", new Uint8Array(100_000));
    for (const truncateAfter of [0, 1, 50_000, 99_999]) {
      const active = server.fail({ operation: "get", truncateAfter });
      assert.equal((await failure(store.get("a"))).code, unreachable);
      assert.equal((await failure(store.get("a", { range: { start: 0, end: 100_000 } }))).code, unreachable);
      active.end();
    }
    const active = server.fail({ operation: "list", truncateAfter: 60 });
    assert.equal((await failure(store.list({ prefix: "" }))).code, unreachable);
    active.end();
  }));

Deno.test("s3 store gives the right bytes when the service ignores ranges", () =>
  onServer(async (server, store) => {
    await store.put("a", bytes("0123456789"));
    server.fail({ ignoreRange: true, probability: 0, random: () => 1 });
    const part = await store.get("a", { range: { start: 3, end: 5 } });
    assert.deepEqual([new TextDecoder().decode(part.body), part.sizeBytes], ["34", 10]);
    const past = store.get("a", { range: { start: 10, end: 12 } });
    assert.equal((await failure(past)).code, "invalid-request");
  }));

Deno.test("s3 store refuses malformed and foreign listings instead of walking on", () =>
  onServer(async (server, store) => {
    const list = (inner: string) => `<ListBucketResult>${inner}</ListBucketResult>`;
    const entry = (key: string) => `<Contents><Key>${key}</Key><Size>1</Size><ETag>e</ETag></Contents>`;
    const bodies = [
      "",
      "<html><body>Welcome</body></html>",
      "{}",
      "<ListBucketResult><Contents>",
      list("<Contents><Size>1</Size></Contents>"),
      list("<Contents><Key>a</Key><Size>many</Size></Contents>"),
      list(`<EncodingType>url</EncodingType>${entry("p/%ZZ")}`),
      list("<IsTruncated>true</IsTruncated>"),
      list(entry("other/key")),
      list(entry("p/start")),
      list(entry("p/before")), // all of these: a walk would leave out what comes out of order
      list(entry("p/y") + entry("p/x")),
      list(entry("p/y") + entry("p/y")),
      list(entry("p/t/1") + entry("p/ä") + entry("p/t-1/1")), // names of folders in order, as a file system has them
      `<!DOCTYPE x [<!ENTITY a "${"a".repeat(1000)}">]>${list(entry("&a;"))}`,
      `${"<a>".repeat(20_000)}`,
    ];
    for (const body of bodies) {
      const active = server.fail({ operation: "list", status: 200, body });
      const error = await failure(store.list({ prefix: "p/", startAfter: "p/start" }));
      assert.equal(error.code, "store-refused", body.slice(0, 80));
      active.end();
    }
    const empty = server.fail({ operation: "list", status: 200, body: list("") });
    assert.deepEqual(await store.list({ prefix: "p/" }), { objects: [] });
    empty.end();
    server.fail({ operation: "list", status: 200, body: list(entry("p/t-1/1") + entry("p/t/1")) });
    assert.equal((await store.list({ prefix: "p/" })).objects.length, 2);
  }));

for (const ignoreEncodingType of [false, true]) {
  const how = ignoreEncodingType ? "as XML with references" : "url-encoded";
  Deno.test(`s3 store reads foreign keys that arrive ${how}`, () =>
    onServer(async (server, store) => {
      const keys = ["a b", "a+b", "a&b<c>", "a%2Bb", "ä/ö", "quote\"'", "tab\tx"];
      for (const key of keys) {
        server.objects.set(key, { body: bytes("x"), etag: '"e"', modifiedMs: 5000, metadata: {} });
      }
      const { objects } = await store.list({ prefix: "" });
      assert.deepEqual(
        objects.map(({ key }) => key).toSorted(),
        keys.toSorted(),
      );
      assert.ok(
        objects.every(({ etag, sizeBytes, modifiedMs }) =>
          etag === '"e"' && sizeBytes === 1 && modifiedMs === 5000
        ),
      );
    }, { ignoreEncodingType }));
}

Deno.test("s3 store gives up at timeoutMs: a put's outcome is unknown, and it may land later", () =>
  onServer(async (server) => {
    const time = new VirtualClock();
    const clock = {
      wallMs: Date.now,
      monotonicMs: () => time.monotonicMs(),
      sleep: (...args: Parameters<VirtualClock["sleep"]>) => time.sleep(...args),
    };
    const store = storeOn(server, { clock });
    const late = server.fail({ lateCommitMs: 100, operation: "put" });
    const put = failure(store.put("late", bytes("x"), { timeoutMs: 2_000, condition: absent }));
    await until(() => late.hits === 1);
    await time.advance(2_000);
    assert.equal((await put).code, unknown);
    assert.equal(server.objects.has("late"), false);

    const slow = server.fail({ delayMs: 100, operation: "get" });
    const get = failure(store.get("late", { timeoutMs: 2_000 }));
    await until(() => slow.hits === 1);
    await time.advance(2_000);
    assert.equal((await get).code, unreachable);
    await until(() => server.objects.has("late"));
    assert.equal(time.sleeping, 0);
    await store.close();
  }));

Deno.test("s3 store gives uploads side by side the time that all of them need on a slow line", async () => {
  const waiting: (() => void)[] = [];
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
    await request.arrayBuffer();
    await new Promise<void>((resolve) => waiting.push(resolve));
    return new Response(null, { headers: { etag: '"x"' } });
  });
  const clock = new VirtualClock();
  const store = s3Store({
    bucket: "b",
    endpoint: `http://127.0.0.1:${server.addr.port}`,
    region: "us-east-1",
    forcePathStyle: true,
    clock,
    credentials: () => ({ accessKey: new Secret("a"), secretKey: new Secret("b"), sessionToken: null }),
  });
  // 128 KiB in a second at the slowest: eight seconds for each, besides the thirty of silence.
  const put = (key: string) =>
    store.put(key, new Uint8Array(1024 * 1024)).then(() => "done", (error) => error.code);
  const together = ["a", "b", "c"].map(put);
  await until(() => waiting.length === 3);
  await clock.advance(30_000 + 3 * 8_000);
  for (const go of waiting.splice(0)) go();
  assert.deepEqual(await Promise.all(together), ["done", "done", "done"]);
  const alone = put("d");
  await until(() => waiting.length === 1);
  await clock.advance(30_000 + 8_500);
  assert.equal(await alone, unknown);
  for (const go of waiting) go();
  await store.close();
});

Deno.test("s3 store rejects with the signal's reason when it aborts under way", () =>
  onServer(async (server, store) => {
    server.fail({ delayMs: 300 });
    const reason = new Error("enough");
    for (
      const call of [
        (signal: AbortSignal) => store.get("a", { signal }),
        (signal: AbortSignal) => store.put("a", bytes("x"), { signal }),
        (signal: AbortSignal) => store.list({ prefix: "", signal }),
      ]
    ) {
      const controller = new AbortController();
      const running = call(controller.signal);
      setTimeout(() => controller.abort(reason), 20);
      await assert.rejects(running, (error) => error === reason);
    }
  }));

Deno.test("s3 store sends a conditional put at most once when a reused connection breaks", () =>
  onServer(async (server, store) => {
    for (let round = 0; round < 10; round++) {
      await store.put("warm", bytes("x"), { condition: { absent: true } }).catch(() => {});
      await store.head("warm");
      const sent = server.requests.length;
      const active = server.fail({ operation: "put", reset: true, when: "after" });
      const error = await failure(store.put(`once-${round}`, bytes("x"), { condition: absent }));
      active.end();
      assert.deepEqual([error.code, server.requests.length - sent], [unknown, 1]);
    }
  }));

Deno.test("s3 store puts over a connection that was used before only where a put may come twice", async () => {
  let ports: number[] = [];
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (request, { remoteAddr }) => {
      await request.arrayBuffer();
      ports.push(remoteAddr.port);
      return new Response(null, { headers: { etag: '"x"' } });
    },
  );
  const store = s3Store({
    bucket: "b",
    endpoint: `http://127.0.0.1:${server.addr.port}`,
    region: "us-east-1",
    forcePathStyle: true,
    clock: machineClock,
    credentials: () => ({ accessKey: new Secret("a"), secretKey: new Secret("b"), sessionToken: null }),
  });
  const connections = async (
    options: { readonly condition?: typeof absent; readonly mayComeTwice?: boolean },
  ) => {
    ports = [];
    for (const key of ["1", "2", "3"]) await store.put(key, bytes("x"), options);
    return new Set(ports).size;
  };
  assert.equal(await connections({ condition: absent }), 3);
  assert.equal(await connections({}), 1);
  assert.equal(await connections({ condition: absent, mayComeTwice: true }), 1);
  await store.close();
});

Deno.test("s3 store says that nothing was sent when it can't connect, also for a put", async () => {
  const store = s3Store({
    bucket: "b",
    endpoint: `http://127.0.0.1:${freePort()}`,
    region: "us-east-1",
    forcePathStyle: true,
    clock: machineClock,
    credentials: () => ({ accessKey: new Secret("a"), secretKey: new Secret("b"), sessionToken: null }),
  });
  for (const condition of [{}, { condition: absent }]) {
    const error = await failure(store.put("a", bytes("x"), condition));
    assert.equal(error.code, unreachable, error.message);
    assert.match(error.message, /can't reach the store/);
  }
  await store.close();
});

Deno.test("s3 store bounds and cleans what a service says before it is shown", () =>
  onServer(async (server, store) => {
    server.fail({ status: 400, code: "Odd\u001b[31m", message: "x\n".repeat(100_000) });
    const { message } = await failure(store.get("a"));
    assert.ok(message.length < 500, String(message.length));
    assert.match(message, /^[ -~]*$/);
  }));

Deno.test("s3 store refuses endpoints, buckets and styles that can't work, without echoing them", () => {
  const open = (changed: Partial<S3StoreOptions>) =>
    s3Store({
      bucket: "bucket",
      endpoint: "https://s3.example.com",
      region: "us-east-1",
      forcePathStyle: false,
      clock: machineClock,
      credentials: () => ({ accessKey: new Secret("a"), secretKey: new Secret("b"), sessionToken: null }),
      ...changed,
    });
  const cases: Partial<S3StoreOptions>[] = [
    { endpoint: "s3.example.com" },
    { endpoint: "ftp://s3.example.com" },
    { endpoint: "https://user:hidden-word@s3.example.com" },
    { endpoint: "http://127.0.0.1:9000" },
    { bucket: "s3://bucket" },
    { bucket: "a/b" },
    { bucket: "" },
    { caFile: "/nonexistent/ca.pem" },
  ];
  for (const changed of cases) {
    assert.throws(
      () => open(changed),
      (error) =>
        isError(error, "config-invalid") && error.hint !== undefined &&
        !error.message.includes("hidden-word"),
      JSON.stringify(changed),
    );
  }
});

Deno.test("requestUrl puts the bucket into the path or the host", () => {
  const target = (endpoint: string, forcePathStyle: boolean) => ({
    endpoint: new URL(endpoint),
    bucket: "b.1",
    region: "r",
    forcePathStyle,
  });
  const url = (endpoint: string, forcePathStyle: boolean, key: string) =>
    requestUrl(target(endpoint, forcePathStyle), { key }).href;
  assert.equal(url("https://s3.example.com/", true, "a/b"), "https://s3.example.com/b.1/a/b");
  assert.equal(url("https://s3.example.com:9/", true, ""), "https://s3.example.com:9/b.1");
  assert.equal(url("https://s3.example.com:9", false, "a/b"), "https://b.1.s3.example.com:9/a/b");
  assert.equal(url("https://s3.example.com/", false, ""), "https://b.1.s3.example.com/");
  assert.equal(url("https://gate.example.com/base/", true, "k"), "https://gate.example.com/base/b.1/k");
});

Deno.test("providerHeaders ask Tigris for consistency, by all of its names, and nobody else", () => {
  const asks = (host: string) => Object.keys(providerHeaders(host)).length > 0;
  for (
    const host of ["fly.storage.tigris.dev", "b.fly.storage.tigris.dev", "t3.storage.dev", "b.t3.storage.dev"]
  ) {
    assert.ok(asks(host), host);
  }
  for (const host of ["s3.amazonaws.com", "mystorage.dev", "t3.storage.dev.example.com", "127.0.0.1"]) {
    assert.ok(!asks(host), host);
  }
});
