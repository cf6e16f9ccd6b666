/**
 * A small S3 service on loopback for tests: objects in memory, real signature checks, conditional writes, ranges,
 * listings in pages, and faults as told. What it answers follows AWS's documentation and MinIO's behaviour.
 */

import { createHash } from "node:crypto";
import {
  serveWire,
  type WireAnswer,
  type WireReply,
  type WireRequest,
  type WireServer,
} from "./http_wire.ts";
import { MultipartUploads } from "./s3_multipart.ts";
import { type Account, verifySignature } from "./s3_signature.ts";

export type S3Operation =
  | "get"
  | "head"
  | "put"
  | "list"
  | "delete"
  | "begin-upload"
  | "put-part"
  | "complete-upload"
  | "abort-upload";

export interface S3Fault {
  /** Left out: all. */
  readonly operation?: S3Operation;
  readonly keyPrefix?: string;
  /** Matching requests that it spares first. */
  readonly skip?: number;
  /** Requests that it hits; left out: all until `end()`. */
  readonly count?: number;
  /** Chance of hitting a matching request; needs `random`. */
  readonly probability?: number;
  readonly random?: () => number;
  /** Answers this instead; with `when: "after"` the work is done first. */
  readonly status?: number;
  readonly code?: string;
  readonly message?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Body instead of an error document. */
  readonly body?: string;
  /** Ends the connection without an answer. */
  readonly reset?: boolean;
  /** When a status or a reset strikes (default "before" the work). */
  readonly when?: "before" | "after";
  /** Waits first, then works and answers. */
  readonly delayMs?: number;
  /** Does the work only after this time and does not answer until then: a commit after the client's time-out. */
  readonly lateCommitMs?: number;
  /** Does the work twice, as a proxy that resends does; the second result is the answer. */
  readonly duplicate?: boolean;
  /** Sends so many bytes of the body and ends the connection. */
  readonly truncateAfter?: number;
  readonly ignoreRange?: boolean;
}

export interface ActiveFault {
  readonly hits: number;
  end(): void;
}

export interface S3ServerOptions {
  readonly bucket?: string;
  readonly region?: string;
  readonly accessKey?: string;
  readonly secretKey?: string;
  readonly sessionToken?: string;
  /** Condition headers that it accepts and does nothing about. */
  readonly ignoreConditions?: readonly ("if-none-match" | "if-match")[];
  /** Knows conditions of PUT, not of the end of a multipart upload. */
  readonly unconditionalUploads?: boolean;
  /** How many of several creators at once succeed, as on a store whose condition is not atomic. */
  readonly racyCreates?: boolean;
  /** Its own clock: what it judges signatures by, and tells in each answer's Date. Left out: the machine's, untold. */
  readonly clockMs?: () => number;
  /** Keeps objects for a time, so it takes none without a checksum in a header of its own. */
  readonly objectLock?: boolean;
  /** Answers listings without regard to encoding-type, as versitygw does. */
  readonly ignoreEncodingType?: boolean;
}

