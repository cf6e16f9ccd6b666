/** The folder of local files: whole or not there, whatever fails, wherever the power is cut. */

import assert from "node:assert/strict";
import { isError } from "../../src/platform/errors.ts";
import { faultyFiles } from "../../src/platform/faulty_files.ts";
import type { LocalFiles } from "../../src/platform/local_files.ts";
import { MemoryDisk } from "../../src/platform/memory_disk.ts";
import { LocalLtx } from "../../src/database/local_ltx.ts";
import { PositionNote } from "../../src/database/follower_position.ts";
import type { LtxHeaderInput, LtxPage } from "../../src/database/ltx/mod.ts";
import { randomOf } from "../support/seeded_random.ts";

const header = (txid: number): LtxHeaderInput => ({
  pageSize: 512,
  commit: 40,
  minTxid: txid,
  maxTxid: txid,
  timestampMs: 1000 + txid,
  walOffset: 32,
  walSize: 0,
});

function* pages(txid: number): Generator<LtxPage> {
  for (let pgno = 1; pgno <= 40; pgno++) yield { pgno, data: new Uint8Array(512).fill(pgno ^ txid) };
}

async function opened(files: LocalFiles): Promise<LocalLtx> {
  const local = new LocalLtx("/l0", files);
  await local.open();
  return local;
}

async function names(files: LocalFiles): Promise<string[]> {
  return (await files.list("/l0")).map(({ name }) => name).sort();
}

Deno.test("local files list what was written, keep the newest, and sweep what a crash left", async () => {
  const disk = new MemoryDisk();
  assert.equal((await opened(disk)).newest, null);
  const local = await opened(disk);
  for (const txid of [1, 2, 3]) await local.write(header(txid), pages(txid));
  assert.deepEqual(local.list().map(({ txid }) => txid), [1, 2, 3]);
  assert.equal(local.totalBytes, local.list().reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
  await local.deleteUpTo(2);
  await local.deleteUpTo(9);
  assert.deepEqual(local.list().map(({ txid }) => txid), [3]);
  (await disk.create("/l0/0000000000000004-0000000000000004.ltx.tmp", 0o600))[Symbol.dispose]();
  (await disk.create("/l0/notes", 0o600))[Symbol.dispose]();
  const again = await opened(disk);
  assert.equal(again.newest?.header.maxTxid, 3);
  assert.equal(again.newest?.sizeBytes, local.newest?.sizeBytes);
  assert.deepEqual(await names(disk), ["0000000000000003-0000000000000003.ltx", "notes"]);
  await again.clear();
  assert.equal((await opened(disk)).newest, null);
});

Deno.test("local files are whole or not there when the disk fails at any operation, and a retry works", async () => {
  for (const when of ["before", "after"] as const) {
    for (let nth = 1;; nth++) {
      const disk = new MemoryDisk();
      await (await opened(disk)).write(header(1), pages(1));
      const files = faultyFiles(disk);
      const local = await opened(files);
      const fault = files.inject({ nth, errno: "ENOSPC", when });
      const failed = await local.write(header(2), pages(2)).then(() => null, (error) => error);
      fault.end();
      if (failed === null) {
        if (fault.hits === 0) break;
        continue;
      }
      assert.ok(isError(failed, "disk-full"), String(failed));
      if (local.newest?.header.maxTxid === 1) await local.write(header(2), pages(2));
      else assert.deepEqual(local.list().map(({ txid }) => txid), [1], "not sent before it is durable");
      await local.makeDurable();
      assert.deepEqual(local.list().map(({ txid }) => txid), [1, 2]);
      assert.equal((await opened(disk)).newest?.header.maxTxid, 2);
    }
  }
});

Deno.test("local files that were listed survive a power cut, and none is there in part", async () => {
  for (let seed = 1; seed <= 150; seed++) {
    const random = randomOf(seed);
    const disk = new MemoryDisk();
    const files = faultyFiles(disk, { rules: [{ nth: 1 + Math.floor(random.float() * 60), crash: true }] });
    let listed = 0;
    try {
      const local = await opened(files);
      for (let txid = 1; txid < 6; txid++) {
        await local.write(header(txid), pages(txid));
        listed = local.list().at(-1)?.txid ?? 0;
      }
    } catch {
      // it died there
    }
    disk.powerCut(random);
    const local = await opened(disk);
    assert.ok((local.newest?.header.maxTxid ?? 0) >= listed, `seed ${seed}`);
    assert.equal(local.damagedTxid, null, `seed ${seed}`);
    assert.deepEqual((await names(disk)).filter((name) => name.endsWith(".tmp")), []);
  }
});

Deno.test("position note knows the newest file and the one before, and takes nonsense for nothing", async () => {
  const disk = new MemoryDisk();
  const note = new PositionNote("/position.json", disk);
  const entry = (txid: number) => ({ txid, dev: "1", ino: "2", pageSize: 512, position: null, left: null });
  for (const txid of [1, 2, 3]) await note.put(entry(txid));
  const again = new PositionNote("/position.json", disk);
  await again.load();
  assert.deepEqual([1, 2, 3].map((txid) => again.entry(txid)?.txid ?? null), [null, 2, 3]);
  for (
    const text of [
      "",
      "{}",
      "null",
      "[1]",
      '{"v":1,"entries":[{"txid":3,"dev":"1"}]}',
      '{"v":9,"entries":[]}',
    ]
  ) {
    await disk.remove("/position.json");
    using file = await disk.create("/position.json", 0o600);
    await file.write(new TextEncoder().encode(text));
    const other = new PositionNote("/position.json", disk);
    await other.load();
    assert.equal(other.entry(3), null, text);
  }
});
