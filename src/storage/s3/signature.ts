/**
 * AWS Signature Version 4 in the headers of a request.
 * Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */

import { createHash, createHmac } from "node:crypto";
import { AwsV4Signer } from "aws4fetch";

export interface SignedRequest {
  readonly method: string;
  readonly url: URL;
  /** All are signed; names in lower case. `x-amz-content-sha256` is among them. */
  readonly headers: Readonly<Record<string, string>>;
  readonly accessKey: string;
  readonly secretKey: string;
  readonly sessionToken: string | null;
  readonly region: string;
  readonly wallMs: number;
}

/**
 * Keys derived from secrets, per day: four rounds of HMAC that each request would make anew. Whoever rotates credentials
 * leaves a few behind.
 */
const derivedKeys = new Map<string, Uint8Array>();
const MOST_DERIVED_KEYS = 16;

function hmac(key: Uint8Array | string, text: string): Uint8Array {
  return createHmac("sha256", key).update(text).digest();
}

/** The same signature on this thread: the library's own goes to another one five times for each request. */
class PromptSigner extends AwsV4Signer {
  override async signature(): Promise<string> {
    const date = this.datetime.slice(0, 8);
    const name = [this.secretAccessKey, date, this.region, this.service].join();
    let key = derivedKeys.get(name);
    if (key === undefined) {
      const dated = hmac(`AWS4${this.secretAccessKey}`, date);
      key = [this.region, this.service, "aws4_request"].reduce<Uint8Array>(hmac, dated);
      if (derivedKeys.size >= MOST_DERIVED_KEYS) derivedKeys.clear();
      derivedKeys.set(name, key);
    }
    const hash = createHash("sha256").update(await this.canonicalString()).digest("hex");
    const text = ["AWS4-HMAC-SHA256", this.datetime, this.credentialString, hash].join("\n");
    return createHmac("sha256", key).update(text).digest("hex");
  }
}

/** `headers`, with those that sign them. */
export async function signed(request: SignedRequest): Promise<Headers> {
  const { method, url, accessKey, secretKey, sessionToken, region, wallMs } = request;
  const signer = new PromptSigner({
    method,
    url: url.href,
    headers: { ...request.headers },
    accessKeyId: accessKey,
    secretAccessKey: secretKey,
    ...(sessionToken === null ? {} : { sessionToken }),
    service: "s3",
    region,
    datetime: new Date(wallMs).toISOString().replace(/[:-]|\.\d{3}/g, ""),
    allHeaders: true,
  });
  return (await signer.sign()).headers;
}
