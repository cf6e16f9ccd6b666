/** The three forms in which the output of a program is passed on: as it is, with its name before each line, as JSON lines. */

import type { NumberedBatch } from "./line_ring.ts";
import { linesOf } from "./line_ring.ts";
import { type OutputBatch, piecesOf } from "./lines.ts";

export type LogFormat = "plain" | "prefix" | "json";

const encoder = new TextEncoder();
const NEWLINE = 10;

/** Readable on dark and light ground; red is for errors. */
const NAME_COLORS = [36, 32, 33, 35, 34, 96, 92, 95] as const;

/** "web | ", in a colour that depends on the name alone, so that it is the same in each run. */
export function prefixOf(name: string, colors: boolean): Uint8Array<ArrayBuffer> {
  if (!colors) return encoder.encode(`${name} | `);
  let sum = 0;
  for (const byte of encoder.encode(name)) sum = (sum * 31 + byte) % 1_000_003;
  const color = NAME_COLORS[sum % NAME_COLORS.length];
  return encoder.encode(`\x1b[${color}m${name} |\x1b[0m `);
}

/** Each piece on a line of its own, behind `prefix`. */
export function prefixed(batch: OutputBatch, prefix: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(batch.bytes.length + batch.count * (prefix.length + 1));
  let at = 0;
  for (const { text } of piecesOf(batch)) {
    whole.set(prefix, at);
    whole.set(text, at += prefix.length);
    at += text.length;
    whole[at++] = NEWLINE;
  }
  return whole.subarray(0, at);
}

/**
 * A JSON object a piece. `part` and `partial` are there only where a line came in pieces. All that is the same for the pieces
 * of a batch is made once: four times as fast as an object for each.
 */
export function jsonLines(name: string, numbered: NumberedBatch): Uint8Array<ArrayBuffer> {
  const { stream, wallMs } = numbered.batch;
  const time = new Date(wallMs).toISOString();
  const head = `{"time":"${time}","process":${JSON.stringify(name)},"sequence":`;
  const middle = `,"stream":"${stream}","text":`;
  let json = "";
  for (const { sequence, text, partial, part } of linesOf(numbered)) {
    const pieces = partial || part > 0 ? `,"partial":${partial},"part":${part}` : "";
    json += head + sequence + middle + JSON.stringify(text) + pieces + "}\n";
  }
  return encoder.encode(json);
}
