/** What every store's large put is made of: the body's pieces counted, collected or cut, and its deadline. */

import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { type DeadlineOptions, withDeadline } from "./deadline.ts";
import { quoteKey } from "./object_key.ts";
import {
  MAX_LARGE_OBJECT_BYTES,
  type Pieces,
  type PutLargeOptions,
  type PutOptions,
  type RequestOptions,
} from "./object_store.ts";
import { actionText, tooSlow } from "./store_errors.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** Silence of a large put before it is given up. Its source may be another store's reads, with all their retries. */
export const LARGE_STALL_LIMIT_MS = 15 * 60_000;

/** The source threw, in `cause`: not a fault of the store, so it must not be reported as one. */
export class SourceFailure extends Error {
  override readonly name = "SourceFailure";
}

/** Throws unless `sizeBytes` is a size that a large put may have. */
export function assertLargeSize(key: string, sizeBytes: number, mostBytes = MAX_LARGE_OBJECT_BYTES): void {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
    throw new StateManagerError("invalid-request", `put ${quoteKey(key)}: a size of ${sizeBytes} bytes`);
  }
  if (sizeBytes <= mostBytes) return;
  throw new StateManagerError(
    "body-too-large",
    `put ${quoteKey(key)}: ${sizeBytes} bytes, at most ${mostBytes} are allowed`,
  );
}

function wrongSize(key: string, sizeBytes: number, seen: string): StateManagerError {
  return new StateManagerError(
    "invalid-request",
    `put ${quoteKey(key)}: ${sizeBytes} bytes were announced and ${seen} came; nothing was written`,
  );
}

/** The next piece, or the signal's reason as soon as it aborts, whatever the source does. */
async function nextPiece(
  iterator: AsyncIterator<Bytes>,
  signal: AbortSignal | undefined,
): Promise<IteratorResult<Bytes>> {
  signal?.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([iterator.next(), aborted]);
  } catch (error) {
    signal?.throwIfAborted();
    throw new SourceFailure("the source failed", { cause: error });
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

/** `pieces` as they come; throws `SourceFailure`, or `invalid-request` as soon as they can't sum up to the size. */
export async function* counted(
  key: string,
  pieces: Pieces,
  options: { readonly sizeBytes: number; readonly signal?: AbortSignal },
  progress: () => void = () => {},
): AsyncGenerator<Bytes, void, void> {
  const { sizeBytes, signal } = options;
  const iterator = pieces[Symbol.asyncIterator]();
  let seen = 0;
  let ended = false;
  try {
    for (;;) {
      const next = await nextPiece(iterator, signal);
      progress();
      if (next.done === true) {
        ended = true;
        if (seen < sizeBytes) throw wrongSize(key, sizeBytes, String(seen));
        return;
      }
      seen += next.value.length;
      if (seen > sizeBytes) throw wrongSize(key, sizeBytes, "more");
      yield next.value;
      progress();
    }
  } finally {
    // A source that hangs would not hear of it before it goes on: then nobody waits for it.
    const closing = ended ? undefined : iterator.return?.()?.catch(() => {});
    if (signal?.aborted !== true) await closing;
  }
}

/** What a caller is to see of an error in a large put: the source's own error, not our wrapping. */
export function unwrapped(error: unknown): unknown {
  return error instanceof SourceFailure ? error.cause : error;
}

/** All of it in one body. */
export async function collectPieces(
  key: string,
  pieces: Pieces,
  options: { readonly sizeBytes: number; readonly signal?: AbortSignal },
  progress?: () => void,
): Promise<Bytes> {
  const body = new Uint8Array(options.sizeBytes);
  let filled = 0;
  try {
    for await (const piece of counted(key, pieces, options, progress)) {
      body.set(piece, filled);
      filled += piece.length;
    }
  } catch (error) {
    throw unwrapped(error);
  }
  return body;
}

/** `pieces` (of `sizeBytes` in all) as parts of `partBytes` each, the last one shorter; one is held at a time. */
export async function* cutParts(
  pieces: Pieces,
  partBytes: number,
  sizeBytes: number,
): AsyncGenerator<Bytes, void, void> {
  let left = sizeBytes;
  let part = new Uint8Array(Math.min(partBytes, left));
  let filled = 0;
  for await (const piece of pieces) {
    for (let taken = 0; taken < piece.length;) {
      const count = Math.min(piece.length - taken, part.length - filled);
      part.set(piece.subarray(taken, taken + count), filled);
      taken += count;
      filled += count;
      if (filled < part.length) continue;
      left -= filled;
      yield part;
      part = new Uint8Array(Math.min(partBytes, left));
      filled = 0;
    }
  }
  if (sizeBytes === 0) yield part;
}

export interface LargePut {
  readonly key: string;
  readonly clock: Clock;
  readonly description: string;
}

/**
 * The deadline of a whole large put. Until `isSettling` nothing can have become visible, so a time-out is then not an
 * unknown outcome.
 */
export function largeDeadline(
  put: LargePut,
  options: RequestOptions,
  isSettling: () => boolean,
): DeadlineOptions {
  const { key, clock, description } = put;
  const limitMs = options.timeoutMs ?? LARGE_STALL_LIMIT_MS;
  return {
    clock,
    signal: options.signal,
    limitMs,
    counts: options.timeoutMs === undefined ? "stall" : "total",
    timedOut: () =>
      isSettling() ? tooSlow("put", key, description, limitMs) : new StateManagerError(
        "store-unreachable",
        `${actionText("put", key, description)}: not done within ${limitMs} ms; nothing was written`,
        { hint: "look at the store, the line to it, and at what the object is made from" },
      ),
  };
}

/** A small body collected within the limits of `options`, and what is left of them for its put. */
export async function collectBounded(
  put: LargePut,
  pieces: Pieces,
  options: PutLargeOptions,
): Promise<{ readonly body: Bytes; readonly options: PutOptions }> {
  const { key, clock } = put;
  const { sizeBytes, inParts: _inParts, timeoutMs, ...rest } = options;
  assertLargeSize(key, sizeBytes);
  const since = clock.monotonicMs();
  const body = await withDeadline(
    largeDeadline(put, options, () => false),
    ({ signal, progress }) => collectPieces(key, pieces, { sizeBytes, signal }, progress),
  );
  if (timeoutMs === undefined) return { body, options: rest };
  return {
    body,
    options: { ...rest, timeoutMs: Math.max(1, timeoutMs - (clock.monotonicMs() - since)) },
  };
}
