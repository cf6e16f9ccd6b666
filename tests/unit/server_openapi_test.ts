/** The API's description: whole in itself, made of what validates, and true of the answers. */

import assert from "node:assert/strict";
import * as v from "valibot";
import { type AnswerName, ANSWERS } from "../../src/server/answer_schemas.ts";
import { API } from "../../src/server/api_table.ts";
import { openApiText } from "../../src/server/openapi.ts";
import { testApp } from "../support/test_app.ts";

type Json = Readonly<Record<string, unknown>>;

const app = testApp();

async function description(): Promise<Json> {
  const response = await app.ask("/openapi.json");
  assert.equal(response.status, 200);
  return await response.json();
}

/** Every `$ref` below. */
function refsOf(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    key === "$ref" && typeof inner === "string" ? [inner] : refsOf(inner)
  );
}

function at(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((inner, key) => (inner as Json | undefined)?.[key], value);
}

Deno.test("schema/openapi.json is fresh (else: deno run -A tools/schema.ts)", async () => {
  const kept = await Deno.readTextFile(new URL("../../schema/openapi.json", import.meta.url));
  assert.ok(kept === openApiText(), "it differs from what the routes and schemas say");
});

Deno.test("the description has every route, and all that it refers to", async () => {
  const told = await description();
  assert.equal(told["openapi"], "3.1.0");
  const paths = told["paths"] as Readonly<Record<string, Readonly<Record<string, Json>>>>;
  const routes = Object.values(paths).flatMap((methods) => Object.values(methods));
  assert.equal(routes.length, API.length);
  const ids = routes.map(({ operationId }) => operationId);
  assert.equal(new Set(ids).size, ids.length);
  const refs = new Set(refsOf(told));
  assert.ok(refs.size > 10, `${refs.size} references`);
  for (const ref of refs) assert.ok(at(told, ref.slice(2).split("/")) !== undefined, ref);
});

Deno.test("bodies are described by the schemas that validate them", async () => {
  const told = await description();
  const body = (path: string, method: string) =>
    at(told, ["paths", path, method, "requestBody", "content", "application/json", "schema"]) as Json;
  const credentials = body("/credentials", "put");
  assert.deepEqual(credentials["required"], ["access_key", "secret_key"]);
  assert.equal(credentials["additionalProperties"], false);
  assert.deepEqual(Object.keys(body("/restore", "post")["properties"] as Json).slice(0, 3), [
    "checkpoint",
    "at",
    "txid",
  ]);
  assert.equal(body("/config", "post")["$ref"], "#/components/schemas/Configuration");
  const storage = at(told, ["components", "schemas", "Configuration", "properties", "storage", "properties"]);
  assert.ok("bucket" in (storage as Json));
});

const paths: Readonly<Record<string, string>> = {
  "/checkpoints/:id": "/checkpoints/2",
  "/databases/:name": "/databases/main",
  "/databases/:name/sync": "/databases/main/sync",
  "/databases/:name/restore-points": "/databases/main/restore-points",
  "/processes/:name": "/processes/web",
};
const bodies: Readonly<Record<string, unknown>> = {
  "/restore": { checkpoint: "latest" },
  "/credentials": { access_key: "a", secret_key: "b" },
  "/checkpoints/:id": { comment: "c" },
};

Deno.test("answers are as they are described", async () => {
  let compared = 0;
  for (const { method, path, answers, body } of API) {
    const [status, name] = Object.entries(answers)[0] ?? [];
    if (typeof name !== "string" || (path.includes(":") && paths[path] === undefined)) continue;
    const response = await app.ask(paths[path] ?? path, {
      method: method.toUpperCase(),
      ...(body === undefined ? {} : { json: bodies[path] ?? {} }),
    });
    const answer = await response.json();
    assert.equal(String(response.status), status, `${method} ${path}: ${JSON.stringify(answer)}`);
    assertFits(answer, name as AnswerName, `${method} ${path}`);
    compared++;
  }
  assert.ok(compared >= 25, `${compared} answers`);
  assertFits(await (await app.ask("/nowhere")).json(), "Problem", "a problem");
});

function assertFits(answer: unknown, name: AnswerName, what: string): void {
  const result = v.safeParse(ANSWERS[name], answer);
  const issues = result.issues?.map((issue) => `${v.getDotPath(issue)}: ${issue.message}`);
  assert.deepEqual(issues, undefined, `${what} is no ${name}`);
}
