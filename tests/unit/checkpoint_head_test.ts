import assert from "node:assert/strict";
import fc from "fast-check";
import { plainCipher } from "../../src/checkpoint/cipher.ts";
import { findCheckpoint, nextOrdinal, readHead } from "../../src/checkpoint/head.ts";
import { encodeJson, HEAD_LIMIT_BYTES, parseHead } from "../../src/checkpoint/records.ts";
import type { CheckpointRecord, Head, RepositoryRecord } from "../../src/checkpoint/types.ts";
import { isError, StateManagerError } from "../../src/platform/errors.ts";
import { systemRandom, ulid } from "../../src/platform/random.ts";
import { memoryStore } from "../../src/storage/memory_store.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { damagedCopies, refuses } from "../support/damage.ts";
import { takeOverHead } from "../support/take_over_head.ts";

const repo: RepositoryRecord = {
  repo_id: "ab".repeat(16),
  name: "test",
  format: 1,
  min_reader: 1,
  min_writer: 1,
  chunker: { alg: "fastcdc32", min: 65536, avg: 262144, max: 1048576 },
  hash: "sha256",
};
const random = systemRandom();
const held = () => {};

function record(
  n: number,
  more: Partial<CheckpointRecord> = {},
): CheckpointRecord {
  const id = ulid(1_700_000_000_000 + n, random);
  return {
    id,
    n,
    time: 1_700_000_000_000 + n * 1000,
    token: 1,
    parent: null,
    kind: "interval",
    comment: "",
    labels: {},
    root: `checkpoints/roots/00000001-${id}.json`,
    root_sha256: "0".repeat(64),
    files: { data: { entries: 1, bytes: 0, manifest_sha256: "0".repeat(64) } },
    warnings: 0,
    ...more,
  };
}

const adding = (added: CheckpointRecord) => (head: Head): Head => ({
  ...head,
  checkpoints: [...head.checkpoints, added],
  current: added.id,
});

Deno.test("head is made at the first take-over and carries the token", async () => {
  const store = memoryStore();
  assert.equal(await readHead(store, { cipher: plainCipher }), null);
  const session = await takeOverHead(store, {
    repo,
    token: 3,
    assertHeld: held,
  });
  assert.equal(session.previous, null);
  await session.commit(adding(record(1)));
  const state = await readHead(store, { cipher: plainCipher });
  assert.equal(state?.head.epoch, 3);
  assert.equal(state?.head.seq, 2);
  assert.equal(state?.head.checkpoints.length, 1);
});

Deno.test("head fences the former holder when a later term takes over", async () => {
  const store = memoryStore();
  const first = await takeOverHead(store, { repo, token: 1, assertHeld: held });
  await first.commit(adding(record(1)));
  const second = await takeOverHead(store, {
    repo,
    token: 2,
    assertHeld: held,
  });
  assert.equal(second.previous?.checkpoints.length, 1);
  await assert.rejects(
    first.commit(adding(record(2))),
    (error) => isError(error, "lease-lost"),
  );
  await assert.rejects(
    first.commit((head) => head),
    (error) => isError(error, "lease-lost"),
  );
  await second.commit(adding(record(2)));
  assert.equal((await readHead(store, { cipher: plainCipher }))?.head.checkpoints.length, 2);
});

Deno.test("head refuses a take-over by an earlier term, and another repository's", async () => {
  const store = memoryStore();
  await takeOverHead(store, { repo, token: 5, assertHeld: held });
  await assert.rejects(
    takeOverHead(store, { repo, token: 4, assertHeld: held }),
    (error) => isError(error, "lease-lost"),
  );
  await assert.rejects(
    takeOverHead(store, {
      repo: { ...repo, repo_id: "cd".repeat(16) },
      token: 6,
      assertHeld: held,
    }),
    (error) => isError(error, "repository-mismatch"),
  );
});

