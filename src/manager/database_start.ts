/**
 * What a start decides about each database, and how old or foreign content comes into place. The manager looks at names
 * and sizes only; the database itself is opened and written by a child.
 *
 * The order of one restore, and what a crash leaves between any two steps:
 *   stage beside the live file     – garbage of a known name, written anew by the next restore;
 *   journal, then swap             – the next start rolls it forward before anything else (database_swap.ts);
 *   local L0 files go              – they tell of the content that went; without them nothing is proven of it;
 *   marker, then the journal goes  – the journal carries the marker, so the roll ends with the same one.
 */

import type { DatabaseFile, RepositoryRecord } from "../checkpoint/types.ts";
import type { Config } from "../config/types.ts";
import {
  type CatalogEvent,
  type DatabaseChildren,
  DATABASES_PREFIX,
  type DatabaseSwapOutcome,
  finishDatabaseSwaps,
  listDatabaseNames,
  readReplicaFacts,
  removeInterrupted,
  type ReplicaLayout,
  type RestoreTarget,
  rollDatabaseSwaps,
  stagePathOf,
  swapDatabases,
} from "../database/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { ensureFolder, removeTreeIfPresent } from "../platform/files.ts";
import { AT_CWD, isRoot, pathBytes, statAt } from "../platform/libc_files.ts";
import { isMissing, systemFiles } from "../platform/local_files.ts";
import { log } from "../platform/log.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { RestorePoints, RestorePointsQuery } from "./control.ts";
import type { DataDir } from "./data_dir.ts";
import { findDatabases } from "./database_names.ts";
import { type DatabaseFacts, decideDatabaseLineage } from "./database_lineage.ts";
import {
  type DatabaseMarker,
  type LineageDecision,
  type LineageFile,
  parseDatabaseMarker,
} from "./lineage.ts";
import { type Positions, txidsOf } from "./term_machine.ts";

const logger = log("databases");

/** One database of this session. */
export interface Found {
  readonly name: string;
  /** Key under `databases` in the configuration. */
  readonly entry: string;
  /** Absolute, symlinks of its folder resolved. */
  readonly path: string;
  /** What the start decided. */
  readonly origin: string | null;
  /** The file is exactly this TXID and nobody has opened it since. */
  readonly baseline: number | null;
  /** When the newest commit was made that a restore brought here, wall clock; 0: none was brought. */
  readonly afterMs: number;
}

/** What a restore brought. */
interface Brought {
  readonly txid: number;
  readonly timestampMs: number;
}

export interface DatabaseStartOptions {
  readonly config: Config["databases"];
  readonly restore: Config["restore"];
  readonly repo: RepositoryRecord;
  readonly token: number;
  /** Owner and mode of a database's file, as the head knows them. */
  readonly recorded: (name: string) => DatabaseFile | null;
  /** Epoch of the head before this term; null: there was no head. */
  readonly previousEpoch: () => number | null;
  readonly lineage: LineageFile;
  readonly dir: Pick<DataDir, "path" | "databaseSwapJournal" | "stale" | "scratch">;
  readonly store: ObjectStore;
  readonly layout: ReplicaLayout;
  readonly children: DatabaseChildren;
  readonly clock: Clock;
  /** Proves the lease, right before something live changes. */
  readonly assertHeld: () => Promise<void>;
  readonly record: (event: CatalogEvent) => void;
}

/** What SQLite itself makes, but for a usual umask's bits. */
const DATABASE_MODE = 0o644;

export class DatabaseStart {
  readonly #options: DatabaseStartOptions;

  constructor(options: DatabaseStartOptions) {
    this.#options = options;
  }

  /** All databases that the configuration names or that its patterns match here or in the bucket. */
  async look(signal: AbortSignal): Promise<readonly Found[]> {
    const { config, store } = this.#options;
    const inBucket = await listDatabaseNames(store, { signal });
    return (await findDatabases(config, inBucket)).map((found) => ({
      ...found,
      origin: null,
      baseline: null,
      afterMs: 0,
    }));
  }

