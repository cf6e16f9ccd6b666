/** An HTTP client of our own: extra certificate roots, and connections that end when we say so. */

import { StateManagerError } from "./errors.ts";

export interface HttpRequest extends Omit<RequestInit, "redirect" | "body"> {
  readonly body?: Uint8Array<ArrayBuffer>;
}

export interface HttpClient {
  /** Redirects are never followed: a signed request is for one host only. */
  fetch(url: URL, init: HttpRequest): Promise<Response>;
  /** Ends idle connections. */
  close(): void;
}

export interface HttpClientOptions {
  /** PEM with roots that count besides the built-in ones. */
  readonly caFile?: string | null;
  /**
   * true: each request on a connection of its own. Deno's fetch (2.7 and later, denoland/deno#32566) silently sends
   * a request again, of any method, when a reused connection ends without an answer, though the server may have done
   * the work: what must arrive at most once needs a fresh connection, over HTTP/1.1.
   */
  readonly atMostOnce?: boolean;
}

/** From this size on the copy of a body is worth a class of its own. */
const LENT_BYTES = 64 * 1024;

/**
 * `bytes` in a form of which fetch keeps no copy: it takes one by `slice()`, and the class of an array says where that
 * goes to (https://tc39.es/ecma262/#sec-typedarray-species-create). Here, to where the bytes are. Before its first pause
 * fetch copies them once more, for the network; the first copy would stay until the collector next looks at the whole
 * heap, which with bodies of 16 MiB is tens of megabytes for nothing.
 */
export function lentBody(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (bytes.length < LENT_BYTES) return bytes;
  class LentBytes extends Uint8Array<ArrayBuffer> {
    static get [Symbol.species](): () => void {
      return takeCopy;
    }
  }
  const lent = new LentBytes(bytes.buffer, bytes.byteOffset, bytes.length);
  function takeCopy(): Uint8Array<ArrayBuffer> {
    return lent;
  }
  return lent;
}

export function createHttpClient(options: HttpClientOptions = {}): HttpClient {
  const client = Deno.createHttpClient({
    ...(options.caFile === undefined || options.caFile === null
      ? {}
      : { caCerts: [readPem(options.caFile)] }),
    ...(options.atMostOnce === true ? { poolMaxIdlePerHost: 0, http2: false } : {}),
  });
  return {
    fetch(url, { body, ...init }) {
      const own: RequestInit & { client: Deno.HttpClient } = { ...init, client, redirect: "manual" };
      if (body !== undefined) own.body = lentBody(body);
      return fetch(url, own);
    },
    close: () => client.close(),
  };
}

function readPem(path: string): string {
  const hint = "name a readable PEM file with at least one certificate";
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    throw new StateManagerError("config-invalid", `read storage.ca_file ${path}: not readable`, {
      hint,
      cause: error,
    });
  }
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw new StateManagerError("config-invalid", `read storage.ca_file ${path}: it holds no certificate`, {
    hint,
  });
}
