/** What our HTTP client does with bodies, against a real server. */

import assert from "node:assert/strict";
import { createHttpClient, lentBody } from "../../src/platform/http_client.ts";

const SIZE = 1024 * 1024;

Deno.test("a large body is not copied where fetch would keep the copy, and any other array is", () => {
  const bytes = new Uint8Array(SIZE + 100).subarray(50, 50 + SIZE).fill(7);
  const copy = lentBody(bytes).slice();
  assert.equal(copy.buffer, bytes.buffer);
  assert.deepEqual([copy.byteOffset, copy.length], [50, SIZE]);
  assert.notEqual(bytes.slice().buffer, bytes.buffer);
  assert.equal(lentBody(bytes.subarray(0, 10)).constructor, Uint8Array);
});

Deno.test("a body that is lent arrives whole, and may be used again as soon as the request has begun", async () => {
  const sums: [string | null, number, number][] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const body = await request.bytes();
    sums.push([
      request.headers.get("content-length"),
      body.length,
      body.reduce((sum, byte) => sum + byte, 0),
    ]);
    return new Response();
  });
  const client = createHttpClient();
  try {
    for (const fill of [3, 5]) {
      const body = new Uint8Array(SIZE).fill(fill);
      const answer = client.fetch(new URL(`http://127.0.0.1:${server.addr.port}/`), { method: "PUT", body });
      body.fill(0); // fetch has what it sends by now
      await (await answer).body?.cancel();
    }
    assert.deepEqual(sums, [[String(SIZE), SIZE, 3 * SIZE], [String(SIZE), SIZE, 5 * SIZE]]);
  } finally {
    client.close();
    await server.shutdown();
  }
});
