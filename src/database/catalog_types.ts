/** Shapes of the catalog: what is told, what is kept, and the messages between the main thread and the Worker. */

import type { PlainValue } from "../platform/plain_value.ts";

export const CATALOG_KINDS = [
  "state",
  "checkpoint",
  "process-start",
  "process-exit",
  "process-ready",
  "process-state",
  "database",
  "lease-term",
  "restore",
  "diverged",
  "verify",
  "storage",
  "config-version",
] as const;

export type CatalogKind = typeof CATALOG_KINDS[number];

/** Something worth finding again. `detail` may hold anything: it is made plain and bounded, a `Secret` prints `***`. */
export interface CatalogEvent {
  readonly kind: CatalogKind;
  /** What it is about: a process's name, a checkpoint's id, a lease token, … */
  readonly subject: string;
  /** One plain sentence. */
  readonly summary: string;
  /** E.g. `{ code: 1, signal: null, cause: "probe failed" }` of a process-exit. */
  readonly detail?: Readonly<Record<string, unknown>>;
  /** Wall time of what happened, where that was before it is recorded. */
  readonly atMs?: number;
}

/**
 * Names one event: its number among those of one run of a manager. Where `run` is `UNNUMBERED` nobody gave it one (it was
 * kept by an older version, or by a command that works alone), and the number is that of its row.
 */
export interface EventPlace {
  readonly run: string;
  readonly sequence: number;
}

export const UNNUMBERED = "0";

/** One event as kept. */
export interface CatalogRow {
  /** Grows with each event, never used twice. */
  readonly id: number;
  readonly place: EventPlace;
  /** Wall time, milliseconds since the epoch. */
  readonly timeMs: number;
  readonly kind: CatalogKind;
  readonly subject: string;
  readonly summary: string;
  readonly detail: PlainValue;
}

export interface HistoryQuery {
  /** Left out: all. */
  readonly kinds?: readonly CatalogKind[];
  /** Wall times: not before the first, before the second. */
  readonly sinceMs?: number;
  readonly untilMs?: number;
  /** At most 1,000. */
  readonly limit: number;
  readonly order: "newest-first" | "oldest-first";
  /** Only what comes behind this one, in that order. `not-found` where nothing of its run is kept. */
  readonly after?: EventPlace;
}

/** A row on its way in; `detail` is JSON text already. */
export interface CatalogInsert {
  readonly timeMs: number;
  readonly kind: CatalogKind;
  readonly subject: string;
  readonly summary: string;
  readonly detail: string;
  /** Null: it has no number of its own. */
  readonly place: EventPlace | null;
}

/** What the Worker can be asked. `stamp` names a damaged file that has to be moved aside. */
export type CatalogOperation =
  | {
    readonly operation: "open";
    readonly path: string;
    readonly nativeFolder: string;
    readonly rowsPerKind: number;
    readonly stamp: string;
  }
  | {
    readonly operation: "record";
    readonly rows: readonly CatalogInsert[];
    readonly stamp: string;
  }
  | {
    readonly operation: "history";
    readonly query: HistoryQuery;
    readonly stamp: string;
  }
  | { readonly operation: "close" };

export type CatalogRequest = CatalogOperation & { readonly id: number };

export type CatalogReply =
  & { readonly id: number }
  & (
    | {
      readonly ok: true;
      readonly rows: readonly CatalogRow[];
      readonly notices: readonly string[];
      /** The event is not known behind which rows were asked for. */
      readonly isUnknown?: boolean;
    }
    | { readonly ok: false; readonly message: string }
  );
