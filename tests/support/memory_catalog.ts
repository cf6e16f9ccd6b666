/** A catalog that keeps events in memory, without a thread; `broken` makes it refuse questions. */

import type { Catalog, CatalogInsert, CatalogRow, EventPlace, HistoryQuery } from "../../src/database/mod.ts";
import { keptForm } from "../../src/database/mod.ts";
import { StateManagerError } from "../../src/platform/errors.ts";

export class MemoryCatalog implements Catalog {
  readonly rows: CatalogRow[] = [];
  readonly droppedEvents = 0;
  broken = false;
  /** Events that are lost on their way. */
  loses: (event: CatalogInsert) => boolean = () => false;

  record(event: Parameters<Catalog["record"]>[0]): void {
    this.keep(keptForm(event, 0, null));
  }

  keep(event: CatalogInsert): void {
    if (this.loses(event)) return;
    const id = (this.rows.at(-1)?.id ?? 0) + 1;
    this.rows.push({
      ...event,
      id,
      place: event.place ?? { run: "0", sequence: id },
      detail: JSON.parse(event.detail),
    });
  }

  async history({ after, kinds, sinceMs, untilMs, order, limit }: HistoryQuery): Promise<CatalogRow[]> {
    await Promise.resolve();
    if (this.broken) throw new StateManagerError("local-io", "read history: the disk is full");
    const rows = order === "oldest-first" ? this.rows : this.rows.toReversed();
    const from = after === undefined ? 0 : this.#behind(rows, after, order);
    return rows.slice(from).filter(({ kind, timeMs }) =>
      (kinds === undefined || kinds.includes(kind)) && timeMs >= (sinceMs ?? -Infinity) &&
      timeMs < (untilMs ?? Infinity)
    ).slice(0, limit);
  }

  #behind(rows: readonly CatalogRow[], after: EventPlace, order: HistoryQuery["order"]): number {
    const ofRun = rows.filter(({ place }) => place.run === after.run);
    if (ofRun.length === 0) throw new StateManagerError("not-found", "read history: unknown");
    const first = ofRun.find(({ place }) =>
      order === "oldest-first" ? place.sequence > after.sequence : place.sequence < after.sequence
    );
    const last = ofRun.at(-1);
    return first !== undefined ? rows.indexOf(first) : last === undefined ? 0 : rows.indexOf(last) + 1;
  }

  async close(): Promise<void> {}
}