Deno.test("head writes nothing when the lease is not held", async () => {
  const store = memoryStore();
  let ours = true;
  const assertHeld = () => {
    if (!ours) {
      throw new StateManagerError("lease-not-held", "lease: suspended");
    }
  };
  const session = await takeOverHead(store, { repo, token: 1, assertHeld });
  const before = await readHead(store, { cipher: plainCipher });
  ours = false;
  await assert.rejects(
    session.commit(adding(record(1))),
    (error) => isError(error, "lease-not-held"),
  );
  assert.deepEqual(await readHead(store, { cipher: plainCipher }), before);
  ours = true;
  await session.commit(adding(record(1)));
});

Deno.test("head takes the work of a former holder that swaps while it is taken over", async () => {
  const store = memoryStore();
  const first = await takeOverHead(store, { repo, token: 1, assertHeld: held });
  let swaps = 2;
  const racing: ObjectStore = {
    ...store,
    async put(key, body, options) {
      if (swaps > 0) {
        const n = 3 - swaps--;
        await first.commit(adding(record(n)));
      }
      return await store.put(key, body, options);
    },
  };
  const second = await takeOverHead(racing, {
    repo,
    token: 2,
    assertHeld: held,
  });
  assert.equal(second.head.checkpoints.length, 2);
});

/** A store whose next put fails as told: before it lands, after it, or it lands with the next call. */
function failing(store: ObjectStore) {
  let next: "before" | "after" | "late" | null = null;
  let late: (() => Promise<unknown>) | null = null;
  const faulty: ObjectStore = {
    ...store,
    async put(key, body, options) {
      const mode = next;
      next = null;
      if (mode === null) {
        await late?.();
        late = null;
        return await store.put(key, body, options);
      }
      if (mode === "after") await store.put(key, body, options);
      if (mode === "late") late = () => store.put(key, body, options);
      throw new StateManagerError("outcome-unknown", "put: no answer");
    },
  };
  return {
    faulty,
    fail: (mode: "before" | "after" | "late") => void (next = mode),
  };
}

Deno.test("head commit succeeds when its put landed but the answer was lost", async () => {
  const { faulty, fail } = failing(memoryStore());
  const session = await takeOverHead(faulty, {
    repo,
    token: 1,
    assertHeld: held,
  });
  fail("after");
  await session.commit(adding(record(1)));
  await session.commit(adding(record(2)));
  assert.equal(session.head.checkpoints.length, 2);
});

Deno.test("head commit fails and may be tried again when its put did not land", async () => {
  const { faulty, fail } = failing(memoryStore());
  const session = await takeOverHead(faulty, {
    repo,
    token: 1,
    assertHeld: held,
  });
  fail("before");
  await assert.rejects(
    session.commit(adding(record(1))),
    (error) => isError(error, "outcome-unknown"),
  );
  assert.equal(session.head.checkpoints.length, 0);
  await session.commit(adding(record(1)));
  assert.equal(session.head.checkpoints.length, 1);
});

Deno.test("head sees its own late put as its own, and does not overwrite it", async () => {
  const store = memoryStore();
  const { faulty, fail } = failing(store);
  const session = await takeOverHead(faulty, {
    repo,
    token: 1,
    assertHeld: held,
  });
  const first = record(1);
  fail("late");
  await assert.rejects(
    session.commit(adding(first)),
    (error) => isError(error, "outcome-unknown"),
  );
  await assert.rejects(
    session.commit(adding(record(1))),
    (error) => isError(error, "precondition-failed"),
  );
  assert.deepEqual(session.head.checkpoints.map(({ id }) => id), [first.id]);
  await session.commit(adding(record(2)));
  assert.equal((await readHead(store, { cipher: plainCipher }))?.head.checkpoints.length, 2);
});

