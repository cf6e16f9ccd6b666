/**
 * One large object as a multipart upload. Nothing of it is visible before its Complete, which is sent once and carries
 * the condition. If we die on the way, the parts stay in the bucket, invisible and named by nothing: a lifecycle rule
 * (AbortIncompleteMultipartUpload) is what removes them (docs/storage_format.md).
 */

import type { Clock } from "../../platform/clock.ts";
import { isError, StateManagerError } from "../../platform/errors.ts";
import { withDeadline } from "../deadline.ts";
import { counted, cutParts, largeDeadline, unwrapped } from "../large_put.ts";
import { LARGE_PART_BYTES, type Pieces, type PutLargeOptions } from "../object_store.ts";
import { sendParts } from "../part_sender.ts";
import { actionText, outcomeUnknown, retryAfterMs } from "../store_errors.ts";
import type { S3Answer, S3Request } from "./request.ts";
import { completionText, parseCompletion, parseUploadId } from "./xml.ts";

export interface PartsPort {
  readonly clock: Clock;
  readonly description: string;
  /** Sends one request of a put; a broken connection is `outcome-unknown` or `store-unreachable`. */
  send(
    request: S3Request,
    options: { readonly signal: AbortSignal; readonly atMostOnce?: boolean; readonly stallMs?: number },
  ): Promise<S3Answer>;
  /** The error that an answer is which is no success. */
  refusal(answer: S3Answer, conditional: boolean): StateManagerError;
}

/** S3 takes 10,000; fewer and larger ones keep the Complete small and the memory bounded (three parts of 64 MiB). */
const MOST_PARTS = 1000;
const MEBIBYTE = 1024 * 1024;
/** Fills a line whose round trip is long; a third part fills meanwhile. */
const MOST_IN_FLIGHT = 2;
/** Of one part, and of what begins and ends an upload. With the delays below: some ten seconds of a store that restarts. */
const MOST_TRIES = 6;
const FIRST_DELAY_MS = 200;
const LONGEST_DELAY_MS = 5000;
/** A store may put together the parts before it says a word; AWS documents minutes. */
const COMPLETE_STALL_MS = 5 * 60_000;
/** What was in vain is removed without making whoever waits for the error wait much longer. */
const ABORT_LIMIT_MS = 5000;

function partBytesFor(sizeBytes: number): number {
  const smallest = Math.ceil(sizeBytes / MOST_PARTS);
  return Math.max(LARGE_PART_BYTES, Math.ceil(smallest / MEBIBYTE) * MEBIBYTE);
}

export class PartsUpload {
  readonly #port: PartsPort;
  readonly #key: string;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #condition: Readonly<Record<string, string>>;
  #sending: Promise<readonly string[]> | null = null;
  #id: string | null = null;
  #settling = false;

  /** `headers`: the object's metadata; `condition`: If-None-Match or If-Match, or nothing. */
  constructor(
    port: PartsPort,
    key: string,
    headers: Readonly<Record<string, string>>,
    condition: Readonly<Record<string, string>>,
  ) {
    this.#port = port;
    this.#key = key;
    this.#headers = headers;
    this.#condition = condition;
  }

  async run(pieces: Pieces, options: PutLargeOptions): Promise<{ readonly etag: string }> {
    const { clock, description } = this.#port;
    const put = { key: this.#key, clock, description };
    try {
      return await withDeadline(
        largeDeadline(put, options, () => this.#settling),
        async ({ signal, progress }) => {
          this.#id = await this.#begin(signal);
          this.#sending = this.#sendAll(this.#id, pieces, options.sizeBytes, signal, progress);
          const tags = await this.#sending;
          signal.throwIfAborted(); // the last moment at which nothing has landed
          this.#settling = true;
          return await this.#complete(this.#id, tags, signal);
        },
      );
    } catch (error) {
      // Also when nobody knows whether the Complete landed: if it did, this does nothing; if not, it never will.
      if (this.#id !== null) await this.#abort(this.#id);
      throw unwrapped(error);
    }
  }

  async #begin(signal: AbortSignal): Promise<string> {
    const answer = await this.#repeat({
      method: "POST",
      key: this.#key,
      query: { uploads: "" },
      headers: this.#headers,
      body: new Uint8Array(),
    }, signal);
    const id = parseUploadId(new TextDecoder().decode(answer.body));
    if (id === null) throw this.#refused("an answer without an upload's id");
    return id;
  }

