/**
 * Brings files back: what a start decides by lineage, and what an operator asks for. The order of the steps is that of
 * start_rules.ts and restore_rules.ts; one way for both:
 *   1. stage beside the live folder (nothing live changes; what a stop or a crash leaves is verified and used by the
 *      next start that restores the same, and deleted by any other);
 *   2. for a restore to the past: the intent goes into the head by swap, so that whoever holds the lease next
 *      finishes it; from here on the new checkpoint is what the bucket will say;
 *   3. swap, journaled: a crash leaves the old or the new tree, and the next start rolls it forward before all else;
 *   4. the marker says what the local content is now.
 */

import {
  findCheckpoint,
  findSwapPlace,
  isEmptyRoot,
  moveAside,
  type PlanTarget,
  swapIn,
  type SwapPlace,
} from "../checkpoint/mod.ts";
import type { ArchiveTotals, CheckpointRecord, FilesRoot, FileWarning } from "../checkpoint/types.ts";
import { assert } from "../platform/assert.ts";
import { asStateManagerError } from "../platform/errors.ts";
import { ensureFolder } from "../platform/files.ts";
import { log } from "../platform/log.ts";
import { ulid } from "../platform/random.ts";
import type { LongWork, RestoreRequest, RestoreResult } from "./control.ts";
import { currentRecord, type LineageDecision } from "./lineage.ts";
import type { Opened } from "./opening.ts";
import type { SessionOptions } from "./session_types.ts";
import {
  checkRequest,
  databasesWanted,
  type RestoreScope,
  sourceOf,
  type Wanted,
  wantedOf,
} from "./restore_request.ts";
import { mustShip, onStartSource, stageId } from "./start_rules.ts";
import { runTerm, type TermSteps } from "./term.ts";
import { type Positions, type RootPaths, type TermFacts, txidsOf } from "./term_machine.ts";
import { headSteps, removeLeftovers, repairSteps, rootSteps, termFacts } from "./term_steps.ts";

const logger = log("restore");

export type RestorerOptions =
  & Opened
  & Pick<SessionOptions, "config" | "dir" | "clock" | "random" | "record">;

/** One procedure's work, and what it has staged so far. */
interface Stager {
  readonly work: LongWork;
  staged: Staged | null;
}

interface Staged {
  readonly totals: ArchiveTotals;
  readonly warnings: readonly FileWarning[];
  /** Root name → where its new tree is and goes. */
  readonly places: ReadonlyMap<string, SwapPlace>;
}

export class Restorer {
  readonly #options: RestorerOptions;
  #decisions: TermFacts["decisions"] = {};

  constructor(options: RestorerOptions) {
    this.#options = options;
  }

