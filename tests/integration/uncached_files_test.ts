/** Long writes and reads past the page cache: the same bytes, on filesystems with and without them. */

import assert from "node:assert/strict";
import { equalBytes } from "../../src/platform/equal_bytes.ts";
import { AT_CWD, closeFd, OPEN, openAt, pathBytes } from "../../src/platform/libc_files.ts";
import { promptFiles, systemFiles } from "../../src/platform/local_files.ts";
import { bytesOfMemory, returnMemory, takeLargePages, takeMemory } from "../../src/platform/shared_memory.ts";
import { UncachedFile, UncachedWriter } from "../../src/platform/uncached_files.ts";
import { scratchFolder } from "../support/manager_process.ts";
import { randomOf } from "../support/seeded_random.ts";

const MIB = 1024 * 1024;
const SIZE = 5 * MIB;

function filled(seed: number): { readonly bytes: Uint8Array<ArrayBuffer>; [Symbol.dispose](): void } {
  const memory = takeMemory(SIZE);
  const bytes = bytesOfMemory(memory);
  bytes.set(randomOf(seed).bytes(SIZE));
  return { bytes, [Symbol.dispose]: () => returnMemory(memory) };
}

async function writeAll(
  file: { write(bytes: Uint8Array): Promise<number> },
  bytes: Uint8Array,
): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at, at + 2 * MIB));
}

Deno.test("a file written past the page cache holds what was written, whatever its length", async () => {
  for (const folder of [scratchFolder(), scratchFolder("/dev/shm")]) {
    using _ = folder;
    using memory = filled(1);
    let n = 0;
    for (const files of [systemFiles, promptFiles]) {
      for (const length of [0, 1, 4096, MIB - 1, MIB, MIB + 1, 3 * MIB + 4095, SIZE]) {
        const path = `${folder.path}/${n++}`;
        const bytes = memory.bytes.subarray(0, length);
        using file = await files.create(path, 0o600, { uncached: true });
        await writeAll(file, bytes);
        await file.sync();
        assert.deepEqual(Deno.readFileSync(path), new Uint8Array(bytes), `${length} in ${folder.path}`);
        assert.equal((await file.facts()).sizeBytes, length);
      }
    }
  }
});

Deno.test("long and short writes of one file follow each other, past the page cache or not", async () => {
  using folder = scratchFolder();
  using memory = filled(2);
  const pieces = [2 * MIB, 100, 2 * MIB, MIB + 5].map((length) => memory.bytes.subarray(0, length));
  const path = `${folder.path}/mixed`;
  {
    using file = await systemFiles.create(path, 0o600, { uncached: true });
    for (const piece of pieces) await writeAll(file, piece);
  }
  assert.deepEqual(Deno.readFileSync(path), new Uint8Array(await new Blob(pieces).arrayBuffer()));
});

Deno.test("a writer past the page cache takes whole blocks of memory on a border, and leaves the rest", async () => {
  using folder = scratchFolder();
  using memory = filled(3);
  const path = `${folder.path}/file`;
  Deno.writeFileSync(path, new Uint8Array(0));
  // Some filesystems have no such writes, which dd finds out as well.
  const args = ["if=/dev/zero", `of=${folder.path}/other`, "bs=1M", "count=1", "oflag=direct"];
  const { success } = await new Deno.Command("dd", { args, stderr: "null" }).output();
  const taken = (length: number) => success ? length : 0;
  using writer = new UncachedWriter(path);
  assert.equal(await writer.write(memory.bytes.subarray(0, MIB + 700), 0), taken(MIB));
  assert.equal(await writer.write(memory.bytes.subarray(0, 2 * MIB), MIB), taken(2 * MIB));
  const found = Deno.readFileSync(path).subarray(MIB);
  assert.deepEqual(found, new Uint8Array(memory.bytes.subarray(0, taken(2 * MIB))));
  assert.equal(await writer.write(memory.bytes.subarray(0, MIB - 1), 0), 0, "too short");
  assert.equal(await writer.write(memory.bytes.subarray(1, 2 * MIB), 0), 0, "no border of a block in memory");
  assert.equal(await writer.write(memory.bytes.subarray(0, MIB), 5), 0, "no border of a block in the file");
  using none = new UncachedWriter(`${folder.path}/missing`);
  assert.equal(await none.write(memory.bytes.subarray(0, MIB), 0), 0, "no such file");
});

/** What the page cache has of a file, in bytes; null: the system does not tell (cachestat(2), since Linux 6.5). */
function cachedBytes(path: string): number | null {
  const libc = Deno.dlopen("libc.so.6", {
    syscall: { parameters: ["i64", "i32", "buffer", "buffer", "u32"], result: "i64" },
  });
  const fd = openAt(AT_CWD, pathBytes(path), OPEN.read);
  try {
    const found = new BigUint64Array(5);
    const answer = libc.symbols.syscall(451n, fd, new Uint8Array(16), new Uint8Array(found.buffer), 0);
    return answer === 0n ? Number(found[0]) * 4096 : null;
  } finally {
    closeFd(fd);
    libc.close();
  }
}

/** A file of `bytes`, of which the page cache has nothing. */
async function writtenPast(path: string, bytes: Uint8Array): Promise<void> {
  Deno.writeFileSync(path, bytes);
  const drop = ["oflag=nocache", "conv=notrunc,fsync", "count=0", `of=${path}`];
  const { success } = await new Deno.Command("dd", { args: drop, stderr: "null" }).output();
  assert.ok(success);
}

