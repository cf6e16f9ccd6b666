/**
 * Slot writer and compactor over real stores, in both layouts: two holders one after the other with the first one still
 * alive, merges and retention, and the real `litestream restore` of what is there then.
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Compactor } from "../../src/database/compactor.ts";
import { LtxEncoder } from "../../src/database/ltx/mod.ts";
import { type ReplicaPlace, txidText } from "../../src/database/replica_layout.ts";
import { HolderListing, listReplica } from "../../src/database/replica_listing.ts";
import { SendWindow } from "../../src/database/replica_window.ts";
import { restorePoints } from "../../src/database/restore_plan.ts";
import { type LocalCommitFile, SlotWriter, WHOLE_PUT_LIMIT_BYTES } from "../../src/database/slot_writer.ts";
import { type Clock, systemClock } from "../../src/platform/clock.ts";
import { systemFiles } from "../../src/platform/local_files.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { type ObjectStore, openStore } from "../../src/storage/mod.ts";
import { findLitestream, litestream } from "../support/litestream.ts";
import { findMinio, minioStore, startMinio } from "../support/minio.ts";
import { joined, ModelDatabase, restored } from "../support/replica_files.ts";
import { randomOf } from "../support/seeded_random.ts";

const effects = { clock: systemClock(), random: systemRandom() };

/** A replica's place, and what `litestream` is told to find it. */
interface Place {
  readonly store: ObjectStore;
  readonly place: ReplicaPlace;
  readonly replica: string;
  finish(): Promise<void>;
}

async function inFolder(): Promise<Place> {
  const directory = await Deno.makeTempDir({ prefix: "state-manager-replica-" });
  return {
    store: openStore({ kind: "directory", directory, keyPrefix: "" }, effects),
    place: { layout: "folder", name: "app" },
    replica: `type: file\n      path: ${directory}/databases/app`,
    finish: () => Deno.remove(directory, { recursive: true }),
  };
}

async function inMinio(): Promise<Place> {
  const server = await startMinio();
  if (server === null) throw new Error("MinIO does not start");
  const { bucket, endpoint, accessKey, secretKey } = server;
  return {
    store: minioStore(server, "team"),
    place: { layout: "bucket", name: "app" },
    replica: [
      "type: s3",
      `bucket: ${bucket}`,
      "path: team/databases/app",
      `endpoint: ${endpoint}`,
      "region: us-east-1",
      "force-path-style: true",
      `access-key-id: ${accessKey}`,
      `secret-access-key: ${secretKey}`,
    ].join("\n      "),
    finish: () => server.stop(),
  };
}

/** The machine's clock, with a wall that the test moves ahead. */
function shiftedClock(): { readonly clock: Clock; shift(ms: number): void } {
  const clock = systemClock();
  let shiftMs = 0;
  return {
    clock: { ...clock, wallMs: () => clock.wallMs() + shiftMs },
    shift: (ms) => void (shiftMs += ms),
  };
}

async function openLocal(path: string): Promise<LocalCommitFile> {
  const file = await systemFiles.open(path);
  return {
    async read(start, end) {
      const bytes = new Uint8Array(end - start);
      for (let filled = 0; filled < bytes.length;) {
        const count = await file.read(bytes.subarray(filled), start + filled);
        if (count === null) throw new Error(`${path} ends at ${start + filled}`);
        filled += count;
      }
      return bytes;
    },
    [Symbol.asyncDispose]() {
      file[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}

/** What one holder works with. */
async function holderOf(
  { store, place }: Place,
  options: {
    readonly token: number;
    readonly folder: string;
    readonly database: ModelDatabase;
    readonly clock: Clock;
  },
) {
  const { token, folder, database, clock } = options;
  const window = new SendWindow(clock, clock.monotonicMs() + 600_000);
  const { listing } = await HolderListing.load(store, place);
  const base = { txid: database.txid, token: token - 1 };
  const writer = new SlotWriter({
    store,
    place,
    token,
    base,
    window,
    clock,
    random: systemRandom(),
    listing,
    openLocal: (txid) => openLocal(`${folder}/${token}-${txid}`),
  });
  writer.start();
  const commit = async () => {
    const txid = database.commit({ token, nowMs: clock.wallMs() });
    await Deno.writeFile(`${folder}/${token}-${txid}`, database.files.get(txid) ?? new Uint8Array());
    writer.committed({ txid, sizeBytes: database.size(txid) });
    return txid;
  };
  const compactor = new Compactor({
    store,
    place,
    token,
    window,
    listing,
    clock,
    files: systemFiles,
    scratchPath: `${folder}/scratch`,
    snapshotIntervalMs: 86_400_000,
    retentionMs: 86_400_000,
    pins: () => [],
  });
  return { writer, commit, compactor, listing };
}

async function litestreamRestore(place: Place, folder: string, txid: number): Promise<string> {
  const output = `${folder}/restored-${txid}`;
  const config = `dbs:\n  - path: ${folder}/never.db\n    replica:\n      ${place.replica}\n`;
  await Deno.writeTextFile(`${folder}/litestream.yml`, config);
  const wanted = ["-txid", txidText(txid), "-o", output, `${folder}/never.db`];
  const { code, text } = await litestream("restore", "-config", `${folder}/litestream.yml`, ...wanted);
  assert.equal(code, 0, text);
  return createHash("sha1").update(await Deno.readFile(output)).digest("hex");
}

async function twoHolders(place: Place): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "state-manager-replica-local-" });
  const signal = AbortSignal.timeout(120_000);
  try {
    const { clock, shift } = shiftedClock();
    const database = new ModelDatabase({ random: randomOf(31), pageSize: 4096, mostPages: 60 });
    const first = await holderOf(place, { token: 1, folder, database, clock });
    await using _firstEnds = first.writer;
    for (let commit = 0; commit < 25; commit++) await first.commit();
    await first.writer.whenDurable(25, { signal });

    const taken = new ModelDatabase({ random: randomOf(32), from: database });
    const second = await holderOf(place, { token: 2, folder, database: taken, clock });
    await using _secondEnds = second.writer;
    const seal = await second.commit();
    await second.writer.whenSealed({ signal });
    // The first one wakes up and goes on as if nothing had happened.
    assert.equal(await first.commit(), seal);
    assert.deepEqual(await first.writer.whenEnded({ signal }), {
      kind: "fenced",
      txid: seal,
      reason: "larger-token",
    });
    for (let round = 0; round < 6; round++) {
      for (let commit = 0; commit < 5; commit++) await second.commit();
      await second.writer.whenDurable(taken.txid, { signal });
      shift(200_000);
      await second.compactor.turn(signal);
      assert.equal(second.compactor.status().lastError, null);
    }
    const { files, defects } = await listReplica(place.store, place.place);
    assert.deepEqual(defects, []);
    assert.deepEqual(second.listing.files.map(({ key }) => key), files.map(({ key }) => key));
    const { merges, snapshots, deletedFiles } = second.compactor.status();
    assert.ok(merges >= 6 && snapshots >= 1 && deletedFiles > 20, `${merges}, ${snapshots}, ${deletedFiles}`);
    const points = restorePoints(files.map((file) => ({ ...file, timestampMs: file.modifiedMs })));
    assert.equal(points.at(-1)?.txid, taken.txid);
    for (const { txid } of points) {
      const got = await restored(place.store, place.place, { kind: "txid", txid });
      assert.equal(got.digest, taken.digests.get(txid), `TXID ${txid}`);
    }
    for (const { txid } of points.filter((_, at) => at % 5 === 0 || at === points.length - 1)) {
      assert.equal(
        await litestreamRestore(place, folder, txid),
        taken.digests.get(txid),
        `litestream, TXID ${txid}`,
      );
    }
  } finally {
    await place.store.close();
    await Deno.remove(folder, { recursive: true });
  }
}