  async prepare(signal: AbortSignal): Promise<readonly Found[]> {
    const { config, restore, store } = this.#options;
    const inBucket = await listDatabaseNames(store, { signal });
    const names = await findDatabases(config, inBucket);
    const orphans = inBucket.filter((name) => !names.some((found) => found.name === name));
    if (orphans.length > 0 && restore.orphans === "stop") throw orphansError(orphans);
    const decided = await Promise.all(names.map(async (found) => {
      const facts = await this.#facts(found, signal);
      return { ...found, facts, decision: decideDatabaseLineage(facts) };
    }));
    const refused = decided.filter(({ decision }) => decision.kind === "refuse");
    if (refused.length > 0) throw conflictError(refused);
    for (const { name, decision } of decided) {
      logger.info(`database ${name}: ${decision.kind}`, { reason: decision.reason });
    }
    const wanted = decided.filter(({ decision }) => decision.kind === "restore");
    const restored = await this.#bring(wanted, () => ({ kind: "newest" }), {
      keepsLocal: () => true,
      signal,
    });
    const others = decided.filter(({ decision }) => decision.kind !== "restore");
    for (const { path, decision } of others) {
      if (decision.kind === "empty") await ensureFolder(path.slice(0, path.lastIndexOf("/")));
      await removeInterrupted(path);
    }
    await this.#own(others.map(({ name, path, facts, decision }) => [
      name,
      this.#marker(path, decision.kind === "keep" ? facts.marker?.txid ?? null : null),
    ]));
    return decided.map(({ name, entry, path, decision }) => ({
      name,
      entry,
      path,
      origin: originOf(decision),
      baseline: restored[name]?.txid ?? null,
      afterMs: restored[name]?.timestampMs ?? 0,
    }));
  }

  /**
   * A former holder's last commits came in before the seal of these, and no program has run since. What was restored
   * just now has nothing of its own; what was kept may have commits that were never sent.
   */
  async again(
    found: readonly Found[],
    names: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly Found[]> {
    const wanted = found.filter(({ name }) => names.includes(name));
    const fresh = wanted.filter(({ origin }) => origin === "restored" || origin === "moved-aside");
    const keepsLocal = (name: string) => !fresh.some((each) => each.name === name);
    const restored = await this.#bring(wanted, () => ({ kind: "newest" }), { keepsLocal, signal });
    return found.map((each) => {
      const baseline = restored[each.name]?.txid ?? null;
      return {
        ...each,
        baseline,
        afterMs: restored[each.name]?.timestampMs ?? each.afterMs,
        origin: baseline === null || !keepsLocal(each.name) ? each.origin : "moved-aside",
      };
    });
  }

  /** To the past: what is brought becomes the next TXID by a snapshot, since the bucket's newest is another content. */
  async restore(
    found: readonly Found[],
    positions: Positions,
    work: { readonly keepsLocal: (name: string) => boolean; readonly signal: AbortSignal },
  ): Promise<readonly Found[]> {
    const wanted = found.filter(({ name }) => positions[name] !== undefined);
    const targetOf = (name: string) => ({ kind: "txid", txid: positions[name]?.txid ?? 0 }) as const;
    await this.#bring(wanted, targetOf, work);
    return found.map((each) => ({ ...each, baseline: null }));
  }

  /** No restore is under way, nor will one go on: what an interrupted one kept goes. */
  async tidy(found: readonly Found[]): Promise<void> {
    for (const { path } of found) await removeInterrupted(path);
  }

  async txidAt(name: string, atMs: number, signal?: AbortSignal): Promise<number> {
    const { children, layout } = this.#options;
    const target = { kind: "before", beforeMs: atMs + 1 } as const;
    const { txid } = await children.plan({ place: { layout, name }, target }, workOf(signal));
    return txid;
  }

  /** Whether the store has anything of it. */
  async hasReplica(name: string, signal?: AbortSignal): Promise<boolean> {
    const { store } = this.#options;
    const page = await store.list({
      prefix: `${DATABASES_PREFIX}${name}/`,
      limit: 1,
      ...(signal === undefined ? {} : { signal }),
    });
    return page.objects.length > 0;
  }

  async checkPoint(name: string, txid: number, signal?: AbortSignal): Promise<void> {
    const { children, layout } = this.#options;
    await children.plan({ place: { layout, name }, target: { kind: "txid", txid } }, workOf(signal));
  }

  async points(
    name: string,
    { afterTxid, limit }: RestorePointsQuery,
    signal?: AbortSignal,
  ): Promise<RestorePoints> {
    const { children, layout } = this.#options;
    const request = { place: { layout, name }, after: afterTxid, limit };
    const { points, nextAfter } = await children.points(request, workOf(signal));
    return {
      points: points.map(({ txid, timestampMs }) => ({ txid, timeMs: timestampMs })),
      nextAfter,
    };
  }

  // ---- parts

  async #facts({ name, path }: Pick<Found, "name" | "path">, signal: AbortSignal): Promise<DatabaseFacts> {
    const { dir, layout, lineage, previousEpoch, repo, restore, store, token } = this.#options;
    const marker = lineage.marker.databases?.[name] ?? null;
    const localFolder = `${dir.path}/databases/${name}/ltx/0`;
    const replica = await readReplicaFacts({ layout, name }, localFolder, { store, signal });
    return {
      ...replica,
      localMissing: (await sizeIfPresent(path)) === 0,
      marker,
      repoId: repo.repo_id,
      path,
      // Brought back in this very term, since its restore had begun: nobody can have held it since.
      previousEpoch: marker?.token === token ? token : previousEpoch(),
      restoreBegun: false, // it was finished before this is asked
      onConflict: restore.onConflict,
      restoreNothing: restore.onStart === "none",
    };
  }

  /** Restores these and swaps them in, all together. */
  async #bring(
    wanted: readonly Pick<Found, "name" | "entry" | "path">[],
    targetOf: (name: string) => RestoreTarget,
    { keepsLocal, signal }: { readonly keepsLocal: (name: string) => boolean; readonly signal: AbortSignal },
  ): Promise<Readonly<Record<string, Brought>>> {
    if (wanted.length === 0) return {};
    const { assertHeld, children, clock, config, dir, layout, record } = this.#options;
    const brought: Record<string, Brought> = {};
    for (const { name, entry, path } of wanted) {
      const { owner = null, mode = null } = config[entry] ?? {};
      const recorded = this.#options.recorded(name);
      const folder = path.slice(0, path.lastIndexOf("/"));
      await ensureFolder(folder);
      const result = await children.restore({
        place: { layout, name },
        target: targetOf(name),
        file: stagePathOf(path),
        owner: ownerOf(owner, recorded, folder),
        mode: mode ?? recorded?.mode ?? DATABASE_MODE,
        check: "quick",
        resumable: true,
      }, { signal });
      if (result.reusedBytes > 0) {
        logger.info(`database ${name}: an interrupted restore went on`, { bytesReused: result.reusedBytes });
      }
      for (const warning of result.warnings) logger.warn(`database ${name}: ${warning}`);
      brought[name] = result;
    }
    const txids = txidsOf(brought);
    signal.throwIfAborted();
    await assertHeld();
    const time = new Date(clock.wallMs()).toISOString().replaceAll(/[:.]/g, "-");
    const outcome = await swapDatabases({
      journalPath: dir.databaseSwapJournal,
      id: time,
      items: wanted.map(({ name, path }) => ({
        name,
        live: path,
        stage: stagePathOf(path),
        aside: `${dir.stale}/${time}/${name}`,
        note: this.#marker(path, txids[name] ?? null),
      })),
    });
    await endSwap(outcome, this.#options);
    for (const [name, folder] of Object.entries(outcome.movedAside)) {
      if (!keepsLocal(name)) {
        await removeTreeIfPresent(folder); // all of it is in the bucket
        continue;
      }
      logger.warn(`database ${name}: diverged, the local data was moved aside`, { path: folder });
      record({
        kind: "diverged",
        subject: name,
        summary: "diverged: local data moved aside",
        detail: { path: folder },
      });
    }
    logger.info("databases restored", { txids });
    record({
      kind: "restore",
      subject: Object.keys(txids).join(" "),
      summary: "restored",
      detail: { txids },
    });
    return brought;
  }

  #marker(path: string, txid: number | null): DatabaseMarker {
    const { repo, token } = this.#options;
    return { repo_id: repo.repo_id, path, token, claimed: null, txid };
  }

  async #own(markers: readonly (readonly [string, DatabaseMarker])[]): Promise<void> {
    if (markers.length === 0) return;
    await this.#options.lineage.apply({
      kind: "own-databases",
      databases: Object.fromEntries(markers),
    });
  }
}

