/** Writes schema/config.schema.json from the schema that validates; a test says when it is stale. */

import { configJsonSchemaText } from "../src/config/mod.ts";

const target = new URL("../schema/config.schema.json", import.meta.url);
await Deno.mkdir(new URL("./", target), { recursive: true });
await Deno.writeTextFile(target, configJsonSchemaText());
