/** New storage keys over HTTP: who may send them, and that nothing of them comes back. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { StoreCredentials } from "../../src/config/mod.ts";
import { StateManagerError } from "../../src/platform/errors.ts";
import { testApp } from "../support/test_app.ts";

const next = { access_key: "new-id", secret_key: "hush-hush" };

Deno.test("new storage keys are taken, and not told again", async () => {
  const taken: StoreCredentials[] = [];
  const app = testApp({
    replaceCredentials: (credentials) => {
      taken.push(credentials);
      return Promise.resolve({ persisted: false, source: "AWS_ACCESS_KEY_ID" });
    },
  });
  const response = await app.ask("/credentials", { method: "PUT", json: next });
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), { persisted: false, source: "AWS_ACCESS_KEY_ID" });
  const token = await app.ask("/credentials", {
    method: "PUT",
    json: { ...next, session_token: "hush-too" },
  });
  assert.equal(token.status, 200);
  const seen = taken.map(({ accessKey, secretKey, sessionToken }) => [
    accessKey.reveal(),
    secretKey.reveal(),
    sessionToken?.reveal(),
  ]);
  assert.deepEqual(seen, [["new-id", "hush-hush", undefined], ["new-id", "hush-hush", "hush-too"]]);
  assert.doesNotMatch(JSON.stringify(app.logged), /hush|new-id/);
});

Deno.test("storage keys that cannot be any are refused without a word of them", async () => {
  const app = testApp({
    replaceCredentials: () =>
      Promise.reject(new StateManagerError("store-access-denied", "probe: the store refused the keys")),
  });
  const wrong = [
    {},
    { access_key: "hush" },
    { access_key: "hush", secret_key: "hush hush" },
    { access_key: "***", secret_key: "hush" },
    { access_key: 7, secret_key: "hush" },
    { ...next, region: "hush" },
    ["hush"],
  ];
  for (const json of wrong) {
    const response = await app.ask("/credentials", { method: "PUT", json });
    assert.equal(response.status, 422, JSON.stringify(json));
    assert.doesNotMatch(await response.text(), /hush/);
  }
  const denied = await app.ask("/credentials", { method: "PUT", json: next });
  assert.equal(denied.status, 422);
  assert.equal((await denied.json()).code, "store-access-denied");
  assert.equal((await app.ask("/credentials")).status, 405);
  assert.doesNotMatch(JSON.stringify(app.logged), /hush/);
});

Deno.test("storage keys are taken from who may write, and over nothing that can be read on its way", async () => {
  const hash = (token: string) => createHash("sha256").update(token).digest("hex");
  const tokens = (["read", "write"] as const).map((scope) => ({ name: scope, scope, sha256: hash(scope) }));
  const app = testApp({ access: () => ({ tokens, setupToken: null, behindTlsProxy: false }) });
  const ask = async (token: string, connection: { loopback?: boolean; tls?: boolean }) =>
    (await app.ask("/credentials", {
      method: "PUT",
      json: next,
      headers: { authorization: `Bearer ${token}` },
      connection,
    })).status;
  assert.equal(await ask("nobody", { loopback: true }), 401);
  assert.equal(await ask("read", { loopback: true }), 403);
  assert.equal(await ask("write", { loopback: true }), 200);
  assert.equal(await ask("write", { loopback: false }), 403);
  assert.equal(await ask("write", { loopback: false, tls: true }), 200);
});