/** Before the store is even open: a swap that a crash interrupted goes forward, and the marker says what it brought. */
export async function repairDatabases(
  options: Pick<DatabaseStartOptions, "lineage"> & {
    readonly dir: Pick<DataDir, "path" | "databaseSwapJournal">;
  },
): Promise<void> {
  const outcome = await rollDatabaseSwaps(options.dir.databaseSwapJournal);
  if (outcome === null) return;
  logger.warn("a restore of databases that was interrupted is finished", {
    databases: outcome.journal.items.map(({ name }) => name),
  });
  await endSwap(outcome, options);
}

async function endSwap(
  { journal }: DatabaseSwapOutcome,
  { dir, lineage }: Parameters<typeof repairDatabases>[0],
): Promise<void> {
  for (const { name } of journal.items) await removeTreeIfPresent(`${dir.path}/databases/${name}`);
  await lineage.apply({
    kind: "own-databases",
    databases: Object.fromEntries(journal.items.map(({ name, note }) => [name, parseDatabaseMarker(note)])),
  });
  await finishDatabaseSwaps(dir.databaseSwapJournal);
}

/** As configured, or recorded; else who owns the folder, since that is for whom the program's place was made. */
function ownerOf(
  owner: Config["databases"][string]["owner"],
  recorded: DatabaseFile | null,
  folder: string,
): { readonly uid: number; readonly gid: number } | null {
  if (!isRoot()) return null;
  const { uid, gid } = recorded ?? statAt(AT_CWD, pathBytes(folder));
  return owner === null ? { uid, gid } : { uid: owner.uid, gid: owner.gid ?? gid };
}

