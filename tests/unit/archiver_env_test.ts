import assert from "node:assert/strict";
import { archiverEnv } from "../../src/checkpoint/archiver_client.ts";
import { isMemoryShort } from "../../src/platform/machine.ts";

const GIB = 1024 ** 3;

Deno.test("the archiver keeps the memory of bodies where it sends them and there is enough", () => {
  const kept = (kind: "s3" | "directory", isShort: boolean) =>
    Number(archiverEnv({ kind }, isShort)["MALLOC_MMAP_THRESHOLD_"]) > 16 * 1024 * 1024;
  assert.ok(kept("s3", false));
  assert.ok(!kept("s3", true));
  assert.ok(!kept("directory", false), "which writes them from where they are");
});

Deno.test("memory is short below a gibibyte", () => {
  assert.deepEqual([GIB - 1, GIB, 24 * GIB].map((bytes) => isMemoryShort(bytes)), [true, false, false]);
});
