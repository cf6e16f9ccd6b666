/**
 * Brings files back: what a start decides by lineage, and what an operator asks for. One way for both:
 *   1. stage beside the live folder (nothing live changes; what a stop or a crash leaves is verified and used by the
 *      next start that restores the same, and deleted by any other);
 *   2. for a restore to the past: the intent goes into the head by swap, so that whoever holds the lease next
 *      finishes it; from here on the new checkpoint is what the bucket will say;
 *   3. swap, journaled: a crash leaves the old or the new tree, and the next start rolls it forward before all else;
 *   4. the marker says what the local content is now.
 */

import {
  disposeHolder,
  findCheckpoint,
  findLeftovers,
  findSwapPlace,
  finishSwaps,
  isEmptyRoot,
  moveAside,
  rollSwaps,
  swapIn,
  type SwapPlace,
} from "../checkpoint/mod.ts";
import type { ArchiveTotals, CheckpointRecord, FilesRoot, FileWarning, Head } from "../checkpoint/types.ts";
import { StateManagerError } from "../platform/errors.ts";
import { ensureFolder } from "../platform/files.ts";
import { log } from "../platform/log.ts";
import { ulid } from "../platform/random.ts";
import { withCurrent } from "./checkpointer.ts";
import type { LongWork, RestoreRequest, RestoreResult } from "./control.ts";
import type { DataDir } from "./data_dir.ts";
import {
  conflictError,
  currentRecord,
  decideLineage,
  isOurs,
  type LineageDecision,
  type LineageFile,
} from "./lineage.ts";
import type { Opened } from "./opening.ts";
import type { SessionOptions } from "./session.ts";

const logger = log("restore");

export type RestorerOptions =
  & Opened
  & Pick<SessionOptions, "config" | "dir" | "clock" | "random" | "record">;

interface Staged {
  readonly totals: ArchiveTotals;
  readonly warnings: readonly FileWarning[];
  /** Root name → where its new tree is and goes. */
  readonly places: ReadonlyMap<string, SwapPlace>;
}

/** What one start decides about each root, from the head before this term. */
export function decideRoots(
  options: Pick<RestorerOptions, "config" | "lineage" | "roots" | "repo">,
  previousHead: Head | null,
): Map<string, LineageDecision> {
  const { config, lineage, roots, repo } = options;
  const decisions = new Map<string, LineageDecision>();
  for (const root of roots) {
    const item = lineage.item(root.name);
    decisions.set(
      root.name,
      decideLineage({
        name: root.name,
        localEmpty: isEmptyRoot(root.path),
        // A marker of another folder says nothing about this one.
        marker: item?.path === root.path ? item : null,
        repoId: repo.repo_id,
        previousHead,
        onConflict: config.restore.onConflict,
        restoreNothing: config.restore.onStart === "none",
      }),
    );
  }
  return decisions;
}

/** Refuses what only an operator may decide: data of unknown origin, and items that the configuration does not name. */
export function refuseConflicts(
  options: Pick<RestorerOptions, "config" | "roots">,
  decisions: ReadonlyMap<string, LineageDecision>,
  previousHead: Head | null,
): void {
  const refused = options.roots.flatMap((root) => {
    const decision = decisions.get(root.name);
    return decision?.kind === "refuse" ? [{ ...root, reason: decision.reason }] : [];
  });
  if (refused.length > 0) throw conflictError(refused);
  const named = new Set(options.roots.map((root) => root.name));
  const orphans = Object.keys(currentRecord(previousHead)?.files ?? {}).filter((
    name,
  ) => !named.has(name));
  if (orphans.length > 0 && options.config.restore.orphans === "stop") {
    throw new StateManagerError(
      "config-invalid",
      `start: the bucket holds files roots that the configuration does not name: ${orphans.join(", ")}`,
      {
        hint:
          "name them under files (or with --files NAME=PATH), or set restore.orphans=keep to carry them on unseen",
        details: orphans.map((name) => ({
          pointer: `/files/${name}`,
          detail: "in the bucket, not in the configuration",
        })),
      },
    );
  }
}

/** Before the head is taken over: items that are ours so far say so, in case we die right after (lineage.ts, `claimed`). */
export async function claimOurs(
  options: Pick<RestorerOptions, "lineage" | "roots" | "repo">,
  head: Head | null,
  token: number,
): Promise<void> {
  const { lineage, roots, repo } = options;
  const ours = roots.filter((root) => isOurs(root.name, lineage.item(root.name), repo.repo_id, head));
  if (ours.length > 0) {
    await lineage.patch(ours.map((root) => root.name), { claimed: token });
  }
}

