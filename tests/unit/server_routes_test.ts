import assert from "node:assert/strict";
import { StateManagerError } from "../../src/platform/errors.ts";
import { checkpointRecord, checkpointResult, managerStatus, NOW_MS } from "../support/fake_control.ts";
import { testApp } from "../support/test_app.ts";

async function problem(response: Response, status: number) {
  assert.equal(response.status, status);
  assert.equal(
    response.headers.get("content-type"),
    "application/problem+json",
  );
  const document = await response.json();
  assert.equal(document.status, status);
  assert.match(document.type, /^urn:state-manager:error:[a-z-]+$/);
  assert.match(document.instance, /^urn:state-manager:request:[0-9a-f]{16}$/);
  for (const key of ["title", "detail", "code"]) {
    assert.equal(typeof document[key], "string", key);
  }
  return document;
}

Deno.test("GET / answers JSON in public names, and HTML only where it is preferred", async () => {
  const app = testApp();
  const status = await (await app.ask("/")).json();
  assert.equal(status.state, "running");
  assert.equal(status.lease.remaining_seconds, 20.5);
  assert.equal(status.processes[0].started, "2026-01-31T12:00:00.000Z");
  assert.equal(status.checkpoint.current.n, 3);
  assert.deepEqual(Object.keys(status).filter((key) => /[A-Z]/.test(key)), []);
  const types: [string, string][] = [
    ["*/*", "application/json"],
    ["application/json", "application/json"],
    [
      "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
      "text/html; charset=utf-8",
    ],
    ["text/html;q=0.5, application/json", "application/json"],
    ["image/png", "application/json"],
  ];
  for (const [accept, type] of types) {
    const response = await app.ask("/", { headers: { accept } });
    assert.equal(response.headers.get("content-type"), type, accept);
    await response.body?.cancel();
  }
});

