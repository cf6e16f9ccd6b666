/** Multipart uploads of the test's S3 service: parts in memory, checked as AWS documents it. */

import { createHash } from "node:crypto";

export interface PartsRefusal {
  readonly status: number;
  readonly code: string;
}

interface Upload {
  readonly key: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly parts: Map<number, { readonly body: Uint8Array<ArrayBuffer>; readonly etag: string }>;
}

/** AWS's, of all parts but the last. */
const SMALLEST_PART_BYTES = 5 * 1024 * 1024;

function md5(body: Uint8Array): Uint8Array {
  return createHash("md5").update(body).digest();
}

function refusal(status: number, code: string): PartsRefusal {
  return { status, code };
}

export class MultipartUploads {
  readonly #uploads = new Map<string, Upload>();
  #ids = 0;

  /** Begun and neither completed nor aborted. */
  get open(): number {
    return this.#uploads.size;
  }

  begin(key: string, metadata: Readonly<Record<string, string>>): string {
    const id = `upload/${++this.#ids}+=`; // what an id may have in it, so that a client must escape it
    this.#uploads.set(id, { key, metadata, parts: new Map() });
    return id;
  }

  addPart(id: string, key: string, number: number, body: Uint8Array<ArrayBuffer>): string | PartsRefusal {
    const upload = this.#uploads.get(id);
    if (upload?.key !== key) return refusal(404, "NoSuchUpload");
    if (!(number >= 1 && number <= 10_000)) return refusal(400, "InvalidArgument");
    const etag = `"${new Uint8Array(md5(body)).toHex()}"`;
    upload.parts.set(number, { body, etag });
    return etag;
  }

  /** What the upload is as an object, by the list of parts in `document`; it stays until `end`. */
  assemble(id: string, key: string, document: string) {
    const upload = this.#uploads.get(id);
    if (upload?.key !== key) return refusal(404, "NoSuchUpload");
    const listed = [
      ...document.matchAll(/<Part><PartNumber>(\d+)<\/PartNumber><ETag>([^<]*)<\/ETag><\/Part>/g),
    ];
    if (listed.length === 0) return refusal(400, "MalformedXML");
    const bodies: Uint8Array<ArrayBuffer>[] = [];
    let before = 0;
    for (const [, numberText = "", escaped = ""] of listed) {
      const number = Number(numberText);
      if (number <= before) return refusal(400, "InvalidPartOrder");
      before = number;
      const etag = escaped.replace(/&#(\d+);/g, (_, code: string) => String.fromCodePoint(Number(code)));
      const part = upload.parts.get(number);
      if (part === undefined || part.etag !== etag) return refusal(400, "InvalidPart");
      bodies.push(part.body);
    }
    if (bodies.slice(0, -1).some((body) => body.length < SMALLEST_PART_BYTES)) {
      return refusal(400, "EntityTooSmall");
    }
    const body = new Uint8Array(bodies.reduce((sum, { length }) => sum + length, 0));
    let offset = 0;
    for (const part of bodies) {
      body.set(part, offset);
      offset += part.length;
    }
    const digests = createHash("md5");
    for (const part of bodies) digests.update(md5(part));
    return { body, etag: `"${digests.digest("hex")}-${bodies.length}"`, metadata: upload.metadata };
  }

  /** False when there was none. */
  end(id: string): boolean {
    return this.#uploads.delete(id);
  }
}
