/** What programs write goes on to the manager's own standard output and error, never waiting for who reads them. */

import { type OutputSink, standardError, standardOutput } from "../platform/standard_output.ts";
import { outputHasColor } from "../platform/terminal.ts";
import {
  copyOf,
  jsonLines,
  type OutputBatch,
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
  return (name, { batch, sequence }, format, waits) => {
    const sink = batch.stream === "stdout" ? sinks.output() : sinks.error();
    const write = (part: OutputBatch, first: number) => {
      if (format === "plain") sink.write(part.bytes.slice());
      else if (format === "json") sink.write(jsonLines(name, { batch: part, sequence: first }));
      else sink.write(prefixed(part, prefix(name)));
    };
    const key = `${name} ${batch.stream}`;
    const before = unfinished.get(key);
    const isSmall = format === "plain" || (batch.count <= PART_PIECES && batch.bytes.length <= PART_BYTES);
    if (before === undefined && isSmall) {
      write(batch, sequence);
      return sink.room();
    }
    if (before === undefined && !waits) {
      writeParts(batch, sequence, write);
      return null;
    }
    const kept = copyOf(batch);
    const done = writeInTime(kept, sequence, write, sink, before).finally(() => {
      if (unfinished.get(key) === done) unfinished.delete(key);
    });
    unfinished.set(key, done);
    return done;
  };
}

type WritePart = (part: OutputBatch, sequence: number) => void;

function writeParts(batch: OutputBatch, sequence: number, write: WritePart): void {
  let next = sequence;
  for (const part of partsOf(batch, PART_PIECES, PART_BYTES)) {
    write(part, next);
    next += part.count;
  }
}

/** Each part when there is room for it. */
async function writeInTime(
  batch: OutputBatch,
  sequence: number,
  write: WritePart,
  sink: OutputSink,
  before: Promise<void> | undefined,
): Promise<void> {
  await before;
  let next = sequence;
  for (const part of partsOf(batch, PART_PIECES, PART_BYTES)) {
    write(part, next);
    next += part.count;
    await sink.room();
  }
}
