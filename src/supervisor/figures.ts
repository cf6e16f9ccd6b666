/**
 * Memory and CPU time of each process's members, from one look at /proc for all of them. Cheaper than a stop's look: the
 * tag is read once for each orphan, not for everybody at each look.
 */

import { type ProcessInfo, type ProcessUse, readProcessUses, readStartVariable } from "../platform/proc.ts";
import { UNIT_VARIABLE } from "./members.ts";

export interface Figures {
  /** Sum of what is resident; what several of them share counts for each. */
  readonly memoryBytes: number;
  /** Of the incarnation so far, those of its children included that it has waited for. Never falls. */
  readonly cpuSeconds: number;
  readonly processes: number;
  /** Who was counted. */
  readonly pids: readonly number[];
}

/** One incarnation that runs. */
export interface MeasuredUnit {
  readonly groupId: number;
  readonly tag: string;
}

export interface UseTable {
  readProcessUses(): readonly ProcessUse[];
  readStartVariable(pid: number, name: string): string | null;
}

const SYSTEM: UseTable = { readProcessUses, readStartVariable };

export class FigureReader {
  readonly #table: UseTable;
  readonly #ownPid: number;
  /** Tags of orphans by pid and start: their environment is read once. */
  #tags = new Map<string, string | null>();
  /** The highest CPU time seen, by tag: a member that ends takes its own with it. */
  #cpu = new Map<string, number>();

  constructor(ownPid: number, table: UseTable = SYSTEM) {
    this.#ownPid = ownPid;
    this.#table = table;
  }

  /** By tag. Those of whom nothing was seen are left out. */
  measure(units: readonly MeasuredUnit[]): ReadonlyMap<string, Figures> {
    const uses = this.#table.readProcessUses();
    const owners = this.#owners(units, uses);
    const sums = new Map<string, { bytes: number; cpu: number; pids: number[] }>();
    for (const use of uses) {
      const tag = owners.get(use.pid);
      if (tag === undefined) continue;
      const sum = sums.get(tag) ?? { bytes: 0, cpu: 0, pids: [] };
      sum.bytes += use.residentBytes;
      sum.cpu += use.cpuSeconds;
      sum.pids.push(use.pid);
      sums.set(tag, sum);
    }
    const figures = new Map<string, Figures>();
    for (const [tag, { bytes, cpu, pids }] of sums) {
      const cpuSeconds = Math.max(cpu, this.#cpu.get(tag) ?? 0);
      figures.set(tag, { memoryBytes: bytes, cpuSeconds, processes: pids.length, pids });
    }
    this.#cpu = new Map([...figures].map(([tag, { cpuSeconds }]) => [tag, cpuSeconds]));
    return figures;
  }

  /** Whose each pid is: by group, by tag for orphans that came to us, else the parent's. */
  #owners(units: readonly MeasuredUnit[], uses: readonly ProcessUse[]): Map<number, string> {
    const byGroup = new Map(units.map(({ groupId, tag }) => [groupId, tag]));
    const known = new Set(units.map(({ tag }) => tag));
    const owners = new Map<number, string>();
    const tags = new Map<string, string | null>();
    for (const use of uses) {
      const tag = byGroup.get(use.groupId) ?? this.#tagOfOrphan(use, tags);
      if (tag !== null && known.has(tag)) owners.set(use.pid, tag);
    }
    this.#tags = tags;
    // Parents come before their children mostly, not always.
    for (let before = -1; before !== owners.size;) {
      before = owners.size;
      for (const { pid, parentPid } of uses) {
        const tag = owners.get(parentPid);
        if (tag !== undefined && !owners.has(pid)) owners.set(pid, tag);
      }
    }
    return owners;
  }

  #tagOfOrphan({ pid, parentPid, startTicks }: ProcessInfo, seen: Map<string, string | null>): string | null {
    if (parentPid !== this.#ownPid && parentPid !== 1) return null;
    const key = `${pid}.${startTicks}`;
    const tag = this.#tags.has(key)
      ? this.#tags.get(key) ?? null
      : this.#table.readStartVariable(pid, UNIT_VARIABLE);
    seen.set(key, tag);
    return tag;
  }
}
