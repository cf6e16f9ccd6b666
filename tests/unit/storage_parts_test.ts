/** The parts of a large put against a service whose every answer the test gives: an upload is completed whole or not at all. */

import assert from "node:assert/strict";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import type { S3Answer, S3Request } from "../../src/storage/s3/request.ts";
import { PartsUpload } from "../../src/storage/s3/parts_upload.ts";
import { VirtualClock } from "../support/virtual_clock.ts";

const PART = 8 * 1024 * 1024;
type Bytes = Uint8Array<ArrayBuffer>;

function answer(text: string, headers: Record<string, string> = {}, status = 200): S3Answer {
  return { status, headers: new Headers(headers), body: new TextEncoder().encode(text) };
}

/** Takes an upload's requests; parts are answered by `part`, all else at once. */
class Service {
  readonly seen: string[] = [];
  readonly #part: (number: number, body: Bytes, signal: AbortSignal) => Promise<S3Answer>;

  constructor(part: (number: number, body: Bytes, signal: AbortSignal) => Promise<S3Answer>) {
    this.#part = part;
  }

  upload(): PartsUpload {
    const port = {
      clock: new VirtualClock(),
      description: "a service of the test",
      send: (request: S3Request, { signal }: { readonly signal: AbortSignal }) => this.#send(request, signal),
      refusal: ({ status }: S3Answer) => new StateManagerError("store-refused", `answered ${status}`),
    };
    return new PartsUpload(port, "a", {}, {});
  }

  async #send(request: S3Request, signal: AbortSignal): Promise<S3Answer> {
    await Promise.resolve();
    const number = request.query?.["partNumber"];
    if (number !== undefined) {
      return await this.#part(Number(number), request.body ?? new Uint8Array(), signal);
    }
    if (request.query?.["uploads"] !== undefined) {
      return answer(
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
      );
    }
    if (request.method === "DELETE") {
      this.seen.push("abort");
      return answer("", {}, 204);
    }
    const text = new TextDecoder().decode(request.body);
    this.seen.push(`complete ${text.match(/<Part>/g)?.length ?? 0}`);
    return answer("<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>");
  }
}

/** Goes on when so many promises one after the other were settled. */
async function turns(count: number): Promise<void> {
  for (let left = count; left > 0; left--) await Promise.resolve();
}

/** Farther apart than all that happens between the two events. */
const MOST_TURNS = 40;

/** Two parts; the source's end and what becomes of `which` part come `apart` turns after each other. */
async function race(apart: number, which: number, fails: boolean) {
  const sourceEnds = Promise.withResolvers<void>();
  const partEnds = Promise.withResolvers<void>();
  let taken = 0;
  const service = new Service(async (number) => {
    taken++;
    if (number !== which) return answer("", { etag: `"${number}"` });
    await partEnds.promise;
    return answer("", { etag: `"${number}"` }, fails ? 403 : 200);
  });
  let waiting = false;
  async function* source(): AsyncGenerator<Bytes> {
    yield new Uint8Array(PART);
    yield new Uint8Array(PART / 2);
    waiting = true;
    await sourceEnds.promise;
  }
  const done = service.upload().run(source(), { sizeBytes: 1.5 * PART }).then(
    () => "done",
    (error) => isError(error) ? error.code : String(error),
  );
  while (!waiting || taken < 2) await new Promise((resolve) => setTimeout(resolve, 0));
  const [first, second] = apart < 0 ? [partEnds, sourceEnds] : [sourceEnds, partEnds];
  first.resolve();
  await turns(Math.abs(apart));
  second.resolve();
  return [await done, ...service.seen];
}

Deno.test("s3 putLarge is completed with all its parts or not at all, whichever comes first of the source's end and a part's failure", async () => {
  for (let apart = -MOST_TURNS; apart <= MOST_TURNS; apart++) {
    for (const which of [1, 2]) {
      const what = `part ${which}, ${apart} turns after the source's end`;
      assert.deepEqual(await race(apart, which, true), ["store-refused", "abort"], what);
      assert.deepEqual(await race(apart, which, false), ["done", "complete 2"], what);
    }
  }
});
