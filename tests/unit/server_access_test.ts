import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { AccessRules } from "../../src/manager/control.ts";
import { Secret } from "../../src/platform/secret.ts";
import { testApp, type TestRequest } from "../support/test_app.ts";

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

const READER = "reader-token";
const WRITER = "writer-token";
const withTokens: AccessRules = {
  tokens: [
    { name: "r", scope: "read", sha256: sha256(READER) },
    { name: "w", scope: "write", sha256: sha256(WRITER) },
  ],
  setupToken: null,
  behindTlsProxy: false,
};
const noTokens: AccessRules = {
  tokens: [],
  setupToken: null,
  behindTlsProxy: false,
};
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const outside = { loopback: false };

async function statusOf(
  rules: AccessRules,
  path: string,
  request: TestRequest = {},
): Promise<number> {
  return (await testApp({ access: () => rules }).ask(path, request)).status;
}

Deno.test("loopback without tokens lets in curl on the machine", async () => {
  for (
    const host of [
      "localhost:8080",
      "LOCALHOST",
      "127.0.0.1:1",
      "[::1]:8080",
      "127.0.0.1",
    ]
  ) {
    assert.equal(
      await statusOf(noTokens, "/", { headers: { host } }),
      200,
      host,
    );
  }
  assert.equal(
    await statusOf(noTokens, "/checkpoint", { method: "POST" }),
    201,
  );
  assert.equal(await statusOf(noTokens, "/checkpoint", { json: {} }), 201);
});

Deno.test("loopback without tokens refuses what a web page or a proxy can have made", async () => {
  const refused: TestRequest[] = [
    { headers: { host: "evil.example" } }, // DNS rebinding
    { headers: { host: "localhost.evil.example" } },
    { headers: { host: "127.0.0.1.evil.example:8080" } },
    { headers: { host: "127.0.0.2" } },
    { headers: { origin: "https://evil.example" } },
    { headers: { origin: "null" } },
    { headers: { origin: "http://localhost:3000" } }, // another program's page on this machine
    { headers: { "x-forwarded-for": "203.0.113.9" } },
    { headers: { forwarded: "for=203.0.113.9" } },
    { headers: { via: "1.1 proxy" } },
    { method: "POST", headers: { "sec-fetch-site": "cross-site" } },
  ];
  for (const request of refused) {
    const path = request.method === "POST" ? "/checkpoint" : "/";
    assert.equal(
      await statusOf(noTokens, path, request),
      403,
      JSON.stringify(request),
    );
  }
  const ownPage = { headers: { origin: "http://localhost:8080" } };
  assert.equal(await statusOf(noTokens, "/", ownPage), 200);
});

Deno.test("a form of a web page cannot send a body, as only JSON is taken", async () => {
  for (
    const type of [
      "application/x-www-form-urlencoded",
      "text/plain",
      "multipart/form-data; boundary=x",
      "",
    ]
  ) {
    const request = {
      body: '{"comment":"x"}',
      headers: { "content-type": type },
    };
    assert.equal(await statusOf(noTokens, "/checkpoint", request), 415, type);
  }
});

Deno.test("a listener beyond loopback without tokens lets nobody in but to the health routes", async () => {
  assert.equal(await statusOf(noTokens, "/", { connection: outside }), 401);
  assert.equal(
    await statusOf(noTokens, "/config", { json: {}, connection: outside }),
    401,
  );
  assert.equal(
    await statusOf(noTokens, "/no-such-route", { connection: outside }),
    401,
  );
  assert.equal(
    await statusOf(noTokens, "/livez", { connection: outside }),
    200,
  );
});

Deno.test("a request whose way in is unknown is refused", async () => {
  assert.equal(await statusOf(noTokens, "/", { unknownConnection: true }), 401);
});

Deno.test("tokens count everywhere, loopback included, by their scope", async () => {
  for (const connection of [{ loopback: true }, outside]) {
    const ask = (path: string, token: string | null, method = "GET") =>
      statusOf(withTokens, path, {
        method,
        headers: token === null ? {} : bearer(token),
        connection,
      });
    assert.equal(await ask("/", null), 401);
    assert.equal(await ask("/", "wrong"), 401);
    assert.equal(await ask("/", ""), 401);
    assert.equal(await ask("/", READER), 200);
    assert.equal(await ask("/", READER, "HEAD"), 200);
    assert.equal(await ask("/", WRITER), 200);
    assert.equal(await ask("/checkpoint", READER, "POST"), 403);
    assert.equal(await ask("/checkpoint", WRITER, "POST"), 201);
    assert.equal(await ask("/checkpoint", sha256(WRITER), "POST"), 401); // the digest is not the token
  }
});