/** 0 for a file that is not there: SQLite treats both alike. */
async function sizeIfPresent(path: string): Promise<number> {
  try {
    return (await systemFiles.stat(path)).sizeBytes;
  } catch (error) {
    if (isMissing(error)) return 0;
    throw error;
  }
}

function workOf(signal: AbortSignal | undefined): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

function originOf(decision: LineageDecision): string {
  if (decision.kind === "restore") return decision.moveAside ? "moved-aside" : "restored";
  return { keep: "kept", adopt: "adopted", empty: "empty", refuse: "refused" }[decision.kind];
}

function conflictError(
  refused: readonly { readonly name: string; readonly path: string; readonly decision: LineageDecision }[],
): StateManagerError {
  return new StateManagerError(
    "origin-unknown",
    `start: databases of unknown origin in ${
      refused.map(({ path }) => path).join(", ")
    }, the bucket has its own`,
    {
      hint: "choose: restore.on_conflict=bucket moves the local data aside and restores, " +
        "restore.on_conflict=local keeps it as the next TXID; or move the file away",
      details: refused.map(({ name, decision }) => ({
        pointer: `/databases/${name.replaceAll("/", "~1")}`,
        detail: decision.reason,
      })),
    },
  );
}

function orphansError(names: readonly string[]): StateManagerError {
  return new StateManagerError(
    "config-invalid",
    `start: the bucket holds databases that the configuration does not name: ${names.join(", ")}`,
    {
      hint:
        "name them under databases (or with --database NAME=PATH), or set restore.orphans=keep to carry them on unseen",
      details: names.map((name) => ({
        pointer: `/databases/${name.replaceAll("/", "~1")}`,
        detail: "in the bucket, not in the configuration",
      })),
    },
  );
}
