/**
 * What of a state of the head walk can still matter, as bytes: two states with equal bytes have the same future, up to
 * the names of machines and of random ids (head_walk_test.ts tries that with every move of many states).
 */

import type { HeadMachine } from "../../src/checkpoint/head_rules.ts";
import type { CheckpointRecord, Head } from "../../src/checkpoint/types.ts";
import type { TermFacts } from "../../src/manager/term_machine.ts";
import type { Encoding } from "./canonical.ts";
import { contentOf, type Disk } from "./disk.ts";
import type { HeadWorld, Machine } from "./head_walk.ts";

/** What a procedure will ask of what it knows; the next one begins with what it is given. */
const ASKED: Readonly<Record<Machine["phase"], readonly (keyof TermFacts)[]>> = {
  off: [],
  waiting: [],
  repair: ["rolled"],
  open: ["marker", "head", "empty", "attempts"],
  prepare: ["marker", "head", "previous", "empty", "decisions"],
  running: ["head"],
  checkpoint: ["marker", "head", "made"],
  restore: ["marker", "head", "made", "wanted", "composed"],
  recover: ["marker", "head", "rolled"],
};

const RANDOM_ID = /^n\d+(\.\d+)?$/;
/** Names and tokens of who wrote. A token has one owner, so it tells as much without the name. */
const CONTENT = /^[AB]\d+(\/[AB]\d+)*$/;

/** All other texts are words of the rules. */
const words = new Map<string, number>();

/** The machines are alike but for their names, so both orders are the same state. */
export function encodeWorld(world: HeadWorld, into: Encoding): void {
  const { left } = world;
  for (const count of [left.crashes, left.latePuts, left.lostReplies, left.restores, left.terms]) {
    into.byte(count);
  }
  into.lesser(() => inOrder(world, into, [0, 1]), () => inOrder(world, into, [1, 0]));
}

function inOrder(world: HeadWorld, into: Encoding, order: readonly [number, number]): void {
  const heads = new Set<string>();
  const { store, lease, late, machines } = world;
  encodeHead(store, into, heads);
  into.byte(lease.token);
  into.byte(1 + order.indexOf(lease.owner));
  for (const index of order) into.byte(lease.owners[index] === true ? 1 : 0);
  into.byte(late.length);
  for (const { head, base } of late) {
    encodeHead(head, into, heads);
    into.id(base);
  }
  for (const index of order) encodeMachine(machines[index === 0 ? 0 : 1], into, heads);
}

function encodeMachine(machine: Machine, into: Encoding, heads: Set<string>): void {
  const { phase, program, disk, term, head, headEffect, facts, localStep, localFrom } = machine;
  word(phase, into);
  encodeDisk(disk, into, heads);
  if (phase === "off" || phase === "waiting") return;
  into.byte((program ? 1 : 0) + (machine.wrote ? 2 : 0));
  // Its program was killed with the lease: it only ends.
  if (phase === "running" && !program) return;
  into.byte(machine.token);
  for (const name of ASKED[phase]) value(facts[name], into, heads);
  if (term !== null) {
    // `doing` is the machine's effect.
    value(term.doing, into, heads);
    into.byte(term.todo.length);
    for (const step of term.todo) value(step, into, heads);
    into.byte(localStep);
    if (localStep > 0) encodeDisk(localFrom, into, heads);
  }
  if (head !== null) encodeHeadMachine(head, phase, into, heads);
  if (headEffect === null || typeof headEffect === "string") word(headEffect ?? "none", into);
  else {
    word("put", into);
    encodeHead(headEffect.head, into, heads);
    into.id(headEffect.base);
  }
}

function encodeHeadMachine(
  { standing, base, known, previous, unsettled, work }: HeadMachine,
  phase: Machine["phase"],
  into: Encoding,
  heads: Set<string>,
): void {
  word(standing, into);
  encodeHead(base?.head ?? null, into, heads);
  into.byte(known ? 1 : 0);
  if (phase === "open" || phase === "prepare") encodeHead(previous, into, heads);
  for (const nonce of unsettled) into.id(nonce);
  into.byte(0);
  into.byte(work === null ? 0 : 1);
  if (work === null) return;
  word(work.purpose, into);
  encodeHead(work.next, into, heads);
  word(work.waitingFor, into);
  word(work.failure ?? "none", into);
  into.byte(work.puts);
}

function encodeDisk(disk: Disk, into: Encoding, heads: Set<string>): void {
  content(disk.content, into);
  value(disk.marker, into, heads);
  value(disk.journal, into, heads);
  value(disk.staged, into, heads);
  value(disk.aside, into, heads);
}

/** Whole where it comes first: a nonce is of one version. Its number in the row is nobody's business. */
function encodeHead(head: Head | null, into: Encoding, heads: Set<string>): void {
  const name = head === null ? null : head.nonce ?? "";
  into.id(name);
  if (head === null || name === null || heads.has(name)) return;
  heads.add(name);
  into.byte(head.epoch);
  into.id(head.current);
  into.byte(head.checkpoints.length);
  for (const record of head.checkpoints) encodeRecord(record, into);
  into.byte(head.intent === null ? 0 : 1);
  if (head.intent !== null) encodeRecord(head.intent.record, into);
}

/** Of its kinds the rules know restores. */
function encodeRecord(record: CheckpointRecord, into: Encoding): void {
  into.id(record.id);
  into.byte(record.kind === "restore" ? 1 : 0);
  content(contentOf(record), into);
}

function content(text: string, into: Encoding): void {
  const parts = text === "" ? [] : text.split("/");
  into.byte(parts.length);
  for (const part of parts) into.byte(Number(part.slice(1)));
}

function word(text: string, into: Encoding): void {
  let number = words.get(text);
  if (number === undefined) words.set(text, number = words.size);
  into.byte(number);
}

/** Plain data of the rules: each kind of value with a byte before it. */
function value(data: unknown, into: Encoding, heads: Set<string>): void {
  if (typeof data === "string") return textual(data, into);
  if (typeof data === "number") {
    into.byte(1);
    return into.byte(data);
  }
  if (typeof data === "boolean") return into.byte(data ? 2 : 3);
  if (data === null || data === undefined) return into.byte(4);
  if (Array.isArray(data)) {
    into.byte(5);
    into.byte(data.length);
    for (const item of data) value(item, into, heads);
    return;
  }
  if (isHead(data)) {
    into.byte(6);
    return encodeHead(data, into, heads);
  }
  if (isRecord(data)) {
    into.byte(7);
    return encodeRecord(data, into);
  }
  into.byte(8);
  const entries = Object.entries(data);
  into.byte(entries.length);
  for (const [key, item] of entries) {
    word(key, into);
    value(item, into, heads);
  }
}

function textual(text: string, into: Encoding): void {
  if (RANDOM_ID.test(text)) {
    into.byte(9);
    into.id(text);
  } else if (text === "" || CONTENT.test(text)) {
    into.byte(10);
    content(text, into);
  } else {
    into.byte(11);
    word(text, into);
  }
}

function isHead(data: object): data is Head {
  return "repo_id" in data && "checkpoints" in data;
}

function isRecord(data: object): data is CheckpointRecord {
  return "root_sha256" in data && "parent" in data;
}
