import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { plainCipher, sealingCipher } from "../../src/checkpoint/cipher.ts";
import { readHead } from "../../src/checkpoint/head.ts";
import { openRepository, repositoryCipher } from "../../src/checkpoint/mod.ts";
import { encodeJson, parseHead } from "../../src/checkpoint/records.ts";
import type { CheckpointRecord, Head } from "../../src/checkpoint/types.ts";
import { isError } from "../../src/platform/errors.ts";
import { systemRandom, ulid } from "../../src/platform/random.ts";
import { Secret } from "../../src/platform/secret.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import { takeOverHead } from "../support/take_over_head.ts";

const random = systemRandom();

function record(n: number, comment: string, labels: Readonly<Record<string, string>>): CheckpointRecord {
  const id = ulid(1_700_000_000_000 + n, random);
  const root = `checkpoints/roots/00000001-${id}.json`;
  const files = { data: { entries: 1, bytes: 0, manifest_sha256: "0".repeat(64) } };
  const zero = "0".repeat(64);
  return {
    ...{ id, n, time: n, token: 1, parent: null, kind: "request", comment, labels },
    ...{ root, root_sha256: zero, files, warnings: 0 },
  };
}

async function scene() {
  const store = memoryStore();
  const key = { kind: "key", value: new Secret(Buffer.from(random.bytes(32)).toString("base64")) } as const;
  const repo = await openRepository(store, { name: "app", random, key });
  const cipher = await repositoryCipher(repo, key, random);
  const session = await takeOverHead(store, { repo, cipher, token: 1, assertHeld: () => {} });
  const records = [
    record(1, "marker-comment", {}),
    record(2, "", { "marker-label": "marker-value" }),
    record(3, "", {}),
  ];
  await session.commit((head): Head => ({
    ...head,
    checkpoints: records,
    current: records[0]?.id ?? null,
    intent: { record: record(4, "marker-intent", {}), on_start: null },
  }));
  return { store, repo, cipher, session, records };
}

Deno.test("comments and labels in the head of an encrypted repository are sealed, and come back", async () => {
  const { store, cipher, session, records } = await scene();
  const { body } = await store.get("head.json");
  const text = new TextDecoder().decode(body);
  assert.doesNotMatch(text, /marker/);
  const read = (await readHead(store, { cipher }))?.head;
  assert.deepEqual(read?.checkpoints, records);
  assert.equal(read?.intent?.record.comment, "marker-intent");
  assert.deepEqual(session.head.checkpoints, records);
  await session.commit((head) => ({ ...head, checkpoints: head.checkpoints.slice(0, 2), intent: null }));
  assert.deepEqual((await readHead(store, { cipher }))?.head.checkpoints, records.slice(0, 2));
  assert.deepEqual(parseHead(encodeJson(session.head)), session.head, "a plain head is as it was");
});

Deno.test("sealed notes that were changed, moved or meant for another repository are refused", async () => {
  const { store, repo, cipher } = await scene();
  const head = JSON.parse(new TextDecoder().decode((await store.get("head.json")).body));
  const isDamage = (error: unknown) => isError(error, "data-damaged");
  const refused = (value: unknown, reader = cipher) =>
    assert.throws(() => parseHead(encodeJson(value), reader), isDamage);
  const bytes = Buffer.from(head.notes, "base64");
  for (let at = 0; at < bytes.length; at += 7) {
    const copy = Buffer.from(bytes);
    copy[at] = (copy[at] ?? 0) ^ 1;
    refused({ ...head, notes: copy.toString("base64") });
  }
  const moved = cipher.sealObject("head.json", new TextEncoder().encode("{}"));
  refused({ ...head, notes: Buffer.from(moved).toString("base64") });
  refused({ ...head, notes: "not base64!" });
  refused(head, plainCipher);
  const other = new Secret(Buffer.from(new Uint8Array(32)).toString("base64"));
  refused(head, sealingCipher({ repoId: repo.repo_id, dataKey: other }, random));
});

Deno.test("head of an encrypted repository is never written without its cipher", async () => {
  const { store, repo } = await scene();
  const before = (await store.get("head.json")).etag;
  await assert.rejects(
    takeOverHead(store, { repo, token: 2, assertHeld: () => {} }),
    /the cipher is the repository's/,
  );
  assert.equal((await store.get("head.json")).etag, before);
});
