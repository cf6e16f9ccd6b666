/**
 * The parts of one large object on their way to its store, some at a time. They are all there only when each one of them
 * was acknowledged: a part that fails while nobody waits for it, in the very moment in which its source ends, counts as any.
 */

import { StateManagerError } from "../platform/errors.ts";
import { quoteKey } from "./object_key.ts";

type Bytes = Uint8Array<ArrayBuffer>;

export interface PartsToSend {
  readonly key: string;
  /** Of all parts; any other sum that was acknowledged is `internal`. */
  readonly sizeBytes: number;
  readonly mostInFlight: number;
  readonly signal: AbortSignal;
  /** The parts in order. Told by `signal` that nobody wants more of them. */
  parts(signal: AbortSignal): AsyncIterable<Bytes>;
  /** Sends part `number` (1, 2, 3 …); resolves with its tag when the store has it. `signal` aborts when another one failed. */
  send(number: number, part: Bytes, signal: AbortSignal): Promise<string>;
}

/**
 * The tags of all parts, in order. Rejects with what failed first, the source or a part; the others are ended by then,
 * and the source is closed.
 */
export async function sendParts(options: PartsToSend): Promise<readonly string[]> {
  const { key, sizeBytes, mostInFlight } = options;
  const own = new AbortController();
  const signal = AbortSignal.any([options.signal, own.signal]);
  const inFlight = new Set<Promise<void>>();
  const tags: string[] = [];
  let acknowledgedBytes = 0;
  /** Never rejects: a failure is the reason of `own`, whoever waits for what at that moment; the first one stays. */
  async function send(number: number, part: Bytes): Promise<void> {
    try {
      tags[number - 1] = await options.send(number, part, signal);
      acknowledgedBytes += part.length;
    } catch (error) {
      own.abort(error);
    }
  }

  let begun = 0;
  try {
    for await (const part of options.parts(signal)) {
      const sending = send(++begun, part).finally(() => inFlight.delete(sending));
      inFlight.add(sending);
      while (inFlight.size >= mostInFlight) await Promise.race(inFlight);
      own.signal.throwIfAborted();
    }
  } catch (error) {
    own.abort(error);
  }
  await Promise.all(inFlight);
  own.signal.throwIfAborted();
  if (acknowledgedBytes === sizeBytes) return tags;
  throw new StateManagerError(
    "internal",
    `put ${quoteKey(key)}: ${acknowledgedBytes} bytes in ${begun} parts were acknowledged, of ${sizeBytes}`,
  );
}
