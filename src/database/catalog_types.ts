/** Shapes of the catalog: what is told, what is kept, and the messages between the main thread and the Worker. */

import type { PlainValue } from "../platform/plain_value.ts";

export const CATALOG_KINDS = [
  "checkpoint",
  "process-start",
  "process-exit",
  "process-ready",
  "lease-term",
  "restore",
  "verify",
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

/** One event as kept. */
export interface CatalogRow {
  /** Grows with each event, never used twice. */
  readonly id: number;
  /** Wall time, milliseconds since the epoch. */
  readonly timeMs: number;
  readonly kind: CatalogKind;
  readonly subject: string;
  readonly summary: string;
  readonly detail: PlainValue;
}

export interface HistoryQuery {
  readonly kind?: CatalogKind;
  /** At most 1,000. */
  readonly limit: number;
  /** Only rows with a smaller id: the last id of the page before. */
  readonly before?: number;
}

/** A row on its way in; `detail` is JSON text already. */
export interface CatalogInsert {
  readonly timeMs: number;
  readonly kind: CatalogKind;
  readonly subject: string;
  readonly summary: string;
  readonly detail: string;
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
    }
    | { readonly ok: false; readonly message: string }
  );
