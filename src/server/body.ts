/**
 * JSON bodies: bounded in size, time and depth, then checked by a schema. What is wrong is told by JSON pointers to
 * names that the schema knows; no part of the input comes back.
 */

import * as v from "valibot";
import { jsonPointer, listsForObjects } from "../config/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { type ErrorDetail, isError, StateManagerError } from "../platform/errors.ts";
import { forbiddenKeys, type JsonPath, repeatedKeys } from "../platform/json_keys.ts";
import type { ServerContext } from "./env.ts";

/** The contract's limit; our largest honest body, a configuration, has a few KiB. */
export const MAX_BODY_BYTES = 1024 * 1024;

/** Longest time for a whole body: a megabyte in this time is a modem's pace. A slower client must not hold a slot. */
export const BODY_TIMEOUT_MS = 20_000;

/** Deepest nesting; a configuration needs six. Deeper input could exhaust the stack of recursive readers. */
const MAX_DEPTH = 32;

/**
 * The parsed body; an empty one (as `curl -X POST` sends) is `{}`. `known` leaves of a path what may be told of it;
 * default: all.
 */
export async function readJson(
  c: ServerContext,
  clock: Clock,
  known: (path: JsonPath) => JsonPath = (path) => path,
): Promise<unknown> {
  const bytes = await readBytes(c.req.raw, clock);
  if (bytes.length === 0) return {};
  const type = (c.req.header("content-type") ?? "").split(";")[0]?.trim().toLowerCase() ??
    "";
  if (type !== "application/json") {
    throw new StateManagerError(
      "unsupported-media-type",
      "read the body: it is not declared as application/json",
      {
        hint: "send the header Content-Type: application/json",
      },
    );
  }
  let parsed: unknown;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    parsed = JSON.parse(text);
  } catch {
    throw new StateManagerError(
      "malformed-json",
      "read the body: it is not JSON in UTF-8",
      {
        hint: "check the quotes and commas; comments are only for the configuration file",
      },
    );
  }
  if (depthExceeds(parsed, MAX_DEPTH)) {
    throw invalid([{
      pointer: "",
      detail: `nested deeper than ${MAX_DEPTH} levels`,
    }]);
  }
  const repeated = repeatedKeys(text);
  if (repeated.length > 0) throw invalid(repeated.map((path) => repeatedDetail(path, known(path))));
  return parsed;
}

function repeatedDetail(path: JsonPath, told: JsonPath): ErrorDetail {
  const detail = told.length === path.length
    ? "is given more than once: leave one of them"
    : "has a key more than once: leave one of them";
  return { pointer: jsonPointer(told.map(String)), detail };
}

/** The body as `schema` wants it, else 422 with every finding. */
export async function readBody<Schema extends v.GenericSchema>(
  c: ServerContext,
  schema: Schema,
  clock: Clock,
): Promise<v.InferOutput<Schema>> {
  return check(schema, await readJson(c, clock, (path) => knownPart(schema, path)));
}

/** `input` as `schema` wants it. Every message in `schema` must be our own: the library's defaults repeat input. */
export function check<Schema extends v.GenericSchema>(
  schema: Schema,
  input: unknown,
): v.InferOutput<Schema> {
  const details = [
    // The library takes a list for an object.
    ...listsForObjects(input, schema).map((path) => ({ pointer: jsonPointer(path), detail: WANTS_OBJECT })),
    // And it passes over some of these names, of others it thinks that they are known.
    ...forbiddenKeys(input).map((path) => ({
      pointer: jsonPointer(knownPart(schema, path.slice(0, -1)).map(String)),
      detail: `has the key ${String(path.at(-1))}, which cannot be used: take another name`,
    })),
  ];
  if (details.length > 0) throw invalid(details);
  const result = v.safeParse(schema, input);
  if (result.success) return result.output;
  throw invalid(result.issues.map(detailOf));
}

const DESCRIBED = "correct what is named; GET /openapi.json describes every body and query";

const WANTS_OBJECT = "must be a JSON object, and not a list";

/** Of a path, what the schema names and indexes below it: keys deeper down, and unknown ones, are the caller's own words. */
function knownPart(schema: v.GenericSchema, [first, ...rest]: JsonPath): JsonPath {
  const entries = "entries" in schema ? schema.entries as object : {};
  if (first === undefined || !Object.hasOwn(entries, first)) return [];
  const end = rest.findIndex((key) => typeof key !== "number");
  return [first, ...end < 0 ? rest : rest.slice(0, end)];
}

/** 422 with these findings. */
export function invalid(details: readonly ErrorDetail[], hint = DESCRIBED): StateManagerError {
  const first = details[0];
  const where = first === undefined
    ? ""
    : `: ${first.pointer === "" ? "" : `${first.pointer} `}${first.detail}`;
  return new StateManagerError("invalid-request", `read the request${where}`, {
    hint,
    details,
  });
}

/** The pointer names a key of the schema and indexes; keys deeper down, and unknown ones, are the caller's own words. */
function detailOf(issue: v.BaseIssue<unknown>): ErrorDetail {
  const path = issue.type === "strict_object" && issue.expected === "never" ? [] : issue.path ?? [];
  let pointer = "";
  for (const [depth, { key }] of path.entries()) {
    if (depth > 0 && typeof key !== "number") break;
    pointer += `/${String(key)}`;
  }
  return { pointer, detail: issue.message };
}

function depthExceeds(value: unknown, limit: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (limit === 0) return true;
  return Object.values(value).some((each) => depthExceeds(each, limit - 1));
}

async function readBytes(request: Request, clock: Clock): Promise<Uint8Array> {
  const tooLarge = () =>
    new StateManagerError(
      "body-too-large",
      `read the body: more than ${MAX_BODY_BYTES} bytes`,
      {
        hint: "send less",
      },
    );
  if (Number(request.headers.get("content-length") ?? 0) > MAX_BODY_BYTES) {
    request.body?.cancel().catch(() => {}); // nobody will read it
    throw tooLarge();
  }
  if (request.body === null) return new Uint8Array(0);
  const reader = request.body.getReader();
  const deadline = new AbortController();
  const late = clock.sleep(BODY_TIMEOUT_MS, { signal: deadline.signal }).then(
    () => {
      throw new StateManagerError(
        "timeout",
        "read the body: it did not arrive in time",
        {
          hint: "send it faster",
        },
      );
    },
  );
  late.catch(() => {});
  const pieces: Uint8Array[] = [];
  let size = 0;
  try {
    while (true) {
      const { done, value } = await Promise.race([reader.read(), late]);
      if (done) break;
      size += value.length;
      if (size > MAX_BODY_BYTES) throw tooLarge();
      pieces.push(value);
    }
  } catch (error) {
    reader.cancel().catch(() => {});
    if (isError(error)) throw error;
    throw new StateManagerError(
      "cancelled",
      "read the body: the client went away",
      { cause: error },
    );
  } finally {
    deadline.abort();
  }
  const whole = new Uint8Array(size);
  let offset = 0;
  for (const piece of pieces) {
    whole.set(piece, offset);
    offset += piece.length;
  }
  return whole;
}
