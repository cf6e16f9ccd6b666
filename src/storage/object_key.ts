/**
 * What a store takes: keys, prefixes, metadata and ranges. One strict grammar for all stores, so that a repository
 * can be copied between any two of them, and so that no key ever needs escaping in a URL or a file name.
 */

import { StateManagerError } from "../platform/errors.ts";
import { type GetOptions, MAX_OBJECT_BYTES } from "./object_store.ts";

const LONGEST_KEY = 900;
/** File systems allow 255 bytes in a name; the rest is room for the folder store's suffixes. */
const SEGMENT = /^[A-Za-z0-9._-]{1,200}$/;
/** The folder store keeps its temporaries there; refused everywhere, so that every repository fits every store. */
const RESERVED_FIRST_SEGMENT = ".tmp";
/** Metadata travels in HTTP headers; S3 allows 2 KiB in all. */
const MOST_METADATA_BYTES = 2048;
const METADATA_NAME = /^[a-z0-9-]{1,100}$/;
/** Printable ASCII without surrounding or doubled blanks: proxies and signatures fold those. */
const METADATA_VALUE = /^(?:[!-~]+(?: [!-~]+)*)?$/;

function segmentsFault(text: string): string | undefined {
  for (const segment of text.split("/")) {
    if (segment === "." || segment === "..") return `has the segment "${segment}"`;
    if (!SEGMENT.test(segment)) return "has a segment that is empty, too long or has other characters";
  }
  return text.startsWith(`${RESERVED_FIRST_SEGMENT}/`) || text === RESERVED_FIRST_SEGMENT
    ? `begins with "${RESERVED_FIRST_SEGMENT}"`
    : undefined;
}

/** Bounded and printable, so that a key can stand in a message. */
export function quoteKey(key: string): string {
  const text = key.length > 120 ? `${key.slice(0, 117)}...` : key;
  return JSON.stringify(text);
}

/** Throws `key-invalid` unless `key` fits the grammar of `ObjectKey`. */
export function assertKey(key: string): void {
  const fault = key.length > LONGEST_KEY
    ? `has ${key.length} characters, at most ${LONGEST_KEY} are allowed`
    : segmentsFault(key);
  if (fault === undefined) return;
  throw new StateManagerError("key-invalid", `use key ${quoteKey(key)}: ${fault}`, {
    hint: 'use segments of [A-Za-z0-9._-] (1 to 200 characters, not "." or ".."), joined by "/"',
  });
}

/** A key prefix as an operator writes it, without surrounding slashes; `key-invalid` unless "" or whole segments. */
export function normalizeKeyPrefix(prefix: string): string {
  const trimmed = prefix.replace(/^\/+|\/+$/g, "");
  if (trimmed !== "") assertKey(trimmed);
  return trimmed;
}

/** Throws `invalid-request` when names or values would not come back unchanged from every store. */
export function assertMetadata(metadata: Readonly<Record<string, string>>): void {
  let bytes = 0;
  for (const [name, value] of Object.entries(metadata)) {
    bytes += name.length + value.length;
    if (METADATA_NAME.test(name) && METADATA_VALUE.test(value) && bytes <= MOST_METADATA_BYTES) continue;
    throw new StateManagerError(
      "invalid-request",
      `put metadata "${
        name.slice(0, 40)
      }": wanted [a-z0-9-] names, ASCII values, ${MOST_METADATA_BYTES} bytes in all`,
    );
  }
}

/** Throws `body-too-large` beyond `MAX_OBJECT_BYTES`. */
export function assertBody(key: string, body: Uint8Array): void {
  if (body.length <= MAX_OBJECT_BYTES) return;
  throw new StateManagerError(
    "body-too-large",
    `put ${quoteKey(key)}: ${body.length} bytes, at most ${MAX_OBJECT_BYTES} are allowed`,
  );
}

/** The range cut to an object of `sizeBytes`; without a range the whole object. */
export function cutRange(
  key: string,
  range: GetOptions["range"],
  sizeBytes: number,
): { readonly start: number; readonly end: number } {
  if (range === undefined) return { start: 0, end: sizeBytes };
  assertRange(key, range);
  if (range.start >= sizeBytes) throw rangePastEnd(key, range.start);
  return { start: range.start, end: Math.min(range.end, sizeBytes) };
}

/** As `cutRange`, and `body-too-large` where it is more than one get may give. */
export function readableRange(
  key: string,
  range: GetOptions["range"],
  sizeBytes: number,
): { readonly start: number; readonly end: number } {
  const cut = cutRange(key, range, sizeBytes);
  if (cut.end - cut.start > MAX_OBJECT_BYTES) throw tooLargeToGet(key, cut.end - cut.start);
  return cut;
}

export function tooLargeToGet(key: string, sizeBytes: number): StateManagerError {
  return new StateManagerError(
    "body-too-large",
    `get ${quoteKey(key)}: ${sizeBytes} bytes at once, at most ${MAX_OBJECT_BYTES} are allowed`,
    { hint: "read it by ranges" },
  );
}

/** Throws `invalid-request` unless 0 <= start < end, both whole numbers. */
export function assertRange(key: string, range: { readonly start: number; readonly end: number }): void {
  const { start, end } = range;
  if (Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start < end) return;
  throw new StateManagerError(
    "invalid-request",
    `get ${quoteKey(key)}: range [${start}, ${end}), wanted 0 <= start < end`,
  );
}

export function rangePastEnd(key: string, start: number): StateManagerError {
  return new StateManagerError(
    "invalid-request",
    `get ${quoteKey(key)}: the range begins at ${start}, the object ends before`,
  );
}
