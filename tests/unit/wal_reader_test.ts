/** The log's frames, from logs that SQLite wrote and from the same ones damaged. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { AT_CWD, closeFd, OPEN, openAt, pathBytes } from "../../src/platform/libc_files.ts";
import {
  evidenceOf,
  frameBytes,
  logIsStill,
  logStart,
  parseWalHeader,
  readWalHeader,
  scanWal,
  type WalHeader,
  type WalScan,
} from "../../src/database/wal_reader.ts";
import { addToSum } from "../../src/database/wal_checksum.ts";
import { say } from "../support/say.ts";
import { scratchFolder, seededRandom } from "../support/tree_model.ts";

/** Bytes of a log with `commits` commits of a row each. */
function logOf(folder: string, commits: number, pageSize = 1024): Uint8Array<ArrayBuffer> {
  const path = `${folder}/log-${commits}-${pageSize}.db`;
  const database = new DatabaseSync(path);
  database.exec(
    `PRAGMA page_size=${pageSize}; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a)`,
  );
  for (let i = 1; i < commits; i++) database.exec("INSERT INTO t VALUES(randomblob(300))");
  const bytes = Deno.readFileSync(`${path}-wal`);
  database.close();
  return bytes;
}

function withLog<T>(folder: string, bytes: Uint8Array, use: (fd: number) => T): T {
  const path = `${folder}/bytes`;
  Deno.writeFileSync(path, bytes);
  const fd = openAt(AT_CWD, pathBytes(path), OPEN.read);
  try {
    return use(fd);
  } finally {
    closeFd(fd);
  }
}

function headerOf(fd: number): WalHeader {
  const header = readWalHeader(fd);
  assert.ok(typeof header !== "string");
  return header;
}

function scan(folder: string, bytes: Uint8Array, maxBytes = Infinity): WalScan | null {
  return withLog(folder, bytes, (fd) => {
    const header = readWalHeader(fd);
    return typeof header === "string" ? null : scanWal(fd, header, logStart(header), maxBytes);
  });
}

/** The same log as a big-endian machine's SQLite would sum it. */
function bigEndian(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const result = bytes.slice();
  const view = new DataView(result.buffer);
  view.setUint32(0, 0x377f0683);
  const sum = { sum1: 0, sum2: 0 };
  const store = (at: number) => {
    view.setUint32(at, sum.sum1);
    view.setUint32(at + 4, sum.sum2);
  };
  addToSum(sum, result, 0, 24, true);
  store(24);
  const size = frameBytes(view.getUint32(8));
  for (let at = 32; at < result.length; at += size) {
    addToSum(sum, result, at, at + 8, true);
    addToSum(sum, result, at + 24, at + size, true);
    store(at + 16);
  }
  return result;
}

Deno.test("addToSum gives the published order of the words in both byte orders", () => {
  const bytes = Uint8Array.from([1, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 128]);
  const little = { sum1: 0, sum2: 0 };
  addToSum(little, bytes, 0, 16, false);
  // s1 = 1, s2 = 2+1 = 3; s1 = 1+ffffffff+3 = 3, s2 = 3+80000000+3
  assert.deepEqual(little, { sum1: 3, sum2: 0x80000006 });
  const big = { sum1: 0, sum2: 0 };
  addToSum(big, bytes, 0, 8, true);
  assert.deepEqual(big, { sum1: 0x01000000, sum2: 0x03000000 });
});

Deno.test("scanWal takes the same from a log in either byte order, whole or in parts", async () => {
  await using folder = scratchFolder("wal-");
  for (const pageSize of [512, 4096, 65536]) {
    const bytes = logOf(folder.path, 12, pageSize);
    const whole = scan(folder.path, bytes);
    assert.ok(whole !== null && whole.commits === 12 && !whole.more);
    assert.equal(whole.end.offset, bytes.length);
    const other = scan(folder.path, bigEndian(bytes));
    assert.ok(other !== null);
    assert.deepEqual([other.commit, other.commits, other.pages], [whole.commit, whole.commits, whole.pages]);
    withLog(folder.path, bytes, (fd) => {
      const header = headerOf(fd);
      const pages = new Map<number, number>();
      let commits = 0;
      for (let from = logStart(header), more = true; more;) {
        const part = scanWal(fd, header, from, 3 * frameBytes(pageSize));
        assert.ok(part !== null);
        for (const [pgno, offset] of part.pages) pages.set(pgno, offset);
        commits += part.commits;
        from = { ...from, ...part.end };
        more = part.more;
      }
      assert.equal(commits, 12);
      assert.deepEqual(new Map([...pages].sort()), new Map([...whole.pages].sort()));
    });
  }
});

