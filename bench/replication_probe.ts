/** What the benchmark reads from outside: CPU and memory of processes, sizes of files, rows inside replicated files. */

import { LtxDecoder } from "../src/database/ltx/mod.ts";

/** Linux counts CPU time in hundredths of a second for whoever asks. */
const TICKS_PER_SECOND = 100;

/** Seconds of CPU that a process has used, with those of its children that have ended. 0: it is gone. */
export function cpuSeconds(pid: number): number {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND;
  } catch {
    return 0;
  }
}

export interface Memory {
  readonly rss: number;
  readonly pss: number;
}

/** Bytes; null: it is gone. */
export function memoryOf(pid: number): Memory | null {
  try {
    const text = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
    const line = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1]) * 1024;
    return { rss: line("Rss"), pss: line("Pss") };
  } catch {
    return null;
  }
}

export function argvOf(pid: number): string[] {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
  } catch {
    return [];
  }
}

/** 0 where there is none. */
export function fileBytes(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return 0;
  }
}

/** The value below which a share of them lies. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

/** Rows of tables are in such pages of SQLite's; each names its row by a number. */
const TABLE_LEAF = 0x0d;
const LEAF_HEADER_BYTES = 8;

function varint(page: Uint8Array, at: number): { readonly value: number; readonly next: number } {
  let value = 0;
  for (let n = 0; n < 8; n++) {
    const byte = page[at + n] ?? 0;
    value = value * 128 + (byte & 0x7f);
    if (byte < 0x80) return { value, next: at + n + 1 };
  }
  return { value: NaN, next: at + 9 };
}

/**
 * The largest row number in a replicated file, of whichever tool: the writer's rows only grow, so this is the newest
 * row that the file makes durable. Other tables have small numbers. 0: no rows. Throws where the file is damaged.
 */
export function newestRow(file: Uint8Array): number {
  let newest = 0;
  const decoder = new LtxDecoder();
  for (const { pgno, data } of decoder.push(file)) {
    if (pgno === 1 || data[0] !== TABLE_LEAF) continue;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const cells = view.getUint16(3);
    for (let n = 0; n < cells; n++) {
      const { next } = varint(data, view.getUint16(LEAF_HEADER_BYTES + 2 * n)); // past the length of its content
      newest = Math.max(newest, varint(data, next).value);
    }
  }
  decoder.end();
  return newest;
}
