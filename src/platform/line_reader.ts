/** Splits a stream of bytes into lines of text, with a bound: a writer that never ends a line must not fill our memory. */

import { StateManagerError } from "./errors.ts";

const NEWLINE = 10;

/** Lines without their newline; a last line without one counts. Ends with the stream; the stream is released in any case. */
export async function* readLines(
  stream: ReadableStream<Uint8Array>,
  options: { readonly limitBytes: number },
): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  let parts: Uint8Array[] = [];
  let length = 0;
  const take = (): string => {
    const line = new Uint8Array(length);
    let at = 0;
    for (const part of parts) {
      line.set(part, at);
      at += part.length;
    }
    parts = [];
    length = 0;
    return decoder.decode(line);
  };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      let start = 0;
      for (let end = value.indexOf(NEWLINE); end >= 0; end = value.indexOf(NEWLINE, start)) {
        parts.push(value.subarray(start, end));
        length += end - start;
        start = end + 1;
        yield take();
      }
      parts.push(value.slice(start));
      length += value.length - start;
      if (length > options.limitBytes) {
        throw new StateManagerError(
          "internal",
          `read line: more than ${options.limitBytes} bytes without an end`,
        );
      }
    }
    if (length > 0) yield take();
  } finally {
    await reader.cancel().catch(() => {});
  }
}
