/**
 * The rules of the slot fence of one database, pure: (machine, event, now) → machine and effects, on plain data.
 * slot_writer.ts executes them, and so does the simulator; they never see a store or a clock.
 *
 * Every commit has one slot in the store, the key of its TXID at level 0, and each is written with "only if absent". What
 * makes this a fence, given a store whose conditional writes are linearizable:
 * - One put is under way at a time, and slot n+1 is not asked for before slot n is known to hold our bytes.
 * - A put of unknown outcome is read back, or sent again with the same bytes and the same condition, never given up for
 *   other bytes: whatever lands later is either what we meant or refused.
 * - An object is ours when its size, header and trailer (with the file's checksum) are: the header has the token.
 * - Before the programs of a term start, the holder writes a slot with its own token (the seal). Where it finds the last
 *   commit of a former holder instead, that one counts (absorbed): the caller restores to it and seals the slot after it.
 *   From the seal on a former holder finds its next slot taken by a larger token, and stops.
 * - After the seal nobody else may write: any other object in our slot means that we are not the holder.
 *
 * The lease's deadline only limits how long two holders overlap; nothing here relies on it but that slots which retention
 * has emptied are not written again (retention_rules.ts).
 */

import { assert } from "../platform/assert.ts";

/** One commit to be uploaded. */
export interface SlotUpload {
  readonly txid: number;
  /** Token in its header: ours, or a former one where a file of an earlier term was not uploaded. */
  readonly token: number;
  readonly sizeBytes: number;
  /** Header and trailer as hex digits. */
  readonly identity: string;
}

/** What was read back from a slot. */
export interface SlotObject {
  readonly token: number;
  readonly sizeBytes: number;
  readonly identity: string;
}

export type SlotEnd =
  /** A former holder's commit is in the slot: restore to it and begin again with it as the base. */
  | { readonly kind: "absorbed"; readonly txid: number; readonly token: number; readonly sizeBytes: number }
  /**
   * larger-token: a later holder writes. foreign-object: after our seal somebody else wrote. vanished: the slot was taken
   * and is empty now, which only a later holder's retention does. unreadable: what is there is not an LTX file.
   */
  | {
    readonly kind: "fenced";
    readonly txid: number;
    readonly reason: "larger-token" | "foreign-object" | "vanished" | "unreadable";
  };

export interface SlotWork {
  readonly upload: SlotUpload;
  /** What is sent next, or is under way. */
  readonly step: "put" | "read";
  /** deadline: nothing may be sent until it is moved. */
  readonly waitingFor: "put" | "read" | "pause" | "deadline";
  /** A put may have landed, or may land yet. */
  readonly doubt: boolean;
  /** A put, or the listing, found the slot taken. */
  readonly taken: boolean;
  /** Readings that found a taken slot empty. */
  readonly vanished: number;
  /** Failures in a row; for the length of the pause. */
  readonly failures: number;
}

export interface SlotMachine {
  readonly token: number;
  /** Monotonic time from which on nothing is sent. */
  readonly deadlineMs: number;
  /** Every slot up to here is known to hold what it should. */
  readonly durableTxid: number;
  /** A slot of this life holds our own token. */
  readonly sealed: boolean;
  readonly end: SlotEnd | null;
  readonly work: SlotWork | null;
}

export type SlotEvent =
  /**
   * The commit after the durable one, when there is no work. `listed`: a listing shows its slot taken, as a rule by an
   * earlier life of ours: it is read back, and never put.
   */
  | { readonly type: "wanted"; readonly upload: SlotUpload; readonly listed?: boolean }
  | { readonly type: "renewed"; readonly deadlineMs: number }
  // Answers to effects.
  | { readonly type: "written" }
  /** The slot is taken, perhaps by an earlier try of ours. */
  | { readonly type: "refused" }
  /** This put changed nothing for sure. */
  | { readonly type: "failed" }
  /** Any other failure of a put. */
  | { readonly type: "unknown" }
  | { readonly type: "found"; readonly object: SlotObject | "unreadable" | null }
  | { readonly type: "read-failed" }
  | { readonly type: "paused" };

export type SlotEffect =
  | { readonly type: "put"; readonly upload: SlotUpload }
  | { readonly type: "read"; readonly upload: SlotUpload }
  /** Wait before the next try; answer with `paused`. */
  | { readonly type: "pause"; readonly failures: number }
  /** Wait for `renewed`. */
  | { readonly type: "hold" }
  | { readonly type: "durable"; readonly upload: SlotUpload }
  | { readonly type: "ended"; readonly end: SlotEnd };

export interface SlotStep {
  readonly machine: SlotMachine;
  /** At most one. */
  readonly effects: readonly SlotEffect[];
}

/** Readings of an empty slot that was taken before; a store may need a moment, only retention empties it for good. */
const VANISHED_LIMIT = 3;

