/** One signed HTTP request to an S3 service and its whole, checked answer. No retries, no opinions about statuses. */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { HttpClient } from "../../platform/http_client.ts";
import type { Secret } from "../../platform/secret.ts";
import { Turns } from "../../platform/turns.ts";
import type { Deadline } from "../deadline.ts";
import { signed } from "./signature.ts";

export interface S3Credentials {
  readonly accessKey: Secret;
  readonly secretKey: Secret;
  readonly sessionToken: Secret | null;
}

export interface S3Target {
  /** `http(s)://host[:port][/base]`, without a slash at its end. */
  readonly endpoint: URL;
  readonly bucket: string;
  readonly region: string;
  readonly forcePathStyle: boolean;
}

export interface S3Request {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** "" for the bucket itself. Nothing in a key needs escaping (object_key.ts). */
  readonly key: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Signed. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly range?: { readonly start: number; readonly end: number };
  readonly body?: Uint8Array<ArrayBuffer>;
  /** Of the body; default `application/octet-stream`. */
  readonly contentType?: string;
  /** Memory for the answer's body, at least so many bytes. */
  readonly memory?: (sizeBytes: number) => Uint8Array<ArrayBuffer>;
}

export interface S3Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Uint8Array<ArrayBuffer>;
}

/** An answer's body was cut or longer than it may be. */
export class BadBody extends Error {
  override readonly name = "BadBody";
  /** Content-Length, where that is what is wrong. */
  readonly announcedBytes: number | undefined;

  constructor(message: string, announcedBytes?: number) {
    super(message);
    this.announcedBytes = announcedBytes;
  }
}

const EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/** An error's text: a proxy's page may be long, and of ours a few hundred bytes count. */
const MOST_ERROR_BYTES = 64 * 1024;

/** Tigris' global buckets are eventually consistent unless asked (https://www.tigrisdata.com/docs/objects/consistency/). */
export function providerHeaders(hostname: string): Record<string, string> {
  return /(^|\.)(tigris\.dev|storage\.dev|tigrisfiles\.io|storageapi\.dev)$/.test(hostname)
    ? { "x-tigris-consistent": "true" }
    : {};
}

export function requestUrl(target: S3Target, request: Pick<S3Request, "key" | "query">): URL {
  const url = new URL(target.endpoint);
  const base = url.pathname.replace(/\/+$/, "");
  if (target.forcePathStyle) {
    url.pathname = `${base}/${target.bucket}${request.key === "" ? "" : `/${request.key}`}`;
  } else {
    url.hostname = `${target.bucket}.${url.hostname}`; // of an IP address the setter keeps the old one: see s3_store.ts
    url.pathname = `${base}/${request.key}`;
  }
  for (const [name, value] of Object.entries(request.query ?? {})) url.searchParams.set(name, value);
  return url;
}

/** Hashed at one time: less than a millisecond. */
const HASH_PIECE_BYTES = 512 * 1024;
/** Between two turns of the loop. */
const HASH_TURN_MS = 4;

/** On this thread, since another one would get a copy of the body first: as much memory again, and as much time. */
async function sha256Hex(body: Uint8Array<ArrayBuffer>): Promise<string> {
  if (body.length === 0) return EMPTY_SHA256;
  const hash = createHash("sha256");
  const turns = new Turns(HASH_TURN_MS);
  for (let at = 0; at < body.length; at += HASH_PIECE_BYTES) {
    const pause = turns.next();
    if (pause !== null) await pause;
    hash.update(body.subarray(at, at + HASH_PIECE_BYTES));
  }
  return hash.digest("hex");
}

/** `sha256`: the hash that is signed anyway, for an object; a part's would have to be announced before, so it has `md5`. */
export type BodyChecksum = "sha256" | "md5";

function checksumHeaders(
  { method, query, body }: S3Request,
  sha256: string,
  checksum: BodyChecksum | null,
): Record<string, string> {
  if (checksum === null || method !== "PUT" || body === undefined) return {};
  if (checksum === "sha256" && query === undefined) {
    return { "x-amz-checksum-sha256": Buffer.from(sha256, "hex").toString("base64") };
  }
  return { "content-md5": createHash("md5").update(body).digest("base64") };
}

async function signedHeaders(sender: S3Sender, request: S3Request, url: URL): Promise<Headers> {
  const { target, checksum } = sender;
  const { accessKey, secretKey, sessionToken } = sender.credentials;
  const sha256 = request.body === undefined ? EMPTY_SHA256 : await sha256Hex(request.body);
  const headers = await signed({
    method: request.method,
    url,
    headers: {
      ...request.headers,
      ...providerHeaders(url.hostname),
      ...checksumHeaders(request, sha256, checksum),
      "x-amz-content-sha256": sha256,
    },
    accessKey: accessKey.reveal(),
    secretKey: secretKey.reveal(),
    sessionToken: sessionToken?.reveal() ?? null,
    region: target.region,
    wallMs: sender.wallMs,
  });
  // Not signed, since proxies may change them. Compressed answers would not have the length that they announce.
  headers.set("accept-encoding", "identity");
  if (request.body !== undefined) {
    headers.set("content-type", request.contentType ?? "application/octet-stream");
  }
  if (request.range !== undefined) {
    headers.set("range", `bytes=${request.range.start}-${request.range.end - 1}`);
  }
  return headers;
}