Deno.test("scanWal takes a commit or leaves it, wherever the log is cut or a bit of it is flipped", async () => {
  await using folder = scratchFolder("wal-");
  const seed = 20;
  const random = seededRandom(seed);
  const bytes = logOf(folder.path, 8, 512);
  const whole = scan(folder.path, bytes);
  assert.ok(whole !== null);
  const edges = new Map<number, number>(); // end of a commit → commits up to there
  const size = frameBytes(512);
  let count = 0;
  for (let at = 32; at < bytes.length; at += size) {
    if (new DataView(bytes.buffer).getUint32(at + 4) !== 0) edges.set(at + size, ++count);
  }
  let taken = 0;
  for (let i = 0; i < 400; i++) {
    const at = Math.floor(random() * bytes.length);
    const damaged = random() < 0.3 ? bytes.slice(0, at) : bytes.slice();
    if (damaged.length === bytes.length) damaged[at] = (damaged[at] ?? 0) ^ (1 << Math.floor(random() * 8));
    const found = scan(folder.path, damaged);
    if (found === null) continue;
    taken++;
    assert.ok(
      found.end.offset <= at || at < 32,
      `seed ${seed}: nothing at or after the damage at ${at} is taken`,
    );
    assert.equal(edges.get(found.end.offset), found.commits);
  }
  assert.ok(taken > 50);
  say(`${taken} of 400 damaged logs had a commit left`);
});

Deno.test("scanWal drops pages past the last commit's size", async () => {
  await using folder = scratchFolder("wal-");
  const path = `${folder.path}/a.db`;
  const database = new DatabaseSync(path);
  database.exec("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a)");
  database.exec("INSERT INTO t VALUES(randomblob(50000)); DELETE FROM t; VACUUM");
  const found = scan(folder.path, Deno.readFileSync(`${path}-wal`));
  database.close();
  assert.ok(found !== null && found.commit < 5);
  assert.ok([...found.pages.keys()].every((pgno) => pgno <= found.commit));
});

Deno.test("readWalHeader tells an empty log, a torn header and a log", async () => {
  await using folder = scratchFolder("wal-");
  const bytes = logOf(folder.path, 2);
  const read = (log: Uint8Array) => withLog(folder.path, log, readWalHeader);
  assert.equal(read(new Uint8Array(0)), "empty");
  assert.equal(read(bytes.subarray(0, 31)), "torn");
  assert.equal(read(new Uint8Array(4096)), "torn");
  for (let at = 0; at < 32; at++) {
    const damaged = bytes.slice(0, 32);
    damaged[at] = (damaged[at] ?? 0) ^ 0x40;
    assert.equal(read(damaged), "torn", `byte ${at}`);
  }
  assert.equal(typeof read(bytes), "object");
  assert.equal(parseWalHeader(bytes.slice(0, 32))?.pageSize, 1024);
});

Deno.test("evidenceOf holds for a whole log up to the position, and for nothing that differs before it", async () => {
  await using folder = scratchFolder("wal-");
  const bytes = logOf(folder.path, 6);
  const whole = scan(folder.path, bytes, 3 * frameBytes(1024));
  assert.ok(whole !== null);
  withLog(folder.path, bytes, (fd) => {
    const header = headerOf(fd);
    const position = { ...logStart(header), ...whole.end };
    assert.ok(evidenceOf(fd, header, position).chainHolds);
    assert.ok(!evidenceOf(fd, header, { ...position, sum1: position.sum1 ^ 1 }).chainHolds);
    assert.ok(!evidenceOf(fd, header, { ...position, offset: bytes.length + 5000 }).chainHolds);
    assert.ok(evidenceOf(fd, header, logStart(header)).chainHolds);
    assert.ok(logIsStill(fd, header));
    assert.ok(!logIsStill(fd, { ...header, salt2: 0 }));
  });
  const position = withLog(folder.path, bytes, (fd) => ({ ...logStart(headerOf(fd)), ...whole.end }));
  bytes[40 + 24] = (bytes[40 + 24] ?? 0) ^ 1; // in the first frame, long before the position
  withLog(folder.path, bytes, (fd) => assert.ok(!evidenceOf(fd, headerOf(fd), position).chainHolds));
});
