/**
 * `lease.json` and `hand-over.json` as bytes. The first: what is written, and a bounded, strict reading of what is found. A record that cannot be
 * understood is never overwritten: it may be a newer version's, and then its holder is alive.
 */

import { StateManagerError } from "../platform/errors.ts";
import type { HandOverRequest, LeaseRecord } from "./types.ts";

/** A record is about 400 bytes; the fullest `info` that `clipInfo` lets through, all of it escaped, is under 50 KiB. */
const MAX_RECORD_BYTES = 64 * 1024;
/** Ids are 32 hex digits or a UUID; the rest is room for other writers. */
const MAX_ID_LENGTH = 128;
/** A day: a longer one would only ever lock an operator out. */
export const MAX_TTL_MS = 24 * 60 * 60 * 1000;
const MAX_INFO_ENTRIES = 32;
const MAX_INFO_LENGTH = 256;

/** The bytes of `record`; equal records give equal bytes, so that a resend is the same write. */
export function encodeLease(record: LeaseRecord): Uint8Array<ArrayBuffer> {
  const { v, token, holder, nonce, state, ttlMs, info, to } = record;
  return new TextEncoder().encode(JSON.stringify({ v, token, holder, nonce, state, ttlMs, info, to }) + "\n");
}

/** Cuts what people wrote to what a record may carry. */
export function clipInfo(info: Readonly<Record<string, string>>): Record<string, string> {
  const clip = (text: string) => [...text].slice(0, MAX_INFO_LENGTH / 2).join("");
  return Object.fromEntries(
    Object.entries(info).slice(0, MAX_INFO_ENTRIES).map(([name, value]) => [clip(name), clip(value)]),
  );
}

/** Reads a record. Throws `format-too-new` for a newer `v`, `data-damaged` for all else that is not one. */
export function decodeLease(body: Uint8Array): LeaseRecord {
  if (body.length > MAX_RECORD_BYTES) {
    throw damaged(`${body.length} bytes, at most ${MAX_RECORD_BYTES} wanted`);
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (error) {
    throw damaged("not JSON", error);
  }
  if (!isObject(value)) throw damaged("not a JSON object");
  const { v, token, holder, nonce, state, ttlMs, info, to } = value;
  if (typeof v === "number" && v > 1) {
    throw new StateManagerError("format-too-new", `read lease: its format is ${v}, this version knows 1`, {
      hint: "run the newer version of state-manager that wrote it",
    });
  }
  if (v !== 1) throw damaged("no version 1 in `v`");
  if (!isInteger(token, 1, Number.MAX_SAFE_INTEGER)) throw damaged("`token` is not a positive integer");
  if (!isId(holder)) throw damaged("`holder` is not an id");
  if (!isId(nonce)) throw damaged("`nonce` is not an id");
  if (state !== "held" && state !== "released") throw damaged("`state` is neither held nor released");
  if (!isInteger(ttlMs, 1, MAX_TTL_MS)) throw damaged("`ttlMs` is not 1 ms to 24 h");
  if (!isInfo(info)) throw damaged("`info` is not a small map of texts");
  if (to !== undefined && !isId(to)) throw damaged("`to` is not an id");
  return { v: 1, token, holder, nonce, state, ttlMs, info, ...(to === undefined ? {} : { to }) };
}

export const LEASE_KEY = "lease.json";
export const HAND_OVER_KEY = "hand-over.json";

/** The longest `hand-over.json` that is read. */
export const MAX_HAND_OVER_BYTES = MAX_RECORD_BYTES;

export function encodeHandOver(request: HandOverRequest): Uint8Array<ArrayBuffer> {
  const { v, token, asker, nonce, info } = request;
  return new TextEncoder().encode(JSON.stringify({ v, token, asker, nonce, info }) + "\n");
}

/** Reads a request; null for anything that is not one of version 1: it is a wish of somebody, nothing depends on it. */
export function decodeHandOver(body: Uint8Array): HandOverRequest | null {
  if (body.length > MAX_HAND_OVER_BYTES) return null;
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    return null;
  }
  if (!isObject(value)) return null;
  const { v, token, asker, nonce, info } = value;
  if (v !== 1 || !isInteger(token, 1, Number.MAX_SAFE_INTEGER)) return null;
  if (!isId(asker) || !isId(nonce) || !isInfo(info)) return null;
  return { v: 1, token, asker, nonce, info };
}

function damaged(what: string, cause?: unknown): StateManagerError {
  return new StateManagerError("data-damaged", `read lease: ${what}`, {
    hint: "make sure that nothing else writes under this prefix and no manager runs on it, then put back " +
      'lease.json with a `token` not below the last one and `"state":"released"`',
    ...(cause === undefined ? {} : { cause }),
  });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isInteger(value: unknown, least: number, most: number): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= least && value <= most;
}

function isId(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= MAX_ID_LENGTH;
}

function isInfo(value: unknown): value is Record<string, string> {
  if (!isObject(value)) return false;
  const entries = Object.entries(value);
  return entries.length <= MAX_INFO_ENTRIES &&
    entries.every(([name, text]) =>
      name.length <= MAX_INFO_LENGTH && typeof text === "string" && text.length <= MAX_INFO_LENGTH
    );
}
