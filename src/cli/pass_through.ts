/** What programs write goes on to the manager's own standard output and error, never waiting for who reads them. */

import { type OutputSink, standardError, standardOutput } from "../platform/standard_output.ts";
import { outputHasColor } from "../platform/terminal.ts";
import {
  copyOf,
  jsonLines,
  type NumberedBatch,
  partsOf,
  type PassOn,
  prefixed,
  prefixOf,
} from "../supervisor/mod.ts";

/**
 * Short lines become many times as long as JSON, or behind a prefix, so what one read brings may be more than the queue of
 * the output holds. A part of this size has room in it, whatever its lines are, where the queue says that there is some.
 */
const PART_PIECES = 500;
const PART_BYTES = 64 * 1024;
/** As it is, so much fits behind what may be in the queue before a program is asked to wait, of both of its streams. */
const PLAIN_BYTES = 256 * 1024;

export interface Sinks {
  readonly output: () => OutputSink;
  /** Remarks of the manager go there: a program's own output stays its own. */
  readonly error: () => OutputSink;
}

export function passThrough(
  sinks: Sinks = { output: standardOutput, error: standardError },
  colors: boolean = outputHasColor(),
): PassOn {
  const prefixes = new Map<string, Uint8Array>();
  const prefix = (name: string) => {
    const known = prefixes.get(name) ?? prefixOf(name, colors);
    prefixes.set(name, known);
    return known;
  };
  /** By program and stream, what is still being written part by part. */
  const unfinished = new Map<string, Promise<void>>();
  return (name, numbered, format, waits) => {
    const { batch } = numbered;
    const sink = batch.stream === "stdout" ? sinks.output() : sinks.error();
    const write = (part: NumberedBatch) => {
      if (format === "plain") sink.write(part.batch.bytes.slice());
      else if (format === "json") sink.write(jsonLines(name, part));
      else sink.write(prefixed(part.batch, prefix(name)));
    };
    const key = `${name} ${batch.stream}`;
    const before = unfinished.get(key);
    const isSmall = format === "plain"
      ? batch.bytes.length <= PLAIN_BYTES
      : batch.count <= PART_PIECES && batch.bytes.length <= PART_BYTES;
    if (before === undefined && isSmall) {
      write(numbered);
      return sink.room();
    }
    if (before === undefined && !waits) {
      for (const part of numberedParts(numbered)) write(part);
      return null;
    }
    const kept = { ...numbered, batch: copyOf(batch) };
    const inTime = async () => {
      await before;
      for (const part of numberedParts(kept)) {
        write(part);
        await sink.room();
      }
    };
    const done = inTime().finally(() => {
      if (unfinished.get(key) === done) unfinished.delete(key);
    });
    unfinished.set(key, done);
    return done;
  };
}

function* numberedParts({ batch, sequence }: NumberedBatch): Generator<NumberedBatch> {
  let next = sequence;
  for (const part of partsOf(batch, PART_PIECES, PART_BYTES)) {
    yield { batch: part, sequence: next };
    next += part.count;
  }
}
