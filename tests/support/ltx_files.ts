/** Whole LTX files and databases in memory, for tests. */

import assert from "node:assert/strict";
import { LtxDecoder, LtxEncoder, type LtxHeaderInput, type LtxPage } from "../../src/database/ltx/mod.ts";

/** Page number → content. */
export type Pages = ReadonlyMap<number, Uint8Array>;

export function joinBytes(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function encodeLtx(header: LtxHeaderInput, pages: Pages): Uint8Array<ArrayBuffer> {
  const encoder = new LtxEncoder(header);
  const parts: Uint8Array[] = [encoder.start()];
  for (const [pgno, data] of [...pages].sort(([a], [b]) => a - b)) parts.push(encoder.page(pgno, data));
  return joinBytes([...parts, encoder.finish().bytes]);
}

/** All pages, verified; the file comes in pieces of `chunkBytes`. */
export function decodeLtx(file: Uint8Array, chunkBytes = file.length): Map<number, Uint8Array> {
  const decoder = new LtxDecoder();
  const pages: LtxPage[] = [];
  for (let at = 0; at < file.length; at += chunkBytes) {
    pages.push(...decoder.push(file.subarray(at, at + chunkBytes)));
  }
  decoder.end();
  return new Map(pages.map(({ pgno, data }) => [pgno, data]));
}

/** The pages of a database file. */
export function pagesOf(database: Uint8Array, pageSize: number): Map<number, Uint8Array> {
  const pages = new Map<number, Uint8Array>();
  for (let at = 0; at < database.length; at += pageSize) {
    pages.set(at / pageSize + 1, database.subarray(at, at + pageSize));
  }
  return pages;
}

function equalBytes(a: Uint8Array, b: Uint8Array | undefined): boolean {
  return b !== undefined && a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** As assert.deepEqual, which for long arrays takes all memory to say what differs. */
export function assertSameBytes(actual: Uint8Array, wanted: Uint8Array | undefined, what = "bytes"): void {
  if (equalBytes(actual, wanted)) return;
  const at = actual.findIndex((byte, i) => byte !== wanted?.[i]);
  assert.fail(`${what}: ${actual.length} instead of ${wanted?.length}, the first difference at ${at}`);
}

export function assertSamePages(actual: Pages, wanted: Pages): void {
  assert.deepEqual([...actual.keys()], [...wanted.keys()]);
  for (const [pgno, data] of actual) assertSameBytes(data, wanted.get(pgno), `page ${pgno}`);
}

/** The pages of `after` that `before` lacks or has otherwise. */
export function changedPages(before: Pages, after: Pages): Map<number, Uint8Array> {
  return new Map([...after].filter(([pgno, data]) => !equalBytes(data, before.get(pgno))));
}

/** The database file that `pages` make; pages that are missing are zeros. */
export function databaseOf(pages: Pages, pageSize: number, commit: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(pageSize * commit);
  for (const [pgno, data] of pages) {
    if (pgno <= commit) bytes.set(data, (pgno - 1) * pageSize);
  }
  return bytes;
}
