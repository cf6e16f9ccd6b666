/** What S3 says in XML: listings and errors. Anything malformed is null or `store-refused`, never a crash. */

import { XMLParser, XMLValidator } from "fast-xml-parser";
import { StateManagerError } from "../../platform/errors.ts";

export interface ListedObject {
  readonly key: string;
  readonly sizeBytes: number;
  readonly etag: string;
  readonly modifiedMs: number;
}

export interface Listing {
  readonly objects: readonly ListedObject[];
  readonly truncated: boolean;
}

type Node = Readonly<Record<string, unknown>>;

const parser = new XMLParser({
  parseTagValue: false,
  trimValues: false,
  ignoreAttributes: true,
  ignoreDeclaration: true,
  ignorePiTags: true,
  removeNSPrefix: true,
  // Entities are decoded by `decodeReferences`: what a document defines by itself must not grow in memory.
  processEntities: false,
  isArray: (name) => name === "Contents",
});

const NAMED: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };
const REFERENCE = /&(?:#(\d{1,7})|#x([0-9a-fA-F]{1,6})|(lt|gt|amp|quot|apos));/g;

/** The predefined and the numeric character references of XML 1.0; anything else stays as it is. */
function decodeReferences(text: string): string {
  return text.replace(REFERENCE, (whole, decimal?: string, hex?: string, name?: string) => {
    if (name !== undefined) return NAMED[name] ?? whole;
    const code = decimal === undefined ? parseInt(hex ?? "", 16) : parseInt(decimal, 10);
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function textOf(node: Node, name: string): string {
  const value = node[name];
  return typeof value === "string" ? decodeReferences(value) : "";
}

/** The document's root element `name`; null when it is another document or not XML at all. */
function parseRoot(text: string, name: string): Node | null {
  try {
    if (XMLValidator.validate(text) !== true) return null;
    const document: unknown = parser.parse(text);
    if (!isNode(document)) return null;
    const root = document[name];
    return isNode(root) ? root : root === "" ? {} : null;
  } catch {
    return null; // the parser's own limits
  }
}

export interface ErrorDocument {
  readonly code: string;
  readonly message: string;
  readonly requestId: string;
}

const PLAIN_ERROR = /^(?:<\?xml [^<>]*\?>)?\s*<Error>([^&\r]*)<\/Error>$/;
const PLAIN_ELEMENT = /\s*<([A-Za-z]+)>([^<>&]*)<\/\1>\s*/y;

/**
 * What every S3 service writes: elements with plain text in them, once each. Null for anything else, which the parser
 * looks at. A lookup of an object that is seldom there has such an answer, and the parser takes longer than the request.
 */
function plainError(text: string): Node | null {
  const content = PLAIN_ERROR.exec(text)?.[1];
  if (content === undefined) return null;
  const node: Record<string, string> = {};
  for (PLAIN_ELEMENT.lastIndex = 0; PLAIN_ELEMENT.lastIndex < content.length;) {
    const [, name, value] = PLAIN_ELEMENT.exec(content) ?? [];
    if (name === undefined || value === undefined || Object.hasOwn(node, name)) return null;
    node[name] = value;
  }
  return node;
}

/** An error document's content; null when the text is none (a proxy's page, an empty body, something cut). */
export function parseErrorDocument(text: string): ErrorDocument | null {
  const trimmed = text.trim();
  const root = plainError(trimmed) ?? parseRoot(trimmed, "Error");
  if (root === null) return null;
  return {
    code: textOf(root, "Code"),
    message: textOf(root, "Message"),
    requestId: textOf(root, "RequestId"),
  };
}

/** Form decoding, as `encoding-type=url` means it: "+" is a blank. */
function formDecode(text: string): string {
  return decodeURIComponent(text.replaceAll("+", " "));
}

/** A ListObjectsV2 answer. `action` begins the message when it is none. */
export function parseListing(text: string, action: string): Listing {
  const refused = (detail: string) =>
    new StateManagerError("store-refused", `${action}: ${detail}`, {
      hint: "check that the endpoint is an S3 service and not a web page or a proxy",
    });
  const root = parseRoot(text.trim(), "ListBucketResult");
  if (root === null) throw refused("the answer is not a listing in XML");
  const encoded = textOf(root, "EncodingType") === "url";
  const contents: unknown = root["Contents"] ?? [];
  if (!Array.isArray(contents)) throw refused("the listing's entries are malformed");
  const objects = contents.map((entry: unknown): ListedObject => {
    if (!isNode(entry)) throw refused("an entry of the listing is malformed");
    const raw = textOf(entry, "Key");
    const sizeBytes = Number(textOf(entry, "Size"));
    const modifiedMs = Date.parse(textOf(entry, "LastModified"));
    if (raw === "" || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
      throw refused("an entry of the listing has no key or size");
    }
    try {
      const key = encoded ? formDecode(raw) : raw;
      return { key, sizeBytes, etag: textOf(entry, "ETag"), modifiedMs: modifiedMs || 0 };
    } catch {
      throw refused("a key of the listing is wrongly encoded");
    }
  });
  return { objects, truncated: textOf(root, "IsTruncated") === "true" };
}

/** The id in the answer that begins a multipart upload; null when there is none. */
export function parseUploadId(text: string): string | null {
  const root = parseRoot(text.trim(), "InitiateMultipartUploadResult");
  const id = root === null ? "" : textOf(root, "UploadId");
  return id === "" ? null : id;
}

/** What the end of a multipart upload answered: the object's tag, or an error's code, or neither of them. */
export function parseCompletion(
  text: string,
): { readonly etag: string | null; readonly errorCode: string | null } {
  const document = parseErrorDocument(text);
  if (document !== null) return { etag: null, errorCode: document.code };
  const root = parseRoot(text.trim(), "CompleteMultipartUploadResult");
  const etag = root === null ? "" : textOf(root, "ETag");
  return { etag: etag === "" ? null : etag, errorCode: null };
}

/** The parts of a multipart upload, by their tags in order, as the request that ends it lists them. */
export function completionText(tags: readonly string[]): string {
  const escape = (tag: string) => tag.replace(/[<>&"']/g, (character) => `&#${character.codePointAt(0)};`);
  const parts = tags.map((tag, index) =>
    `<Part><PartNumber>${index + 1}</PartNumber><ETag>${escape(tag)}</ETag></Part>`
  );
  return `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${
    parts.join("")
  }</CompleteMultipartUpload>`;
}
