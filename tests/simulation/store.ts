/**
 * The simulated store: objects with linearizable conditional writes. Tags are made of the content, as MinIO's are, so
 * equal bytes have equal tags. It lists nothing: no rule here may depend on a listing, which could be stale.
 */

import type { Head } from "../../src/checkpoint/types.ts";
import type { HandOverRequest, LeaseRecord } from "../../src/lease/types.ts";

/** The objects that are swapped; everything else is written once. */
export interface Cells {
  readonly lease: LeaseRecord;
  readonly head: Head;
  readonly "hand-over": HandOverRequest;
}
export type CellName = keyof Cells;

export type Request =
  | { readonly type: "get"; readonly cell: CellName }
  | {
    readonly [C in CellName]: {
      readonly type: "put";
      readonly cell: C;
      readonly body: Cells[C];
      readonly base: string | null;
    };
  }[
    CellName
  ]
  | { readonly type: "put-object"; readonly name: string }
  | { readonly type: "get-object"; readonly name: string };

export type Reply =
  | { readonly type: "read"; readonly etag: string; readonly body: Cells[CellName] }
  | { readonly type: "absent" }
  | { readonly type: "written"; readonly etag: string }
  | { readonly type: "refused" };

export function etagOf(request: { readonly cell: CellName; readonly body: Cells[CellName] }): string {
  const { body } = request;
  if ("epoch" in body) return `${body.epoch}.${body.seq}.${body.nonce}.${body.current}`;
  if ("asker" in body) return `${body.token}.${body.nonce}`;
  return `${body.token}.${body.holder}.${body.state}.${body.nonce}`;
}

export interface StoreState {
  readonly lease: LeaseRecord | null;
  readonly head: Head | null;
  readonly "hand-over": HandOverRequest | null;
}

export const EMPTY_STORE: StoreState = { lease: null, head: null, "hand-over": null };

export interface Landing {
  readonly state: StoreState;
  readonly reply: Reply;
}

/** Carries out one request on the swapped objects. */
export function land(
  state: StoreState,
  request: Extract<Request, { readonly type: "get" | "put" }>,
  ignoresConditions: boolean,
): Landing {
  const there = state[request.cell];
  const etag = there === null ? null : etagOf({ cell: request.cell, body: there });
  if (request.type === "get") {
    return {
      state,
      reply: there === null || etag === null ? { type: "absent" } : { type: "read", etag, body: there },
    };
  }
  if (etag !== request.base && !ignoresConditions) return { state, reply: { type: "refused" } };
  return {
    state: { ...state, [request.cell]: request.body },
    reply: { type: "written", etag: etagOf(request) },
  };
}