export interface ServedObject {
  readonly body: Uint8Array<ArrayBuffer>;
  readonly etag: string;
  readonly modifiedMs: number;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface SeenRequest {
  readonly operation: S3Operation;
  readonly key: string;
  readonly headers: Headers;
}

interface Running {
  readonly fault: S3Fault;
  seen: number;
  hits: number;
}

const encoder = new TextEncoder();
/** Between check and write of a store whose creates race: long enough for all requests of a test to get in. */
const RACE_WINDOW_MS = 30;

function escapeXml(text: string): string {
  return text.replace(/[<>&"']|[^ -~]/gu, (c) => `&#${c.codePointAt(0)};`);
}

function formEncode(text: string): string {
  return encodeURIComponent(text).replaceAll("%2F", "/").replaceAll("%20", "+");
}

function errorAnswer(
  status: number,
  code: string,
  message = "fault of a test",
): WireAnswer {
  const body = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${escapeXml(code)}</Code>` +
    `<Message>${escapeXml(message)}</Message><RequestId>TEST</RequestId></Error>`;
  return {
    status,
    headers: { "content-type": "application/xml" },
    body: encoder.encode(body),
  };
}

function xmlAnswer(text: string): WireAnswer {
  return {
    status: 200,
    headers: { "content-type": "application/xml" },
    body: encoder.encode(`<?xml version="1.0" encoding="UTF-8"?>\n${text}`),
  };
}

function metadataOf(headers: Headers): Record<string, string> {
  return Object.fromEntries([...headers].filter(([name]) => name.startsWith("x-amz-meta-")));
}

/** `over` cuts it short. */
const pause = (ms: number, over?: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (over?.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    over?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });

/** As AWS refuses them; null: it has one, and it is right. */
function checksumRefusal(operation: S3Operation, { headers, body }: WireRequest): WireAnswer | null {
  if (operation !== "put" && operation !== "put-part") return null;
  const md5 = headers.get("content-md5");
  const sha256 = operation === "put" ? headers.get("x-amz-checksum-sha256") : null;
  if (md5 === null && sha256 === null) {
    const what = operation === "put" ? "Put Object" : "Put Part";
    const text =
      `Content-MD5 OR x-amz-checksum- HTTP header is required for ${what} requests with Object Lock parameters`;
    return errorAnswer(400, "InvalidRequest", text);
  }
  const is = (name: string) => createHash(name).update(body).digest("base64");
  return (md5 ?? is("md5")) === is("md5") && (sha256 ?? is("sha256")) === is("sha256")
    ? null
    : errorAnswer(400, "BadDigest");
}

/** What a request is about; `subject` is what a rule's key prefix is compared with. */
export function s3Request(request: WireRequest) {
  const [, bucket = "", ...rest] = decodeURIComponent(request.path).split("/");
  const key = rest.join("/");
  const query = new URLSearchParams(request.query);
  const operation = operationOf(request.method, key, query);
  return { bucket, key, query, operation, subject: operation === "list" ? query.get("prefix") ?? "" : key };
}

function operationOf(method: string, key: string, query: URLSearchParams): S3Operation {
  if (method === "POST") return query.has("uploads") ? "begin-upload" : "complete-upload";
  if (query.has("uploadId")) return method === "PUT" ? "put-part" : "abort-upload";
  if (method === "GET") return key === "" ? "list" : "get";
  return method === "PUT" ? "put" : method === "DELETE" ? "delete" : "head";
}

export class S3Server {
  readonly bucket: string;
  readonly region: string;
  readonly accessKey: string;
  readonly secretKey: string;
  readonly sessionToken: string | null;
  /** What it keeps; tests may look and change. */
  readonly objects = new Map<string, ServedObject>();
  readonly uploads = new MultipartUploads();
  /** Every request whose signature was right, in order of arrival. */
  readonly requests: SeenRequest[] = [];
  /** Signature faults it saw, by code. */
  readonly refusals: string[] = [];
  /** Beside the one of the options, while keys are changed. */
  readonly otherAccounts: Account[] = [];
  /** The keys of the options are good for nothing any more. */
  isRevoked = false;
  readonly #options: S3ServerOptions;
  readonly #faults = new Set<Running>();
  readonly #late = new Set<Promise<void>>();
  readonly #over = new AbortController();
  #wire: WireServer | undefined;

  private constructor(options: S3ServerOptions) {
    this.#options = options;
    this.bucket = options.bucket ?? "test-bucket";
    this.region = options.region ?? "us-east-1";
    this.accessKey = options.accessKey ?? "test-access-key";
    this.secretKey = options.secretKey ?? "test/secret+key";
    this.sessionToken = options.sessionToken ?? null;
  }

  // deno-lint-ignore require-await
  static async start(options: S3ServerOptions = {}): Promise<S3Server> {
    const server = new S3Server(options);
    server.#wire = serveWire(async (request) => server.#dated(await server.#handle(request)));
    return server;
  }

  #dated(reply: WireReply): WireReply {
    const { clockMs } = this.#options;
    if (clockMs === undefined || reply === "reset" || !("headers" in reply)) return reply;
    return { ...reply, headers: { ...reply.headers, date: new Date(clockMs()).toUTCString() } };
  }

  get #account(): Account {
    const { accessKey, secretKey, sessionToken, region } = this;
    return { accessKey, secretKey, sessionToken, region };
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#wire?.port}`;
  }

  /** Faults apply in the order in which they were added; the first that hits counts. */
  fail(fault: S3Fault): ActiveFault {
    const running: Running = { fault, seen: 0, hits: 0 };
    this.#faults.add(running);
    return {
      get hits() {
        return running.hits;
      },
      end: () => void this.#faults.delete(running),
    };
  }

  /** Ends every connection; late commits happen before it resolves. */
  async stop(): Promise<void> {
    this.#over.abort();
    await this.#wire?.stop();
    await Promise.all(this.#late);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #handle(request: WireRequest): Promise<WireReply> {
    const accounts = [...(this.isRevoked ? [] : [this.#account]), ...this.otherAccounts];
    const answers = accounts.map((account) =>
      verifySignature(request, account, this.#options.clockMs?.() ?? Date.now())
    );
    const refused = answers.includes(null) ? null : answers[0] ?? null;
    if (refused !== null) {
      this.refusals.push(refused.code);
      return errorAnswer(refused.status, refused.code);
    }
    const { bucket, key, query, operation, subject } = s3Request(request);
    if (bucket !== this.bucket) return errorAnswer(404, "NoSuchBucket");
    this.requests.push({ operation, key: subject, headers: request.headers });
    return await this.#withFaults(
      operation,
      subject,
      () => this.#work(operation, key, request, query),
    );
  }

  #strike(operation: S3Operation, key: string): S3Fault | undefined {
    for (const running of this.#faults) {
      const { fault } = running;
      if (fault.operation !== undefined && fault.operation !== operation) {
        continue;
      }
      if (!key.startsWith(fault.keyPrefix ?? "")) continue;
      const {
        skip = 0,
        count = Infinity,
        probability = 1,
        random = Math.random,
      } = fault;
      if (
        running.seen++ < skip || running.hits >= count ||
        random() >= probability
      ) continue;
      running.hits++;
      return fault;
    }
    return undefined;
  }

  async #withFaults(
    operation: S3Operation,
    key: string,
    work: (fault?: S3Fault) => Promise<WireAnswer>,
  ): Promise<WireReply> {
    const fault = this.#strike(operation, key);
    if (fault === undefined) return await work();
    if (fault.delayMs !== undefined) await pause(fault.delayMs, this.#over.signal);
    if (fault.lateCommitMs !== undefined) {
      const late = pause(fault.lateCommitMs).then(async () => void await work(fault));
      this.#late.add(late);
      await late;
      this.#late.delete(late);
      return "reset";
    }
    const strikes = fault.reset === true || fault.status !== undefined;
    if (strikes && fault.when !== "after") return this.#faultReply(fault);
    if (fault.duplicate === true) await work(fault);
    const answer = await work(fault);
    if (strikes) return this.#faultReply(fault);
    return fault.truncateAfter === undefined ? answer : { ...answer, cutAfter: fault.truncateAfter };
  }

  #faultReply(fault: S3Fault): WireReply {
    if (fault.reset === true) return "reset";
    const answer = errorAnswer(
      fault.status ?? 500,
      fault.code ?? "InternalError",
      fault.message,
    );
    return {
      ...answer,
      headers: { ...answer.headers, ...fault.headers },
      ...(fault.body === undefined ? {} : { body: encoder.encode(fault.body) }),
    };
  }

  async #work(
    operation: S3Operation,
    key: string,
    request: WireRequest,
    query: URLSearchParams,
  ): Promise<WireAnswer> {
    if (operation === "list") return this.#list(query);
    const refusal = this.#options.objectLock === true ? checksumRefusal(operation, request) : null;
    if (refusal !== null) return refusal;
    if (operation === "put") return await this.#put(key, request);
    const uploadId = query.get("uploadId") ?? "";
    if (operation === "begin-upload") return this.#beginUpload(key, request.headers);
    if (operation === "put-part") {
      const etag = this.uploads.addPart(uploadId, key, Number(query.get("partNumber")), request.body);
      return typeof etag === "string"
        ? { status: 200, headers: { etag } }
        : errorAnswer(etag.status, etag.code);
    }
    if (operation === "complete-upload") return await this.#completeUpload(key, uploadId, request);
    if (operation === "abort-upload") {
      return this.uploads.end(uploadId) ? { status: 204 } : errorAnswer(404, "NoSuchUpload");
    }
    if (operation === "delete") {
      this.objects.delete(key);
      return { status: 204 };
    }
    const object = this.objects.get(key);
    if (object === undefined) return errorAnswer(404, "NoSuchKey");
    return operation === "head" ? this.#whole(object) : this.#get(object, request);
  }

  async #put(key: string, request: WireRequest): Promise<WireAnswer> {
    const refusal = this.#conditionRefusal(key, request.headers);
    if (this.#options.racyCreates === true) await pause(RACE_WINDOW_MS);
    if (refusal !== null) return refusal;
    const metadata = metadataOf(request.headers);
    const etag = `"${createHash("md5").update(request.body).digest("hex")}"`;
    this.objects.set(key, {
      body: request.body,
      etag,
      modifiedMs: Date.now(),
      metadata,
    });
    return { status: 200, headers: { etag } };
  }

  #beginUpload(key: string, headers: Headers): WireAnswer {
    const id = this.uploads.begin(key, metadataOf(headers));
    return xmlAnswer(
      `<InitiateMultipartUploadResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` +
        `<Bucket>${this.bucket}</Bucket><Key>${key}</Key><UploadId>${escapeXml(id)}</UploadId>` +
        `</InitiateMultipartUploadResult>`,
    );
  }

  async #completeUpload(key: string, uploadId: string, request: WireRequest): Promise<WireAnswer> {
    const object = this.uploads.assemble(uploadId, key, new TextDecoder().decode(request.body));
    if ("code" in object) return errorAnswer(object.status, object.code);
    const refusal = this.#options.unconditionalUploads === true
      ? null
      : this.#conditionRefusal(key, request.headers);
    if (this.#options.racyCreates === true) await pause(RACE_WINDOW_MS);
    if (refusal !== null) return refusal;
    this.objects.set(key, { ...object, modifiedMs: Date.now() });
    this.uploads.end(uploadId);
    // Blanks first, as S3 sends them while it works.
    return xmlAnswer(
      `   <CompleteMultipartUploadResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` +
        `<Key>${key}</Key><ETag>${escapeXml(object.etag)}</ETag></CompleteMultipartUploadResult>`,
    );
  }

  #conditionRefusal(key: string, headers: Headers): WireAnswer | null {
    const ignored = this.#options.ignoreConditions ?? [];
    const object = this.objects.get(key);
    if (
      headers.has("if-none-match") && !ignored.includes("if-none-match") &&
      object !== undefined
    ) {
      return errorAnswer(412, "PreconditionFailed");
    }
    const match = headers.get("if-match");
    if (match === null || ignored.includes("if-match")) return null;
    if (object === undefined) return errorAnswer(404, "NoSuchKey");
    return object.etag === match ? null : errorAnswer(412, "PreconditionFailed");
  }

  #whole(object: ServedObject): WireAnswer {
    return {
      status: 200,
      headers: {
        etag: object.etag,
        "last-modified": new Date(object.modifiedMs).toUTCString(),
        "accept-ranges": "bytes",
        ...object.metadata,
      },
      body: object.body,
    };
  }

