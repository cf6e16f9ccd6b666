/**
 * What a changed configuration means for a manager that runs: which processes are new, gone or different, and which keys
 * count only after its own restart. Pure.
 */

import { isSame, type ProcessSpec, type SpecChanges, specChanges } from "../supervisor/mod.ts";

export interface ChangedProcess extends SpecChanges {
  readonly name: string;
}

export interface ReloadPlan {
  /** Started. */
  readonly added: readonly string[];
  /** Stopped and forgotten. */
  readonly removed: readonly string[];
  readonly changed: readonly ChangedProcess[];
  readonly unchanged: readonly string[];
  /** Keys that are different from those in force and need a restart of the manager. */
  readonly needsManagerRestart: readonly string[];
}

/** One configuration as a reload sees it. */
export interface ReloadSide {
  readonly specs: readonly ProcessSpec[];
  /** By process: what becomes of its output, which is no affair of the one that runs it. */
  readonly logs: Readonly<Record<string, unknown>>;
  /** In the file's names, secrets hidden. */
  readonly shown: Readonly<Record<string, unknown>>;
  /** In order, without those that only say which processes start. */
  readonly stacks: readonly string[];
  /** By key: secrets that are hidden there, as anything that differs when they do. */
  readonly hidden: Readonly<Record<string, string | null>>;
}

export function planReload(before: ReloadSide, after: ReloadSide): ReloadPlan {
  const known = new Map(before.specs.map((spec) => [spec.name, spec]));
  const wanted = new Set(after.specs.map((spec) => spec.name));
  const added: string[] = [];
  const changed: ChangedProcess[] = [];
  const unchanged: string[] = [];
  for (const spec of after.specs) {
    const old = known.get(spec.name);
    if (old === undefined) {
      added.push(spec.name);
      continue;
    }
    const isLoggedAlike = isSame(before.logs[spec.name], after.logs[spec.name]);
    const found = specChanges(old, spec);
    const changes = isLoggedAlike ? found : { ...found, live: [...found.live, "logs"] };
    if (changes.live.length + changes.start.length === 0) unchanged.push(spec.name);
    else changed.push({ name: spec.name, ...changes });
  }
  return {
    added,
    removed: before.specs.map((spec) => spec.name).filter((name) => !wanted.has(name)),
    changed,
    unchanged,
    needsManagerRestart: keysThatDiffer(before, after),
  };
}

/** Keys as `checkpoint.interval`, two levels deep, sorted. */
function keysThatDiffer(before: ReloadSide, after: ReloadSide): string[] {
  const [one, other] = [flat(before), flat(after)];
  const keys = new Set([...one.keys(), ...other.keys()]);
  return [...keys].filter((key) => one.get(key) !== other.get(key)).sort();
}

function flat({ shown, stacks, hidden }: ReloadSide): Map<string, string> {
  const found = new Map([["stacks", JSON.stringify(stacks)]]);
  for (const [section, value] of Object.entries(shown)) {
    if (section === "processes" || section === "stacks") continue;
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      found.set(section, JSON.stringify(value));
      continue;
    }
    for (const [key, inner] of Object.entries(value)) {
      found.set(`${section}.${key}`, JSON.stringify(inner));
    }
  }
  for (const [key, value] of Object.entries(hidden)) {
    if (value !== null) found.set(key, value);
  }
  return found;
}
