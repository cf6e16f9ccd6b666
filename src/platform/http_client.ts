/** An HTTP client of our own: extra certificate roots, and connections that end when we say so. */

import { StateManagerError } from "./errors.ts";

export interface HttpClient {
  /** Redirects are never followed: a signed request is for one host only. */
  fetch(url: URL, init: Omit<RequestInit, "redirect">): Promise<Response>;
  /** Ends idle connections. */
  close(): void;
}

/** `caFile`: PEM with roots that count besides the built-in ones. */
export function createHttpClient(options: { readonly caFile?: string | null } = {}): HttpClient {
  const client = Deno.createHttpClient(
    options.caFile === undefined || options.caFile === null ? {} : { caCerts: [readPem(options.caFile)] },
  );
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