Deno.test("head with four thousand checkpoints stays within its bound and is read back", async () => {
  const store = memoryStore();
  const session = await takeOverHead(store, {
    repo,
    token: 1,
    assertHeld: held,
  });
  const checkpoints = Array.from(
    { length: 4000 },
    (_, i) => record(i + 1, { comment: "nightly ".repeat(5) }),
  );
  const indexes = Array.from({ length: 64 }, (_, i) => ({
    key: `checkpoints/index/00000001-${ulid(i, random)}`,
    sha256: "0".repeat(64),
  }));
  await session.commit((head) => ({
    ...head,
    checkpoints,
    indexes,
    current: checkpoints.at(-1)?.id ?? null,
  }));
  const size = (await store.head("head.json")).sizeBytes;
  assert.ok(size < HEAD_LIMIT_BYTES, `${size} bytes`);
  assert.equal((await readHead(store, { cipher: plainCipher }))?.head.checkpoints.length, 4000);
  assert.equal(nextOrdinal(session.head), 4001);
});

Deno.test("head refuses a comment that would fill it, and a change that is wrong in itself", async () => {
  const session = await takeOverHead(memoryStore(), {
    repo,
    token: 1,
    assertHeld: held,
  });
  await assert.rejects(
    session.commit(adding(record(1, { comment: "x".repeat(20_000) }))),
    (error) => isError(error, "invalid-request"),
  );
  await assert.rejects(
    session.commit((head) => ({ ...head, current: record(1).id })),
    (error) => isError(error, "internal"),
  );
});

Deno.test("head: latest is never a safety checkpoint that something came before", () => {
  const [first, second, before, restored] = [
    record(1),
    record(2),
    record(3, { kind: "safety" }),
    record(4, { kind: "restore" }),
  ] as const;
  const latestOf = (checkpoints: readonly CheckpointRecord[], current: CheckpointRecord) =>
    findCheckpoint({ checkpoints, current: current.id }, { checkpoint: "latest" }).n;
  assert.equal(latestOf([first, second, before], before), 2);
  assert.equal(latestOf([before, second, first], before), 2);
  assert.equal(latestOf([first, second, before, restored], restored), 4);
  assert.equal(latestOf([first, record(2, { kind: "safety" }), before], before), 1);
  assert.equal(latestOf([before], before), 3);
  assert.equal(latestOf([first, second], first), 1); // whatever is listed, the current one counts
});

Deno.test("head finds a checkpoint by id, ordinal, time and as latest", async () => {
  const session = await takeOverHead(memoryStore(), {
    repo,
    token: 1,
    assertHeld: held,
  });
  const all = [record(1), record(2), record(3, { kind: "safety" })];
  await session.commit((head) => ({
    ...head,
    checkpoints: all,
    current: all[1]?.id ?? null,
  }));
  const { head } = session;
  assert.equal(findCheckpoint(head, { checkpoint: "latest" }).n, 2);
  assert.equal(findCheckpoint(head, { checkpoint: "3" }).n, 3);
  assert.equal(findCheckpoint(head, { checkpoint: "v1" }).n, 1);
  assert.equal(
    findCheckpoint(head, { checkpoint: all[2]?.id.toUpperCase() ?? "" }).n,
    3,
  );
  assert.equal(findCheckpoint(head, { atMs: 1_700_000_009_000 }).n, 2);
  assert.equal(findCheckpoint(head, { atMs: 1_700_000_001_500 }).n, 1);
  for (
    const target of [{ atMs: 5 }, { checkpoint: "9" }, {
      checkpoint: "nonsense",
    }]
  ) {
    assert.throws(
      () => findCheckpoint(head, target),
      (error) => isError(error, "checkpoint-not-found"),
    );
  }
});

Deno.test("head reader refuses damage, and a newer format with a code of its own", async () => {
  const session = await takeOverHead(memoryStore(), {
    repo,
    token: 1,
    assertHeld: held,
  });
  await session.commit(adding(record(1)));
  const bytes = encodeJson(session.head);
  fc.assert(fc.property(damagedCopies(bytes), (copy) => {
    // JSON has no checksum: a flip inside a comment or a number reads as another valid head. Never another error.
    refuses(() => parseHead(copy));
  }));
  const newer = encodeJson({ ...session.head, format: 2 });
  assert.throws(
    () => parseHead(newer),
    (error) => isError(error, "format-too-new"),
  );
});