/** Comes with the headers, or nearly: it is read in one go, which costs a third of a stream's pieces. */
const SMALL_BODY_BYTES = 4096;

/** The whole body; `BadBody` when it is shorter than announced or longer than `mostBytes`. */
async function readBody(
  response: Response,
  announced: number | null,
  deadline: Deadline,
  { mostBytes, memory }: { readonly mostBytes: number; readonly memory?: S3Request["memory"] },
): Promise<Uint8Array<ArrayBuffer>> {
  if (announced === null) return await readUnannounced(response, mostBytes, deadline);
  if (announced > mostBytes) throw new BadBody(`${announced} bytes, at most ${mostBytes} wanted`, announced);
  if (announced > SMALL_BODY_BYTES && response.body !== null) {
    const target = memory?.(announced) ?? new Uint8Array(announced);
    return await readInto(target, announced, response.body.getReader({ mode: "byob" }), deadline);
  }
  const body = await response.bytes();
  deadline.progress();
  if (body.length === announced) return body;
  throw new BadBody(`${body.length} of ${announced} bytes arrived`);
}

/**
 * Straight to where the body is wanted: a third of the time that pieces take which are put together afterwards. Each
 * read moves the memory from the view that is given to the one that comes back.
 */
async function readInto(
  target: Uint8Array<ArrayBuffer>,
  announced: number,
  reader: ReadableStreamBYOBReader,
  deadline: Deadline,
): Promise<Uint8Array<ArrayBuffer>> {
  let { buffer } = target;
  const { byteOffset } = target;
  for (let filled = 0; filled < announced;) {
    const { value } = await reader.read(new Uint8Array(buffer, byteOffset + filled, announced - filled));
    deadline.progress();
    if (value === undefined || value.length === 0) {
      throw new BadBody(`${filled} of ${announced} bytes arrived`);
    }
    filled += value.length;
    buffer = value.buffer as ArrayBuffer;
  }
  const { done } = await reader.read(new Uint8Array(1)); // only after its end can the connection be used again
  if (!done) {
    reader.cancel().catch(() => {});
    throw new BadBody(`more than ${announced} bytes arrived`);
  }
  return new Uint8Array(buffer, byteOffset, announced);
}

async function readUnannounced(
  response: Response,
  mostBytes: number,
  deadline: Deadline,
): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const piece of response.body ?? []) {
    deadline.progress();
    pieces.push(piece);
    sizeBytes += piece.length;
    if (sizeBytes > mostBytes) throw new BadBody(`more than ${mostBytes} bytes`);
  }
  const body = new Uint8Array(sizeBytes);
  let offset = 0;
  for (const piece of pieces) {
    body.set(piece, offset);
    offset += piece.length;
  }
  return body;
}

/** The beginning of an error's body; whatever is wrong with it, the status counts. */
async function readErrorBody(
  response: Response,
  announced: number | null,
  deadline: Deadline,
): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const small = announced !== null && announced <= SMALL_BODY_BYTES ? announced : null;
    return await readBody(response, small, deadline, { mostBytes: MOST_ERROR_BYTES });
  } catch (error) {
    if (deadline.signal.aborted) throw error;
    return new Uint8Array();
  }
}

export interface S3Sender {
  readonly target: S3Target;
  readonly client: HttpClient;
  readonly credentials: S3Credentials;
  /** What time the signature says that it is. */
  readonly wallMs: number;
  /** What of a put's body goes along besides its signed hash, for a bucket that wants it. */
  readonly checksum: BodyChecksum | null;
}

/** Sends `request`. Rejects with fetch's error, `BadBody`, or the deadline's reason. */
export async function sendRequest(
  sender: S3Sender,
  request: S3Request,
  deadline: Deadline,
  mostBytes: number,
): Promise<S3Answer> {
  const url = requestUrl(sender.target, request);
  const headers = await signedHeaders(sender, request, url);
  const response = await sender.client.fetch(url, {
    method: request.method,
    headers,
    signal: deadline.signal,
    ...(request.body === undefined ? {} : { body: request.body }),
  });
  deadline.progress();
  const { status } = response;
  if (request.method === "HEAD") {
    await response.body?.cancel();
    return { status, headers: response.headers, body: new Uint8Array() };
  }
  const length = response.headers.get("content-length");
  const announced = length !== null && /^\d+$/.test(length) ? Number(length) : null;
  const { memory } = request;
  const body = response.ok
    ? await readBody(response, announced, deadline, {
      mostBytes,
      ...(memory === undefined ? {} : { memory }),
    })
    : await readErrorBody(response, announced, deadline);
  return { status, headers: response.headers, body };
}
