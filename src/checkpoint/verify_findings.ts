/** Collects what is wrong, object by object, and which checkpoints and files it hurts. */

import type { ObjectProblem } from "./pack_check.ts";
import type { CheckpointRecord } from "./types.ts";
import {
  FILES_PER_FINDING_LIMIT,
  type Finding,
  FINDINGS_LIMIT,
  type HurtFile,
  type VerifyResult,
} from "./verify_types.ts";

/** One object that is missing or damaged. */
export interface Suspect extends ObjectProblem {
  readonly object: string;
  readonly checkpoints: Map<string, number>;
  readonly files: HurtFile[];
  /** Of every file, so that the same one in many checkpoints counts once. */
  readonly fileKeys: Set<string>;
}

export class Findings {
  readonly #suspects = new Map<string, Suspect>();
  /** Chunk ids → the object whose damage takes them away. */
  readonly #lost = new Map<string, Suspect>();

  get isEmpty(): boolean {
    return this.#suspects.size === 0;
  }

  /** The first thing that was found of an object stays. */
  add(object: string, { problem, detail }: ObjectProblem): Suspect {
    const known = this.#suspects.get(object);
    if (known !== undefined) return known;
    const suspect = {
      object,
      problem,
      detail,
      checkpoints: new Map<string, number>(),
      files: [],
      fileKeys: new Set<string>(),
    };
    this.#suspects.set(object, suspect);
    return suspect;
  }

  has(object: string): boolean {
    return this.#suspects.has(object);
  }

  /** From now on whoever needs this chunk is hurt by `suspect`. */
  lose(id: string, suspect: Suspect): void {
    if (!this.#lost.has(id)) this.#lost.set(id, suspect);
  }

  lostBy(id: string): Suspect | null {
    return this.#lost.get(id) ?? null;
  }

  hurt(suspect: Suspect, { id, n }: CheckpointRecord, file?: HurtFile): void {
    suspect.checkpoints.set(id, n);
    if (file === undefined) return;
    const key = `${file.root}\0${file.path ?? ""}`;
    if (suspect.fileKeys.has(key)) return;
    suspect.fileKeys.add(key);
    if (suspect.files.length < FILES_PER_FINDING_LIMIT) suspect.files.push(file);
  }

  isHurt({ id }: CheckpointRecord): boolean {
    return [...this.#suspects.values()].some((suspect) => suspect.checkpoints.has(id));
  }

  /** Forgets objects that `isLive` does not know: garbage collection took them while we looked. */
  keepOnly(isLive: (object: string) => boolean): void {
    for (const object of [...this.#suspects.keys()]) if (!isLive(object)) this.#suspects.delete(object);
  }

  told(): Pick<VerifyResult, "findings" | "findingsTotal"> {
    const all = [...this.#suspects.values()].map((suspect): Finding => ({
      object: suspect.object,
      problem: suspect.problem,
      detail: suspect.detail,
      checkpoints: [...suspect.checkpoints].map(([id, n]) => ({ id, n })).sort((a, b) => a.n - b.n),
      files: suspect.files,
      filesTotal: suspect.fileKeys.size,
    }));
    all.sort((a, b) => (a.object < b.object ? -1 : 1));
    return { findings: all.slice(0, FINDINGS_LIMIT), findingsTotal: all.length };
  }
}