/** A commit of random pages, too large for one put. */
function largeCommit(pageCount: number): { readonly bytes: Uint8Array; readonly digest: string } {
  const pageSize = 65536;
  const encoder = new LtxEncoder({
    pageSize,
    commit: pageCount,
    minTxid: 1,
    maxTxid: 1,
    timestampMs: 1,
    nodeId: 1,
  });
  const parts = [encoder.start()];
  const hash = createHash("sha1");
  for (let pgno = 1; pgno <= pageCount; pgno++) {
    const page = crypto.getRandomValues(new Uint8Array(pageSize));
    hash.update(page);
    parts.push(encoder.page(pgno, page));
  }
  parts.push(encoder.finish().bytes);
  return { bytes: joined(parts), digest: hash.digest("hex") };
}

async function largeFiles(place: Place): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "state-manager-replica-local-" });
  try {
    const database = new ModelDatabase({ random: randomOf(33) });
    const { writer, compactor, listing } = await holderOf(place, {
      token: 1,
      folder,
      database,
      clock: systemClock(),
    });
    await using _ends = writer;
    const { bytes, digest } = largeCommit(580);
    assert.ok(bytes.length > WHOLE_PUT_LIMIT_BYTES);
    await Deno.writeFile(`${folder}/1-1`, bytes);
    writer.committed({ txid: 1, sizeBytes: bytes.length });
    const signal = AbortSignal.timeout(120_000);
    await writer.whenDurable(1, { signal });
    await compactor.turn(signal);
    assert.equal(compactor.status().lastError, null);
    assert.deepEqual(listing.files.map(({ level, maxTxid }) => [level, maxTxid]), [[0, 1], [9, 1]]);
    const { files } = await listReplica(place.store, place.place);
    assert.deepEqual(
      files.map(({ sizeBytes }) => sizeBytes),
      listing.files.map(({ sizeBytes }) => sizeBytes),
    );
    assert.equal((await restored(place.store, place.place, { kind: "newest" })).digest, digest);
    assert.deepEqual(await Array.fromAsync(Deno.readDir(folder), ({ name }) => name), ["1-1"]);
  } finally {
    await place.store.close();
    await Deno.remove(folder, { recursive: true });
  }
}

for (
  const { name, open, ignore } of [
    { name: "a folder store", open: inFolder, ignore: false },
    { name: "MinIO [needs minio]", open: inMinio, ignore: findMinio() === null },
  ]
) {
  Deno.test({
    name: `a commit and its snapshot beyond 32 MiB go in parts, in ${name}`,
    ignore,
    fn: async () => {
      const place = await open();
      try {
        await largeFiles(place);
      } finally {
        await place.finish();
      }
    },
  });
}

Deno.test({
  name: "a stale holder adds nothing, and merges keep every point, in a folder store [needs litestream]",
  ignore: findLitestream() === null,
  fn: async () => {
    const place = await inFolder();
    try {
      await twoHolders(place);
    } finally {
      await place.finish();
    }
  },
});

Deno.test({
  name: "a stale holder adds nothing, and merges keep every point, in MinIO [needs minio] [needs litestream]",
  ignore: findMinio() === null || findLitestream() === null,
  fn: async () => {
    const place = await inMinio();
    try {
      await twoHolders(place);
    } finally {
      await place.finish();
    }
  },
});
