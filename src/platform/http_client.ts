/** An HTTP client of our own: extra certificate roots, and connections that end when we say so. */

import { StateManagerError } from "./errors.ts";

export interface HttpClient {
  /** Redirects are never followed: a signed request is for one host only. */
  fetch(url: URL, init: Omit<RequestInit, "redirect">): Promise<Response>;
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

export function createHttpClient(options: HttpClientOptions = {}): HttpClient {
  const client = Deno.createHttpClient({
    ...(options.caFile === undefined || options.caFile === null
      ? {}
      : { caCerts: [readPem(options.caFile)] }),
    ...(options.atMostOnce === true ? { poolMaxIdlePerHost: 0, http2: false } : {}),
  });
  return {
    fetch(url, init) {
      const own: RequestInit & { client: Deno.HttpClient } = { ...init, client, redirect: "manual" };
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
