/** The schema for editors: JSON Schema draft-07, made from the one that validates, so the two cannot differ. */

import { toJsonSchema } from "@valibot/to-json-schema";
import * as v from "valibot";
import { configSchema } from "./schema.ts";

function named(key: "title" | "description", text: string | undefined): Record<string, string> {
  return text === undefined ? {} : { [key]: text };
}

/** What a person may write: texts and numbers before units are resolved. */
export function configJsonSchema(): Record<string, unknown> {
  const schema = toJsonSchema(configSchema, {
    target: "draft-07",
    typeMode: "input",
    errorMode: "ignore", // checks and transforms that JSON Schema cannot say stay with the program
    // What stands behind a transform belongs to the output and is left out, but titles are for the reader of both.
    overrideSchema: ({ valibotSchema, jsonSchema }) => {
      const schema = valibotSchema as v.GenericSchema & { readonly wrapped?: v.GenericSchema };
      if (schema.wrapped === undefined) return jsonSchema;
      return {
        ...jsonSchema,
        ...named("title", v.getTitle(schema.wrapped)),
        ...named("description", v.getDescription(schema.wrapped)),
      };
    },
  });
  return { ...schema, title: "state-manager configuration" };
}

/** The text of schema/config.schema.json. */
export function configJsonSchemaText(): string {
  return `${JSON.stringify(configJsonSchema(), null, 2)}\n`;
}
