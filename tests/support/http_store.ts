/** A store of small objects over plain HTTP, kept by the test itself, for tests of many processes without S3. */

import { createHash } from "node:crypto";
import { asStateManagerError, StateManagerError } from "../../src/platform/errors.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";

export interface HttpStoreServer {
  readonly url: string;
  stop(): Promise<void>;
}

/** Serves it on a free port of loopback. `ignoreConditions`: the class of stores that accept the headers and do nothing. */
export function serveHttpStore(
  options: { readonly ignoreConditions?: boolean } = {},
): HttpStoreServer {
  const objects = new Map<
    string,
    { body: Uint8Array<ArrayBuffer>; etag: string }
  >();
  const server = Deno.serve({
    hostname: "127.0.0.1",
    port: 0,
    onListen: () => {},
  }, async (request) => {
    const key = new URL(request.url).pathname;
    if (request.method === "GET") {
      const object = objects.get(key);
      if (object === undefined) return new Response(null, { status: 404 });
      return new Response(object.body, { headers: { etag: object.etag } });
    }
    const body = new Uint8Array(await request.arrayBuffer());
    // From here to the answer nothing is awaited: one put at a time, as a linearizable store has it.
    const current = objects.get(key)?.etag ?? null;
    const match = request.headers.get("if-match");
    const refused = request.headers.has("if-none-match")
      ? current !== null
      : match !== null && match !== current;
    if (refused && options.ignoreConditions !== true) {
      return new Response(null, { status: 412 });
    }
    const etag = `"${createHash("md5").update(body).digest("hex")}"`;
    objects.set(key, { body, etag });
    return new Response(null, { headers: { etag } });
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    stop: () => server.shutdown(),
  };
}

/** The client's side: get and put, once each. */
export function httpStore(url: string): ObjectStore {
  const unused = () => Promise.reject(new StateManagerError("internal", "not part of this store"));
  const send = async (key: string, init: RequestInit): Promise<Response> => {
    try {
      return await fetch(`${url}/${key}`, init);
    } catch (error) {
      init.signal?.throwIfAborted();
      throw asStateManagerError(error, "store-unreachable");
    }
  };
  return {
    description: `HTTP store at ${url}`,
    async get(key, { signal } = {}) {
      const response = await send(key, { signal: signal ?? null });
      const body = new Uint8Array(await response.arrayBuffer());
      if (response.status === 404) {
        throw new StateManagerError(
          "object-not-found",
          `get ${key}: not there`,
        );
      }
      if (!response.ok) {
        throw new StateManagerError("store-unreachable", `get ${key}: HTTP ${response.status}`);
      }
      const etag = response.headers.get("etag") ?? "";
      return {
        key,
        sizeBytes: body.length,
        etag,
        modifiedMs: 0,
        metadata: {},
        body,
      };
    },
    async put(key, body, { signal, condition } = {}) {
      const headers: Record<string, string> = condition === undefined
        ? {}
        : "etag" in condition
        ? { "if-match": condition.etag }
        : { "if-none-match": "*" };
      const response = await send(key, {
        method: "PUT",
        body,
        headers,
        signal: signal ?? null,
      });
      await response.body?.cancel();
      if (response.status === 412) {
        throw new StateManagerError(
          "precondition-failed",
          `put ${key}: changed`,
        );
      }
      if (!response.ok) throw new StateManagerError("outcome-unknown", `put ${key}: HTTP ${response.status}`);
      return { etag: response.headers.get("etag") ?? "" };
    },
    putLarge: unused,
    head: unused,
    list: unused,
    delete: unused,
    clockMs: () => null,
    close: () => Promise.resolve(),
  };
}
