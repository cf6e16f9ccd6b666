/** The schema for editors: JSON Schema draft-07, made from the one that validates, so the two cannot differ. */

import { toJsonSchema } from "@valibot/to-json-schema";
import * as v from "valibot";
import { configSchema } from "./schema.ts";

function named(key: "title" | "description", text: string | undefined): Record<string, string> {
  return text === undefined ? {} : { [key]: text };
}

/** What a person may write: texts and numbers before units are resolved. */
export function configJsonSchema(): Record<string, unknown> {
  return { ...jsonSchemaOf(configSchema), title: "state-manager configuration" };
}

function jsonSchemaOf(schema: v.GenericSchema): Record<string, unknown> {
  return toJsonSchema(schema, {
    target: "draft-07",
    typeMode: "input",
    errorMode: "ignore", // checks and transforms that JSON Schema cannot say stay with the program
    // What stands behind a transform belongs to the output and is left out, but titles are for the reader of both.
    overrideSchema: ({ valibotSchema, jsonSchema }) => {
      const schema = valibotSchema as v.GenericSchema & { readonly wrapped?: v.GenericSchema };
      if (schema.wrapped === undefined) return jsonSchema;
      return {
        // A key that must be there is one of the kinds that the library leaves empty.
        ...(schema.type === "non_optional" ? partOf(schema.wrapped) : jsonSchema),
        ...named("title", v.getTitle(schema.wrapped)),
        ...named("description", v.getDescription(schema.wrapped)),
      };
    },
  }) as Record<string, unknown>;
}

function partOf(schema: v.GenericSchema): Record<string, unknown> {
  const { $schema: _whole, ...part } = jsonSchemaOf(schema);
  return part;
}

/** The text of schema/config.schema.json. */
export function configJsonSchemaText(): string {
  return `${JSON.stringify(configJsonSchema(), null, 2)}\n`;
}
