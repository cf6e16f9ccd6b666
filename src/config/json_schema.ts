/** The schema for editors: JSON Schema draft-07, made from the one that validates, so the two cannot differ. */

import { toJsonSchema } from "@valibot/to-json-schema";
import { configSchema } from "./schema.ts";

/** What a person may write: texts and numbers before units are resolved. */
export function configJsonSchema(): Record<string, unknown> {
  const schema = toJsonSchema(configSchema, {
    target: "draft-07",
    typeMode: "input",
    errorMode: "ignore", // checks and transforms that JSON Schema cannot say stay with the program
  });
  return { ...schema, title: "state-manager configuration" };
}

/** The text of schema/config.schema.json. */
export function configJsonSchemaText(): string {
  return `${JSON.stringify(configJsonSchema(), null, 2)}\n`;
}