/** Stages that no journal names: what a stop or a crash left before anything live had changed. `keep`: to go on with. */
async function removeLeftovers(
  roots: readonly FilesRoot[],
  keep: ReadonlySet<string> = new Set(),
): Promise<void> {
  for (const root of roots) {
    for (const holder of findLeftovers(root.path, keep)) await disposeHolder(holder);
  }
}

/**
 * What stages of a checkpoint are called. A restore to the past is staged before its own record exists: whoever finishes
 * it finds what was staged by the name of the source.
 */
function stageId(record: CheckpointRecord): string {
  return record.restored_from ?? record.id;
}

/** A swap that a crash interrupted goes forward, before anything looks at the roots; it is local and was decided. */
export async function rollInterruptedSwap(dir: DataDir, lineage: LineageFile): Promise<void> {
  const rolled = await rollSwaps(dir.swapJournal);
  if (rolled === null) return;
  const { id, roots } = rolled.journal;
  const names = roots.map((root) => root.name);
  logger.warn("a restore that was interrupted is finished", { checkpoint: id, roots: names });
  await lineage.patch(names, { checkpoint: id, pending: null });
  await finishSwaps(dir.swapJournal, { keepOld: false });
}

export class Restorer {
  readonly #options: RestorerOptions;
  #decisions: ReadonlyMap<string, LineageDecision> = new Map();

  constructor(options: RestorerOptions) {
    this.#options = options;
  }

  /** True when local content may be newer than the bucket: ship it soon after the start. */
  get mustShip(): boolean {
    return [...this.#decisions.values()].some((decision) =>
      decision.kind === "keep" || decision.kind === "adopt"
    );
  }

