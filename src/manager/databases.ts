/**
 * The replicated databases of one session, in the order of a run: what each start decides (database_start.ts), the
 * follower child that seals and follows them while programs run, its last sync when they stopped, and the way back to an
 * old state. The manager itself never opens a database of an application.
 *
 * Before programs start every database is *sealed*: a slot of our own term is in the bucket, so that no commit of an
 * earlier holder can come between ours. What such a holder got in before the seal is brought here first.
 */

import type { CheckpointRecord, DatabasePosition } from "../checkpoint/types.ts";
import type { Config } from "../config/types.ts";
import {
  type CatalogEvent,
  type DatabaseChildren,
  type FollowedDatabase,
  type FollowedFolder,
  type FollowedStatus,
  FollowLink,
  isFenced,
  type PositionsResult,
  type ReplicaLayout,
} from "../database/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, isError, StateManagerError } from "../platform/errors.ts";
import { ensureFolder, removeIfPresent } from "../platform/files.ts";
import { log } from "../platform/log.ts";
import { errorFromWire } from "../platform/wire_error.ts";
import type { OpenStoreOptions } from "../storage/mod.ts";
import { type ChildWatch } from "../supervisor/mod.ts";
import type { DatabaseInfo, DrillInfo, LongWork, RestorePoints, RestorePointsQuery } from "./control.ts";
import { databaseFileAt, type DatabaseFiles } from "./database_files.ts";
import { type DatabaseStart, type Found } from "./database_start.ts";
import { Drills } from "./drills.ts";
import { type Positions, txidsOf } from "./term_machine.ts";
import type { DatabasesDepth } from "./verify_databases.ts";

const logger = log("databases");

export interface DatabasesOptions {
  readonly config: Config["databases"];
  readonly start: DatabaseStart;
  readonly files: DatabaseFiles;
  readonly children: DatabaseChildren;
  readonly layout: ReplicaLayout;
  readonly scratchFolder: string;
  readonly store: OpenStoreOptions;
  readonly token: number;
  /** The manager's data folder. */
  readonly dataFolder: string;
  readonly clock: Clock;
  readonly watchChild: () => ChildWatch;
  /** When the holder fences itself, by the monotonic clock; null: not known. */
  readonly fenceAtMs: () => number | null;
  /** All checkpoints that the head lists, and a restore that has begun: retention keeps a way to what they name. */
  readonly kept: () => readonly Pick<CheckpointRecord, "databases">[];
  readonly onFenced: (error: StateManagerError) => void;
  readonly record: (event: CatalogEvent) => void;
}

/** Former holders whose last commit may come between ours and the seal, one after the other. */
const SEAL_ATTEMPTS = 8;

export class Databases {
  readonly #options: DatabasesOptions;
  readonly #closed = new AbortController();
  readonly #drills: Drills;
  #found: readonly Found[] = [];
  #link: FollowLink | null = null;
  /** Also one that seals and does not follow yet. */
  #newest: FollowLink | null = null;
  /** Durable when the last link ended in order. */
  #last: Positions = {};
  #lastStatus: readonly FollowedStatus[] = [];
  #wanted: Positions = {};
  /** Names of those that nobody follows, but whose replica is there. */
  readonly #kept = new Set<string>();
  /** Names of those that were told to be failing. */
  readonly #failing = new Set<string>();

