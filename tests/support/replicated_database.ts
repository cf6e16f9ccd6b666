/**
 * A database that is replicated as the follower child does it, in this process: its follower, the loop that sends its
 * files, slot writer and compactor, under a clock that a test sets ahead. Applications are other processes: nothing here
 * may open the database or its `-shm`.
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { FollowParts } from "../../src/database/follow_parts.ts";
import { LagAccount } from "../../src/database/follow_lag.ts";
import { Places } from "../../src/database/follow_places.ts";
import type { FollowedDatabase } from "../../src/database/follow_protocol.ts";
import { ShipLoop } from "../../src/database/follow_ship.ts";
import { Follower } from "../../src/database/follower.ts";
import type { FollowerLimits, SyncResult } from "../../src/database/follower_types.ts";
import type { ReplicaLayout, ReplicaPlace } from "../../src/database/replica_layout.ts";
import { listReplica } from "../../src/database/replica_listing.ts";
import { SendWindow } from "../../src/database/replica_window.ts";
import { restoreDatabaseTo } from "../../src/database/restore_database.ts";
import { listRestorePoints } from "../../src/database/restore_points.ts";
import { type RestoreTarget } from "../../src/database/restore_plan.ts";
import type { RestoreResult } from "../../src/database/restore_types.ts";
import type { StateManagerError } from "../../src/platform/errors.ts";
import { isRoot } from "../../src/platform/libc_files.ts";
import { systemRandom } from "../../src/platform/random.ts";
import type { ObjectStore } from "../../src/storage/mod.ts";
import { JumpingClock } from "./jumping_clock.ts";
import type { SqliteShell } from "./sqlite_shell.ts";
import { removeTree } from "./tree_model.ts";

/** It loads libc, which older runtimes count as a leak of the test that does it. */
isRoot();

export const DAY_MS = 24 * 3_600_000;
/** What is sent to a store beside us is there in milliseconds; a gigabyte takes a minute. */
const DURABLE_LIMIT_MS = 300_000;

/** The content of a database, in few bytes. */
export interface Content {
  /** Of the committed state as one file. */
  readonly bytes: string;
  readonly dump: string;
}

export function sha256Of(path: string): string {
  return createHash("sha256").update(Deno.readFileSync(path)).digest("hex");
}

/** Of the `.dump` of a database that nobody uses. Removes it. */
export async function takeDump(shell: SqliteShell, path: string): Promise<string> {
  const text = `${path}.sql`;
  const lines = await shell.must(
    `.open '${path}'\nPRAGMA integrity_check;\n.output '${text}'\n.dump\n.output\n.open :memory:`,
  );
  assert.deepEqual(lines, ["ok"], `integrity_check of ${path}`);
  const dump = sha256Of(text);
  for (const each of [text, path, `${path}-wal`, `${path}-shm`]) await Deno.remove(each).catch(() => {});
  return dump;
}

let copies = 0;

/**
 * The committed state, twice: SQLite's recovery of a copy of the files gives the bytes, its own backup the dump. By
 * another process, since opening the files here would drop the follower's locks. Nobody may commit or checkpoint
 * meanwhile.
 */
export async function contentOf(shell: SqliteShell, path: string, folder: string): Promise<Content> {
  const [raw, backup] = [`${folder}/raw-${++copies}.db`, `${folder}/backup-${copies}.db`];
  await shell.must(`.shell cp '${path}' '${raw}'; ! test -e '${path}-wal' || cp '${path}-wal' '${raw}-wal'`);
  await shell.must(`.open '${raw}'\nPRAGMA wal_checkpoint(TRUNCATE);\n.open :memory:`);
  const bytes = sha256Of(raw);
  await shell.must(`.open '${path}'\n.timeout 5000\n.backup '${backup}'\n.open :memory:`);
  const dump = await takeDump(shell, backup);
  assert.equal(await takeDump(shell, raw), dump, "both copies of the source");
  return { bytes, dump };
}

