/** Stage jobs come out of a message as they went in: every kind, odd paths and attributes included. */

import assert from "node:assert/strict";
import type { FileTarget, StageJob } from "../../src/checkpoint/stage_job.ts";
import { packJob, unpackJob } from "../../src/checkpoint/stage_wire.ts";

const bytes = (...values: number[]) => new Uint8Array(values);
const id = (letter: string) => letter.repeat(43);

const FILES: readonly FileTarget[] = [
  {
    entry: { path: bytes(0x61), type: "file", mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, size: 0 },
    create: true,
    complete: true,
    foreign: false,
  },
  {
    entry: {
      path: bytes(0xff, 0x2f, 0x20, 0x0a),
      type: "file",
      mode: 0o7777,
      uid: 0xffffffff,
      gid: 0xfffffffe,
      mtimeNs: -(2n ** 63n),
      size: Number.MAX_SAFE_INTEGER,
      xattrs: [{ name: "user.a\xff", value: bytes(0, 1) }, { name: "user.b", value: bytes() }],
    },
    create: false,
    complete: false,
    foreign: true,
  },
];
const PART = { folder: 7, owner: { uid: 1, gid: 2 }, files: FILES };
const CHUNKS = [
  { id: id("a"), length: 5, writes: [0, 0, 1, 2 ** 50] },
  { id: id("_"), length: 1024 * 1024, writes: [1, 17] },
];

const JOBS: readonly StageJob[] = [
  {
    ...PART,
    kind: "pack",
    pack: "00000001/x",
    start: 12,
    bytes: bytes(1, 2, 3),
    chunks: CHUNKS.map((chunk, i) => ({ ...chunk, flags: i, at: 2 ** 33 + i, stored: 3 })),
  },
  {
    ...PART,
    owner: null,
    kind: "local",
    source: 9,
    paths: ["a", "\xff/b"],
    chunks: CHUNKS.map((chunk, i) => ({ ...chunk, path: i - 1, at: 2 ** 40 })),
  },
  { ...PART, kind: "given", bytes: bytes(9), chunks: CHUNKS },
  { ...PART, kind: "given", bytes: bytes(9), chunks: [] },
  { ...PART, kind: "complete" },
  { ...PART, files: [], kind: "complete" },
];

Deno.test("stage jobs of each kind come out of a message as they went in", () => {
  for (const job of JOBS) {
    const wanted = structuredClone(job);
    const { packed, transfer } = packJob(job);
    assert.deepEqual(unpackJob(structuredClone(packed, { transfer })), wanted, job.kind);
    if (job.kind === "pack") assert.equal(job.bytes.length, 0, "its bytes have moved");
  }
});