  #sendAll(
    id: string,
    pieces: Pieces,
    sizeBytes: number,
    signal: AbortSignal,
    progress: () => void,
  ): Promise<readonly string[]> {
    const key = this.#key;
    return sendParts({
      key,
      sizeBytes,
      mostInFlight: MOST_IN_FLIGHT,
      signal,
      parts: (signal) =>
        cutParts(counted(key, pieces, { sizeBytes, signal }, progress), partBytesFor(sizeBytes), sizeBytes),
      send: async (number, part, signal) => {
        const tag = await this.#sendPart(id, number, part, signal);
        progress();
        return tag;
      },
    });
  }

  async #sendPart(
    id: string,
    number: number,
    body: Uint8Array<ArrayBuffer>,
    signal: AbortSignal,
  ): Promise<string> {
    const query = { partNumber: String(number), uploadId: id };
    const answer = await this.#repeat({ method: "PUT", key: this.#key, query, body }, signal);
    const etag = answer.headers.get("etag") ?? "";
    if (etag === "") throw this.#refused("a part's answer without ETag");
    return etag;
  }

  /** Requests that change nothing visible may be repeated whatever became of the one before. */
  async #repeat(request: S3Request, signal: AbortSignal): Promise<S3Answer> {
    for (let tries = 1;; tries++) {
      try {
        const answer = await this.#port.send(request, { signal });
        if (answer.status === 200 || answer.status === 204) return answer;
        throw this.#port.refusal(answer, false);
      } catch (error) {
        signal.throwIfAborted();
        if (!isError(error, "store-unreachable", "outcome-unknown")) throw error;
        if (tries >= MOST_TRIES) throw this.#nothingWritten(error);
        const delayMs = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (tries - 1));
        await this.#port.clock.sleep(Math.max(delayMs, retryAfterMs(error) ?? 0), { signal });
      }
    }
  }

  async #complete(
    id: string,
    tags: readonly string[],
    signal: AbortSignal,
  ): Promise<{ readonly etag: string }> {
    const answer = await this.#port.send({
      method: "POST",
      key: this.#key,
      query: { uploadId: id },
      headers: this.#condition,
      contentType: "application/xml",
      body: new TextEncoder().encode(completionText(tags)),
    }, { signal, atMostOnce: true, stallMs: COMPLETE_STALL_MS });
    const { etag, errorCode } = parseCompletion(new TextDecoder().decode(answer.body));
    // Done before (by a proxy that sends things twice), or gone without us: in both cases only the object can tell.
    if (errorCode === "NoSuchUpload") throw this.#unknown("the store does not know the upload any more");
    const conditional = Object.keys(this.#condition).length > 0;
    if (answer.status !== 200) throw this.#port.refusal(answer, conditional);
    if (errorCode !== null) {
      // S3 answers 200 before it begins, and says at the end of the same answer that it failed.
      throw this.#port.refusal({ ...answer, status: statusOf(errorCode) }, conditional);
    }
    if (etag === null) throw this.#unknown("the answer is cut or not S3's");
    return { etag };
  }

  /** Tells the store to forget the parts; where that fails they stay, invisible. */
  async #abort(id: string): Promise<void> {
    await Promise.allSettled([this.#sending]); // a part that arrives later than the abort would stay
    const request = { method: "DELETE", key: this.#key, query: { uploadId: id } } as const;
    await withDeadline({
      clock: this.#port.clock,
      limitMs: ABORT_LIMIT_MS,
      counts: "total",
      timedOut: () => new Error("no answer"),
    }, ({ signal }) => this.#repeat(request, signal)).catch(() => {});
  }

  #unknown(detail: string): StateManagerError {
    return outcomeUnknown(this.#key, this.#port.description, detail);
  }

  #nothingWritten(error: StateManagerError): StateManagerError {
    return new StateManagerError("store-unreachable", `${error.message}; nothing was written`, {
      hint: "check that the store is up and that this machine reaches it",
      cause: error.cause,
    });
  }

  #refused(detail: string): StateManagerError {
    return new StateManagerError(
      "store-refused",
      `${actionText("put", this.#key, this.#port.description)}: got ${detail}`,
      { hint: "this store has no multipart uploads as S3 documents them; use another one" },
    );
  }
}

/** The status with which S3 documents an error that came inside an answer of 200. Any other one may have landed. */
function statusOf(errorCode: string): number {
  switch (errorCode) {
    case "PreconditionFailed":
      return 412;
    case "ConditionalRequestConflict":
      return 409;
    case "NoSuchKey":
      return 404;
    case "InvalidPart":
    case "InvalidPartOrder":
    case "EntityTooSmall":
      return 400;
    default:
      return 500;
  }
}