export interface ReplicatedOptions {
  /** The machine's own: the application's file, state and scratch files are in it. */
  readonly folder: string;
  readonly store: ObjectStore;
  readonly layout: ReplicaLayout;
  readonly limits?: Partial<FollowerLimits>;
}

/** How the file stands when it is opened. */
export interface StartOptions {
  /** It was just restored to this TXID. */
  readonly baseline?: number;
  readonly newTerm?: boolean;
}

export class ReplicatedDatabase implements AsyncDisposable {
  readonly clock = new JumpingClock();
  readonly path: string;
  readonly place: ReplicaPlace;
  readonly pins: number[] = [];
  readonly counts = { snapshots: 0, pastLog: 0, checkpoints: 0, merges: 0, deleted: 0 };
  token = 1;
  readonly #options: ReplicatedOptions;
  readonly #compactions = new Places(1);
  readonly #window = new SendWindow(this.clock, Number.MAX_SAFE_INTEGER);
  #follower: Follower | null = null;
  #ship: ShipLoop | null = null;
  #stop = new AbortController();
  #shipping: Promise<void> = Promise.resolve();
  #errors: unknown[] = [];
  #restores = 0;

  constructor(options: ReplicatedOptions) {
    this.#options = options;
    this.path = `${options.folder}/app/app.db`;
    this.place = { layout: options.layout, name: "app" };
    Deno.mkdirSync(`${options.folder}/app`);
  }

