/** One deliberate mistake, in a rule or in what carries it out; the checks must find it. */

import type { stepHead } from "../../src/checkpoint/head_rules.ts";
import type { step } from "../../src/lease/rules.ts";
import type { stepTerm } from "../../src/manager/term_rules.ts";

/** What a mutant of the lease may see of the node whose turn it is. */
export interface LocalView {
  readonly wallMs: number;
  /** Wall time of the writer at the first send of the write with this nonce. */
  readonly writtenWallMs: (nonce: string) => number;
}

export interface Mutant {
  readonly lease?: (shipped: typeof step, local: LocalView) => typeof step;
  readonly head?: (shipped: typeof stepHead) => typeof stepHead;
  readonly term?: (shipped: typeof stepTerm) => typeof stepTerm;
  readonly storeIgnoresConditions?: true;
  /** Fast return without the proof that the programs are dead: the guard's lock is not waited for. */
  readonly returnsWithoutProof?: true;
  /** Fast return on a copy of the data folder on another host. */
  readonly inheritsElsewhere?: true;
  readonly guardIgnoresDeadline?: true;
  readonly guardLateMs?: number;
  readonly guardIgnoresDeath?: true;
  readonly thawsBeforeProof?: true;
  /** A hand-over releases while the program still runs. */
  readonly handsOverWhileRunning?: true;
  readonly namesBeforeUpload?: "pack" | "root";
}
