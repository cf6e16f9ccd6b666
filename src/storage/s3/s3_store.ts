/**
 * An S3 bucket as the store. One request per call: retries, limits and prefixes are decorators. Conditional writes are
 * If-None-Match and If-Match on PUT; what a store does with them is proven by `probeStore`, not believed.
 */

import type { Clock } from "../../platform/clock.ts";
import { isError, StateManagerError } from "../../platform/errors.ts";
import { createHttpClient, type HttpClient } from "../../platform/http_client.ts";
import { type Deadline, withDeadline } from "../deadline.ts";
import { pageLimit } from "../listing.ts";
import { assertLargeSize, collectBounded } from "../large_put.ts";
import {
  assertBody,
  assertKey,
  assertMetadata,
  assertRange,
  cutRange,
  rangePastEnd,
  tooLargeToGet,
} from "../object_key.ts";
import {
  type GetOptions,
  LARGE_PART_BYTES,
  type ListOptions,
  type ListPage,
  MAX_OBJECT_BYTES,
  type ObjectInfo,
  type ObjectStore,
  type Pieces,
  type PutLargeOptions,
  type PutOptions,
  type RequestOptions,
} from "../object_store.ts";
import { actionText, type OperationKind, outcomeUnknown, tooSlow } from "../store_errors.ts";
import { StoreTime } from "../store_time.ts";
import { connectionError, refusalError } from "./errors.ts";
import { FIRST_MANNER, mannerAfter } from "./manner.ts";
import { PartsUpload } from "./parts_upload.ts";
import {
  BadBody,
  requestUrl,
  type S3Answer,
  type S3Credentials,
  type S3Request,
  type S3Target,
  sendRequest,
} from "./request.ts";
import { UploadsUnderWay } from "./uploads_under_way.ts";
import { parseErrorDocument, parseListing } from "./xml.ts";

export interface S3StoreOptions {
  readonly bucket: string;
  /** `https://host[:port]`. */
  readonly endpoint: string;
  readonly region: string;
  /** Asked for each request, so that credentials can rotate. */
  readonly credentials: () => S3Credentials;
  /** true: `endpoint/bucket/key`; false: `bucket.endpoint/key`. */
  readonly forcePathStyle: boolean;
  /** PEM file with roots besides the built-in ones. */
  readonly caFile?: string | null;
  readonly clock: Clock;
}

/** Longest silence of a store that works; a read that makes progress may take longer in all. */
const STALL_LIMIT_MS = 30_000;
/** An upload's progress can't be seen: it gets the time that this slow a line would need, shared with those beside it. */
const SLOWEST_UPLOAD_BYTES_PER_MS = 128;
/** A page of 1000 keys of 900 characters, each escaped, with everything S3 says about one. */
const MOST_LISTING_BYTES = 16 * 1024 * 1024;
/** Of our keys: their order as texts is that of their bytes, and no service writes them otherwise than they are. */
const KEY_CHARACTERS = /^[A-Za-z0-9._/-]+$/;
const METADATA_HEADER = "x-amz-meta-";
/** Of a Retry-After; a store that asks for more is down for our purposes. */
const LONGEST_RETRY_AFTER_MS = 300_000;

function parseEndpoint(endpoint: string): URL {
  let url: URL | null;
  try {
    url = new URL(endpoint);
  } catch {
    url = null;
  }
  // An endpoint may hold a password by mistake: it is never echoed.
  if (url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "") {
    return url;
  }
  throw new StateManagerError(
    "config-invalid",
    "open s3 store: the endpoint is not a plain http or https URL",
    {
      hint: 'write storage.endpoint like "https://s3.eu-central-1.amazonaws.com"',
    },
  );
}

/** Legacy names included; what would change the URL's path or host is not a bucket's name. */
const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$/;

function assertTarget(target: S3Target): void {
  if (!BUCKET.test(target.bucket)) {
    throw new StateManagerError(
      "config-invalid",
      "open s3 store: the bucket's name has characters that none may have",
      {
        hint: "write storage.bucket as the name alone, without s3:// and without a path",
      },
    );
  }
  if (target.forcePathStyle || requestUrl(target, { key: "" }).hostname !== target.endpoint.hostname) return;
  throw new StateManagerError(
    "config-invalid",
    "open s3 store: this endpoint can't have the bucket in its host name",
    {
      hint: "set storage.force_path_style to true",
    },
  );
}

