/** A running manager as commands see it: its unix socket, found by the data dir, or `--url` with a token. */

import {
  ERROR_TABLE,
  type ErrorCode,
  type ErrorDetail,
  isError,
  StateManagerError,
} from "../platform/errors.ts";
import { readTextIfPresent } from "../platform/files.ts";
import { type ControlHttp, httpOverSocket, httpToUrl } from "../platform/control_http.ts";
import { findSocketPath } from "../platform/socket_file.ts";
import type { Context, Options } from "./context.ts";
import { usageError } from "./context.ts";
import { findDataDirOf } from "./data_dir.ts";

/** Longest wait for an answer that takes the manager no time. */
const ANSWER_TIMEOUT_MS = 30_000;

/** The manager sends a heartbeat every 15 s: four missed ones mean that it is gone or hung. */
const SILENCE_TIMEOUT_MS = 60_000;

/** Longest line of a stream that we keep; a result with a thousand warnings is far below. */
const MAX_LINE_CHARACTERS = 8 * 1024 * 1024;

/** One event of long work: `progress`, `captured`, `heartbeat`; the last one is `complete` or `error`. */
export type StreamEvent = Readonly<Record<string, unknown>> & { readonly type: string };

export type JsonObject = Readonly<Record<string, unknown>>;

export class ManagerClient implements Disposable {
  readonly #http: ControlHttp;
  readonly #where: string;
  readonly #token: string | null;

  constructor(http: ControlHttp, where: string, token: string | null) {
    this.#http = http;
    this.#where = where;
    this.#token = token;
  }

  [Symbol.dispose](): void {
    this.#http.close();
  }

  async get<T = JsonObject>(path: string, timeoutMs: number | null = ANSWER_TIMEOUT_MS): Promise<T> {
    return await this.#json<T>(path, { method: "GET" }, timeoutMs);
  }

  /** `timeoutMs` null: as long as it takes (taking a lease may wait for its holder). */
  async post<T = JsonObject>(
    path: string,
    body: unknown,
    timeoutMs: number | null = ANSWER_TIMEOUT_MS,
  ): Promise<T> {
    return await this.#json<T>(path, { method: "POST", body: JSON.stringify(body) }, timeoutMs);
  }

  async patch<T = JsonObject>(path: string, body: unknown): Promise<T> {
    return await this.#json<T>(path, { method: "PATCH", body: JSON.stringify(body) }, ANSWER_TIMEOUT_MS);
  }

  async delete<T = JsonObject>(path: string): Promise<T> {
    return await this.#json<T>(path, { method: "DELETE" }, ANSWER_TIMEOUT_MS);
  }

  /** Status code alone, as a health check wants it. */
  async probe(path: string, timeoutMs: number): Promise<number> {
    const response = await this.#fetch(path, { signal: AbortSignal.timeout(timeoutMs) });
    await response.body?.cancel();
    return response.status;
  }

