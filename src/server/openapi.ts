/** The API's description, OpenAPI 3.1, made of the table of routes and of the schemas that validate bodies. */

import { toJsonSchema } from "@valibot/to-json-schema";
import type * as v from "valibot";
import { configJsonSchema } from "../config/mod.ts";
import { buildInfo } from "../platform/build_info.ts";
import { ANSWERS } from "./answer_schemas.ts";
import { API, type ApiRoute } from "./api_table.ts";

type Json = Readonly<Record<string, unknown>>;

export function openApi(version: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const route of API) (paths[openPath(route.path)] ??= {})[route.method] = operationOf(route);
  return {
    openapi: "3.1.0",
    info: { title: "state-manager", version },
    paths,
    security: [{ token: [] }, {}],
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer" } },
      schemas: {
        Configuration: withoutDialect(configJsonSchema()),
        ...Object.fromEntries(
          Object.entries(ANSWERS).map(([name, schema]) => [name, schemaOf(schema, "output")]),
        ),
      },
    },
  };
}

/** The text of schema/openapi.json. */
export function openApiText(): string {
  return `${JSON.stringify(openApi(buildInfo().version), null, 2)}\n`;
}

/** `/checkpoints/:id` as OpenAPI writes it. */
function openPath(path: string): string {
  return path.replace(/:([a-z]+)/g, "{$1}");
}

function schemaOf(schema: v.GenericSchema, typeMode: "input" | "output"): Json {
  return withoutDialect({
    ...toJsonSchema(schema, {
      target: "draft-2020-12", // that of OpenAPI 3.1
      typeMode,
      errorMode: "ignore", // checks and transforms that JSON Schema cannot say stay with the program
    }),
  });
}

/** The whole description is of one. */
function withoutDialect({ $schema: _, ...schema }: Record<string, unknown>): Json {
  return schema;
}

const refTo = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });

function operationOf({ method, path, text, body, query = {}, answers, streams, open }: ApiRoute): Json {
  const parameters = [
    ...[...path.matchAll(/:([a-z]+)/g)].map(([, name]) => ({
      name,
      in: "path",
      required: true,
      schema: { type: "string" },
    })),
    ...Object.entries(query).map(([name, parameter]) => ({
      name,
      in: "query",
      description: parameter.text,
      schema: parameter.schema,
    })),
  ];
  const schema = body === "configuration" ? refTo("Configuration") : body && schemaOf(body, "input");
  return {
    summary: text,
    operationId: `${method} ${path}`.replace(/[^a-z]+/g, "_").replace(/_$/, ""),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(schema === undefined ? {} : { requestBody: { content: { "application/json": { schema } } } }),
    responses: {
      ...Object.fromEntries(
        Object.entries(answers).map(([status, answer]) => [status, answerOf(answer, streams === true)]),
      ),
      default: {
        description: "A problem (RFC 9457).",
        content: { "application/problem+json": { schema: refTo("Problem") } },
      },
    },
    ...(open === true ? { security: [] } : {}),
  };
}

function answerOf(answer: ApiRoute["answers"][number], streams: boolean): Json {
  const text = { schema: { type: "string" } };
  const types = typeof answer === "string"
    ? streams ? ["text/event-stream", "application/x-ndjson"] : []
    : answer.types;
  return {
    description: "Done, or under way.",
    content: {
      ...(typeof answer === "string" ? { "application/json": { schema: refTo(answer) } } : {}),
      ...Object.fromEntries(types.map((type) => [type, type === "application/json" ? {} : text])),
    },
  };
}