Deno.test("the status page escapes every text and allows no script", async () => {
  const evil = `<script>alert(1)</script>"'&`;
  const { processes: [web], checkpoint } = managerStatus();
  assert.ok(web);
  const status = managerStatus({
    name: evil,
    reason: evil,
    warnings: [evil],
    build: evil,
    processes: [{
      ...web,
      name: evil,
      state: "failed",
      reason: evil,
      lastLines: [evil],
    }],
    files: [{ name: evil, path: evil, origin: evil, checkpoint: evil }],
    checkpoint: { ...checkpoint, last_error: evil, next: evil },
    storage: { description: evil, key_prefix: evil, encrypted: true },
    lease: {
      state: "waiting",
      token: null,
      holder: evil,
      remainingMs: null,
      heldBy: { holder: evil, token: 1, info: {} },
      lastError: evil,
    },
  });
  const response = await testApp({ status: () => status }).ask("/", {
    headers: { accept: "text/html" },
  });
  const page = await response.text();
  assert.doesNotMatch(page, /<script/i);
  assert.ok(page.split("&lt;script&gt;").length > 10);
  const nonce = /<style nonce="([0-9a-f]{32})">/.exec(page)?.[1];
  const policy = response.headers.get("content-security-policy") ?? "";
  assert.match(policy, /^default-src 'none'; style-src 'nonce-/);
  assert.ok(nonce !== undefined && policy.includes(nonce));
});

Deno.test("every answer forbids sniffing, caching and framing, and names its request", async () => {
  const app = testApp();
  for (const path of ["/", "/no-such-route", "/livez", "/checkpoints"]) {
    const response = await app.ask(path);
    assert.equal(
      response.headers.get("x-content-type-options"),
      "nosniff",
      path,
    );
    assert.match(response.headers.get("cache-control") ?? "", /no-store/, path);
    assert.match(
      response.headers.get("content-security-policy") ?? "",
      /frame-ancestors 'none'/,
      path,
    );
    assert.match(
      response.headers.get("x-request-id") ?? "",
      /^[0-9a-f]{16}$/,
      path,
    );
    await response.body?.cancel();
  }
});

Deno.test("unknown paths are 404, known ones with another method 405 with Allow", async () => {
  const app = testApp();
  const unknown = await problem(await app.ask("/<secret-in-the-path>"), 404);
  assert.doesNotMatch(JSON.stringify(unknown), /secret-in-the-path/);
  const cases: [string, string, string][] = [
    ["DELETE", "/", "GET, HEAD"],
    ["PUT", "/config", "GET, POST, HEAD"],
    ["GET", "/checkpoint", "POST"],
    ["GET", "/restore", "POST"],
    ["POST", "/checkpoints/3", "DELETE, GET, PATCH, HEAD"],
    ["OPTIONS", "/release-lease", "POST"],
  ];
  for (const [method, path, allow] of cases) {
    const response = await app.ask(path, { method });
    assert.equal(response.headers.get("allow"), allow, `${method} ${path}`);
    await problem(response, 405);
  }
  const head = await app.ask("/", { method: "HEAD" });
  assert.equal(head.status, 200);
  assert.equal(await head.text(), "");
});

Deno.test("bodies that are not JSON, too large or too deep are refused without an echo", async () => {
  const app = testApp();
  const type = { "content-type": "application/json" };
  for (const body of ["{secret", "nul", '{"comment":"\xff', "[1,]", "'x'"]) {
    const answer = await problem(
      await app.ask("/checkpoint", { body, headers: type }),
      400,
    );
    assert.doesNotMatch(JSON.stringify(answer), /secret/);
  }
  const bytes = new Uint8Array([0x22, 0xff, 0xfe, 0x22]);
  await problem(
    await app.ask("/checkpoint", { body: bytes, headers: type }),
    400,
  );
  const large = JSON.stringify({ comment: "x".repeat(1024 * 1024) });
  await problem(
    await app.ask("/checkpoint", { body: large, headers: type }),
    413,
  );
  const unannounced = new Blob([large]).stream();
  await problem(
    await app.ask("/checkpoint", { body: unannounced, headers: type }),
    413,
  );
  let ended = false;
  const announced = new ReadableStream({ cancel: () => void (ended = true) });
  await problem(
    await app.ask("/checkpoint", {
      body: announced,
      headers: { ...type, "content-length": String(2 * 1024 * 1024) },
    }),
    413,
  );
  assert.ok(ended, "a body that is too long as announced is left unread, and open");
  const deep = "[".repeat(100_000) + "]".repeat(100_000);
  await problem(await app.ask("/config", { body: deep, headers: type }), 422);
  const withCharset = { "content-type": "Application/JSON; charset=utf-8" };
  assert.equal(
    (await app.ask("/checkpoint", { body: "{}", headers: withCharset })).status,
    201,
  );
});

Deno.test("values of wrong types are 422 with pointers, and no value comes back", async () => {
  const app = testApp();
  const cases: [string, unknown, string[]][] = [
    ["/checkpoint", { comment: 5 }, ["/comment"]],
    ["/checkpoint", { comment: ["hunter2"], labels: "hunter2" }, [
      "/comment",
      "/labels",
    ]],
    ["/checkpoint", { labels: { hunter2: { hunter2: "hunter2" } } }, [
      "/labels",
    ]],
    ["/checkpoint", { labels: { "hunter2 ": "x" } }, ["/labels"]],
    ["/checkpoint", { hunter2: "hunter2" }, [""]],
    ["/checkpoint", ["hunter2"], [""]],
    ["/checkpoint", "hunter2", [""]],
    ["/checkpoint", { comment: "hunter2\u001b[2J" }, ["/comment"]],
    ["/checkpoint", { comment: "hunter2".repeat(200) }, ["/comment"]],
    ["/restore", { checkpoint: "hunter2" }, ["/checkpoint"]],
    ["/restore", { checkpoint: "v1", files: ["a", { hunter2: 1 }] }, [
      "/files/1",
    ]],
    ["/restore", { at: "hunter2" }, ["/at"]],
    ["/restore", { checkpoint: 1, dry_run: "hunter2", safety: 0 }, [
      "/dry_run",
      "/safety",
    ]],
    ["/release-lease", { hunter2: true }, [""]],
    ["/release-lease", [], [""]],
    ["/restore", { checkpoint: 1.5 }, ["/checkpoint"]],
    ["/databases/main/sync", { hunter2: true }, [""]],
  ];
  for (const [path, json, pointers] of cases) {
    const answer = await problem(await app.ask(path, { json }), 422);
    assert.deepEqual(
      answer.errors.map((each: { pointer: string }) => each.pointer),
      pointers,
      JSON.stringify(json),
    );
    assert.doesNotMatch(JSON.stringify(answer), /hunter2/);
  }
  assert.doesNotMatch(JSON.stringify(app.logged), /hunter2/);
});

Deno.test("POST /checkpoint passes comment and labels on and answers 201 with the checkpoint", async () => {
  const asked: unknown[] = [];
  const app = testApp({
    checkpoint: (request) => {
      asked.push(request);
      return Promise.resolve(
        checkpointResult({
          unchanged: true,
          warnings: [{ root: "app", path: "x", reason: "gone" }],
        }),
      );
    },
  });
  const response = await app.ask("/checkpoint", {
    json: { comment: "before", labels: { by: "me" } },
  });
  assert.equal(response.status, 201);
  const body = await response.json();
  assert.equal(
    response.headers.get("location"),
    `/checkpoints/${body.checkpoint.id}`,
  );
  assert.equal(body.unchanged, true);
  assert.equal(body.totals.duration_seconds, 1.5);
  assert.deepEqual(body.file_warnings, [{
    root: "app",
    path: "x",
    reason: "gone",
  }]);
  assert.equal((await app.ask("/checkpoint", { method: "POST" })).status, 201);
  assert.deepEqual(asked, [{ comment: "before", labels: { by: "me" } }, {
    comment: "",
    labels: {},
  }]);
});

Deno.test("POST /checkpoint?wait=captured answers 202 as soon as the content is fixed", async () => {
  const finished = Promise.withResolvers<void>();
  const app = testApp({
    checkpoint: async (_request, work) => {
      work?.onCaptured?.("01kgcaptured");
      await finished.promise;
      return checkpointResult();
    },
  });
  const response = await app.ask("/checkpoint?wait=captured", {
    method: "POST",
  });
  assert.equal(response.status, 202);
  assert.deepEqual(await response.json(), {
    id: "01kgcaptured",
    captured: true,
  });
  finished.resolve();
  await problem(
    await app.ask("/checkpoint?wait=hunter2", { method: "POST" }),
    422,
  );
  const unchanged = await testApp().ask("/checkpoint?wait=captured", {
    method: "POST",
  });
  assert.equal(unchanged.status, 201); // ended before anything had to be captured
});

Deno.test("errors of the manager become problem documents with their code and hint", async () => {
  const fail = (error: unknown) =>
    testApp({ checkpoint: () => Promise.reject(error) }).ask("/checkpoint", {
      method: "POST",
    });
  const busy = await problem(
    await fail(
      new StateManagerError("busy", "make checkpoint: another runs", {
        hint: "wait",
      }),
    ),
    409,
  );
  assert.deepEqual([busy.code, busy.hint], ["busy", "wait"]);
  const away = await fail(
    new StateManagerError("store-unreachable", "put: no answer"),
  );
  assert.ok(away.headers.has("retry-after"));
  await problem(away, 503);
  await problem(
    await fail(new StateManagerError("cancelled", "make checkpoint: stopping")),
    499,
  );
});

Deno.test("an unexpected error is 500 without internals, and the log has them under the request's id", async () => {
  const app = testApp({
    checkpoint: () => Promise.reject(new TypeError("internal detail of /etc/passwd")),
  });
  const answer = await problem(
    await app.ask("/checkpoint", { method: "POST" }),
    500,
  );
  assert.doesNotMatch(JSON.stringify(answer), /passwd/);
  const id = answer.instance.split(":").at(-1);
  const line = app.logged.find(({ fields }) =>
    (fields as { request?: string; error?: unknown }).error !== undefined
  );
  assert.equal((line?.fields as { request: string }).request, id);
  const thrower = testApp({
    status: () => {
      throw new Error("internal detail");
    },
  });
  await problem(await thrower.ask("/"), 500);
});

Deno.test("POST /restore demands exactly one target that can be there", async () => {
  const future = new Date(Date.now() + 60_000).toISOString();
  const app = testApp();
  for (
    const json of [
      {},
      { checkpoint: "v1", at: "2026-01-01T00:00:00Z" },
      { at: future },
      { at: "2026-01-01" },
      { at: "2026-01-01T00:00:00" },
      { at: "2026-13-01T00:00:00Z" },
      { checkpoint: "" },
      { checkpoint: "v0" },
      { checkpoint: 1.5 },
      { checkpoint: null },
      { checkpoint: "v1", files: [] },
      { checkpoint: "v1", databases: [] },
      { txid: 3 },
      { txid: 3, databases: ["a", "b"] },
      { txid: 3, databases: ["a"], files: ["app"] },
      { txid: 3, databases: ["a"], checkpoint: "v1" },
      { txid: 0, databases: ["a"] },
      { checkpoint: "v1", files: [], databases: [] },
    ]
  ) {
    await problem(await app.ask("/restore", { json }), 422);
  }
  await problem(await app.ask("/restore", { method: "POST" }), 422);
  const missing = testApp({
    restore: () =>
      Promise.reject(
        new StateManagerError(
          "checkpoint-not-found",
          "find checkpoint: no such id",
        ),
      ),
  });
  const answer = await problem(
    await missing.ask("/restore", { json: { checkpoint: "v9" } }),
    422,
  );
  assert.equal(answer.errors[0].pointer, "/checkpoint");
});

Deno.test("POST /restore passes the request on in one form", async () => {
  const asked: unknown[] = [];
  const app = testApp({
    restore: (request) => {
      asked.push(request);
      return Promise.reject(
        new StateManagerError("wrong-state", "restore: not now"),
      );
    },
  });
  const id = checkpointRecord(1).id;
  for (
    const json of [
      { checkpoint: "V003" },
      { checkpoint: 3 },
      { checkpoint: id.toUpperCase(), files: ["app"], dry_run: true },
      { checkpoint: "latest", safety: false, consistent: true },
      { at: "2026-01-01T01:00:00+01:00" },
      { checkpoint: "v1", databases: ["x"] },
      { txid: 3, databases: ["x"] },
      { checkpoint: "v1", files: ["app"], paths: ["./a/b/", "\u00e4"] },
    ]
  ) {
    await problem(await app.ask("/restore", { json }), 409);
  }
  const rest = { files: null, paths: null, databases: null, consistent: false, dryRun: false, safety: true };
  assert.deepEqual(asked, [
    { ...rest, target: { checkpoint: "3" } },
    { ...rest, target: { checkpoint: "3" } },
    { ...rest, target: { checkpoint: id }, files: ["app"], dryRun: true },
    { ...rest, target: { checkpoint: "latest" }, safety: false, consistent: true },
    { ...rest, target: { atMs: Date.UTC(2026, 0, 1) } },
    { ...rest, target: { checkpoint: "1" }, databases: ["x"] },
    { ...rest, target: { txid: 3 }, databases: ["x"] },
    { ...rest, target: { checkpoint: "1" }, files: ["app"], paths: ["a/b", "\u00c3\u00a4"] },
  ]);
  const done = await testApp().ask("/restore", { json: { checkpoint: 1 } });
  assert.equal(done.status, 200);
  const body = await done.json();
  assert.deepEqual([
    body.source.n,
    body.checkpoint.n,
    body.safety.n,
    body.dry_run,
  ], [1, 5, 4, false]);
});

Deno.test("GET /checkpoints goes page by page, and a page that was deleted from meanwhile goes on", async () => {
  const all = Array.from(
    { length: 2500 },
    (_, index) => checkpointRecord(index + 1),
  );
  const app = testApp({ checkpoints: () => Promise.resolve(all) });
  const seen: number[] = [];
  let after: string | null = null;
  let pages = 0;
  do {
    const body = await (await app.ask(
      `/checkpoints${after === null ? "" : `?after=${after}`}`,
    )).json();
    assert.ok(body.checkpoints.length <= 1000);
    seen.push(...body.checkpoints.map((each: { n: number }) => each.n));
    after = body.next_after;
    pages++;
    if (pages === 1) all.splice(900, 200); // around the page's end
  } while (after !== null);
  assert.equal(pages, 3);
  assert.equal(new Set(seen).size, seen.length);
  assert.equal(seen.at(-1), 2500);
  const first = await app.ask("/checkpoints?limit=2");
  assert.equal(
    first.headers.get("link"),
    '</checkpoints?limit=2&after=2>; rel="next"',
  );
  await first.body?.cancel();
  for (
    const query of [
      "limit=0",
      "limit=1001",
      "limit=x",
      "limit=-1",
      "after=zzz",
      "after=latest",
    ]
  ) {
    await problem(await app.ask(`/checkpoints?${query}`), 422);
  }
});

Deno.test("GET /checkpoints/:id finds by id, ordinal and latest, which is the current state", async () => {
  const app = testApp({
    status: () =>
      managerStatus({
        checkpoint: {
          ...managerStatus().checkpoint,
          current: checkpointRecord(2),
        },
      }),
  });
  const cases: [string, number][] = [["1", 1], ["v3", 3], [
    checkpointRecord(2).id,
    2,
  ], ["latest", 2]];
  for (const [name, n] of cases) {
    const body = await (await app.ask(`/checkpoints/${name}`)).json();
    assert.deepEqual([body.n, body.current], [n, n === 2], name);
  }
  for (const name of ["9", "v0", "nonsense", "%00", checkpointRecord(9).id]) {
    await problem(await app.ask(`/checkpoints/${name}`), 404);
  }
});

Deno.test("what is not configured yet is 404 with the way to it", async () => {
  const app = testApp({
    configuration: () => null,
    status: () => managerStatus({ state: "unconfigured", lease: null }),
  });
  for (const path of ["/config", "/lease", "/processes/nobody"]) {
    assert.ok((await problem(await app.ask(path), 404)).hint.length > 0, path);
  }
});

Deno.test("GET /processes/:name, lease requests and configuration answer the manager's state", async () => {
  const app = testApp();
  assert.equal(
    (await (await app.ask("/processes/web")).json()).last_exit.signal,
    "SIGKILL",
  );
  assert.equal(
    (await (await app.ask("/processes")).json()).processes.length,
    1,
  );
  assert.equal((await (await app.ask("/lease")).json()).token, 7);
  assert.equal(
    (await (await app.ask("/release-lease", { method: "POST" })).json()).state,
    "released",
  );
  assert.equal(
    (await (await app.ask("/acquire-lease", { json: {} })).json()).state,
    "running",
  );
  const created = await app.ask("/config", { json: { storage: {} } });
  assert.deepEqual([created.status, (await created.json()).state], [
    201,
    "waiting",
  ]);
});

Deno.test("an Idempotency-Key makes one operation of many requests, and a failure is not kept", async () => {
  let calls = 0;
  let fail = true;
  const gate = Promise.withResolvers<void>();
  const app = testApp({
    checkpoint: async () => {
      calls++;
      if (fail) {
        throw new StateManagerError("store-unreachable", "put: no answer");
      }
      await gate.promise;
      return checkpointResult({ checkpoint: checkpointRecord(calls) });
    },
  });
  const ask = (key: string, json: unknown = {}) =>
    app.ask("/checkpoint", { json, headers: { "idempotency-key": key } });
  await problem(await ask("a"), 503);
  fail = false;
  const both = [ask("a"), ask("a")];
  gate.resolve();
  const bodies = await Promise.all(
    both.map(async (each) => (await each).json()),
  );
  assert.deepEqual(bodies[0], bodies[1]);
  assert.equal(calls, 2);
  assert.equal((await ask("a")).status, 201);
  assert.equal(calls, 2);
  await problem(await ask("a", { comment: "another" }), 422);
  assert.equal((await ask("b")).status, 201);
  assert.equal(calls, 3);
  for (let i = 0; i < 300; i++) await ask(`many-${i}`);
  await ask("many-299");
  assert.equal(calls, 303);
  await problem(await ask(""), 422);
});

Deno.test("more requests at once than the limit are 503, but health routes pass", async () => {
  const gate = Promise.withResolvers<void>();
  const app = testApp({
    checkpoint: () => gate.promise.then(() => checkpointResult()),
  });
  const waiting = Array.from(
    { length: 128 },
    () => app.ask("/checkpoint", { method: "POST" }),
  );
  await problem(await app.ask("/"), 503);
  assert.equal((await app.ask("/livez")).status, 200);
  gate.resolve();
  for (const response of await Promise.all(waiting)) {
    assert.equal(response.status, 201);
  }
  assert.equal((await app.ask("/")).status, 200);
});

Deno.test("the log line of a request has no query and no headers", async () => {
  const app = testApp();
  await app.ask("/checkpoint?wait=durable&token=hunter2", {
    method: "POST",
    headers: { authorization: "Bearer hunter2" },
  });
  const line = app.logged.find(({ message }) => message.startsWith("Request"));
  assert.deepEqual(
    { ...(line?.fields as object), request: "", duration_ms: 0 },
    {
      request: "",
      method: "POST",
      path: "/checkpoint",
      status: 201,
      duration_ms: 0,
      caller: "loopback",
    },
  );
  assert.doesNotMatch(JSON.stringify(app.logged), /hunter2/);
  assert.ok(NOW_MS > 0);
});
