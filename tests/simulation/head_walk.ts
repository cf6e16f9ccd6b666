/**
 * Two machines, the head and the procedures of a term under an abstract lease, as a model for the breadth-first walk: the
 * lease may go to the other one at any moment (whoever had it is not told, only the next proof fails, and its program is
 * dead by then), any put may be delayed and land later, any answer may be lost, any machine may die between two steps.
 */

import { type HeadEvent, type HeadMachine, initialHead, stepHead } from "../../src/checkpoint/head_rules.ts";
import type { CheckpointRecord, Head } from "../../src/checkpoint/types.ts";
import { changeHead } from "../../src/manager/head_changes.ts";
import type {
  Procedure,
  TermEffect,
  TermEvent,
  TermFacts,
  TermMachine,
} from "../../src/manager/term_machine.ts";
import { initialTerm, NO_FACTS, stepTerm } from "../../src/manager/term_rules.ts";
import { canonicalText } from "./canonical.ts";
import { contentOf, descends, type Disk, EMPTY_DISK, isLocal, localSteps, ROOT } from "./disk.ts";
import { encodeWorld } from "./head_walk_encoding.ts";
import type { Model, Move } from "./walker.ts";

export interface HeadBudget {
  readonly crashes: number;
  readonly latePuts: number;
  readonly lostReplies: number;
  readonly restores: number;
  readonly terms: number;
}

/** One deliberate mistake; the checks must find it. */
export interface HeadMutant {
  readonly term?: (shipped: typeof stepTerm) => typeof stepTerm;
  readonly head?: (shipped: typeof stepHead) => typeof stepHead;
  readonly ignoresConditions?: true;
}

interface Put {
  readonly head: Head;
  readonly base: string | null;
}

export interface Machine {
  readonly phase: "off" | "waiting" | "running" | Procedure;
  readonly token: number;
  readonly disk: Disk;
  readonly facts: TermFacts;
  readonly term: TermMachine | null;
  readonly effect: TermEffect | null;
  /** How many of a local effect's durable states were reached, and the disk that it began on. */
  readonly localStep: number;
  readonly localFrom: Disk;
  readonly head: HeadMachine | null;
  /** What the head's machine waits for. */
  readonly headEffect: "get" | "prove" | Put | null;
  readonly program: boolean;
  /** This term's program has written, this term's restore was asked for. */
  readonly wrote: boolean;
}

export interface HeadWorld {
  readonly store: Head | null;
  /** Token and machine of the term, and who had one so far. */
  readonly lease: { readonly token: number; readonly owner: number; readonly owners: readonly boolean[] };
  readonly late: readonly Put[];
  readonly machines: readonly [Machine, Machine];
  readonly left: HeadBudget;
  readonly idsMade: number;
  readonly wrong: string | null;
}

const REPO = "repo";
const NAMES = "AB";

const OFF: Machine = {
  phase: "off",
  token: 0,
  disk: EMPTY_DISK,
  facts: NO_FACTS,
  term: null,
  effect: null,
  localStep: 0,
  localFrom: EMPTY_DISK,
  head: null,
  headEffect: null,
  program: false,
  wrote: false,
};

/** The same, and states are told apart by all that is in them. */
export function plainHeadModel(budget: HeadBudget, mutant: HeadMutant = {}): Model<HeadWorld> {
  return { ...headModel(budget, mutant), encode: (world, into) => into.text(canonicalText(world, 0, 0)) };
}

