/**
 * Entries of a manifest piece by piece, for who looks at a part of them: a listing, a comparison, one file. Every piece
 * is proven by its id; rules between lines are the restore's to check (manifest.ts).
 */

import { comparePaths } from "./manifest.ts";
import { LineProblem, type LinkRole, parseLine } from "./manifest_line.ts";
import { fetchChunks, planFetch } from "./chunk_fetcher.ts";
import { damaged } from "./codec.ts";
import type { ReadingOptions } from "./root_reader.ts";
import type { ContentPart, TreeEntry } from "./types.ts";

export interface EntryLine {
  readonly entry: TreeEntry;
  readonly link: LinkRole | null;
  readonly parts: readonly ContentPart[];
}

/** The pieces with these ids, by id. Errors: those of a restore. */
export async function fetchPieces(
  ids: Iterable<string>,
  name: string,
  options: ReadingOptions,
): Promise<ReadonlyMap<string, Uint8Array>> {
  const pieces = new Map<string, Uint8Array>();
  await fetchChunks(planFetch(options.table, new Set(ids)), {
    ...options,
    // A copy: the chunk is a view of its whole pack, which must not live as long as the piece.
    deliver: (id, bytes) => void pieces.set(id, bytes.slice()),
    usersOf: () => `the manifest of "${name}"`,
  });
  return pieces;
}

/** True when the piece goes on with a file that began in the one before it. */
export function goesOn(piece: Uint8Array): boolean {
  return piece[0] === 0x7b && piece[1] === 0x22 && piece[2] === 0x2b; // {"+
}

/** The entries in these pieces, in order. A piece that goes on with a file follows the one where it began. */
export function* linesOf(pieces: Iterable<Uint8Array>, name: string): Generator<EntryLine> {
  let open:
    | { readonly entry: TreeEntry; readonly link: LinkRole | null; readonly parts: ContentPart[] }
    | null = null;
  for (const piece of pieces) {
    for (let start = 0; start < piece.length;) {
      const end = piece.indexOf(0x0a, start);
      const line = readLine(piece.subarray(start, end < 0 ? piece.length : end), name);
      start = end < 0 ? piece.length : end + 1;
      if (line.kind === "more") {
        open?.parts.push(...line.parts);
        continue;
      }
      if (open !== null) yield open;
      open = { entry: line.entry, link: line.link, parts: [...line.parts] };
    }
  }
  if (open !== null) yield open;
}

function readLine(bytes: Uint8Array, name: string): ReturnType<typeof parseLine> {
  try {
    return parseLine(bytes);
  } catch (error) {
    throw error instanceof LineProblem ? damaged(`manifest of "${name}"`, error.message) : error;
  }
}

/** Pairs the entries of two sorted lists by path; null where one of them lacks it. */
export function* pairs(
  before: Iterable<EntryLine>,
  after: Iterable<EntryLine>,
): Generator<readonly [EntryLine | null, EntryLine | null]> {
  const [left, right] = [before[Symbol.iterator](), after[Symbol.iterator]()];
  let [a, b] = [left.next(), right.next()];
  while (a.done !== true || b.done !== true) {
    const order = a.done === true
      ? 1
      : b.done === true
      ? -1
      : comparePaths(a.value.entry.path, b.value.entry.path);
    yield [order <= 0 && a.done !== true ? a.value : null, order >= 0 && b.done !== true ? b.value : null];
    if (order <= 0) a = left.next();
    if (order >= 0) b = right.next();
  }
}
