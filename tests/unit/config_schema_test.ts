/** What is derived from the schema is fresh: the JSON schema, the example and the documentation. */

import assert from "node:assert/strict";
import { CONFIG_KEYS, configJsonSchema, configJsonSchemaText } from "../../src/config/mod.ts";
import { configReference } from "../../tools/config_reference.ts";
import { load } from "../support/config_files.ts";

const root = new URL("../../", import.meta.url);

interface Node {
  readonly title?: string;
  readonly description?: string;
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Node>>;
  readonly additionalProperties?: Node | boolean;
  readonly items?: Node;
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null;
}

/** Every object and key of the JSON schema with its path. */
function nodes(node: Node, path = ""): { path: string; node: Node }[] {
  const inner = Object.entries(node.properties ?? {}).flatMap(([key, next]) => nodes(next, `${path}.${key}`));
  const map = isNode(node.additionalProperties) ? nodes(node.additionalProperties, `${path}.*`) : [];
  const list = isNode(node.items) ? nodes(node.items, `${path}[]`) : [];
  return [{ path, node }, ...inner, ...map, ...list];
}

Deno.test("schema/config.schema.json is fresh (else: deno run -A tools/schema.ts)", async () => {
  assert.equal(
    await Deno.readTextFile(new URL("schema/config.schema.json", root)),
    configJsonSchemaText(),
  );
});

Deno.test("the JSON schema names and explains every key and lets no other in", () => {
  const schema: Record<string, unknown> & Node = configJsonSchema();
  assert.match(String(schema["$schema"]), /draft-07/);
  const all = nodes(schema);
  for (const { path, node } of all) {
    if (node.properties !== undefined) {
      assert.equal(node.additionalProperties, false, path);
    }
    if (path === "" || path.endsWith("*") || path.endsWith("[]")) continue;
    assert.ok(node.title, `${path} has no title`);
    assert.ok(node.description, `${path} has no description`);
  }
  const paths = new Set(all.map(({ path }) => path));
  for (const { path } of CONFIG_KEYS) {
    assert.ok(paths.has(`.${path.join(".")}`), path.join("."));
  }
});

/** Paths of what the schema lets be anything. */
function anything(node: unknown, path = ""): string[] {
  if (!isNode(node)) return [];
  const { anyOf = [], properties = {}, additionalProperties, items } = node as Node & { anyOf?: unknown[] };
  const says = ["type", "enum", "const", "anyOf"].some((word) => word in node);
  return [
    ...says ? [] : [path],
    ...anyOf.flatMap((each) => anything(each, path)),
    ...Object.entries(properties).flatMap(([key, each]) => anything(each, `${path}.${key}`)),
    ...anything(additionalProperties, `${path}.*`),
    ...anything(items, `${path}[]`),
  ];
}

Deno.test("the JSON schema says of every value what it may be, wherever it stands", () => {
  assert.deepEqual(anything(configJsonSchema()), []);
});

Deno.test("config.example.json loads", async () => {
  const { config, warnings } = await load({
    file: await Deno.readTextFile(new URL("config.example.json", root)),
    environment: {
      AWS_ACCESS_KEY_ID: "id",
      AWS_SECRET_ACCESS_KEY: "secret",
      SHOP_NAME: "north",
    },
    files: { "/run/secrets/monitoring-token": "a-token-of-enough-length\n" },
  });
  assert.deepEqual(warnings, []);
  assert.equal(config?.storage.keyPrefix, "shop/north");
  assert.deepEqual(Object.keys(config?.processes ?? {}), [
    "migrate",
    "web",
    "worker",
  ]);
  assert.equal(config?.shutdown.budgetMs, 28_000);
});

Deno.test("docs/configuration.md has the current reference (else: deno run -A tools/schema.ts)", async () => {
  const text = await Deno.readTextFile(new URL("docs/configuration.md", root));
  assert.ok(text.includes(configReference()), "the generated part is stale");
});
