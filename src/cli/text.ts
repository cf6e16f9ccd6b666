/** How commands print: tables, sizes, times, errors. What comes from elsewhere may not steer the terminal. */

import { describeProblems } from "../config/mod.ts";
import { asStateManagerError } from "../platform/errors.ts";

/** `text` with control characters shown instead of obeyed; line ends and tabs become spaces. */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\t\n\r]/g, " ").replace(/[\u0000-\u001f\u007f-\u009f]/g, "\uFFFD");
}

/** Rows below their heads, columns as wide as their widest cell. */
export function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = [heads, ...rows.map((row) => row.map(printable))];
  const widths = heads.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const lines = cells.map((row) =>
    row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd()
  );
  return lines.join("\n") + "\n";
}

/** `name: value` lines, aligned. */
export function fields(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length)) + 1;
  return pairs.map(([name, value]) => `${`${name}:`.padEnd(width)} ${printable(value)}\n`).join("");
}

export function json(value: unknown): string {
  return JSON.stringify(value, null, 2) + "\n";
}

/** `1.5 MiB`. */
export function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit]}`;
}

/** `40 s`, `3 min 05 s`, `2 h 10 min`: for waits, so rounded up. */
export function timeLeft(seconds: number): string {
  const whole = Math.ceil(Math.max(0, seconds));
  const padded = (number: number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${padded(whole % 60)} s`;
  const minutes = Math.ceil(whole / 60);
  return `${Math.floor(minutes / 60)} h ${padded(minutes % 60)} min`;
}

/** `1 file`, `2 files`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** What went wrong and what to do, for people. */
export function errorText(error: unknown): string {
  const known = asStateManagerError(error);
  if (known.details.length > 0) return `state-manager: ${describeProblems(known).trimEnd()}\n`;
  const hint = known.hint === undefined ? "" : `  hint: ${printable(known.hint)}\n`;
  return `state-manager: ${printable(known.message)}\n${hint}`;
}