export interface SlotBase {
  /** State that this term begins with; 0 for an empty replica. */
  readonly txid: number;
  /** Largest token in the headers of the files that it was made of; 0 where no file has one. */
  readonly token: number;
}

/** A base with a larger token than ours: somebody took over after us, and nothing is ever sent. */
export function openSlots(token: number, base: SlotBase, deadlineMs: number): SlotMachine {
  const end: SlotEnd | null = base.token > token
    ? { kind: "fenced", txid: base.txid, reason: "larger-token" }
    : null;
  return { token, deadlineMs, durableTxid: base.txid, sealed: false, end, work: null };
}

export function stepSlots(machine: SlotMachine, event: SlotEvent, nowMs: number): SlotStep {
  if (event.type === "renewed") return renew(machine, event.deadlineMs, nowMs);
  if (machine.end !== null) return { machine, effects: [] };
  if (event.type === "wanted") {
    assert(machine.work === null, "one slot is written at a time");
    assert(event.upload.txid === machine.durableTxid + 1, "slots are written in order");
    assert(event.upload.token <= machine.token, "no file has a later token than its writer");
    const { upload } = event;
    return send(
      machine,
      {
        upload,
        step: event.listed === true ? "read" : "put",
        waitingFor: "put",
        doubt: false,
        taken: event.listed === true,
        vanished: 0,
        failures: 0,
      },
      nowMs,
    );
  }
  const { work } = machine;
  assert(work !== null, "an answer belongs to an effect");
  switch (event.type) {
    case "written":
      return durable(machine, work.upload);
    case "refused":
      return send(machine, { ...work, taken: true, step: "read" }, nowMs);
    case "failed":
      return pause(machine, { ...work, step: work.doubt ? "read" : "put" });
    case "unknown":
      return pause(machine, { ...work, doubt: true, step: "read" });
    case "read-failed":
      return pause(machine, work);
    case "paused":
      return send(machine, work, nowMs);
    case "found":
      return found(machine, work, event.object, nowMs);
  }
}

function renew(machine: SlotMachine, deadlineMs: number, nowMs: number): SlotStep {
  const renewed = { ...machine, deadlineMs };
  const { work } = renewed;
  if (work?.waitingFor !== "deadline" || machine.end !== null) return { machine: renewed, effects: [] };
  return send(renewed, work, nowMs);
}

/** The one place from which anything is sent. */
function send(machine: SlotMachine, work: SlotWork, nowMs: number): SlotStep {
  const { upload, step } = work;
  if (nowMs >= machine.deadlineMs) {
    return {
      machine: { ...machine, work: { ...work, waitingFor: "deadline" } },
      effects: [{ type: "hold" }],
    };
  }
  return { machine: { ...machine, work: { ...work, waitingFor: step } }, effects: [{ type: step, upload }] };
}

function pause(machine: SlotMachine, work: SlotWork): SlotStep {
  const failures = work.failures + 1;
  return {
    machine: { ...machine, work: { ...work, failures, waitingFor: "pause" } },
    effects: [{ type: "pause", failures }],
  };
}

function found(
  machine: SlotMachine,
  work: SlotWork,
  object: SlotObject | "unreadable" | null,
  nowMs: number,
): SlotStep {
  const { upload } = work;
  if (object === null) {
    // Not there yet: the put that we lost may still land, so the same bytes go, under the same condition.
    if (!work.taken) return send(machine, { ...work, step: "put" }, nowMs);
    const vanished = work.vanished + 1;
    // Never put into a slot that was taken: whoever emptied it has gone on with other bytes.
    return vanished >= VANISHED_LIMIT ? fenced(machine, upload.txid, "vanished") : pause(machine, {
      ...work,
      vanished,
    });
  }
  if (object === "unreadable") return fenced(machine, upload.txid, "unreadable");
  const { token, sizeBytes, identity } = object;
  if (sizeBytes === upload.sizeBytes && identity === upload.identity) return durable(machine, upload);
  if (token > machine.token) return fenced(machine, upload.txid, "larger-token");
  if (machine.sealed) return fenced(machine, upload.txid, "foreign-object");
  return ended(machine, { kind: "absorbed", txid: upload.txid, token, sizeBytes });
}

function durable(machine: SlotMachine, upload: SlotUpload): SlotStep {
  const sealed = machine.sealed || upload.token === machine.token;
  return {
    machine: { ...machine, sealed, durableTxid: upload.txid, work: null },
    effects: [{ type: "durable", upload }],
  };
}

function fenced(
  machine: SlotMachine,
  txid: number,
  reason: Extract<SlotEnd, { kind: "fenced" }>["reason"],
): SlotStep {
  return ended(machine, { kind: "fenced", txid, reason });
}

function ended(machine: SlotMachine, end: SlotEnd): SlotStep {
  return { machine: { ...machine, end, work: null }, effects: [{ type: "ended", end }] };
}
