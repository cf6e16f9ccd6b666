/**
 * Makes the repository's indexes right again while programs run: the work is the archiver's (repair.ts), the swap is made
 * here under the lease that is ours anyway, in the place of a checkpoint, so that nothing else changes the indexes
 * meanwhile. Where anything was wrong a checkpoint follows that reads all files, and stores again what they still have.
 * If we die before the swap, only garbage is left; after it, before that checkpoint: it is asked for again, or the next
 * verification tells what is still lost.
 */

import type { Archiver, HeadSession, RepairResult } from "../checkpoint/mod.ts";
import type { CatalogEvent } from "../database/mod.ts";
import type { Lease } from "../lease/mod.ts";
import { removeTreeIfPresent } from "../platform/files.ts";
import { log } from "../platform/log.ts";
import type { Checkpointer } from "./checkpointer.ts";
import type { LongWork, RepairOutcome, RepairWish } from "./control.ts";
import { changeHead } from "./head_changes.ts";

const logger = log("repair");

export interface RepairerOptions {
  readonly archiver: Pick<Archiver, "repair">;
  readonly head: HeadSession;
  readonly lease: Pick<Lease, "assertHeld">;
  readonly checkpointer: Pick<Checkpointer, "runPrune" | "create">;
  /** What the last scans saw, which vouches for chunks that may be lost by now. */
  readonly scansFolder: string;
  readonly record: (event: CatalogEvent) => void;
}

export class Repairer {
  readonly #options: RepairerOptions;

  constructor(options: RepairerOptions) {
    this.#options = options;
  }

  /** `busy` while a checkpoint is made or pruned. What is wrong, or was, is in the result. */
  async repair({ readPacks, dryRun }: RepairWish, work: LongWork = {}): Promise<RepairOutcome> {
    const { archiver, checkpointer, head, lease, scansFolder } = this.#options;
    const result = await checkpointer.runPrune(async (signal) => {
      lease.assertHeld();
      const request = { head: head.head, token: head.token, readPacks, dryRun };
      const made = await archiver.repair(request, { ...work, signal });
      if (dryRun || made.damaged.length === 0) return made;
      await head.commit((before) => changeHead(before, { kind: "reindex", indexes: made.indexes }), {
        signal,
      });
      // Also where no chunk is known to be lost: what only a lost index knew is not.
      await removeTreeIfPresent(scansFolder);
      return made;
    }, work.signal);
    if (dryRun || result.damaged.length === 0) return { ...result, checkpoint: null };
    this.#tell(result);
    const said = { comment: "after a repair: reads all files", labels: {} };
    const { checkpoint } = await checkpointer.create("request", said, { ...work, always: true });
    return { ...result, checkpoint };
  }

  #tell({ damaged, recoveredPacks, savedChunks, lostChunks }: RepairResult): void {
    const detail = {
      objects: damaged.map(({ object }) => object).slice(0, OBJECTS_TOLD),
      damaged: damaged.length,
      recovered_packs: recoveredPacks,
      saved_chunks: savedChunks,
      lost_chunks: lostChunks.length,
    };
    logger.warn("the indexes were made anew", detail);
    this.#options.record({
      kind: "verify",
      subject: "repair",
      summary: `${damaged.length} objects were missing or damaged, ${lostChunks.length} chunks are lost`,
      detail,
    });
  }
}

const OBJECTS_TOLD = 10;