  /** Long work with its events; resolves with the result of `complete`, throws what `error` tells. */
  async stream(path: string, body: unknown, onEvent: (event: StreamEvent) => void): Promise<JsonObject> {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_TIMEOUT_MS);
    try {
      const response = await this.#fetch(path, {
        method: "POST",
        body: JSON.stringify(body),
        headers: { accept: "application/x-ndjson" },
        signal: silence.signal,
      });
      if (!response.ok) throw await problemOf(response);
      for await (const event of eventsOf(response)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_TIMEOUT_MS);
        onEvent(event);
        if (event.type === "complete") return withoutEnvelope(event);
        if (event.type === "error") throw errorOf(event["problem"]);
      }
    } catch (error) {
      throw isError(error) ? error : this.#unreachable("it fell silent", error);
    } finally {
      clearTimeout(timer);
    }
    throw this.#unreachable("it ended the stream before the work was done", undefined);
  }

  /** Lines of JSON as they come; ends with the stream. Throws where the manager falls silent. */
  async *lines(path: string): AsyncGenerator<JsonObject> {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_TIMEOUT_MS);
    try {
      const response = await this.#fetch(path, {
        headers: { accept: "application/x-ndjson" },
        signal: silence.signal,
      });
      if (!response.ok) throw await problemOf(response);
      for await (const event of eventsOf(response)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_TIMEOUT_MS);
        yield event;
      }
    } catch (error) {
      throw isError(error) ? error : this.#unreachable("it fell silent", error);
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
  }

  async text(path: string): Promise<string> {
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    const response = await this.#fetch(path, { headers: { accept: "text/plain" }, signal });
    if (!response.ok) throw await problemOf(response);
    return await response.text();
  }

  async #json<T>(path: string, init: RequestInit, timeoutMs: number | null): Promise<T> {
    const response = await this.#fetch(path, {
      ...init,
      ...(timeoutMs === null ? {} : { signal: AbortSignal.timeout(timeoutMs) }),
    });
    if (!response.ok) throw await problemOf(response);
    try {
      return await response.json();
    } catch (error) {
      throw this.#unreachable("its answer is not JSON", error);
    }
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    if (!headers.has("accept")) headers.set("accept", "application/json");
    if (init.body !== undefined) headers.set("content-type", "application/json");
    if (this.#token !== null) headers.set("authorization", `Bearer ${this.#token}`);
    try {
      return await this.#http.fetch(path, { ...init, headers });
    } catch (error) {
      const late = error instanceof DOMException;
      throw this.#unreachable(late ? "it does not answer" : "nobody listens there", error);
    }
  }

  #unreachable(what: string, cause: unknown): StateManagerError {
    return new StateManagerError("manager-unreachable", `ask the manager at ${this.#where}: ${what}`, {
      hint: "is it running? name its data folder with --data-dir, or its address with --url",
      ...(cause === undefined ? {} : { cause }),
    });
  }
}

/** The client that the options ask for; nothing is sent yet. */
export async function openClient(context: Context, options: Options): Promise<ManagerClient> {
  const url = options.text("url");
  if (url === undefined) {
    const path = await findSocketPath(findDataDirOf(context, options));
    return new ManagerClient(httpOverSocket(path), `unix:${path}`, null);
  }
  if (!/^https?:\/\/[^/]/.test(url)) {
    throw usageError(
      "read --url: want http://HOST:PORT or https://HOST",
      "give the address as GET / answers it",
    );
  }
  const token = await readToken(context, options);
  return new ManagerClient(httpToUrl(url), url, token);
}

async function readToken(context: Context, options: Options): Promise<string | null> {
  const file = options.text("tokenFile") ?? context.environment["STATE_MANAGER_TOKEN_FILE"];
  if (file === undefined) return context.environment["STATE_MANAGER_TOKEN"] ?? null;
  const text = await readTextIfPresent(file);
  if (text === null) throw usageError(`read --token-file: there is no file ${file}`);
  return text.trim();
}

async function problemOf(response: Response): Promise<StateManagerError> {
  try {
    return errorOf(await response.json());
  } catch {
    return new StateManagerError(
      "manager-unreachable",
      `ask the manager: answer ${response.status} without a reason`,
      {
        hint: "is there a manager at this address?",
      },
    );
  }
}

/** The error that a problem document tells, with our code, so that the exit code is the same as on the spot. */
export function errorOf(problem: unknown): StateManagerError {
  const document = typeof problem === "object" && problem !== null ? problem as JsonObject : {};
  const text = (key: string) => typeof document[key] === "string" ? document[key] : undefined;
  const code = text("code") ?? "";
  const hint = text("hint");
  return new StateManagerError(
    isCode(code) ? code : "internal",
    text("detail") ?? "the manager gave no reason",
    {
      ...(hint === undefined ? {} : { hint }),
      details: detailsOf(document["errors"]),
    },
  );
}

function isCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_TABLE, code);
}

function detailsOf(errors: unknown): ErrorDetail[] {
  if (!Array.isArray(errors)) return [];
  return errors.map((each: JsonObject) => ({
    pointer: String(each?.["pointer"] ?? ""),
    detail: String(each?.["detail"] ?? ""),
  }));
}

async function* eventsOf(response: Response): AsyncGenerator<StreamEvent> {
  if (response.body === null) return;
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    rest += text;
    if (rest.length > MAX_LINE_CHARACTERS) {
      throw new StateManagerError("manager-unreachable", "read the manager's answer: a line without end");
    }
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line !== "") yield JSON.parse(line);
    }
  }
}

function withoutEnvelope(event: StreamEvent): JsonObject {
  const { type: _type, time: _time, ...result } = event;
  return result;
}
