/** Many files as one: the pages of all, each in its newest version. What compaction writes and a restore applies. */

import { damaged } from "./damage.ts";
import { LtxDecoder } from "./decoder.ts";
import { lockPage, type LtxPage } from "./format.ts";

/** The pages of a file that comes as `chunks`, one at a time; throws `data-damaged` at its end if it is not whole. */
export async function* readPages(
  chunks: AsyncIterable<Uint8Array>,
  decoder: LtxDecoder = new LtxDecoder(),
): AsyncGenerator<LtxPage, void, undefined> {
  for await (const chunk of chunks) {
    decoder.feed(chunk);
    for (let page = decoder.next(); page !== null; page = decoder.next()) yield page;
  }
  decoder.end();
}

/** First reads that are under way together: each may be a request to a store, of which one by one would take long. */
const OPENED_AT_ONCE = 32;

interface Source {
  readonly pages: AsyncIterator<LtxPage>;
  /** Larger is newer. */
  readonly age: number;
  page: LtxPage;
}

/** True when `a` is to come out before `b`: the smaller page, of one page the newer version. */
function isBefore(a: Source, b: Source): boolean {
  return a.page.pgno !== b.page.pgno ? a.page.pgno < b.page.pgno : a.age > b.age;
}

/** A binary heap by `isBefore`. */
class SourceHeap {
  readonly #items: Source[] = [];

  get first(): Source | undefined {
    return this.#items[0];
  }

  add(source: Source): void {
    const items = this.#items;
    let at = items.length;
    items.push(source);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = items[parent] as Source;
      if (!isBefore(source, above)) break;
      items[at] = above;
      at = parent;
    }
    items[at] = source;
  }

  /** Puts the first in its place again after its page changed. */
  sink(): void {
    const items = this.#items;
    const source = items[0] as Source;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      const left = items[child];
      if (left === undefined) break;
      const right = items[child + 1];
      let least = left;
      if (right !== undefined && isBefore(right, left)) {
        least = right;
        child++;
      }
      if (!isBefore(least, source)) break;
      items[at] = least;
      at = child;
    }
    items[at] = source;
  }

  removeFirst(): void {
    const last = this.#items.pop();
    if (this.#items.length === 0 || last === undefined) return;
    this.#items[0] = last;
    this.sink();
  }
}

/**
 * The pages of `inputs` (oldest first), ascending, each in the version of the newest input that has it. Pages beyond
 * `commit`, the size in pages of the database after the newest input, are left out: it has shrunk. Inputs are closed
 * when the reader stops early. Memory: one page of each.
 */
export async function* mergePages(
  inputs: readonly AsyncIterable<LtxPage>[],
  commit: number,
): AsyncGenerator<LtxPage, void, undefined> {
  const iterators = inputs.map((input) => input[Symbol.asyncIterator]());
  try {
    const heap = new SourceHeap();
    for (let from = 0; from < iterators.length; from += OPENED_AT_ONCE) {
      const opened = iterators.slice(from, from + OPENED_AT_ONCE).map(async (pages, i) => {
        const first = await pages.next();
        if (first.done !== true) heap.add({ pages, age: from + i, page: first.value });
      });
      await Promise.all(opened);
    }
    const pageSize = heap.first?.page.data.length ?? 0;
    let last = 0;
    for (let source = heap.first; source !== undefined; source = heap.first) {
      const { page } = source;
      if (page.data.length !== pageSize) throw damaged("LTX files", "they have different page sizes");
      const isNewest = page.pgno !== last;
      last = page.pgno;
      const following = await source.pages.next();
      if (following.done === true) heap.removeFirst();
      else {
        if (following.value.pgno <= page.pgno) throw damaged("LTX files", "pages out of order");
        source.page = following.value;
        heap.sink();
      }
      // Pages beyond the end are read all the same: only then has each input verified its checksum.
      if (isNewest && page.pgno <= commit && page.pgno !== lockPage(pageSize)) yield page;
    }
  } finally {
    await Promise.allSettled(iterators.map((pages) => pages.return?.()));
  }
}