  get #database(): FollowedDatabase {
    return {
      name: "app",
      path: this.path,
      baseline: null,
      pins: [],
      journal: "follow",
      syncIntervalMs: 1000,
      snapshotIntervalMs: DAY_MS,
      retentionMs: DAY_MS,
    };
  }

  get follower(): Follower {
    assert.ok(this.#follower !== null, "start first");
    return this.#follower;
  }

  async start({ baseline, newTerm }: StartOptions = {}): Promise<void> {
    const { folder, store, layout, limits } = this.#options;
    if (newTerm) this.token++;
    const stop = this.#stop = new AbortController();
    const { clock } = this;
    const follower = this.#follower = new Follower({
      path: this.path,
      folder: `${folder}/state/databases/app`,
      clock: clock.besideFiles,
      baseline: baseline ?? null,
      token: this.token,
      journal: "follow",
      ...(limits === undefined ? {} : { limits }),
      signal: stop.signal,
    });
    await follower.start();
    if (follower.status.txid === null) {
      // As follow_parts.ts: what the store has must stay before what is captured now.
      const { files } = await listReplica(store, this.place);
      const newest = Math.max(0, ...files.map(({ maxTxid }) => maxTxid));
      if (newest > 0) follower.requestSnapshot(newest);
    }
    const parts = new FollowParts({
      store,
      plainStore: store,
      layout,
      token: this.token,
      window: this.#window,
      clock,
      random: systemRandom(),
      dataFolder: `${folder}/state`,
      compactions: this.#compactions,
      onEvent: (event) => this.#errors.push(event.message), // of a healthy store there is nothing to tell
    });
    const ship = this.#ship = new ShipLoop({
      name: "app",
      clock,
      lag: new LagAccount(clock.monotonicMs()),
      places: new Places(2),
      open: (captor, signal) => parts.openReplica(this.#database, captor, () => this.pins, signal),
      onDurable: () => {},
      onBehind: () => this.#errors.push("the store is ahead of the local files"),
      onFailures: (_failures: number, error: StateManagerError | null) => {
        if (error !== null) this.#errors.push(error);
      },
      onEnd: (end) => {
        this.#errors.push(end);
        stop.abort(new Error(`uploads ended: ${JSON.stringify(end)}`));
      },
    });
    this.#shipping = ship.run(follower, stop.signal);
  }

  /** Throws what went wrong behind our back. */
  check(): void {
    this.#ship?.tick();
    const status = this.#ship?.replica?.compactor.status();
    const lastError = status?.lastError?.error;
    const [error] = [...this.#errors, ...(lastError === undefined ? [] : [lastError])];
    if (error !== undefined) throw error instanceof Error ? error : new Error(JSON.stringify(error));
    assert.deepEqual(status?.defects ?? [], []);
    assert.deepEqual(status?.unreachablePins ?? [], []);
  }

  async sync(): Promise<SyncResult> {
    const result = await this.follower.sync({ now: true });
    if (result.changed && result.snapshot !== null) this.counts.snapshots++;
    if (result.changed && result.snapshot === "log-unreadable") this.counts.pastLog++;
    this.#ship?.wake();
    return result;
  }

  async checkpoint(): Promise<string | null> {
    const kind = await this.follower.checkpointIfNeeded();
    if (kind !== null) this.counts.checkpoints++;
    this.#ship?.wake();
    return kind;
  }

  /** What is committed now is in the store when it resolves. */
  async barrier(): Promise<number> {
    for (let more = true; more;) {
      const result = await this.sync();
      more = result.changed && result.more;
    }
    const { txid } = this.follower.status;
    assert.ok(txid !== null);
    await this.#durable(txid);
    this.check();
    return txid;
  }

  /** A TXID of our own that changes nothing. */
  async seal(): Promise<number> {
    const { txid } = await this.follower.touch();
    assert.ok(txid !== null);
    await this.#durable(txid);
    return txid;
  }

  async #durable(txid: number): Promise<void> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error(`TXID ${txid} is not durable`)), DURABLE_LIMIT_MS);
    try {
      this.#ship?.wake();
      await Promise.race([this.#ship?.whenDurable(txid), late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Time passes; what the compactor then has to do is done when it resolves. */
  async pass(ms: number): Promise<void> {
    this.clock.jump(ms);
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
    using _turn = await this.#compactions.take(new AbortController().signal);
    this.check();
  }

  /** The last sync, everything sent, the database let go. The newest TXID. */
  async finish(): Promise<number> {
    const txid = await this.follower.close();
    assert.ok(txid !== null);
    await this.#durable(txid);
    this.check();
    await this.stopSending();
    return txid;
  }

  async stopSending(): Promise<void> {
    const { merges, snapshots, deletedFiles } = this.#ship?.replica?.compactor.status() ?? {};
    this.counts.merges += (merges ?? 0) + (snapshots ?? 0);
    this.counts.deleted += deletedFiles ?? 0;
    this.#stop.abort(new Error("stopped"));
    await this.#shipping;
    this.#ship = null;
  }

  /** Everything of ours ends where it is. */
  async drop(): Promise<void> {
    await this.stopSending();
    await this.#follower?.[Symbol.asyncDispose]();
    this.#follower = null;
  }

  /** Local files and positions are gone. */
  async loseState(): Promise<void> {
    await removeTree(`${this.#options.folder}/state`);
  }

  /** The database too. Nobody may have it open. */
  async loseDatabase(): Promise<void> {
    await removeTree(`${this.#options.folder}/app`);
    await Deno.mkdir(`${this.#options.folder}/app`);
  }

  /** By our own restorer, to a new file. */
  async restore(target: RestoreTarget, file?: string): Promise<RestoreResult & { readonly path: string }> {
    const path = file ?? `${this.#options.folder}/ours-${++this.#restores}.db`;
    const result = await restoreDatabaseTo(
      { place: this.place, target, file: path, owner: null, mode: 0o600, check: "full" },
      { store: this.#options.store, clock: this.clock, signal: new AbortController().signal },
    );
    assert.equal(result.check, "passed");
    return { ...result, path };
  }

  /** TXIDs that can be restored to, ascending. */
  async points(): Promise<number[]> {
    const environment = { store: this.#options.store, signal: new AbortController().signal };
    const txids: number[] = [];
    for (let after: number | null = 0; after !== null;) {
      const page: Awaited<ReturnType<typeof listRestorePoints>> = await listRestorePoints({
        place: this.place,
        after,
      }, environment);
      txids.push(...page.points.map(({ txid }) => txid));
      after = page.nextAfter;
    }
    return txids;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.drop();
  }
}
