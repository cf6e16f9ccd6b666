/** The steps that several procedures share, and the facts that they begin with. */

import {
  disposeHolder,
  findLeftovers,
  finishSwaps,
  type HeadSession,
  isEmptyRoot,
  rollSwaps,
} from "../checkpoint/mod.ts";
import type { FilesRoot, RepositoryRecord } from "../checkpoint/types.ts";
import type { Config } from "../config/types.ts";
import { log } from "../platform/log.ts";
import { changeHead } from "./head_changes.ts";
import type { LineageFile } from "./lineage.ts";
import type { TermFacts } from "./term_machine.ts";
import { NO_FACTS } from "./term_rules.ts";
import type { TermSteps } from "./term.ts";

const logger = log("restore");

export interface TermPlace {
  readonly config: Pick<Config, "restore">;
  readonly repo: RepositoryRecord;
  readonly lineage: LineageFile;
  readonly roots: readonly FilesRoot[];
}

/** What is known before a procedure begins. Without a head: before it was looked at. */
export function termFacts(
  { config, repo, lineage, roots }: TermPlace,
  token: number,
  head: HeadSession | null,
): TermFacts {
  return {
    ...NO_FACTS,
    repoId: repo.repo_id,
    token,
    roots: roots.map(({ name, path }) => ({ name, path })),
    settings: config.restore,
    marker: lineage.marker,
    head: head?.head ?? null,
    previous: head?.previous ?? null,
  };
}

/** A swap of files that was begun, and the marker that tells of it. */
export function repairSteps(swapJournal: string, lineage: LineageFile): TermSteps {
  return {
    "roll-swap": async () => {
      const rolled = await rollSwaps(swapJournal);
      if (rolled === null) return { rolled: null };
      const { id, roots } = rolled.journal;
      const names = roots.map((root) => root.name);
      logger.warn("a restore that was interrupted is finished", { checkpoint: id, roots: names });
      return { rolled: { id, names } };
    },
    "finish-swap": () => finishSwaps(swapJournal, { keepOld: false }),
    "write-marker": ({ change }) => lineage.apply(change),
  };
}

/** Our own head, under the lease. */
export function headSteps(head: HeadSession): TermSteps {
  return {
    "swap-head": async ({ change }) => {
      await head.commit((before) => changeHead(before, change));
      return { head: head.head };
    },
    "settle-head": async () => {
      await head.settle();
      return { head: head.head };
    },
  };
}

export function rootSteps(roots: readonly FilesRoot[]): TermSteps {
  return {
    "look-at-roots": () =>
      Promise.resolve({
        empty: roots.filter(isEmptyRoot).map(({ name }) => name),
      }),
    "remove-leftovers": ({ keep }) => removeLeftovers(roots, new Set(keep)),
  };
}

/** Stages that no journal names: what a stop or a crash left before anything live had changed. `keep`: to go on with. */
export async function removeLeftovers(
  roots: readonly FilesRoot[],
  keep: ReadonlySet<string> = new Set(),
): Promise<void> {
  for (const root of roots) {
    for (const holder of await findLeftovers(root.path, keep)) await disposeHolder(holder);
  }
}
