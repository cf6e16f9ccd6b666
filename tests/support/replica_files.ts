/** A database as a model: random commits as level-0 LTX files, and what a restore must give at each TXID. */

import { createHash } from "node:crypto";
import {
  lockPage,
  LTX_HEADER_BYTES,
  LtxEncoder,
  type LtxPage,
  mergePages,
  readHeader,
  readPages,
} from "../../src/database/ltx/mod.ts";
import { type ReplicaPlace } from "../../src/database/replica_layout.ts";
import { listReplica, type ReplicaFile } from "../../src/database/replica_listing.ts";
import { planRestore, type RestoreTarget } from "../../src/database/restore_plan.ts";
import type { LocalCommitFile } from "../../src/database/slot_writer.ts";
import type { Random } from "../../src/platform/random.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";

export type Bytes = Uint8Array<ArrayBuffer>;

export interface ModelOptions {
  readonly random: Random;
  readonly pageSize?: number;
  /** Most pages that the database grows to. */
  readonly mostPages?: number;
  /** Goes on from another one's state: what a holder has after a take-over. */
  readonly from?: ModelDatabase;
}

export class ModelDatabase {
  readonly pageSize: number;
  /** Level-0 files by TXID. */
  readonly files = new Map<number, Bytes>();
  /** Digest of all pages by TXID. */
  readonly digests = new Map<number, string>();
  readonly #random: Random;
  readonly #mostPages: number;
  #pages: Bytes[] = [];
  #txid = 0;
  #timestampMs = 0;

  constructor(options: ModelOptions) {
    this.pageSize = options.from?.pageSize ?? options.pageSize ?? 512;
    this.#random = options.random;
    this.#mostPages = options.mostPages ?? 40;
    if (options.from === undefined) return;
    this.#pages = options.from.#pages.map((page) => page.slice());
    this.#txid = options.from.#txid;
    this.#timestampMs = options.from.#timestampMs;
    for (const [txid, digest] of options.from.digests) this.digests.set(txid, digest);
  }

  get txid(): number {
    return this.#txid;
  }

  /** One commit: some pages change, the database may grow or shrink. */
  commit(options: { readonly token: number; readonly nowMs: number; readonly whole?: boolean }): number {
    const before = this.#pages.length;
    const count = Math.max(1, Math.min(this.#mostPages, before + this.#below(7) - 2));
    const changed = new Set<number>();
    for (let pgno = before + 1; pgno <= count; pgno++) changed.add(pgno);
    this.#pages.length = count;
    const edits = 1 + this.#below(4);
    for (let edit = 0; edit < edits; edit++) changed.add(1 + this.#below(count));
    for (const pgno of changed) this.#pages[pgno - 1] = this.#newPage();
    const txid = ++this.#txid;
    this.#timestampMs = Math.max(options.nowMs, this.#timestampMs + 1);
    const isWhole = txid === 1 || options.whole === true;
    const pgnos = isWhole ? this.#pages.map((_, at) => at + 1) : [...changed].sort((a, b) => a - b);
    this.files.set(txid, this.#encode(txid, options.token, pgnos));
    this.digests.set(txid, digestOf(this.#pages));
    return txid;
  }

  size(txid: number): number {
    return this.files.get(txid)?.length ?? 0;
  }

  /** As a slot writer opens it. */
  readonly openLocal = (txid: number): Promise<LocalCommitFile> => {
    const bytes = this.files.get(txid);
    if (bytes === undefined) return Promise.reject(new Error(`no local file of TXID ${txid}`));
    return Promise.resolve({
      read: (start, end) => Promise.resolve(bytes.slice(start, end)),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    });
  };

  #encode(txid: number, token: number, pgnos: readonly number[]): Bytes {
    const encoder = new LtxEncoder({
      pageSize: this.pageSize,
      commit: this.#pages.length,
      minTxid: txid,
      maxTxid: txid,
      timestampMs: this.#timestampMs,
      walOffset: 32,
      nodeId: token,
    });
    const parts: Bytes[] = [encoder.start()];
    for (const pgno of pgnos) {
      const page = this.#pages[pgno - 1];
      if (page !== undefined && pgno !== lockPage(this.pageSize)) parts.push(encoder.page(pgno, page));
    }
    parts.push(encoder.finish().bytes);
    return joined(parts);
  }

  #newPage(): Bytes {
    const page = new Uint8Array(this.pageSize);
    // Half of it compresses.
    page.set(this.#random.bytes(this.pageSize / 2));
    return page;
  }

  #below(count: number): number {
    return Math.floor(this.#random.float() * count);
  }
}

export function joined(parts: readonly Uint8Array[]): Bytes {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function digestOf(pages: readonly Uint8Array[]): string {
  const hash = createHash("sha1");
  for (const page of pages) hash.update(page);
  return hash.digest("hex");
}

/** What a restore gives, by the plan of the shipped planner over a fresh listing. */
export async function restored(
  store: ObjectStore,
  place: ReplicaPlace,
  target: RestoreTarget,
): Promise<{ readonly txid: number; readonly digest: string; readonly plan: readonly ReplicaFile[] }> {
  const { files } = await listReplica(store, place);
  const plan = planRestore(
    files.map((file) => ({ ...file, timestampMs: file.timestampMs ?? file.modifiedMs })),
    target,
  );
  const bodies: Bytes[] = [];
  for (const file of plan) bodies.push((await store.get(file.key)).body);
  const newest = bodies.at(-1);
  if (newest === undefined) throw new Error("an empty plan");
  const { commit, maxTxid } = readHeader(newest.subarray(0, LTX_HEADER_BYTES));
  const inputs = bodies.map((body) => readPages(once(body)));
  const pages: LtxPage[] = await Array.fromAsync(mergePages(inputs, commit));
  return { txid: maxTxid, digest: digestOf(pages.map((page) => page.data)), plan };
}

async function* once(body: Bytes): AsyncGenerator<Bytes> {
  yield await Promise.resolve(body);
}
