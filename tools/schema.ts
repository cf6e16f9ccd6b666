/**
 * Writes what is made from the schemas that validate: schema/config.schema.json, schema/openapi.json and the reference
 * in the docs.
 */

import { configJsonSchemaText } from "../src/config/mod.ts";
import { openApiText } from "../src/server/openapi.ts";
import { configReference, REFERENCE_BEGIN, REFERENCE_END } from "./config_reference.ts";

const root = new URL("../", import.meta.url);

await Deno.writeTextFile(
  new URL("schema/config.schema.json", root),
  configJsonSchemaText(),
);
await Deno.writeTextFile(new URL("schema/openapi.json", root), openApiText());

const page = new URL("docs/configuration.md", root);
const text = await Deno.readTextFile(page);
const begin = text.indexOf(REFERENCE_BEGIN);
const end = text.indexOf(REFERENCE_END);
if (begin < 0 || end < begin) {
  throw new Error(
    "write docs/configuration.md: the marks are gone, wanted both",
  );
}
await Deno.writeTextFile(
  page,
  text.slice(0, begin) + configReference() +
    text.slice(end + REFERENCE_END.length),
);
