/**
 * Shapes of a term's procedures: what one knows, the durable steps it wants done, and what it hears back. All plain
 * data. The procedures themselves are lists of steps (start_rules.ts, checkpoint_rules.ts, restore_rules.ts) that
 * term_rules.ts walks; term.ts executes them.
 */

import type { CheckpointRecord, DatabasePosition, Head } from "../checkpoint/types.ts";
import type { ErrorCode, ErrorDetail, StateManagerError } from "../platform/errors.ts";
import type { HeadChange } from "./head_changes.ts";
import type { LineageDecision, LineageFacts, Marker, MarkerChange } from "./lineage.ts";

/** Database → where it stands, or goes back to. */
export type Positions = Readonly<Record<string, DatabasePosition>>;

export function txidsOf(positions: Positions): Record<string, number> {
  return Object.fromEntries(Object.entries(positions).map(([name, { txid }]) => [name, txid]));
}

/** Files root → paths of it, byte texts. */
export type RootPaths = Readonly<Record<string, readonly string[]>>;

export type Procedure =
  /** Local, before anything else: a swap of files that was interrupted goes forward. */
  | "repair"
  /** With the lease: refuse, claim, take the head over. */
  | "open"
  /** With the head: everything that must be right before the first program starts. */
  | "prepare"
  /** What the programs wrote becomes the current state. */
  | "checkpoint"
  /** The programs are stopped: an old state becomes the current one, as new history. */
  | "restore"
  /** After a restore that failed, before the programs start again. */
  | "recover";

/** What a procedure knows; the caller gives it, and each step adds what it learned. */
export interface TermFacts {
  readonly repoId: string;
  readonly token: number;
  readonly roots: readonly { readonly name: string; readonly path: string }[];
  readonly settings: {
    readonly onConflict: LineageFacts["onConflict"];
    readonly onStart: string;
    readonly orphans: "stop" | "keep";
  };
  readonly marker: Marker;
  /** As last read or swapped; null: there is none. */
  readonly head: Head | null;
  /** As it was before this term. */
  readonly previous: Head | null;
  /** Roots with nothing of anybody's in them. */
  readonly empty: readonly string[];
  readonly decisions: Readonly<Record<string, LineageDecision>>;
  /** Take-overs tried. */
  readonly attempts: number;
  /** The swap that was rolled forward. */
  readonly rolled: { readonly id: string; readonly names: readonly string[] } | null;
  /** What is uploaded and not committed yet; null: nothing had changed. */
  readonly made: { readonly record: CheckpointRecord; readonly indexes: Head["indexes"] } | null;
  /** What a restore brings back. */
  readonly wanted: {
    readonly source: CheckpointRecord;
    readonly names: readonly string[];
    /** Of these roots nothing but the paths (byte texts). Absent: whole roots. */
    readonly paths?: RootPaths;
    /** Databases and the positions they go back to. */
    readonly databases: Positions;
    readonly onStart: string | null;
  } | null;
  /** Its new record, uploaded. */
  readonly composed: CheckpointRecord | null;
  /** Databases whose state, as a restore that has begun wants it, is not in the bucket any more. */
  readonly lost: readonly string[];
  /** The indexes that go with it. Absent: none but those of the head. */
  readonly composedIndexes?: Head["indexes"];
}

/** What a step found out. */
export type Learned = Partial<
  Pick<TermFacts, "head" | "previous" | "empty" | "rolled" | "made" | "composed" | "composedIndexes" | "lost">
>;

/** One step outside. Each is done, or fails, as a whole; "durable" where a crash after it must find it done. */
export type TermEffect =
  // Local.
  /** Rolls the journal forward. Learns `rolled`. Durable. */
  | { readonly type: "roll-swap" }
  /** Removes the old content and the journal. Durable. */
  | { readonly type: "finish-swap" }
  /** Durable. */
  | { readonly type: "write-marker"; readonly change: MarkerChange }
  /** Stages that no journal names, but those of the checkpoints `keep`: a stage goes on with what is there. */
  | { readonly type: "remove-leftovers"; readonly keep: readonly string[] }
  /** Learns `empty`. */
  | { readonly type: "look-at-roots" }
  /** Durable. */
  | { readonly type: "move-aside"; readonly name: string }
  /** Journal, then swap, of what was staged; the content is checkpoint `id`. Durable. */
  | {
    readonly type: "swap-files";
    readonly id: string;
    readonly names: readonly string[];
    readonly paths?: RootPaths;
  }
  /** Old content into place, and into the bucket as the next TXID of each. Done again, it is the same. Durable. */
  | { readonly type: "restore-databases"; readonly positions: Positions }
  /** Whether they can be brought back at all. Learns `lost`. */
  | { readonly type: "look-at-points"; readonly positions: Positions }
  // In the store. The programs' head is changed by compare-and-swap under the lease.
  /** Learns `head`. */
  | { readonly type: "read-head" }
  /** On the head that was read. `precondition-failed`: it is another one by now. Learns `head` and `previous`. */
  | { readonly type: "take-over-head" }
  /** Learns `head`. */
  | { readonly type: "swap-head"; readonly change: HeadChange }
  /** No earlier swap of ours may land any more. Learns `head`. */
  | { readonly type: "settle-head" }
  /** Packs, index and root object, acknowledged: garbage until the head names them. Learns `made`. */
  | { readonly type: "upload" }
  /** A root object with old items. Learns `composed`. */
  | {
    readonly type: "compose";
    readonly source: CheckpointRecord;
    readonly names: readonly string[];
    readonly paths?: RootPaths;
    readonly databases: Positions;
  }
  /** Brings content beside the live folders. */
  | {
    readonly type: "stage";
    readonly record: CheckpointRecord;
    readonly names: readonly string[];
    readonly paths?: RootPaths;
  };

/** A place in a procedure where what comes next depends on what is known by then. */
export type Question =
  | "rolled"
  | "claims"
  | "begun-restore"
  | "begun-points"
  | "leftovers"
  | "roots"
  | "ownership"
  | "settled"
  | "settled-points"
  | "uploaded"
  | "composed";

export type TermStep = TermEffect | { readonly type: "decide"; readonly question: Question };

/** Why a procedure goes no further, as plain data: the fields of a StateManagerError. */
export interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string | undefined;
  readonly details: readonly ErrorDetail[];
}

export function refusalOf({ code, message, hint, details }: StateManagerError): Refusal {
  return { code, message, hint, details };
}

export interface Answer {
  readonly facts: TermFacts;
  readonly steps: readonly TermStep[];
  readonly refusal?: Refusal;
}

export interface TermMachine {
  readonly procedure: Procedure;
  readonly facts: TermFacts;
  readonly doing: TermEffect | null;
  readonly todo: readonly TermStep[];
}

export type TermEvent =
  | { readonly type: "begin" }
  | { readonly type: "done"; readonly learned: Learned }
  | { readonly type: "failed"; readonly code: ErrorCode };

export type TermOutcome =
  | { readonly kind: "done" }
  /** A step failed; its error is told as it came. */
  | { readonly kind: "failed"; readonly code: ErrorCode }
  | { readonly kind: "refused"; readonly refusal: Refusal };

export interface TermTurn {
  readonly state: TermMachine;
  /** One at a time; the last is `ended`. */
  readonly effects: readonly (TermEffect | { readonly type: "ended"; readonly outcome: TermOutcome })[];
}
