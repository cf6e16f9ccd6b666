/** A database, an application that uses it and a follower, and what must be true of the files that it writes. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { Follower } from "../../src/database/follower.ts";
import type { FollowerOptions, SyncResult } from "../../src/database/follower_types.ts";
import { LtxDecoder } from "../../src/database/ltx/mod.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { ownUid } from "../../src/platform/libc_files.ts";
import { DatabaseProgram } from "./database_program.ts";
import { scratchFolder } from "./tree_model.ts";

/** Made once, before any test: it loads libc, which older runtimes count as a leak of the test that does it. */
const clock = systemClock();
ownUid();

/** What the files of a chain give, applied in order. */
export class Replica {
  bytes = new Uint8Array(0);
  txid = 0;

  apply(file: Uint8Array<ArrayBuffer>): void {
    const decoder = new LtxDecoder();
    const pages = decoder.push(file);
    decoder.end();
    const { header } = decoder;
    assert.ok(header !== null);
    const { pageSize, commit } = header;
    const whole = pages.length === commit;
    if (this.txid !== 0) assert.equal(header.minTxid, this.txid + 1, "no TXID is left out");
    if (this.bytes.length === 0) assert.ok(whole, "the first file holds all pages");
    const next = new Uint8Array(commit * pageSize);
    if (!whole) next.set(this.bytes.subarray(0, next.length));
    for (const { pgno, data } of pages) next.set(data, (pgno - 1) * pageSize);
    this.bytes = next;
    this.txid = header.maxTxid;
  }
}

let copies = 0;

/**
 * The committed state as the bytes of one file: SQLite's own answer, from a copy of the files that another process
 * makes (opening them here would drop the follower's locks). Nobody may write meanwhile.
 */
export async function committedState(path: string, folder: string): Promise<Uint8Array<ArrayBuffer>> {
  const copy = `${folder}/state-${++copies}.db`;
  const script = 'cp "$0" "$1" && { ! test -e "$0-wal" || cp "$0-wal" "$1-wal"; } && ' +
    '{ ! test -e "$0-journal" || cp "$0-journal" "$1-journal"; }';
  const { success } = await new Deno.Command("sh", { args: ["-c", script, path, copy] }).output();
  assert.ok(success);
  const database = new DatabaseSync(copy);
  assert.equal(database.prepare("PRAGMA integrity_check").get()?.["integrity_check"], "ok");
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  database.close();
  const bytes = await Deno.readFile(copy);
  await Deno.remove(copy);
  return bytes;
}

export function assertSameBytes(actual: Uint8Array, wanted: Uint8Array, what: string): void {
  assert.equal(actual.length, wanted.length, `${what}: length`);
  for (let i = 0; i < wanted.length; i++) {
    if (actual[i] !== wanted[i]) assert.fail(`${what}: byte ${i} is ${actual[i]}, wanted ${wanted[i]}`);
  }
}

export class FollowedDatabase implements AsyncDisposable {
  readonly program: DatabaseProgram;
  readonly folder: string;
  readonly path: string;
  readonly #scratch: AsyncDisposable & { readonly path: string };
  readonly #options: Partial<FollowerOptions>;
  #follower: Follower | null = null;
  readonly replica = new Replica();

  private constructor(
    program: DatabaseProgram,
    scratch: AsyncDisposable & { readonly path: string },
    options: Partial<FollowerOptions>,
  ) {
    this.program = program;
    this.#scratch = scratch;
    this.folder = scratch.path;
    this.path = `${scratch.path}/app/app.db`;
    this.#options = options;
    Deno.mkdirSync(`${scratch.path}/app`);
  }

  static async make(options: Partial<FollowerOptions> = {}): Promise<FollowedDatabase> {
    return new FollowedDatabase(await DatabaseProgram.start(), scratchFolder("followed-"), options);
  }

  /** One in WAL mode with a table t(a INTEGER PRIMARY KEY, b), on connection "app". */
  static async wal(options: Partial<FollowerOptions> = {}, before = ""): Promise<FollowedDatabase> {
    const scene = await FollowedDatabase.make(options);
    await scene.program.open("app", scene.path, `${before}PRAGMA journal_mode=WAL; ${TABLE}`);
    return scene;
  }

  get stateFolder(): string {
    return `${this.folder}/databases/app`;
  }

  get follower(): Follower {
    assert.ok(this.#follower !== null, "start first");
    return this.#follower;
  }

  async start(options: Partial<FollowerOptions> = {}): Promise<Follower> {
    await this.stop();
    const follower = new Follower({
      path: this.path,
      folder: this.stateFolder,
      clock,
      baseline: null,
      token: 7,
      journal: "follow",
      ...this.#options,
      ...options,
    });
    await follower.start();
    return this.#follower = follower;
  }

  /** Ends the follower without a last sync, as a kill would. */
  async stop(): Promise<void> {
    await this.#follower?.[Symbol.asyncDispose]();
    this.#follower = null;
  }

  /** Takes the local files that the replica has not yet. */
  async pull(): Promise<void> {
    for (const { txid, path, sizeBytes } of this.follower.localFiles()) {
      if (txid <= this.replica.txid) continue;
      const bytes = await Deno.readFile(path);
      assert.equal(bytes.length, sizeBytes);
      this.replica.apply(bytes);
    }
  }

  /** The replica is the committed state, byte for byte; nobody writes now. */
  async assertSame(what = "replica"): Promise<void> {
    await this.pull();
    assertSameBytes(this.replica.bytes, await committedState(this.path, this.folder), what);
  }

  /** A sync, after which the replica must be the committed state. */
  async synced(what = "replica"): Promise<SyncResult> {
    const result = await this.follower.sync();
    await this.assertSame(what);
    return result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.program.kill();
    await this.#scratch[Symbol.asyncDispose]();
  }
}

export const TABLE = "CREATE TABLE t(a INTEGER PRIMARY KEY, b)";

/** Adds `count` rows of random content, `size` bytes each. */
export function rows(count: number, size = 500): string {
  return "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<" + count + ")" +
    ` INSERT INTO t(b) SELECT randomblob(${size}) FROM n`;
}

export function assertSnapshot(result: SyncResult, reason: string | null): void {
  assert.ok(result.changed, "something was written");
  assert.equal(result.snapshot, reason);
}