  constructor(options: DatabasesOptions) {
    this.#options = options;
    this.#drills = new Drills({
      clock: options.clock,
      signal: this.#closed.signal,
      databases: () => this.#drillable(),
      drill: (name, signal) => this.#drill(name, signal),
    });
  }

  /** Nothing is configured. */
  get isEmpty(): boolean {
    return Object.keys(this.#options.config).length === 0;
  }

  has(name: string): boolean {
    return this.#names().includes(name);
  }

  /** Decides by lineage and restores what is to be restored. Also where none is configured: the bucket may hold some. */
  async prepare(signal: AbortSignal): Promise<void> {
    this.#found = await this.#options.start.prepare(signal);
  }

  /**
   * Follows and seals all; done already, it does nothing. No program may start before it has resolved. Gives those that
   * cannot be followed now.
   */
  async follow(signal: AbortSignal): Promise<Failures> {
    if (this.isEmpty) return {};
    for (let attempt = 1; this.#link === null; attempt++) {
      const link = this.#open();
      try {
        const { positions, failures, absorbed } = await link.seal({ signal });
        this.#tellFailures(failures);
        if (Object.keys(absorbed).length === 0) {
          this.#link = link;
          this.#last = positionsOf(positions);
          this.#lookAtFiles(link.status().databases);
          this.#drills.start();
          return failures;
        }
        await link.close();
        logger.warn("a former holder's last commits came in before the seal: restored once more", {
          absorbed,
        });
        this.#found = await this.#options.start.again(this.#found, Object.keys(absorbed), signal);
      } catch (error) {
        await link.close();
        throw error;
      }
      if (attempt === SEAL_ATTEMPTS) {
        throw new StateManagerError("busy", `seal databases: others wrote before us ${attempt} times`, {
          hint: "is another manager, or litestream itself, replicating to the same prefix? stop it",
        });
      }
    }
    return {};
  }

  #open(): FollowLink {
    const { store, token, dataFolder, clock, watchChild, onFenced } = this.#options;
    const { databases, folders } = this.#followed();
    const link = new FollowLink({
      store,
      token,
      dataFolder,
      databases,
      folders,
      clock,
      log: log("follow"),
      watchChild,
      onFenced,
      onStatus: ({ databases }) => {
        if (this.#link !== link) return;
        databases.forEach((database) => this.#checkSealed(database));
        this.#tellTrouble(databases);
        this.#lookAtFiles(databases);
      },
    });
    link.deadline(this.#options.fenceAtMs());
    link.start();
    this.#newest = link;
    return link;
  }

  /** The store's credentials have changed: who follows gets the newest. All others get them when they start. */
  renewCredentials(): void {
    this.#newest?.renewCredentials();
  }

  /** When one cannot be kept safe any more, and when it can again. */
  #tellTrouble(databases: readonly FollowedStatus[]): void {
    const { record } = this.#options;
    for (const { name, state, lastError, durableTxid, lagMs } of databases) {
      if (state === "failing" && !this.#failing.has(name)) {
        this.#failing.add(name);
        const detail = { state, error: lastError, durable_txid: durableTxid, lag_ms: lagMs };
        record({ kind: "database", subject: name, summary: `database ${name} is failing`, detail });
      } else if (state === "following" && this.#failing.delete(name)) {
        const detail = { state, durable_txid: durableTxid, lag_ms: lagMs };
        record({ kind: "database", subject: name, summary: `database ${name} is followed again`, detail });
      }
    }
  }

  #lookAtFiles(databases: readonly FollowedStatus[]): void {
    this.#options.files.look(databases.filter(({ durableTxid }) => durableTxid > 0));
  }

  /** After the seal nobody else's commit can be in our way. If one is, we are not who we believe to be. */
  #checkSealed({ name, state }: FollowedStatus): void {
    if (state !== "absorbed") return;
    this.#options.onFenced(
      new StateManagerError("lease-lost", `database ${name}: another holder's commit came after our seal`, {
        hint: "is another manager, or litestream itself, replicating to the same prefix? stop it",
      }),
    );
  }

  #followed(): { readonly databases: FollowedDatabase[]; readonly folders: FollowedFolder[] } {
    const { config } = this.#options;
    const pins = this.#pins();
    for (const [name, { txid }] of Object.entries(this.#wanted)) (pins[name] ??= []).push(txid);
    const databases = this.#found.flatMap(({ name, entry, path, baseline, afterMs }) => {
      const settings = config[entry];
      return settings === undefined
        ? []
        : [{ ...followSettings(settings), name, path, baseline, afterMs, pins: pins[name] ?? [] }];
    });
    const folders = Object.entries(config).flatMap(([name, settings]) =>
      settings.pattern === null ? [] : [{
        ...followSettings(settings),
        name,
        folder: settings.path,
        pattern: settings.pattern,
        pins: pinsBelow(pins, name),
      }]
    );
    return { databases, folders };
  }

  /** TXIDs that checkpoints and a restore that has begun name, by database. */
  #pins(): Record<string, number[]> {
    const pins: Record<string, number[]> = {};
    for (const { databases = {} } of this.#options.kept()) {
      for (const [name, { txid }] of Object.entries(databases)) {
        const known = pins[name] ??= [];
        if (known.at(-1) !== txid) known.push(txid);
      }
    }
    return pins;
  }

  /** The head lists another set of checkpoints now. */
  renewPins(): void {
    this.#link?.pins(this.#pins(), txidsOf(this.#wanted));
  }

  /** What a restore will bring back: until something else is wanted no merge steps over it. */
  want(positions: Positions): void {
    this.#wanted = positions;
    this.renewPins();
  }

  /** Where all stand, durable: a barrier. After `finish`: where they ended. */
  async positions(signal?: AbortSignal): Promise<Positions> {
    if (this.#link === null) return this.#withFiles(this.#last);
    const { positions, failures } = await this.#link.positions(signal === undefined ? {} : { signal });
    this.#tellFailures(failures);
    return this.#withFiles(positionsOf(positions));
  }

  /** Owner and mode are recorded with a checkpoint's positions, so that a new machine makes the file alike. */
  #withFiles(positions: Positions): Positions {
    return Object.fromEntries(
      Object.entries(positions).map(([name, position]) => {
        const path = this.#found.find((each) => each.name === name)?.path;
        const file = path === undefined ? null : databaseFileAt(path);
        return [name, file === null ? position : { ...position, file }];
      }),
    );
  }

  /**
   * Of `names`, which the current checkpoint has, those that a person took away while no manager ran: nobody follows them,
   * and there is no object of the replica, so that what a checkpoint says of them could never be brought back.
   */
  async gone(names: readonly string[], signal?: AbortSignal): Promise<readonly string[]> {
    const known = new Set(this.status().map(({ name }) => name));
    const gone: string[] = [];
    for (const name of names) {
      if (known.has(name) || this.#kept.has(name)) continue;
      if (await this.#options.start.hasReplica(name, signal)) this.#kept.add(name);
      else gone.push(name);
    }
    return gone;
  }

  /** Programs are stopped: everything they committed is in the bucket when it resolves. */
  async finish(signal?: AbortSignal): Promise<void> {
    throwFirst(await this.#finish(signal), "last sync of");
  }

  async #finish(signal?: AbortSignal): Promise<Failures> {
    const link = this.#link;
    if (link === null) return {};
    this.#drills.stop();
    let ended: Awaited<ReturnType<FollowLink["finish"]>>;
    try {
      ended = await link.finish(signal === undefined ? {} : { signal });
    } finally {
      // In time or not, it lets go of the files: should the programs run again, another one proves its positions.
      this.#lastStatus = link.status().databases;
      this.#link = null;
      await link.close();
    }
    const { positions, failures } = ended;
    this.#last = positionsOf(positions);
    return failures;
  }

  /**
   * Old states into place and into the bucket, as the next TXID of each: full pages, through the slot fence. Programs
   * are stopped. Done again it gives the same content, with one TXID more.
   */
  async restoreTo(positions: Positions, signal: AbortSignal = new AbortController().signal): Promise<void> {
    const { start } = this.#options;
    const wasFollowed = this.#link !== null;
    const failures = await this.#finish(signal);
    // What is to be replaced may be damaged: this may well be why. It is set aside. All else must be in the bucket.
    const isReplaced = (name: string) => name in positions && failures[name]?.code === "data-damaged";
    throwFirst(withoutNames(failures, isReplaced), "last sync of");
    if (this.#found.length === 0) this.#found = await start.look(signal);
    const keepsLocal = (name: string) => !wasFollowed || isReplaced(name);
    this.#found = await start.restore(this.#found, positions, { keepsLocal, signal });
    const unsealed = await this.follow(signal);
    // The bucket's newest is still another content: whoever said that it is done would have it undone by the next start.
    throwFirst(withoutNames(unsealed, (name) => !(name in positions)), "send the restored");
    // What comes next at a start moves files about: nobody may have these open then.
    if (!wasFollowed) await this.finish(signal);
  }

  /** After a restore that failed, and was finished or given up: what it had fetched is not wanted any more. */
  async tidy(): Promise<void> {
    await this.#options.start.tidy(this.#found);
  }

  /** The newest state of `name` that is not after `atMs`, wall clock. */
  async positionAt(name: string, atMs: number, signal?: AbortSignal): Promise<DatabasePosition> {
    return { txid: await this.#options.start.txidAt(name, atMs, signal) };
  }

  /** Those of them whose state cannot be restored any more, and never will be. */
  async lost(positions: Positions, signal?: AbortSignal): Promise<string[]> {
    const lost: string[] = [];
    for (const [name, { txid }] of Object.entries(positions)) {
      try {
        await this.checkPoint(name, txid, signal);
      } catch (error) {
        if (!isError(error, "not-found", "data-damaged")) throw error;
        lost.push(name);
      }
    }
    return lost;
  }

  /** Rejects with `not-found` when this state of `name` cannot be restored. */
  async checkPoint(name: string, txid: number, signal?: AbortSignal): Promise<void> {
    await this.#options.start.checkPoint(name, txid, signal);
  }

  async sync(name: string, signal?: AbortSignal): Promise<{ readonly txid: number }> {
    const link = this.#link;
    if (link === null) {
      throw new StateManagerError(
        "wrong-state",
        "sync the database: it is not followed now, wanted running",
        {
          hint: "wait until the manager is running, then ask again",
        },
      );
    }
    try {
      return await link.sync(name, signal === undefined ? {} : { signal });
    } catch (error) {
      if (isFenced(error)) this.#options.onFenced(asStateManagerError(error));
      throw error;
    }
  }

  points(name: string, query: RestorePointsQuery, signal?: AbortSignal): Promise<RestorePoints> {
    return this.#options.start.points(name, query, signal);
  }

  status(): DatabaseInfo[] {
    const followed = this.#link?.status().databases ?? this.#lastStatus;
    const names = [...new Set([...this.#names(), ...followed.map(({ name }) => name)])].sort();
    return names.map((name) => {
      const found = this.#found.find((each) => each.name === name);
      const status = followed.find((each) => each.name === name) ?? null;
      return {
        name,
        path: found?.path ?? status?.path ?? this.#options.config[name]?.path ?? "",
        origin: found?.origin ?? null,
        followed: status,
        lastDrill: this.#drills.last(name),
      };
    });
  }

  /** The lease was renewed. */
  deadline(): void {
    this.#link?.deadline(this.#options.fenceAtMs());
    this.#lookAtFiles(this.#link?.status().databases ?? []);
  }

  /** The lease is lost: the child goes at once; what it captured stays in the local files. */
  abandon(): void {
    this.#link?.close().catch(() => {});
  }

  async close(): Promise<void> {
    this.#closed.abort(new StateManagerError("cancelled", "databases: the session ends"));
    this.#drills.stop();
    await this.#link?.close();
    await this.#drills.idle();
    await this.#options.children.close();
  }

  #names(): string[] {
    const { config } = this.#options;
    const single = Object.keys(config).filter((name) => config[name]?.pattern === null);
    return [...new Set([...single, ...this.#found.map(({ name }) => name)])];
  }

  /** One at a time, so one scratch file; what a killed one left there is replaced. */
  async #drill(name: string, signal: AbortSignal): Promise<DrillInfo> {
    const { children, layout, scratchFolder } = this.#options;
    await ensureFolder(scratchFolder, 0o700);
    const file = `${scratchFolder}/drill.db`;
    try {
      const result = await children.drill({ place: { layout, name }, file }, { signal });
      return {
        atMs: result.finishedMs,
        outcome: result.outcome,
        txid: result.restored?.txid ?? null,
        durationMs: result.durationMs,
        error: result.error?.message ?? null,
      };
    } finally {
      await removeIfPresent(file);
    }
  }

  /** What the replica of `name` holds of these states, by the levels of a verification. One at a time. */
  async verify(
    { name, ...request }: DatabasesDepth & { readonly name: string; readonly txids: readonly number[] },
    { signal, onProgress }: LongWork,
  ): Promise<PositionsResult> {
    const { children, layout, scratchFolder } = this.#options;
    await ensureFolder(scratchFolder, 0o700);
    const scratchFile = `${scratchFolder}/verify.db`;
    return await children.verify({ ...request, place: { layout, name }, scratchFile }, {
      ...(signal === undefined ? {} : { signal }),
      onProgress: ({ files, bytes }) =>
        onProgress?.({ phase: "check", entries: files, bytes, totalBytes: null }),
    });
  }

  #drillable(): readonly { readonly name: string; readonly intervalMs: number }[] {
    const { config } = this.#options;
    const followed = this.#link?.status().databases ?? [];
    return followed.filter(({ durableTxid }) => durableTxid > 0).map(({ name }) => ({
      name,
      intervalMs: config[name.split("/")[0] ?? ""]?.drillIntervalMs ?? 0,
    }));
  }

  #tellFailures(failures: Failures): void {
    for (const [name, failure] of Object.entries(failures)) {
      const error = errorFromWire(failure);
      if (isFenced(error)) this.#options.onFenced(error);
      else {
        logger.error(`database ${name} is NOT replicated: ${error.message}`, {
          hint: error.hint ?? "GET /databases has more",
        });
      }
    }
  }
}

type Failures = Readonly<Record<string, Parameters<typeof errorFromWire>[0]>>;

function withoutNames(failures: Failures, isLeftOut: (name: string) => boolean): Failures {
  return Object.fromEntries(Object.entries(failures).filter(([name]) => !isLeftOut(name)));
}

function throwFirst(failures: Failures, action: string): void {
  for (const [name, failure] of Object.entries(failures)) {
    const { code, message, hint } = errorFromWire(failure);
    throw new StateManagerError(code, `${action} database ${name}: ${message}`, {
      hint: hint ?? "GET /databases has more",
    });
  }
}

function followSettings(settings: Config["databases"][string]) {
  const { journal, syncIntervalMs, snapshotIntervalMs, retentionMs } = settings;
  return { journal, syncIntervalMs, snapshotIntervalMs, retentionMs };
}

function pinsBelow(pins: Readonly<Record<string, number[]>>, folder: string): Record<string, number[]> {
  const prefix = `${folder}/`;
  const below = Object.entries(pins).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(below.map(([name, txids]) => [name.slice(prefix.length), txids]));
}

function positionsOf(txids: Readonly<Record<string, number>>): Positions {
  return Object.fromEntries(Object.entries(txids).map(([name, txid]) => [name, { txid }]));
}
