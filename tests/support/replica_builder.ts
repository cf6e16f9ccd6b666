/**
 * A replica in any store, made of a real SQLite database: each transaction becomes an L0 file of the pages that it
 * changed, merges and snapshots are made at will, and the database's bytes at each TXID are kept to compare with.
 */

import { Buffer } from "node:buffer";
import { DatabaseSync } from "node:sqlite";
import { LtxEncoder } from "../../src/database/ltx/mod.ts";
import {
  replicaKey,
  type ReplicaName,
  type ReplicaPlace,
  timestampMetadata,
} from "../../src/database/replica_layout.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { timeOf } from "./replica_model.ts";

type Bytes = Uint8Array<ArrayBuffer>;

export interface BuilderOptions {
  readonly store: ObjectStore;
  readonly place: ReplicaPlace;
  /** Of the database; a folder that the caller removes. */
  readonly folder: string;
  readonly pageSize?: number;
  /** Fencing token in the L0 files. */
  readonly token?: number;
}

export class ReplicaBuilder implements Disposable {
  readonly #options: BuilderOptions;
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly pageSize: number;
  /** The database's bytes after TXID 1, 2, … */
  readonly states: Bytes[] = [];

  constructor(options: BuilderOptions) {
    this.#options = options;
    this.pageSize = options.pageSize ?? 4096;
    this.#path = `${options.folder}/source-${this.pageSize}.db`;
    this.#database = new DatabaseSync(this.#path);
    this.#database.exec(`PRAGMA page_size=${this.pageSize}; PRAGMA synchronous=OFF`);
  }

  get txid(): number {
    return this.states.length;
  }

  bytesAt(txid: number): Bytes {
    const state = this.states[txid - 1];
    if (state === undefined) throw new Error(`no TXID ${txid}`);
    return state;
  }

  /** Runs `sql` as one commit and puts its L0 file. */
  async commit(sql: string): Promise<number> {
    this.#database.exec(sql);
    const state = Deno.readFileSync(this.#path);
    state[18] = state[19] = 2; // as a database in WAL mode has it
    this.states.push(state);
    await this.put({ level: 0, minTxid: this.txid, maxTxid: this.txid });
    return this.txid;
  }

  /** Commits that grow, shrink, rewrite and vacuum, from a seed. */
  async commitRandom(random: () => number, count: number): Promise<void> {
    await this.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB); CREATE INDEX i ON t(body)");
    for (let turn = 0; turn < count; turn++) {
      const roll = random();
      const size = Math.floor(random() * this.pageSize * 3);
      if (roll < 0.6) await this.commit(`INSERT INTO t(body) VALUES(randomblob(${size}))`);
      else if (roll < 0.75) {
        await this.commit(
          `UPDATE t SET body=randomblob(${size}) WHERE id % 3 = 0; PRAGMA user_version=${turn}`,
        );
      } else if (roll < 0.9) await this.commit(`DELETE FROM t WHERE id % 2 = 0; PRAGMA user_version=${turn}`);
      else await this.commit("VACUUM");
    }
  }

  encode(
    { level, minTxid, maxTxid }: ReplicaName,
    change?: (pgno: number, data: Bytes) => Bytes | null,
  ): Bytes {
    const { pageSize } = this;
    const state = this.bytesAt(maxTxid);
    const encoder = new LtxEncoder({
      pageSize,
      commit: state.length / pageSize,
      minTxid,
      maxTxid,
      timestampMs: timeOf(maxTxid),
      ...(level === 0 ? { walOffset: 32, nodeId: this.#options.token ?? 7 } : {}),
    });
    const parts: Uint8Array[] = [encoder.start()];
    for (const pgno of this.#changedPages(minTxid, maxTxid)) {
      const page = state.slice((pgno - 1) * pageSize, pgno * pageSize);
      const data = change === undefined ? page : change(pgno, page);
      if (data !== null) parts.push(encoder.page(pgno, data));
    }
    parts.push(encoder.finish().bytes);
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }

  /** Puts the file that a compaction to this range would make. */
  async put(name: ReplicaName, bytes = this.encode(name), metadata = true): Promise<string> {
    const key = replicaKey(this.#options.place, name);
    const described = metadata && this.#options.place.layout === "bucket";
    await this.#options.store.put(
      key,
      bytes,
      described ? { metadata: timestampMetadata(timeOf(name.maxTxid)) } : {},
    );
    return key;
  }

  async remove(name: ReplicaName): Promise<void> {
    await this.#options.store.delete(replicaKey(this.#options.place, name));
  }

  #changedPages(minTxid: number, maxTxid: number): number[] {
    const { pageSize } = this;
    const end = this.bytesAt(maxTxid).length / pageSize;
    const changed = new Set<number>();
    for (let txid = minTxid; txid <= maxTxid; txid++) {
      const before = txid === 1 ? new Uint8Array() : this.bytesAt(txid - 1);
      const after = this.bytesAt(txid);
      for (let pgno = 1; pgno <= Math.min(end, after.length / pageSize); pgno++) {
        const from = (pgno - 1) * pageSize;
        const [a, b] = [before.subarray(from, from + pageSize), after.subarray(from, from + pageSize)];
        if (a.length < pageSize || Buffer.compare(a, b) !== 0) changed.add(pgno);
      }
    }
    if (changed.size === 0) changed.add(1);
    return [...changed].sort((a, b) => a - b);
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}