  /** True when local content may be newer than the bucket: ship it soon after the start. */
  get mustShip(): boolean {
    return mustShip(this.#decisions);
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
      origin: originOf(this.#decisions[root.name]),
      checkpoint: this.#options.lineage.item(root.name)?.checkpoint ?? null,
    }));
  }

  /** Everything that must be right before the first program starts. */
  async prepareStart(signal: AbortSignal): Promise<void> {
    const { head, roots } = this.#options;
    const { intent } = head.head;
    const stager = this.#stager({ signal });
    await runTerm("prepare", this.#facts(), this.#steps(stager), (facts) => this.#noteDecisions(facts));
    if (intent !== null && head.head.current === intent.record.id) {
      logger.warn("a restore of the former holder is finished", { checkpoint: intent.record.id });
    }
    const current = currentRecord(head.head);
    if (stager.staged !== null && current !== null) {
      const names = [...stager.staged.places.keys()];
      logger.info("restored", {
        checkpoint: current.id,
        n: current.n,
        roots: names,
        ...stager.staged.totals,
      });
      this.#record(current.id, "restored at the start", { roots: names });
    }
    for (const root of roots) {
      // Nothing anywhere: the program gets a folder to begin in, and a later checkpoint one to read.
      if (this.#decisions[root.name]?.kind === "empty") await ensureFolder(root.path);
    }
    await this.#options.databases.prepare(signal);
    await this.#applyOnStart(signal);
    await removeLeftovers(roots);
  }

  #noteDecisions({ decisions }: TermFacts): void {
    if (decisions === this.#decisions) return;
    this.#decisions = decisions;
    for (const [name, { kind, reason }] of Object.entries(decisions)) {
      logger.info(`files ${name}: ${kind}`, { reason });
    }
  }

  #facts(): TermFacts {
    return termFacts(this.#options, this.#options.head.token, this.#options.head);
  }

  #steps(stager: Stager): TermSteps {
    const { dir, head, lineage, roots } = this.#options;
    return {
      ...repairSteps(dir.swapJournal, lineage),
      ...headSteps(head),
      ...rootSteps(roots),
      stage: async ({ record, names, paths = {} }) => {
        stager.staged = await this.#stage({ record, roots: this.#named(names), paths }, stager.work);
      },
      "move-aside": ({ name }) => this.#moveAside(name, stager),
      "swap-files": ({ id, names, paths = {} }) =>
        this.#swap({ id, roots: this.#named(names), paths }, stager),
      "look-at-points": async ({ positions }) => ({ lost: await this.#lost(positions, stager.work.signal) }),
      "restore-databases": ({ positions }) =>
        this.#options.databases.restoreTo(positions, stager.work.signal),
    };
  }

  #stager(work: LongWork): Stager {
    return { work, staged: null };
  }

  #named(names: readonly string[]): FilesRoot[] {
    return this.#options.roots.filter((root) => names.includes(root.name));
  }

  async #moveAside(name: string, stager: Stager): Promise<void> {
    const [root] = this.#named([name]);
    if (root === undefined || isEmptyRoot(root)) return;
    const time = asideName(this.#options.clock.wallMs());
    const folder = `${this.#options.dir.stale}/${time}`;
    await ensureFolder(folder, 0o700);
    const live = stager.staged?.places.get(name)?.live ?? root.path;
    const where = await moveAside({ live, aside: `${folder}/${name}`, time, keep: root.excludePaths });
    logger.warn(`files ${name}: diverged, the local data was moved aside`, { path: where });
    const summary = "diverged: local data moved aside";
    this.#options.record({ kind: "diverged", subject: name, summary, detail: { path: where } });
  }

  /** `restore.on_start: <id or time>`: once, as new history; the head remembers that it was done. */
  async #applyOnStart(signal: AbortSignal): Promise<void> {
    const { config, head, checkpointer } = this.#options;
    const wanted = config.restore.onStart;
    const source = onStartSource(head.head, wanted);
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
    const target = { checkpoint: source.id };
    const all = { target, files: null, paths: null, databases: null, consistent: true };
    await this.#restoreTo(source, await wantedOf(source, all, this.#scope(), signal), wanted, { signal });
  }

  // ---- asked for by an operator

  /**
   * Rejects with `invalid-request`, `checkpoint-not-found` or `not-found` before anything stops. What was found stays: the
   * programs may take their time to end, and no merge may step over it meanwhile.
   */
  async check(request: RestoreRequest): Promise<void> {
    const scope = this.#scope();
    this.#options.databases.want(await databasesWanted(request, scope));
    try {
      await checkRequest(request, scope);
      await this.#checkPaths(request, scope);
    } catch (error) {
      this.#options.databases.want({});
      throw error;
    }
  }

  /** A dry run says by itself what is not there. */
  async #checkPaths(request: RestoreRequest, scope: RestoreScope): Promise<void> {
    if (request.paths === null || request.dryRun) return;
    const record = sourceOf(request, scope);
    assert(record !== null, "files come from a checkpoint");
    const { names, paths } = await wantedOf(record, request, scope);
    const roots = this.#named(names).map(({ name, path }) => ({ name, into: path, ...ofRoot(paths, name) }));
    await this.#options.archiver.plan({ head: this.#options.head.head, record, roots, paths: 0 });
  }

  /** A restore was begun and a state that it wants is gone: said loudly, since it is given up. */
  async #lost(positions: Positions, signal?: AbortSignal): Promise<readonly string[]> {
    const lost = await this.#options.databases.lost(positions, signal);
    if (lost.length === 0) return lost;
    const summary = "a restore that was begun is given up: the state it wants is not in the bucket any more";
    logger.error(summary, { databases: lost, wanted: txidsOf(positions) });
    this.#record(lost.join(" "), summary, { wanted: txidsOf(positions) });
    return lost;
  }

  /** As the head is now. */
  #scope(): RestoreScope {
    const { databases, head, roots } = this.#options;
    return {
      head: head.head,
      roots: roots.map(({ name }) => name),
      hasDatabase: (name) => databases.has(name),
      positionAt: (name, atMs, signal) => databases.positionAt(name, atMs, signal),
      checkPoint: (name, txid, signal) => databases.checkPoint(name, txid, signal),
    };
  }

  async plan(request: RestoreRequest, work: LongWork): Promise<RestoreResult> {
    const scope = this.#scope();
    await checkRequest(request, scope, work.signal);
    const source = sourceOf(request, scope);
    const { names, paths, databases } = await wantedOf(source, request, scope, work.signal);
    const plan = source === null ? null : await this.#options.archiver.plan({
      head: this.#options.head.head,
      record: source,
      roots: planTargets(this.#named(names), paths),
      paths: PLANNED_PATHS,
    }, work);
    return {
      source,
      checkpoint: null,
      safety: null,
      files: names,
      databases: txidsOf(databases),
      totals: plan?.totals ?? null,
      plan: plan?.roots ?? [],
      warnings: [],
    };
  }

  /** The programs are stopped. Safety checkpoint, intent, swap, head; the programs start again afterwards. */
  async restore(
    request: RestoreRequest,
    work: LongWork,
  ): Promise<RestoreResult> {
    const named = sourceOf(request, this.#scope()); // before the safety checkpoint, which is none of what can be meant
    let safety: CheckpointRecord | null = null;
    const isFirst = currentRecord(this.#options.head.head) === null; // what comes back must follow on something
    // Of paths, what stays of the tree is taken out of it.
    if (request.safety || request.paths !== null || isFirst) {
      const made = await this.#options.checkpointer.create(
        "safety",
        { comment: `before restore of ${whatOf(request, named)}`, labels: {} },
        { ...work, always: true },
      );
      safety = made.checkpoint;
    }
    const scope = this.#scope(); // with the safety checkpoint
    // By its id: it may have been deleted meanwhile. Databases go back without one, from what was there right before.
    const source = named === null ? safety : findCheckpoint(scope.head, { checkpoint: named.id });
    assert(source !== null, "where nothing was named the safety checkpoint was made");
    const result = await this.#restoreTo(
      source,
      await wantedOf(source, request, scope, work.signal),
      null,
      work,
    );
    return { ...result, safety };
  }

  /**
   * After a restore that failed: what was begun is finished, what was only staged goes. Nothing may start before it is
   * known what the restore left in the head, so it is tried again while that may help; the lease bounds the wait.
   */
  async recover(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (true) {
      try {
        await runTerm("recover", this.#facts(), this.#steps(this.#stager({})));
        await this.#options.databases.tidy().catch(() => {}); // the next start does it
        return;
      } catch (error) {
        const failure = asStateManagerError(error);
        if (!failure.retryable) throw failure;
        logger.warn("what the failed restore left is not known yet, trying again", {
          error: failure.message,
        });
        await clock.sleep(RECOVER_AGAIN_MS, { signal });
      }
    }
  }

  async #restoreTo(
    source: CheckpointRecord,
    wanted: Wanted,
    onStart: string | null,
    work: LongWork,
  ): Promise<RestoreResult> {
    this.#options.databases.want(wanted.databases);
    try {
      return await this.#restoreWanted(source, wanted, onStart, work);
    } finally {
      this.#options.databases.want({});
    }
  }

  async #restoreWanted(
    source: CheckpointRecord,
    { names, paths, databases }: Wanted,
    onStart: string | null,
    work: LongWork,
  ): Promise<RestoreResult> {
    const { archiver, clock, head, random } = this.#options;
    const stager = this.#stager(work);
    const facts = await runTerm("restore", {
      ...this.#facts(),
      wanted: { source, names, ...(paths === undefined ? {} : { paths }), databases, onStart },
    }, {
      ...this.#steps(stager),
      compose: async (effect) => {
        const { record, indexes } = await archiver.composeRestore({
          ...effect,
          id: ulid(clock.wallMs(), random),
          time: clock.wallMs(),
          token: head.token,
          head: head.head,
        }, work);
        // The intent comes next, and whoever finds one must be able to finish it. What a listed checkpoint names is kept.
        for (const [name, { txid }] of Object.entries(databases)) {
          if (source.databases?.[name]?.txid === txid) continue;
          await this.#options.databases.checkPoint(name, txid, work.signal);
        }
        work.signal?.throwIfAborted();
        return { composed: record, composedIndexes: indexes };
      },
    });
    const { composed } = facts;
    assert(composed !== null, "a restore that is done was composed");
    const { id, n } = composed;
    const txids = txidsOf(databases);
    logger.info("restored to the past as new history", {
      source: source.id,
      checkpoint: id,
      n,
      roots: names,
      databases: txids,
    });
    this.#record(id, `restored ${source.id} as new history`, {
      source: source.id,
      roots: names,
      databases: txids,
    });
    return {
      source,
      checkpoint: composed,
      safety: null,
      files: names,
      databases: txids,
      totals: stager.staged?.totals ?? null,
      plan: null,
      warnings: stager.staged?.warnings ?? [],
    };
  }

  #record(subject: string, summary: string, detail: Record<string, unknown>): void {
    this.#options.record({ kind: "restore", subject, summary, detail });
  }

  async #stage(
    { record, roots, paths }: {
      readonly record: CheckpointRecord;
      readonly roots: readonly FilesRoot[];
      readonly paths: RootPaths;
    },
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
        live: places.get(root.name)?.live ?? root.path,
        ...ofRoot(paths, root.name),
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
    { id, roots, paths }: {
      readonly id: string;
      readonly roots: readonly FilesRoot[];
      readonly paths: RootPaths;
    },
    { staged, work }: Stager,
  ): Promise<void> {
    const { clock, dir, lease } = this.#options;
    // No program runs: a store that is out of reach for a while is no reason to give up what was staged.
    while (lease.status.state === "suspended") {
      work.signal?.throwIfAborted();
      await clock.sleep(LEASE_CHECK_MS);
    }
    await lease.confirmHeld();
    lease.assertHeld();
    const outcome = await swapIn({
      id,
      journalPath: dir.swapJournal,
      roots: roots.flatMap((root) => {
        const place = staged?.places.get(root.name);
        return place === undefined ? [] : [{ root, place, ...ofRoot(paths, root.name) }];
      }),
    });
    for (const warning of outcome.warnings) logger.warn("restored with a gap", { ...warning });
  }
}

function whatOf({ target, databases }: RestoreRequest, named: CheckpointRecord | null): string {
  return "txid" in target
    ? `${(databases ?? []).join(", ")} to TXID ${target.txid}`
    : named?.id ?? (databases ?? []).join(", ");
}

const LOGGED_WARNINGS = 20;
/** Differences in the answer to a dry run, per files root; their number is told whatever it is. */
export const PLANNED_PATHS = 10_000;

/** What a plan of a restore in place compares: each root with the folder that is there. */
export function planTargets(roots: readonly FilesRoot[], paths: RootPaths = {}): PlanTarget[] {
  return roots.map((root) => ({ name: root.name, live: root, into: root.path, ...ofRoot(paths, root.name) }));
}

function ofRoot(paths: RootPaths | undefined, name: string): { readonly paths?: readonly string[] } {
  const wanted = paths?.[name];
  return wanted === undefined ? {} : { paths: wanted };
}

const LEASE_CHECK_MS = 50;
const RECOVER_AGAIN_MS = 1000;

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