  #get(object: ServedObject, request: WireRequest): WireAnswer {
    const whole = this.#whole(object);
    const range = /^bytes=(\d+)-(\d+)$/.exec(
      request.headers.get("range") ?? "",
    );
    const ignored = [...this.#faults].some(({ fault }) => fault.ignoreRange === true);
    if (range === null || ignored) return whole;
    const [start = 0, last = 0] = range.slice(1).map(Number);
    const size = object.body.length;
    if (start >= size) return errorAnswer(416, "InvalidRange");
    const end = Math.min(last + 1, size);
    return {
      status: 206,
      headers: {
        ...whole.headers,
        "content-range": `bytes ${start}-${end - 1}/${size}`,
      },
      body: object.body.slice(start, end),
    };
  }

  #list(query: URLSearchParams): WireAnswer {
    const prefix = query.get("prefix") ?? "";
    const after = query.get("continuation-token") ?? query.get("start-after") ??
      "";
    const limit = Number(query.get("max-keys") ?? 1000);
    const encoded = query.get("encoding-type") === "url" &&
      this.#options.ignoreEncodingType !== true;
    const keys = [...this.objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
    const contents = keys.slice(0, limit).map((key) => {
      const object = this.objects.get(key);
      const shown = encoded ? formEncode(key) : escapeXml(key);
      return `<Contents><Key>${shown}</Key><LastModified>${
        new Date(object?.modifiedMs ?? 0).toISOString()
      }</LastModified><ETag>${
        escapeXml(object?.etag ?? "")
      }</ETag><Size>${object?.body.length}</Size></Contents>`;
    });
    return xmlAnswer(
      `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>${this.bucket}</Name>` +
        (encoded ? "<EncodingType>url</EncodingType>" : "") +
        `<IsTruncated>${keys.length > limit}</IsTruncated>${contents.join("")}</ListBucketResult>`,
    );
  }
}
