/**
 * The local state of one node that outlives its manager, and what the local steps of a term do to it. Content is told
 * apart by its history: each write of a program appends to it, so `descends` is a comparison of prefixes.
 */

import type { CheckpointRecord } from "../../src/checkpoint/types.ts";
import { changeMarker, EMPTY_MARKER, type Marker } from "../../src/manager/lineage.ts";
import type { Learned, TermEffect } from "../../src/manager/term_machine.ts";

export const ROOT = { name: "data", path: "/data" } as const;
/** Nothing there. */
export const NO_CONTENT = "";

export interface Disk {
  readonly content: string;
  readonly marker: Marker;
  /** What a swap is bringing in; `live` once the folders are exchanged. */
  readonly journal: { readonly id: string; readonly content: string; readonly live: boolean } | null;
  readonly staged: string | null;
  /** Moved aside, never deleted. */
  readonly aside: readonly string[];
  /** The lease's memory, and the boot that it was written under. */
  readonly memory: { readonly boot: number; readonly nonces: readonly string[] } | null;
}

export const EMPTY_DISK: Disk = {
  content: NO_CONTENT,
  marker: EMPTY_MARKER,
  journal: null,
  staged: null,
  aside: [],
  memory: null,
};

/** True when `content` is `ancestor` with nothing or something written after it. */
export function descends(content: string, ancestor: string): boolean {
  return content === ancestor || content.startsWith(ancestor === NO_CONTENT ? "" : `${ancestor}/`);
}

/** The content that a checkpoint holds. */
export function contentOf(record: CheckpointRecord): string {
  return record.files[ROOT.name]?.manifest_sha256 ?? NO_CONTENT;
}

export type LocalEffect = Extract<
  TermEffect,
  {
    type:
      | "roll-swap"
      | "finish-swap"
      | "write-marker"
      | "remove-leftovers"
      | "look-at-roots"
      | "move-aside"
      | "swap-files";
  }
>;

export function isLocal(effect: TermEffect): effect is LocalEffect {
  return [
    "roll-swap",
    "finish-swap",
    "write-marker",
    "remove-leftovers",
    "look-at-roots",
    "move-aside",
    "swap-files",
  ].includes(effect.type);
}

export interface LocalStep {
  readonly disk: Disk;
  readonly learned: Learned;
}

/**
 * The durable states that `effect` goes through, in order; the last is the whole step. A crash leaves the disk as
 * before or as any of them.
 */
export function localSteps(disk: Disk, effect: LocalEffect): readonly LocalStep[] {
  const step = (change: Partial<Disk>, learned: Learned = {}): LocalStep => ({
    disk: { ...disk, ...change },
    learned,
  });
  switch (effect.type) {
    case "roll-swap": {
      const { journal } = disk;
      if (journal === null) return [step({}, { rolled: null })];
      const rolled = { id: journal.id, names: [ROOT.name] };
      return [
        step(
          { content: journal.live ? disk.content : journal.content, journal: { ...journal, live: true } },
          { rolled },
        ),
      ];
    }
    case "finish-swap":
      return [step({ journal: null })];
    case "write-marker":
      return [step({ marker: changeMarker(disk.marker, effect.change) })];
    case "remove-leftovers":
      return [step({ staged: null })];
    case "look-at-roots":
      return [step({}, { empty: disk.content === NO_CONTENT ? [ROOT.name] : [] })];
    case "move-aside":
      if (disk.content === NO_CONTENT) return [step({})];
      return [step({ aside: [...disk.aside, disk.content], content: NO_CONTENT })];
    case "swap-files": {
      const content = disk.staged ?? NO_CONTENT;
      const journal = { id: effect.id, content, live: false };
      return [
        step({ journal, staged: null }),
        step({ content, journal: { ...journal, live: true }, staged: null }),
      ];
    }
  }
}