function retryAfterOf(headers: Headers, wallMs: number): number | null {
  const text = headers.get("retry-after");
  if (text === null) return null;
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - wallMs;
  return Number.isFinite(ms) ? Math.min(Math.max(0, ms), LONGEST_RETRY_AFTER_MS) : null;
}

/**
 * A version's tag in one form, since it is compared and sent back: some services leave its quotes out here and there, and
 * proxies that compress call it weak. "" where there is none.
 */
function quotedTag(text: string | null): string {
  const tag = (text ?? "").replace(/^W\//, "");
  return tag === "" || tag.startsWith('"') ? tag : `"${tag}"`;
}

function infoOf(key: string, headers: Headers, sizeBytes: number): ObjectInfo {
  const metadata: Record<string, string> = {};
  for (const [name, value] of headers) {
    if (name.startsWith(METADATA_HEADER)) metadata[name.slice(METADATA_HEADER.length)] = value;
  }
  const modifiedMs = Date.parse(headers.get("last-modified") ?? "") || 0;
  return { key, sizeBytes, etag: quotedTag(headers.get("etag")), modifiedMs, metadata };
}

class S3Store implements ObjectStore {
  readonly description: string;
  readonly #target: S3Target;
  readonly #client: HttpClient;
  /** For conditional puts and what ends a large one: sent twice, the second one's refusal would hide that the first one won. */
  readonly #onceClient: HttpClient;
  readonly #clock: Clock;
  readonly #credentials: () => S3Credentials;
  readonly #uploads = new UploadsUnderWay();
  readonly #time: StoreTime;
  #manner = FIRST_MANNER;

  constructor(options: S3StoreOptions) {
    const { bucket, region, forcePathStyle } = options;
    this.#target = { endpoint: parseEndpoint(options.endpoint), bucket, region, forcePathStyle };
    assertTarget(this.#target);
    this.description = `s3 bucket ${JSON.stringify(bucket)} at ${this.#target.endpoint.origin}`;
    const caFile = options.caFile ?? null;
    this.#client = createHttpClient({ caFile });
    this.#onceClient = createHttpClient({ caFile, atMostOnce: true });
    this.#clock = options.clock;
    this.#time = new StoreTime(options.clock);
    this.#credentials = options.credentials;
  }

  async get(key: string, options: GetOptions = {}) {
    assertKey(key);
    const { range, memory } = options;
    if (range !== undefined) assertRange(key, range);
    const asked = {
      ...(range === undefined ? {} : { range }),
      ...(memory === undefined ? {} : { memory }),
    };
    const answer = await this.#send("get", { method: "GET", key, ...asked }, options);
    if (answer.status === 416 && range !== undefined) throw rangePastEnd(key, range.start);
    if (!isSuccess(answer)) throw this.#refusal("get", key, answer);
    if (answer.status !== 206) return this.#whole(key, answer, range);
    const part = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(answer.headers.get("content-range") ?? "");
    const [start, last, sizeBytes] = (part ?? []).slice(1).map(Number);
    if (range === undefined || sizeBytes === undefined || last === undefined) {
      throw this.#refused("get", key, "a part without a valid Content-Range");
    }
    const end = Math.min(range.end, sizeBytes);
    if (start !== range.start || last !== end - 1 || answer.body.length !== end - range.start) {
      throw this.#refused("get", key, `bytes ${start} to ${last} of ${sizeBytes}, other ones were asked for`);
    }
    return { ...infoOf(key, answer.headers, sizeBytes), body: answer.body };
  }

  /** The answer of a server that sent everything, whether or not a range was asked for. */
  #whole(key: string, answer: S3Answer, range: GetOptions["range"]) {
    const { start, end } = cutRange(key, range, answer.body.length);
    const body = range === undefined ? answer.body : answer.body.slice(start, end);
    return { ...infoOf(key, answer.headers, answer.body.length), body };
  }

  async head(key: string, options: RequestOptions = {}) {
    assertKey(key);
    const answer = await this.#send("head", { method: "HEAD", key }, options);
    if (!isSuccess(answer)) throw this.#refusal("head", key, answer);
    const length = answer.headers.get("content-length");
    if (length === null) throw this.#refused("head", key, "an answer without Content-Length");
    return infoOf(key, answer.headers, Number(length));
  }

  async put(key: string, body: Uint8Array<ArrayBuffer>, options: PutOptions = {}) {
    assertKey(key);
    assertBody(key, body);
    const { condition, metadata, mayComeTwice = condition === undefined } = options;
    const headers = { ...metadataHeaders(metadata), ...conditionHeaders(condition) };
    const request = { method: "PUT", key, headers, body } as const;
    const answer = await this.#send("put", request, { ...options, atMostOnce: !mayComeTwice });
    if (!isSuccess(answer)) throw this.#refusal("put", key, answer, condition !== undefined);
    const etag = quotedTag(answer.headers.get("etag"));
    if (etag === "") throw outcomeUnknown(key, this.description, "the answer has no ETag");
    return { etag };
  }

  async putLarge(key: string, pieces: Pieces, options: PutLargeOptions) {
    assertKey(key);
    assertLargeSize(key, options.sizeBytes);
    const headers = metadataHeaders(options.metadata);
    const { description } = this;
    const clock = this.#clock;
    if (options.sizeBytes <= LARGE_PART_BYTES && options.inParts !== true) {
      const small = await collectBounded({ key, clock, description }, pieces, options);
      return await this.put(key, small.body, small.options);
    }
    const upload = new PartsUpload(
      {
        clock,
        description,
        send: (request, how) => this.#send("put", request, how),
        refusal: (answer, conditional) => this.#refusal("put", key, answer, conditional),
      },
      key,
      headers,
      conditionHeaders(options.condition),
    );
    const { etag } = await upload.run(pieces, options);
    return { etag: quotedTag(etag) };
  }

  async list(options: ListOptions): Promise<ListPage> {
    const limit = pageLimit(options);
    const { prefix, startAfter } = options;
    const query = {
      "list-type": "2",
      "encoding-type": "url",
      "max-keys": String(limit),
      prefix,
      ...(startAfter === undefined ? {} : { "start-after": startAfter }),
    };
    const answer = await this.#send("list", { method: "GET", key: "", query }, options, prefix);
    if (!isSuccess(answer)) throw this.#refusal("list", prefix, answer);
    const action = actionText("list", prefix, this.description);
    const listing = parseListing(new TextDecoder().decode(answer.body), action);
    // Some servers ignore the prefix or the start: walking on would be wrong, or endless.
    const last = listing.objects.at(-1);
    const outside = listing.objects.find(({ key }) => !key.startsWith(prefix) || key === startAfter);
    if (outside !== undefined) {
      throw this.#refused("list", prefix, "the listing has keys that were not asked for");
    }
    // What comes out of order in one page is left out by the next one, which begins after this one's last key.
    const ours = listing.objects.filter(({ key }) => KEY_CHARACTERS.test(key));
    if (ours.some(({ key }, index) => key <= (ours[index - 1]?.key ?? startAfter ?? ""))) {
      throw this.#refused("list", prefix, "a listing whose keys are not in byte order");
    }
    if (listing.truncated && last === undefined) {
      throw this.#refused("list", prefix, "an empty page that says there are more");
    }
    const objects = listing.objects.map((object) => ({
      ...object,
      etag: quotedTag(object.etag),
      metadata: {},
    }));
    return listing.truncated && last !== undefined ? { objects, nextStartAfter: last.key } : { objects };
  }

  async delete(key: string, options: RequestOptions = {}) {
    assertKey(key);
    const answer = await this.#send("delete", { method: "DELETE", key }, options);
    if (isSuccess(answer)) return;
    const error = this.#refusal("delete", key, answer);
    if (!isError(error, "object-not-found")) throw error;
  }

  clockMs(): number | null {
    return this.#time.nowMs();
  }

  // deno-lint-ignore require-await
  async close() {
    this.#client.close();
    this.#onceClient.close();
  }

  async #send(
    kind: OperationKind,
    request: S3Request,
    options: RequestOptions & { readonly atMostOnce?: boolean; readonly stallMs?: number },
    key = request.key,
  ): Promise<S3Answer> {
    const { timeoutMs, stallMs = STALL_LIMIT_MS } = options;
    const upload = this.#uploads.begin(request.body?.length ?? 0);
    const limitMs = () => timeoutMs ?? stallMs + upload.lineBytes / SLOWEST_UPLOAD_BYTES_PER_MS;
    const mostBytes = kind === "list" ? MOST_LISTING_BYTES : MAX_OBJECT_BYTES;
    const client = options.atMostOnce === true ? this.#onceClient : this.#client;
    const work = async (deadline: Deadline) => {
      try {
        return await this.#sendInManner(client, request, deadline, mostBytes);
      } catch (error) {
        if (deadline.signal.aborted) throw deadline.signal.reason;
        if (isError(error)) throw error;
        if (error instanceof BadBody && kind === "get" && (error.announcedBytes ?? 0) > mostBytes) {
          throw tooLargeToGet(key, error.announcedBytes ?? 0);
        }
        if (error instanceof BadBody && kind !== "put") {
          throw new StateManagerError(
            "store-unreachable",
            `${actionText(kind, key, this.description)}: ${error.message}`,
            {
              hint: "the answer was cut on its way or is not an object of ours; try again",
              cause: error,
            },
          );
        }
        throw connectionError({ kind, key, description: this.description }, error);
      }
    };
    try {
      return await withDeadline({
        clock: this.#clock,
        signal: options.signal,
        limitMs,
        counts: timeoutMs === undefined ? "stall" : "total",
        timedOut: () => tooSlow(kind, key, this.description, limitMs()),
      }, work);
    } finally {
      this.#uploads.end(upload);
    }
  }

  /** Once more for each thing that a refusal says about the manner of sending. */
  async #sendInManner(
    client: HttpClient,
    request: S3Request,
    deadline: Deadline,
    mostBytes: number,
  ): Promise<S3Answer> {
    for (;;) {
      const manner = this.#manner;
      const machineMs = this.#clock.wallMs();
      const wallMs = (manner.signsByStore ? this.clockMs() : null) ?? machineMs;
      const sender = {
        target: this.#target,
        client,
        credentials: this.#credentials(),
        wallMs,
        checksum: manner.checksum,
      };
      const answer = await sendRequest(sender, request, deadline, mostBytes);
      this.#time.note(answer.headers.get("date"));
      const storeMs = this.clockMs();
      const next = mannerAfter(manner, request, answer, storeMs === null ? null : storeMs - machineMs);
      if (next === null) return answer;
      this.#manner = next;
    }
  }

  #refusal(kind: OperationKind, key: string, answer: S3Answer, conditional = false): StateManagerError {
    return refusalError({
      kind,
      key,
      conditional,
      description: this.description,
      status: answer.status,
      document: parseErrorDocument(new TextDecoder().decode(answer.body)),
      retryAfterMs: retryAfterOf(answer.headers, this.clockMs() ?? this.#clock.wallMs()),
      region: answer.headers.get("x-amz-bucket-region"),
      isWebPage: /^text\/html\b/i.test(answer.headers.get("content-type") ?? ""),
    });
  }

  #refused(kind: OperationKind, key: string, detail: string): StateManagerError {
    return new StateManagerError(
      "store-refused",
      `${actionText(kind, key, this.description)}: got ${detail}`,
      {
        hint: "this store does not speak S3 as documented; use another one",
      },
    );
  }
}

function metadataHeaders(metadata: PutOptions["metadata"] = {}): Record<string, string> {
  assertMetadata(metadata);
  return Object.fromEntries(
    Object.entries(metadata).map(([name, value]) => [METADATA_HEADER + name, value]),
  );
}

function conditionHeaders(condition: PutOptions["condition"]): Record<string, string> {
  if (condition === undefined) return {};
  return "absent" in condition ? { "if-none-match": "*" } : { "if-match": condition.etag };
}

function isSuccess(answer: S3Answer): boolean {
  return answer.status === 200 || answer.status === 204 || answer.status === 206;
}

export function s3Store(options: S3StoreOptions): ObjectStore {
  return new S3Store(options);
}