export function headModel(budget: HeadBudget, mutant: HeadMutant = {}): Model<HeadWorld> {
  const termStep = mutant.term?.(stepTerm) ?? stepTerm;
  const headStep = mutant.head?.(stepHead) ?? stepHead;

  function withMachine(world: HeadWorld, index: number, change: Partial<Machine>): HeadWorld {
    const machines = world.machines.map((each, i) => i === index ? { ...each, ...change } : each);
    return { ...world, machines: machines as unknown as HeadWorld["machines"] };
  }

  function fail(world: HeadWorld, wrong: string): HeadWorld {
    return { ...world, wrong: world.wrong ?? wrong };
  }

  function at(world: HeadWorld, index: number): Machine {
    return world.machines[index === 0 ? 0 : 1];
  }

  function begin(
    world: HeadWorld,
    index: number,
    procedure: Procedure,
    given: Partial<TermFacts>,
  ): HeadWorld {
    const facts = { ...at(world, index).facts, ...given };
    return turn(
      withMachine(world, index, { phase: procedure, facts, term: initialTerm(procedure, facts) }),
      index,
      { type: "begin" },
    );
  }

  /** One event of the procedure; its effect is then what the machine is at. */
  function turn(world: HeadWorld, index: number, event: TermEvent): HeadWorld {
    const { term } = at(world, index);
    if (term === null) return world;
    const { state, effects } = termStep(term, event);
    const [effect] = effects;
    if (effect === undefined) return fail(world, "a procedure without effect");
    const next = withMachine(world, index, { facts: state.facts, term: state, effect: null, localStep: 0 });
    if (effect.type !== "ended") return performFirst(next, index, effect);
    return ended(withMachine(next, index, { term: null }), index, state.procedure, effect.outcome.kind);
  }

  function ended(world: HeadWorld, index: number, procedure: Procedure, kind: string): HeadWorld {
    const ok = kind === "done";
    switch (procedure) {
      case "repair":
        return withMachine(world, index, { phase: "waiting" });
      case "open":
        return ok ? begin(world, index, "prepare", {}) : giveUp(world, index);
      case "prepare":
      case "recover":
        return ok ? startProgram(world, index) : giveUp(world, index);
      case "checkpoint":
        return withMachine(world, index, { phase: "running" });
      case "restore":
        return ok ? startProgram(world, index) : begin(world, index, "recover", {});
    }
  }

  /** The manager ends by itself: with the lease in doubt, or refused. */
  function giveUp(world: HeadWorld, index: number): HeadWorld {
    const { disk } = at(world, index);
    return withMachine(world, index, { ...OFF, disk });
  }

  function startProgram(world: HeadWorld, index: number): HeadWorld {
    const { token, disk } = at(world, index);
    // The lease is looked at once more, by the clock itself.
    if (world.lease.owner !== index || world.lease.token !== token) return giveUp(world, index);
    const { store } = world;
    if (store === null || store.epoch !== token) {
      return fail(world, `${NAMES[index]} starts, the head is not its`);
    }
    if (store.intent !== null) {
      return fail(world, `${NAMES[index]} starts while a restore waits to be finished`);
    }
    if (disk.journal !== null) return fail(world, `${NAMES[index]} starts in the middle of a swap`);
    const current = store.checkpoints.find(({ id }) => id === store.current);
    if (current !== undefined && !descends(disk.content, contentOf(current))) {
      return fail(world, `${NAMES[index]} starts on "${disk.content}", current is "${contentOf(current)}"`);
    }
    return withMachine(world, index, { phase: "running", program: true });
  }

  /** Head effects go to the head's machine at once; all else waits for its move. */
  function performFirst(world: HeadWorld, index: number, effect: TermEffect): HeadWorld {
    const doing = withMachine(world, index, { effect, localFrom: at(world, index).disk });
    switch (effect.type) {
      case "read-head":
        return headTurn(doing, index, { type: "look" });
      case "take-over-head":
        return headTurn(doing, index, { type: "take-over" });
      case "settle-head":
        return headTurn(doing, index, { type: "settle" });
      case "swap-head": {
        const base = at(world, index).head?.base?.head;
        if (base === undefined) return fail(world, "a swap of a head that was never read");
        return headTurn(doing, index, { type: "commit", next: changeHead(base, effect.change) });
      }
      default:
        return doing;
    }
  }

  function headTurn(world: HeadWorld, index: number, event: HeadEvent): HeadWorld {
    const { head } = at(world, index);
    if (head === null) return fail(world, "no head");
    const { state, effects } = headStep(head, event);
    const [effect] = effects;
    if (effect === undefined) return fail(world, "a head without effect");
    const next = withMachine(world, index, { head: state, headEffect: null });
    if (effect.type === "put") {
      return withMachine(next, index, { headEffect: { head: effect.head, base: effect.base } });
    }
    if (effect.type !== "settled") return withMachine(next, index, { headEffect: effect.type });
    const { outcome } = effect;
    if (outcome.kind !== "done") {
      const code = outcome.kind === "lost" ? "lease-lost" : outcome.code;
      return turn(next, index, { type: "failed", code });
    }
    const found = state.base?.head ?? null;
    return turn(next, index, { type: "done", learned: { head: found, previous: state.previous } });
  }

  // ---- the store

  const tagOf = (head: Head | null) => head === null ? null : head.nonce ?? "";

  function land(world: HeadWorld, put: Put): { readonly world: HeadWorld; readonly landed: boolean } {
    const { store } = world;
    if (put.base !== tagOf(store) && mutant.ignoresConditions !== true) return { world, landed: false };
    const { head } = put;
    let after: HeadWorld = { ...world, store: head };
    if (store !== null && head.epoch < store.epoch) {
      after = fail(after, `a put of term ${head.epoch} in term ${store.epoch}`);
    }
    for (const { id } of store?.checkpoints ?? []) {
      if (!head.checkpoints.some((each) => each.id === id)) after = fail(after, `checkpoint ${id} is gone`);
    }
    const was = store?.checkpoints.find(({ id }) => id === store.current);
    const is = head.checkpoints.find(({ id }) => id === head.current);
    const finished = store?.intent?.record.id === head.current;
    if (
      was !== undefined && is !== undefined && was !== is && !finished &&
      !descends(contentOf(is), contentOf(was))
    ) {
      after = fail(after, `current went from "${contentOf(was)}" to "${contentOf(is)}" without a restore`);
    }
    return { world: after, landed: true };
  }

  /** What was replaced never comes back, so a late put on it is refused, sooner or later: it may as well be now. */
  function withoutRefused(world: HeadWorld): HeadWorld {
    const late = world.late.filter(({ base }) => mutant.ignoresConditions || base === tagOf(world.store));
    return late.length === world.late.length ? world : { ...world, late };
  }

  // ---- moves

  function record(world: HeadWorld, content: string, change: Partial<CheckpointRecord>): CheckpointRecord {
    const id = `n${world.idsMade}`;
    const files = { [ROOT.name]: { entries: 1, bytes: 1, manifest_sha256: content } };
    return {
      ...{ id, n: 1, time: 0, token: 1, parent: null, kind: "interval", comment: "", labels: {} },
      ...{ root: "", root_sha256: "", files, warnings: 0 },
      ...change,
    };
  }

  function made(world: HeadWorld): HeadWorld {
    return { ...world, idsMade: world.idsMade + 1 };
  }

  function diskMove(world: HeadWorld, index: number, disk: Disk): HeadWorld {
    const before = at(world, index).disk;
    const after = withMachine(world, index, { disk });
    if (disk.content === before.content || before.content === "") return after;
    const heads = [world.store, ...world.late.map(({ head }) => head)];
    const saved = disk.aside.includes(before.content) ||
      heads.some((head) => (head?.checkpoints ?? []).some((each) => contentOf(each) === before.content));
    return saved
      ? after
      : fail(after, `${NAMES[index]} overwrites "${before.content}", which is saved nowhere`);
  }

  function effectMoves(world: HeadWorld, index: number, effect: TermEffect): Move<HeadWorld>[] {
    const name = NAMES[index];
    const { disk, localFrom, localStep } = at(world, index);
    const done = (next: HeadWorld, learned = {}) => turn(next, index, { type: "done", learned });
    if (isLocal(effect)) {
      const steps = localSteps(localFrom, effect);
      const step = steps[localStep];
      if (step === undefined) return [];
      const moved = diskMove(
        effect.type === "move-aside" ? movesAside(world, index) : world,
        index,
        step.disk,
      );
      const label = `${name}: ${effect.type}${"change" in effect ? ` ${effect.change.kind}` : ""}`;
      const last = localStep === steps.length - 1;
      const state = last
        ? done(moved, step.learned)
        : withMachine(moved, index, { localStep: localStep + 1 });
      return [{ label, state }];
    }
    switch (effect.type) {
      case "upload": {
        const head = at(world, index).facts.head;
        const current = head?.checkpoints.find(({ id }) => id === head.current);
        const changed = current === undefined || contentOf(current) !== disk.content;
        const upload = changed ? { record: record(world, disk.content, {}), indexes: [] } : null;
        return [{ label: `${name}: uploads "${disk.content}"`, state: done(made(world), { made: upload }) }];
      }
      case "compose": {
        const change = { kind: "restore", restored_from: effect.source.id } as const;
        const composed = record(world, contentOf(effect.source), change);
        return [{ label: `${name}: composes`, state: done(made(world), { composed }) }];
      }
      case "stage":
        return [{
          label: `${name}: stages "${contentOf(effect.record)}"`,
          state: done(withMachine(world, index, { disk: { ...disk, staged: contentOf(effect.record) } })),
        }];
      default:
        return [];
    }
  }

  /** Nothing is lost by it, but nobody else was there: what is newer than the bucket is to be kept. */
  function movesAside(world: HeadWorld, index: number): HeadWorld {
    const { facts, disk } = at(world, index);
    const current = facts.head?.checkpoints.find(({ id }) => id === facts.head?.current);
    const others = world.lease.owners[1 - index] === true;
    if (others || current === undefined || current.kind === "restore") return world;
    if (!descends(disk.content, contentOf(current))) return world;
    return fail(
      world,
      `${NAMES[index]} moves "${disk.content}" aside, though nobody else ever held the lease`,
    );
  }

  function headMoves(world: HeadWorld, index: number): Move<HeadWorld>[] {
    const name = NAMES[index];
    const { headEffect, token } = at(world, index);
    if (headEffect === null) return [];
    if (headEffect === "get") {
      const { store } = world;
      const found = store === null ? null : { head: store, etag: tagOf(store) ?? "" };
      return [{ label: `${name}: reads the head`, state: headTurn(world, index, { type: "read", found }) }];
    }
    if (headEffect === "prove") {
      const held = world.lease.owner === index && world.lease.token === token;
      const event: HeadEvent = held ? { type: "proven" } : { type: "unproven", code: "lease-lost" };
      return [{
        label: `${name}: the lease is ${held ? "" : "not "}its`,
        state: headTurn(world, index, event),
      }];
    }
    const what = `put of term ${headEffect.head.epoch}, seq ${headEffect.head.seq}`;
    const { world: after, landed } = land(world, headEffect);
    const answer: HeadEvent = landed
      ? { type: "written", etag: tagOf(headEffect.head) ?? "" }
      : { type: "refused" };
    const moves = [{
      label: `${name}: ${what} ${landed ? "lands" : "is refused"}`,
      state: headTurn(after, index, answer),
    }];
    const unknown: HeadEvent = { type: "unknown", code: "store-unreachable" };
    const { left } = world;
    if (left.lostReplies > 0 && landed) {
      const lost = { ...after, left: { ...left, lostReplies: left.lostReplies - 1 } };
      moves.push({
        label: `${name}: ${what} lands, its answer is lost`,
        state: headTurn(lost, index, unknown),
      });
    }
    if (left.latePuts > 0) {
      const late = {
        ...world,
        late: [...world.late, headEffect],
        left: { ...left, latePuts: left.latePuts - 1 },
      };
      moves.push({ label: `${name}: ${what} is under way for long`, state: headTurn(late, index, unknown) });
    }
    return moves;
  }

  function machineMoves(world: HeadWorld, index: number): Move<HeadWorld>[] {
    const name = NAMES[index];
    const machine = at(world, index);
    const { disk, left } = { disk: machine.disk, left: world.left };
    const moves: Move<HeadWorld>[] = [];
    const facts = { ...NO_FACTS, repoId: REPO, roots: [ROOT], marker: disk.marker };
    if (machine.phase === "off") {
      moves.push({
        label: `${name} starts`,
        state: begin(withMachine(world, index, { facts }), index, "repair", {}),
      });
      return moves;
    }
    // Its program was killed with the lease: nothing more is begun here.
    if (machine.phase === "running" && !machine.program) {
      return [{ label: `${name} ends, its lease is lost`, state: giveUp(world, index) }];
    }
    if (left.crashes > 0) {
      const dead = withMachine(world, index, { ...OFF, disk });
      moves.push({ label: `${name} dies`, state: { ...dead, left: { ...left, crashes: left.crashes - 1 } } });
    }
    if (machine.phase === "waiting" && left.terms > 0) {
      const token = world.lease.token + 1;
      const granted = withMachine(world, 1 - index, { program: false });
      const head = initialHead({ repoId: REPO, token, writer: `n${world.idsMade}` });
      const opened = made({
        ...granted,
        lease: { token, owner: index, owners: world.lease.owners.map((had, i) => had || i === index) },
        left: { ...left, terms: left.terms - 1 },
      });
      const ready = withMachine(opened, index, { token, head, facts: { ...facts, token } });
      moves.push({ label: `${name} gets the lease, token ${token}`, state: begin(ready, index, "open", {}) });
    }
    if (machine.phase === "running") {
      const again = { marker: disk.marker, made: null, composed: null };
      if (!machine.wrote) {
        const content = `${disk.content}${disk.content === "" ? "" : "/"}${name}${machine.token}`;
        const wrote = withMachine(world, index, { disk: { ...disk, content }, wrote: true });
        moves.push({ label: `${name}: its program writes`, state: wrote });
      }
      moves.push({ label: `${name}: checkpoint`, state: begin(world, index, "checkpoint", again) });
      const source = machine.facts.head?.checkpoints[0];
      if (left.restores > 0 && source !== undefined && isShipped(machine)) {
        const stopped = withMachine(world, index, { program: false });
        const asked = { ...stopped, left: { ...left, restores: left.restores - 1 } };
        const wanted = { source, names: [ROOT.name], databases: {}, onStart: null };
        moves.push({
          label: `${name}: restore of the first`,
          state: begin(asked, index, "restore", { ...again, wanted }),
        });
      }
      return moves;
    }
    if (machine.effect !== null) moves.push(...effectMoves(world, index, machine.effect));
    moves.push(...headMoves(world, index));
    return moves;
  }

  /** What is there was saved: the safety checkpoint of a restore is a checkpoint like any other. */
  function isShipped({ facts, disk }: Machine): boolean {
    const current = facts.head?.checkpoints.find(({ id }) => id === facts.head?.current);
    return current !== undefined && contentOf(current) === disk.content;
  }

  return {
    initial: {
      store: null,
      lease: { token: 0, owner: -1, owners: [false, false] },
      late: [],
      machines: [OFF, OFF],
      left: budget,
      idsMade: 0,
      wrong: null,
    },
    moves: (world) =>
      [
        ...machineMoves(world, 0),
        ...machineMoves(world, 1),
        ...world.late.map((put, i) => {
          const { world: after, landed } = land(world, put);
          const late = world.late.filter((_, other) => other !== i);
          const label = `the late put of term ${put.head.epoch}, seq ${put.head.seq} ${
            landed ? "lands" : "is refused"
          }`;
          return { label, state: { ...after, late } };
        }),
      ].map(({ label, state }) => ({ label, state: withoutRefused(state) })),
    violation: (world) => world.wrong,
    encode: encodeWorld,
  };
}
