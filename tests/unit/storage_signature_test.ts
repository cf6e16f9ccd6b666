/** Signatures of requests, by the examples of the specification; and error documents, with and without the parser. */

import assert from "node:assert/strict";
import { signed } from "../../src/storage/s3/signature.ts";
import { parseErrorDocument } from "../../src/storage/s3/xml.ts";

const EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/** Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html */
async function example(
  method: string,
  path: string,
  headers: Record<string, string>,
): Promise<string | undefined> {
  const signedHeaders = await signed({
    method,
    url: new URL(`https://examplebucket.s3.amazonaws.com${path}`),
    headers,
    accessKey: "AKIAIOSFODNN7EXAMPLE",
    secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    sessionToken: null,
    region: "us-east-1",
    wallMs: Date.UTC(2013, 4, 24),
  });
  return signedHeaders.get("authorization")?.replace(/.*Signature=/, "");
}

Deno.test("signed gives the signatures of the specification's examples", async () => {
  assert.equal(
    await example("GET", "/test.txt", { range: "bytes=0-9", "x-amz-content-sha256": EMPTY }),
    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
  );
  assert.equal(
    await example("PUT", "/test%24file.text", {
      date: "Fri, 24 May 2013 00:00:00 GMT",
      "x-amz-storage-class": "REDUCED_REDUNDANCY",
      "x-amz-content-sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
    }),
    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
  );
  assert.equal(
    await example("GET", "/?lifecycle", { "x-amz-content-sha256": EMPTY }),
    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
  );
  assert.equal(
    await example("GET", "/?prefix=J&max-keys=2", { "x-amz-content-sha256": EMPTY }),
    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
  );
});

Deno.test("an error document is read the same whether it is plain or needs the parser", () => {
  const plain = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>
    <Message>The key does not exist.</Message><Key>a/b</Key><RequestId>1A</RequestId><Empty></Empty></Error>\n`;
  const wanted = { code: "NoSuchKey", message: "The key does not exist.", requestId: "1A" };
  assert.deepEqual(parseErrorDocument(plain), wanted);
  const others = [
    plain.replace("<Error>", '<Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'),
    plain.replace("<Key>", "<!-- its key --><Key>"),
    plain.replace("<Empty></Empty>", "<Empty/>"),
    plain.replace("<Empty></Empty>", "<Nested><Code>Other</Code></Nested>"),
    plain.replaceAll("\n", "\r\n"),
  ];
  for (const other of others) assert.deepEqual(parseErrorDocument(other), wanted);
  const escaped = plain.replace("The key", "&lt;The&gt; key");
  assert.equal(parseErrorDocument(escaped)?.message, "<The> key does not exist.");
  assert.equal(parseErrorDocument(plain.replace("</Code>", "</Cod>")), null);
  assert.equal(parseErrorDocument(plain.slice(0, -9)), null);
  assert.equal(parseErrorDocument(plain.replace("Error>", "Html>").replace("/Error>", "/Html>")), null);
});
