/** What programs write goes on to the manager's own standard output and error, never waiting for who reads them. */

import { standardError, standardOutput } from "../platform/standard_output.ts";
import { outputHasColor } from "../platform/terminal.ts";
import { jsonLines, type PassOn, prefixed, prefixOf } from "../supervisor/mod.ts";

/** Remarks of the manager go to standard error: a program's own output stays its own. */
export function passThrough(): PassOn {
  const colors = outputHasColor();
  const prefixes = new Map<string, Uint8Array>();
  const prefix = (name: string) => {
    const known = prefixes.get(name) ?? prefixOf(name, colors);
    prefixes.set(name, known);
    return known;
  };
  return (name, numbered, format) => {
    const { batch } = numbered;
    const sink = batch.stream === "stdout" ? standardOutput() : standardError();
    if (format === "plain") sink.write(batch.bytes.slice());
    else if (format === "json") sink.write(jsonLines(name, numbered));
    else sink.write(prefixed(batch, prefix(name)));
    return sink.room();
  };
}