Deno.test("a file read past the page cache gives what is in it, whatever piece is asked for", async () => {
  for (const folder of [scratchFolder(), scratchFolder("/dev/shm")]) {
    using _ = folder;
    using memory = filled(4);
    using target = filled(5);
    const bytes = memory.bytes.slice();
    const path = `${folder.path}/file`;
    for (const isThere of [false, true]) {
      await writtenPast(path, bytes);
      if (isThere) Deno.readFileSync(path);
      using file = await systemFiles.open(path, { uncached: true });
      const { sizeBytes, inode, modifiedMs, kind } = await file.facts();
      const plain = await systemFiles.stat(path);
      assert.deepEqual({ sizeBytes, inode, modifiedMs, kind }, plain);
      for (
        const [position, length] of [
          [0, MIB],
          [4096, MIB + 4096],
          [1, MIB],
          [MIB, 100],
          [3 * MIB, 3 * MIB],
          [
            SIZE - 4096,
            MIB,
          ],
          [SIZE - 5, 10],
          [2 * MIB, MIB],
        ] as const
      ) {
        const wanted = bytes.subarray(position, position + length);
        for (const border of [0, 1]) {
          const into = target.bytes.subarray(border, border + length);
          let got = 0;
          while (got < wanted.length) {
            const count = await file.read(into.subarray(got), position + got);
            assert.ok(count !== null && count > 0);
            got += count;
          }
          assert.equal(got, wanted.length);
          assert.ok(equalBytes(into.subarray(0, got), wanted), `${length} from ${position} on`);
        }
      }
      assert.equal(await file.read(target.bytes.subarray(0, MIB), SIZE), null);
      assert.equal(await file.read(target.bytes.subarray(0, MIB), SIZE + MIB), null);
    }
  }
});

Deno.test("what is read past the page cache does not come into it, and what is there is read from there", async () => {
  using folder = scratchFolder();
  using memory = filled(6);
  using target = filled(7);
  const path = `${folder.path}/file`;
  await writtenPast(path, memory.bytes.slice());
  const args = [`if=${path}`, "of=/dev/null", "bs=1M", "count=1", "iflag=direct"];
  const { success } = await new Deno.Command("dd", { args, stderr: "null" }).output();
  const isTold = cachedBytes(path) === 0; // not so by an older system, nor of a disk in memory
  {
    using file = await UncachedFile.open(path);
    assert.ok(file !== null);
    const read = async (from: number, to: number, position: number) => {
      target.bytes.fill(0);
      assert.equal(await file.read(target.bytes.subarray(from, to), position), to - from);
      assert.ok(
        equalBytes(target.bytes.subarray(from, to), memory.bytes.subarray(position, position + to - from)),
      );
    };
    await read(0, 2 * MIB, 0);
    if (isTold && success) assert.equal(cachedBytes(path), 0);
    await read(1, MIB, 0); // no border of a block in memory
    if (isTold) assert.ok((cachedBytes(path) ?? 0) >= MIB, "an ordinary read");
    await read(0, MIB, 0); // from the page cache
    await read(0, 2 * MIB, 3 * MIB);
  }
  assert.equal(await UncachedFile.open(`${folder.path}/missing`), null);
  await assert.rejects(systemFiles.open(`${folder.path}/missing`, { uncached: true }), Deno.errors.NotFound);
});

Deno.test("the memory that was returned last is taken first: it was touched, and is in the processor's caches", () => {
  const blocks = [takeMemory(3 * MIB), takeMemory(3 * MIB), takeMemory(3 * MIB)];
  for (const block of blocks) returnMemory(block);
  const again = [takeMemory(3 * MIB), takeMemory(3 * MIB), takeMemory(3 * MIB)];
  assert.deepEqual(again, blocks.toReversed());
  for (const block of again) returnMemory(block);
});

Deno.test("large blocks begin where large pages do, and share none", () => {
  const sizes = [2 * MIB, 3 * MIB + 1, 2 * MIB, 16 * MIB];
  const blocks = sizes.map((size) => takeLargePages(size));
  for (const [i, block] of blocks.entries()) {
    assert.equal(block.address % BigInt(2 * MIB), 0n);
    assert.equal(bytesOfMemory(block).length, sizes[i]);
    bytesOfMemory(block).fill(i + 1);
  }
  for (const [i, block] of blocks.entries()) {
    assert.ok(bytesOfMemory(block).every((byte) => byte === i + 1));
    returnMemory(block);
  }
});

Deno.test("memory that was returned is used again, and all threads see one", async () => {
  const memory = takeMemory(MIB);
  bytesOfMemory(memory).set([1, 2, 3]);
  const source = `
    const { bytesOfMemory } = await import(${
    JSON.stringify(import.meta.resolve("../../src/platform/shared_memory.ts"))
  });
    onmessage = ({ data }) => {
      const bytes = bytesOfMemory(data);
      bytes[3] = bytes[0] + bytes[1] + bytes[2];
      postMessage(bytes.length);
    };
    postMessage("ready");`;
  const worker = new Worker(`data:text/javascript,${encodeURIComponent(source)}`, { type: "module" });
  try {
    const answer = () =>
      new Promise<unknown>((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = (event) => reject(event.error ?? new Error(event.message));
      });
    assert.equal(await answer(), "ready");
    worker.postMessage(memory);
    assert.equal(await answer(), MIB);
    assert.deepEqual([...bytesOfMemory(memory).subarray(0, 4)], [1, 2, 3, 6]);
  } finally {
    worker.terminate();
  }
  const other = takeMemory(MIB);
  assert.notEqual(other.address, memory.address);
  returnMemory(structuredClone(memory)); // as a message brings it
  assert.throws(() => returnMemory(memory), /returned once/, "or two would write to it");
  assert.deepEqual(takeMemory(MIB), memory);
  returnMemory(memory);
  returnMemory(other);
});
