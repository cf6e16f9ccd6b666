/** Long writes past the page cache: the file is what was written, on filesystems with and without such writes. */

import assert from "node:assert/strict";
import { promptFiles, systemFiles } from "../../src/platform/local_files.ts";
import { bytesOfMemory, returnMemory, takeLargePages, takeMemory } from "../../src/platform/shared_memory.ts";
import { UncachedWriter } from "../../src/platform/uncached_write.ts";
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
