/** Names of LTX files: `<min>-<max>.ltx`, transaction ids as 16 lower-case hexadecimal digits. */

import { assert } from "../../platform/assert.ts";
import { damaged } from "./damage.ts";

export interface TxidRange {
  readonly minTxid: number;
  readonly maxTxid: number;
}

export function txidText(txid: number): string {
  assert(Number.isSafeInteger(txid) && txid > 0, "a transaction id is a whole number from 1 on");
  return txid.toString(16).padStart(16, "0");
}

export function ltxName(minTxid: number, maxTxid: number): string {
  assert(minTxid <= maxTxid, "transaction ids are in order");
  return `${txidText(minTxid)}-${txidText(maxTxid)}.ltx`;
}

/** The range that `name` (no path) says; null when it is no name of an LTX file, `data-damaged` for a range nobody writes. */
export function parseLtxName(name: string): TxidRange | null {
  const match = /^([0-9a-f]{16})-([0-9a-f]{16})\.ltx$/.exec(name);
  if (match === null) return null;
  const minTxid = Number.parseInt(match[1] ?? "", 16);
  const maxTxid = Number.parseInt(match[2] ?? "", 16);
  if (minTxid === 0 || minTxid > maxTxid || maxTxid > Number.MAX_SAFE_INTEGER) {
    throw damaged(name, "the name is no range of transaction ids");
  }
  return { minTxid, maxTxid };
}