  files(): {
    name: string;
    path: string;
    origin: string | null;
    checkpoint: string | null;
  }[] {
    return this.#options.roots.map((root) => ({
      name: root.name,
      path: root.path,
      origin: originOf(this.#decisions.get(root.name)),
      checkpoint: this.#options.lineage.item(root.name)?.checkpoint ?? null,
    }));
  }

  /** Everything that must be right before the first program starts. */
  async prepareStart(signal: AbortSignal): Promise<void> {
    await this.#finishIntent();
    const { previousHead, roots } = this.#options;
    await removeLeftovers(roots, this.#resumable());
    this.#decisions = decideRoots(this.#options, previousHead);
    for (const [name, decision] of this.#decisions) {
      logger.info(`files ${name}: ${decision.kind}`, {
        reason: decision.reason,
      });
    }
    const current = currentRecord(this.#options.head.head);
    const restored = roots.filter((root) => this.#decisions.get(root.name)?.kind === "restore");
    if (restored.length > 0 && current !== null) {
      await this.#restoreCurrent(current, restored, signal);
    }
    await this.#markAll();
    await this.#applyOnStart(signal);
    await removeLeftovers(roots);
  }

  /** Stages that this start may go on with. */
  #resumable(): ReadonlySet<string> {
    const current = currentRecord(this.#options.head.head);
    const records = [current, this.#onStartSource()];
    return new Set(records.flatMap((record) => record === null ? [] : [stageId(record)]));
  }

  /** A restore that its holder began and did not finish in the head: it is finished, before anything starts. */
  async #finishIntent(): Promise<void> {
    const { head } = this.#options;
    const intent = head.head.intent;
    if (intent === null) return;
    await head.commit((before) => finishedIntent(before));
    logger.warn("a restore of the former holder is finished", {
      checkpoint: intent.record.id,
    });
  }

  async #restoreCurrent(
    current: CheckpointRecord,
    restored: readonly FilesRoot[],
    signal: AbortSignal,
  ): Promise<void> {
    const staged = await this.#stage(current, restored, { signal });
    for (const root of restored) {
      if (this.#decisions.get(root.name)?.kind !== "restore") continue;
      if (isEmptyRoot(root.path)) continue;
      const time = asideName(this.#options.clock.wallMs());
      const folder = `${this.#options.dir.stale}/${time}`;
      await ensureFolder(folder, 0o700);
      const live = staged.places.get(root.name)?.live ?? root.path;
      const where = moveAside({ live, aside: `${folder}/${root.name}`, time, keep: root.excludePaths });
      logger.warn(
        `files ${root.name}: diverged, the local data was moved aside`,
        { path: where },
      );
      this.#record(root.name, "diverged: local data moved aside", { path: where });
    }
    await this.#swap(current.id, restored, staged);
    logger.info("restored", {
      checkpoint: current.id,
      n: current.n,
      roots: restored.map((root) => root.name),
      ...staged.totals,
    });
    this.#record(current.id, "restored at the start", { roots: restored.map((root) => root.name) });
  }

  /** After the decisions were carried out, every root is ours as of this term. */
  async #markAll(): Promise<void> {
    const { lineage, roots, repo, head } = this.#options;
    const current = head.head.current;
    await lineage.update(Object.fromEntries(roots.map((root) => {
      const kept = lineage.item(root.name);
      const decision = this.#decisions.get(root.name)?.kind;
      // Adopted, or kept against the table's advice: it descends from what is there now, its content comes next.
      const descends = decision === "restore" || decision === "adopt" ||
        kept === null || kept.repo_id !== repo.repo_id;
      return [root.name, {
        repo_id: repo.repo_id,
        path: root.path,
        token: head.token,
        claimed: null,
        checkpoint: descends
          ? current
          : (kept.pending !== null && kept.pending === current ? current : kept.checkpoint),
        pending: null,
      }];
    })));
  }

  /** `restore.on_start: <id or time>`: once, as new history; the head remembers that it was done. */
  async #applyOnStart(signal: AbortSignal): Promise<void> {
    const { config, head, checkpointer } = this.#options;
    const wanted = config.restore.onStart;
    const source = this.#onStartSource();
    if (source === null) {
      if (wanted === head.head.on_start_applied) {
        logger.warn(
          "restore.on_start was applied before: the latest state is used",
          { on_start: wanted },
        );
      }
      return;
    }
    // Local data that the bucket may not have yet is kept as a checkpoint before it is replaced.
    if (this.mustShip) {
      await checkpointer.create("safety", {
        comment: "before restore.on_start",
        labels: {},
      }, { signal });
    }
    await this.#restoreTo(source, null, wanted, { signal });
  }

  /** Null when `restore.on_start` asks for none, or was applied. Throws `checkpoint-not-found`. */
  #onStartSource(): CheckpointRecord | null {
    const { config, head } = this.#options;
    const wanted = config.restore.onStart;
    if (wanted === "latest" || wanted === "none" || wanted === head.head.on_start_applied) return null;
    const atMs = Date.parse(wanted);
    const target = /^\d{4}-/.test(wanted) && !Number.isNaN(atMs) ? { atMs } : { checkpoint: wanted };
    return findCheckpoint(head.head, target);
  }

  // ---- asked for by an operator

  /** Throws `invalid-request` or `checkpoint-not-found` before anything stops. */
  check(request: RestoreRequest): CheckpointRecord {
    const { head, roots } = this.#options;
    const source = findCheckpoint(head.head, request.target);
    const unknown = (request.files ?? []).filter((name) =>
      source.files[name] === undefined ||
      !roots.some((root) => root.name === name)
    );
    if (unknown.length > 0) {
      throw new StateManagerError(
        "invalid-request",
        `restore: no files root ${unknown.join(", ")} in checkpoint ${source.id}`,
        {
          hint: `known there: ${Object.keys(source.files).join(", ") || "none"}`,
          details: unknown.map((name) => ({
            pointer: "/files",
            detail: `unknown name ${name}`,
          })),
        },
      );
    }
    return source;
  }

  async plan(request: RestoreRequest, work: LongWork): Promise<RestoreResult> {
    const source = this.check(request);
    const names = this.#namesOf(source, request.files);
    const plan = await this.#options.archiver.plan({
      head: this.#options.head.head,
      record: source,
      names,
    }, work);
    return {
      source,
      checkpoint: null,
      safety: null,
      files: names,
      totals: plan.totals,
      warnings: [],
    };
  }

  /** The programs are stopped. Safety checkpoint, intent, swap, head; the programs start again afterwards. */
  async restore(
    request: RestoreRequest,
    work: LongWork,
  ): Promise<RestoreResult> {
    const source = this.check(request);
    let safety: CheckpointRecord | null = null;
    if (request.safety) {
      const made = await this.#options.checkpointer.create(
        "safety",
        { comment: `before restore of ${source.id}`, labels: {} },
        { ...work, always: true },
      );
      safety = made.checkpoint;
    }
    const result = await this.#restoreTo(source, request.files, null, work);
    return { ...result, safety };
  }

  /** After a restore that failed: what was begun is finished, what was only staged goes. */
  async recover(): Promise<void> {
    const { dir, head, lineage, roots } = this.#options;
    await rollInterruptedSwap(dir, lineage);
    await removeLeftovers(roots);
    const intent = head.head.intent;
    if (intent === null) return;
    const swapped = roots.some((root) => lineage.item(root.name)?.checkpoint === intent.record.id);
    // Swapped: the local tree is what the intent says, so finish it. Not swapped: the programs go on with the old tree,
    // which the head still calls current, so drop it.
    await head.commit((before) => swapped ? finishedIntent(before) : { ...before, intent: null });
  }

  async #restoreTo(
    source: CheckpointRecord,
    only: readonly string[] | null,
    onStart: string | null,
    work: LongWork,
  ): Promise<RestoreResult> {
    const { archiver, clock, head, lineage, random, roots } = this.#options;
    const names = this.#namesOf(source, only);
    const chosen = roots.filter((root) => names.includes(root.name));
    const staged = await this.#stage(source, chosen, work);
    const id = ulid(clock.wallMs(), random);
    const record = await archiver.composeRestore(
      {
        id,
        time: clock.wallMs(),
        token: head.token,
        head: head.head,
        source,
        names,
      },
      work,
    );
    work.signal?.throwIfAborted();
    await head.commit((before) => ({
      ...before,
      intent: { record, on_start: onStart },
    }));
    // From here on it is finished, by us or by the next holder.
    await this.#swap(id, chosen, staged);
    await head.commit((before) => finishedIntent(before));
    await lineage.patch(roots.map((root) => root.name), {
      checkpoint: id,
      pending: null,
    });
    logger.info("restored to the past as new history", {
      source: source.id,
      checkpoint: id,
      n: record.n,
      roots: names,
    });
    this.#record(id, `restored ${source.id} as new history`, { source: source.id, roots: names });
    return {
      source,
      checkpoint: record,
      safety: null,
      files: names,
      totals: staged.totals,
      warnings: staged.warnings,
    };
  }

  #namesOf(source: CheckpointRecord, only: readonly string[] | null): string[] {
    return this.#options.roots
      .map((root) => root.name)
      .filter((name) =>
        source.files[name] !== undefined &&
        (only === null || only.includes(name))
      );
  }

  #record(subject: string, summary: string, detail: Record<string, unknown>): void {
    this.#options.record({ kind: "restore", subject, summary, detail });
  }

  async #stage(
    record: CheckpointRecord,
    roots: readonly FilesRoot[],
    work: LongWork,
  ): Promise<Staged> {
    const places = new Map<string, SwapPlace>();
    for (const root of roots) {
      places.set(root.name, await findSwapPlace(root, stageId(record)));
    }
    const { archiver, head } = this.#options;
    const { totals, warnings } = await archiver.stage({
      head: head.head,
      record,
      roots: roots.map((root) => ({
        name: root.name,
        stage: places.get(root.name)?.stage ?? "",
        former: places.get(root.name)?.former ?? [],
      })),
    }, work);
    // Named one by one where the caller asked for them; the log gets enough to see what kind it is.
    const shown = warnings.slice(0, LOGGED_WARNINGS).map(({ root, path, reason }) =>
      `${root}/${path}: ${reason}`
    );
    if (warnings.length > 0) {
      logger.warn("restored with warnings", { count: warnings.length, warnings: shown });
    }
    return { totals, warnings, places };
  }

  async #swap(
    id: string,
    roots: readonly FilesRoot[],
    staged: Staged,
  ): Promise<void> {
    const { dir, lineage } = this.#options;
    this.#options.lease.assertHeld();
    const outcome = await swapIn({
      id,
      journalPath: dir.swapJournal,
      roots: roots.flatMap((root) => {
        const place = staged.places.get(root.name);
        return place === undefined ? [] : [{ root, place }];
      }),
    });
    for (const warning of outcome.warnings) {
      logger.warn("restored with a gap", { ...warning });
    }
    await lineage.patch(roots.map((root) => root.name), {
      checkpoint: id,
      pending: null,
    });
    await finishSwaps(dir.swapJournal, { keepOld: false });
  }
}

const LOGGED_WARNINGS = 20;

/** The head after its intent was carried out. */
function finishedIntent(head: Head): Head {
  const intent = head.intent;
  if (intent === null) return head;
  return {
    ...withCurrent(head, intent.record, head.indexes),
    intent: null,
    on_start_applied: intent.on_start ?? head.on_start_applied,
  };
}

function asideName(wallMs: number): string {
  return new Date(wallMs).toISOString().replaceAll(/[:.]/g, "-");
}

function originOf(decision: LineageDecision | undefined): string | null {
  if (decision === undefined) return null;
  if (decision.kind === "restore") {
    return decision.moveAside ? "moved-aside" : "restored";
  }
  return {
    keep: "kept",
    adopt: "adopted",
    empty: "empty",
    refuse: "refused",
  }[decision.kind];
}