Deno.test("a refusal says how to authenticate and never repeats the token", async () => {
  const response = await testApp({ access: () => withTokens }).ask("/", {
    headers: bearer("a-wrong-secret"),
  });
  assert.equal(response.status, 401);
  assert.match(response.headers.get("www-authenticate") ?? "", /^Bearer/);
  assert.doesNotMatch(await response.text(), /a-wrong-secret/);
});

Deno.test("the unix socket is open, whatever the headers say, since the file's mode decides there", async () => {
  const headers = { host: "anything.example", origin: "https://evil.example" };
  const connection = { via: "unix", loopback: false } as const;
  assert.equal(
    await statusOf(withTokens, "/checkpoint", {
      method: "POST",
      headers,
      connection,
    }),
    201,
  );
  assert.equal(
    await statusOf(noTokens, "/config", { json: {}, connection }),
    201,
  );
});

Deno.test("the set-up token opens POST /config and nothing else", async () => {
  const rules: AccessRules = {
    tokens: [],
    setupToken: new Secret("set-up"),
    behindTlsProxy: true,
  };
  const headers = bearer("set-up");
  assert.equal(
    await statusOf(rules, "/config", {
      json: {},
      headers,
      connection: outside,
    }),
    201,
  );
  assert.equal(
    await statusOf(rules, "/config", { headers, connection: outside }),
    403,
  );
  assert.equal(
    await statusOf(rules, "/", { headers, connection: outside }),
    403,
  );
  assert.equal(
    await statusOf(rules, "/checkpoint", {
      method: "POST",
      headers,
      connection: outside,
    }),
    403,
  );
  assert.equal(
    await statusOf(rules, "/config", {
      json: {},
      headers: bearer("set-u"),
      connection: outside,
    }),
    401,
  );
  const after: AccessRules = { ...rules, setupToken: null };
  assert.equal(
    await statusOf(after, "/config", {
      json: {},
      headers,
      connection: outside,
    }),
    401,
  );
});

Deno.test("POST /config beyond loopback needs TLS or a TLS proxy", async () => {
  const ask = (rules: AccessRules, request: TestRequest) =>
    statusOf(rules, "/config", {
      json: {},
      ...request,
      headers: { ...bearer(WRITER), ...request.headers },
    });
  const proxied: AccessRules = { ...withTokens, behindTlsProxy: true };
  assert.equal(await ask(withTokens, { connection: outside }), 403);
  assert.equal(
    await ask(withTokens, { connection: { loopback: false, tls: true } }),
    201,
  );
  assert.equal(await ask(withTokens, { connection: { loopback: true } }), 201);
  assert.equal(await ask(proxied, { connection: outside }), 201);
  assert.equal(
    await ask(proxied, {
      connection: outside,
      headers: { "x-forwarded-proto": "https" },
    }),
    201,
  );
  assert.equal(
    await ask(proxied, {
      connection: outside,
      headers: { "x-forwarded-proto": "http" },
    }),
    403,
  );
});

Deno.test("health routes say details only to whom may know them", async () => {
  const app = testApp({ access: () => withTokens });
  const unknown = await app.ask("/readyz?verbose", { connection: outside });
  assert.equal(unknown.status, 503);
  assert.equal(await unknown.text(), "failed\n");
  const known = await app.ask("/readyz?verbose", {
    headers: bearer(READER),
    connection: outside,
  });
  assert.equal(known.status, 503);
  assert.equal(
    await known.text(),
    "[-]state failed: waiting for host-7\nfailed\n",
  );
});

Deno.test("rules are asked anew for each request, as configuring changes them", async () => {
  let rules = noTokens;
  const app = testApp({ access: () => rules });
  assert.equal((await app.ask("/")).status, 200);
  rules = withTokens;
  assert.equal((await app.ask("/")).status, 401);
});
