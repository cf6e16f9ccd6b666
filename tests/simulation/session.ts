/**
 * The session of one manager in the simulation: what src/manager/session.ts does, over the shipped procedures of a term
 * and the shipped head. Each effect can crash the node, before it or after it.
 */

import { type HeadEvent, type HeadMachine, initialHead, stepHead } from "../../src/checkpoint/head_rules.ts";
import type { CheckpointRecord, Head } from "../../src/checkpoint/types.ts";
import { initialLease, type LeaseMachine } from "../../src/lease/machine.ts";
import type { LeaseEvent } from "../../src/lease/types.ts";
import { changeHead } from "../../src/manager/head_changes.ts";
import { initialTerm, NO_FACTS, stepTerm } from "../../src/manager/term_rules.ts";
import type {
  Procedure,
  TermEffect,
  TermEvent,
  TermFacts,
  TermMachine,
  TermOutcome,
} from "../../src/manager/term_machine.ts";
import type { ErrorCode } from "../../src/platform/errors.ts";
import { contentOf, descends, isLocal, type LocalEffect, localSteps, ROOT } from "./disk.ts";
import type { Tallied } from "./faults.ts";
import { MINIMA } from "./faults.ts";
import type { SimNode } from "./node.ts";
import type { Reply, Request } from "./store.ts";

const REPO_ID = "repository";
const STORE_TRIES = 3;
const STORE_TIMEOUT_MS = 3_000;

type Phase = "opening" | "waiting" | "restoring" | "running" | "frozen" | "stopping";

export class Session {
  readonly #node: SimNode;
  readonly #inherited: readonly string[];
  phase: Phase = "opening";
  #facts: TermFacts = NO_FACTS;
  #head: HeadMachine | null = null;
  #term: TermMachine | null = null;
  #ended: (outcome: TermOutcome) => void = () => {};
  /** Cancels a step that reads or uploads. */
  #steps = 0;
  /** A procedure is under way in the running phase. */
  #busy = false;
  #wanted: { stop: { to: string | undefined } | null; restore: boolean; checkpoint: boolean } = {
    stop: null,
    restore: false,
    checkpoint: false,
  };
  #restoring = false;
  #restartMs = 0;

  constructor(node: SimNode, inherited: readonly string[]) {
    this.#node = node;
    this.#inherited = inherited;
  }

  // ---- start

  begin(): void {
    const node = this.#node;
    if (node.program !== null) {
      node.world.checks.fail(`${node.name} begins while the program of ${node.program.who} still runs`);
    }
    this.#facts = {
      ...NO_FACTS,
      repoId: REPO_ID,
      roots: [ROOT],
      settings: { onConflict: node.onConflict, onStart: "latest", orphans: "stop" },
      marker: node.disk.marker,
    };
    this.#run("repair", {}, () => this.#readFloor());
  }

  #readFloor(): void {
    this.#node.send({ type: "get", cell: "head" }, STORE_TIMEOUT_MS, 0, (reply) => {
      if (reply === null) {
        return this.#node.later(this.#node.world.chance.between(200, 1_000), () => this.#readFloor());
      }
      const floor = reply.type === "read" && "epoch" in reply.body ? reply.body.epoch : 0;
      this.phase = "waiting";
      this.#node.lease = initialLease(floor, this.#inherited);
      this.#node.leaseTurn({ type: "acquire" });
    });
  }

  #open(token: number): void {
    const node = this.#node;
    this.phase = "restoring";
    this.#head = initialHead({ repoId: REPO_ID, token, writer: node.name });
    this.#run("open", { token }, (outcome) => {
      if (outcome.kind === "refused") {
        node.world.count("data of unknown origin refused");
        return this.#release(undefined, () => node.helpWithConflict());
      }
      if (outcome.kind !== "done") return this.#giveUp();
      const begun = this.#facts.head?.intent !== null;
      this.#run("prepare", {}, (outcome) => {
        if (outcome.kind !== "done") return this.#giveUp();
        if (begun) node.world.count("intent finished by a successor");
        this.#runPrograms();
      });
    });
  }

  /** Something failed: the lease is given back and the manager ends; it is started again. */
  #giveUp(): void {
    this.#node.killProgram("the session failed");
    this.#release(undefined, () => this.#node.exit(this.#node.world.chance.between(500, 4_000)));
  }

  #runPrograms(): void {
    const node = this.#node;
    node.proveHeld((held) => {
      if (!held) return this.#fence("no lease at the start of the programs");
      this.phase = "running";
      this.#busy = false;
      node.startProgram(this.#facts.token);
      this.#scheduleCheckpoint();
      this.#pump();
    });
  }

  #scheduleCheckpoint(): void {
    this.#node.later(this.#node.world.chance.between(3_000, 15_000), () => {
      if (this.phase === "running" || this.phase === "frozen") {
        this.#wanted.checkpoint = true;
        this.#pump();
        if (!this.#busy) this.#scheduleCheckpoint();
      }
    });
  }

  // ---- jobs

  requestStop(to?: string): void {
    const { mutant } = this.#node.world;
    if (this.phase !== "running" && to !== undefined) return;
    if (to !== undefined) {
      this.#node.world.count("hand-over");
      this.#node.mayAsk = false;
      if (mutant.handsOverWhileRunning === true) return this.#node.leaseTurn({ type: "release", to });
    }
    this.#wanted.stop = { to };
    this.#restartMs = this.#node.world.chance.between(1_000, 15_000);
    this.#pump();
  }

  requestRestore(): void {
    this.#wanted.restore = true;
    this.#pump();
  }

  #pump(): void {
    if (this.#busy || this.phase !== "running") return;
    if (this.#wanted.stop !== null) this.#stop(this.#wanted.stop.to);
    else if (this.#node.program === null) this.#restartProgram();
    else if (this.#wanted.restore) this.#restore();
    else if (this.#wanted.checkpoint) {
      this.#wanted.checkpoint = false;
      this.#busy = true;
      this.#checkpoint(() => {
        this.#busy = false;
        this.#scheduleCheckpoint();
        this.#pump();
      });
    }
  }

  #checkpoint(done: (outcome: TermOutcome) => void): void {
    this.#run("checkpoint", { made: null }, done);
  }

  #stopProgram(done: () => void): void {
    const node = this.#node;
    node.later(node.world.chance.between(20, 1_500), () => {
      node.killProgram("stopped in order");
      done();
    });
  }

  #stop(to: string | undefined): void {
    this.#busy = true;
    this.phase = "stopping";
    this.#stopProgram(() =>
      this.#checkpoint((outcome) => {
        const content = outcome.kind === "done" ? this.#node.disk.content : null;
        if (content !== null) this.#node.world.checks.shipping(this.#node.name, content);
        this.#release(to, () => this.#node.exit(this.#restartMs));
      })
    );
  }

  #restore(): void {
    const { world } = this.#node;
    this.#busy = true;
    this.#wanted.restore = false;
    this.#restoring = true;
    const back = () => {
      this.#restoring = false;
      this.#runPrograms();
    };
    this.phase = "restoring";
    this.#stopProgram(() =>
      // The safety checkpoint: what is there now is not lost.
      this.#checkpoint((outcome) => {
        const listed = this.#facts.head?.checkpoints ?? [];
        const source = listed[world.chance.below(listed.length)];
        if (outcome.kind !== "done" || source === undefined) return back();
        world.checks.restoreBegins();
        const wanted = { source, names: [ROOT.name], databases: {}, onStart: null };
        this.#run("restore", { wanted, composed: null }, (outcome) => {
          if (outcome.kind === "done") {
            world.count("restore done");
            return back();
          }
          this.#run("recover", {}, (outcome) => outcome.kind === "done" ? back() : this.#giveUp());
        });
      })
    );
  }

  /** The guard killed it, and the manager lives. */
  programDied(): void {
    this.#pump();
  }

  /** Its policy starts it again, with the lease. */
  #restartProgram(): void {
    this.#busy = true;
    this.#node.later(1_000, () => {
      if (this.phase === "running") return this.#runPrograms();
      this.#busy = false;
    });
  }

  #onRest: (() => void) | null = null;

  #release(to: string | undefined, done: () => void): void {
    const node = this.#node;
    this.phase = "stopping";
    node.lease.phase === "resting" ? done() : undefined;
    if (node.lease.phase === "resting") return;
    this.#onRest = done;
    node.later(10_000, () => {
      if (this.#onRest !== null) node.leaseTurn({ type: "give-up" });
    });
    node.leaseTurn(to === undefined ? { type: "release" } : { type: "release", to });
  }

  onResting(): void {
    const done = this.#onRest;
    this.#onRest = null;
    done?.();
  }

  // ---- the lease's news

  onLease(event: LeaseEvent, lease: LeaseMachine): void {
    const node = this.#node;
    switch (event.type) {
      case "acquired": {
        if (lease.phase !== "owning") return;
        const previous = lease.term.previous;
        if (previous?.state === "held" && this.#inherited.includes(previous.nonce)) {
          node.world.count("fast return");
        }
        return this.#open(event.term.token);
      }
      case "suspended":
        return this.#onSuspended();
      case "regained":
        if (this.phase !== "frozen") return;
        node.world.count("frozen and thawed");
        this.phase = "running";
        node.passDeadline();
        node.thawProgram();
        return this.#pump();
      case "lost":
        return this.#fence(event.error);
      default:
        return;
    }
  }

  #onSuspended(): void {
    const node = this.#node;
    if (this.phase === "stopping") return;
    if (this.phase !== "running") return this.#fence("the lease is in doubt");
    node.freezeProgram();
    this.phase = "frozen";
    if (node.world.mutant.thawsBeforeProof === true) node.later(2_000, () => node.thawProgram());
    this.#abort();
  }

  #fence(why: string): void {
    const node = this.#node;
    node.killProgram(`fenced: ${why}`);
    node.exit(node.world.chance.between(500, 4_000));
  }

  // ---- procedures

  #run(procedure: Procedure, given: Partial<TermFacts>, ended: (outcome: TermOutcome) => void): void {
    this.#facts = { ...this.#facts, ...given };
    this.#ended = ended;
    this.#term = initialTerm(procedure, this.#facts);
    this.#turn({ type: "begin" });
  }

  #turn(event: TermEvent): void {
    if (this.#term === null) return;
    const rules = this.#node.world.mutant.term?.(stepTerm) ?? stepTerm;
    const { state, effects } = rules(this.#term, event);
    this.#term = state;
    this.#facts = state.facts;
    const [effect] = effects;
    if (effect === undefined) return;
    if (effect.type === "ended") {
      this.#term = null;
      const ended = this.#ended;
      if (effect.outcome.kind === "failed") {
        this.#node.world.trace(() => `${this.#node.name}: ${state.procedure} fails`);
      }
      ended(effect.outcome);
      return;
    }
    this.#perform(effect);
  }

  #perform(effect: TermEffect): void {
    const { world } = this.#node;
    const id = ++this.#steps;
    const crash = world.happens(world.faults.crashAtEffect) ? world.chance.below(3) : -1;
    const die = () => {
      const what = `crash at ${effect.type}`;
      if (what in MINIMA) world.count(what as Tallied);
      this.#node.crash(`at ${effect.type}`);
    };
    if (crash === 0) return die();
    const done = (event: TermEvent) => {
      if (this.#steps !== id) return;
      if (crash === 1) return die();
      this.#turn(event);
    };
    if (isLocal(effect)) return this.#performLocal(effect, crash === 2 ? die : null, done);
    if (crash === 2) {
      // In the middle: its requests are on their way.
      this.#node.later(world.chance.between(1, 300), () => {
        if (this.#steps === id) die();
      });
    }
    this.#performRemote(effect, done);
  }

  /** What only reads or uploads ends at once; a swap of the head goes its way. */
  #abort(): void {
    const doing = this.#term?.doing?.type;
    if (doing !== "upload" && doing !== "stage" && doing !== "compose") return;
    this.#steps++;
    this.#node.later(1, () => this.#turn({ type: "failed", code: "cancelled" }));
  }

  countCrash(): void {
    const procedure = this.#term?.procedure;
    const doing = this.#term?.doing?.type;
    const swapping = procedure === "prepare" &&
      (doing === "stage" || doing === "swap-files" || doing === "move-aside" || doing === "finish-swap");
    if (this.#restoring && this.#term !== null || swapping) this.#node.world.count("crash inside a restore");
  }

  #performLocal(effect: LocalEffect, die: (() => void) | null, done: (event: TermEvent) => void): void {
    const node = this.#node;
    node.later(node.world.chance.between(1, 40), () => {
      const steps = localSteps(node.disk, effect);
      const last = steps.length - 1;
      for (const [i, { disk, learned }] of steps.entries()) {
        node.world.checks.diskChanged(node.name, node.disk, disk);
        if (effect.type === "move-aside" && disk !== node.disk) this.#movedAside(node.disk.content);
        if (effect.type !== "look-at-roots" && effect.type !== "remove-leftovers") {
          node.world.trace(() =>
            `${node.name}: ${effect.type}${effect.type === "write-marker" ? ` ${effect.change.kind}` : ""}`
          );
        }
        node.disk = disk;
        if (die !== null && i === Math.max(0, last - 1)) return die();
        if (i === last) done({ type: "done", learned });
      }
    });
  }

  #movedAside(content: string): void {
    const { world, name, diskId } = this.#node;
    const { head } = this.#facts;
    world.count("data moved aside");
    const current = head?.checkpoints.find(({ id }) => id === head.current);
    if (current === undefined || current.kind === "restore" || !descends(content, contentOf(current))) return;
    if (world.undisturbed.has(diskId)) {
      world.checks.fail(
        `${name} moves ${content} aside, though nobody else held the head since and it is newer than the bucket`,
      );
    }
  }

  #performRemote(effect: Exclude<TermEffect, LocalEffect>, done: (event: TermEvent) => void): void {
    switch (effect.type) {
      case "read-head":
        return this.#change({ type: "look" }, done);
      case "take-over-head":
        return this.#change({ type: "take-over" }, done);
      case "settle-head":
        return this.#change({ type: "settle" }, done);
      case "swap-head": {
        const base = this.#head?.base?.head;
        if (base === undefined) return done({ type: "failed", code: "internal" });
        const next = changeHead(base, effect.change);
        const finished = effect.change.kind === "current"
          ? effect.change.record
          : effect.change.kind === "finish-intent"
          ? base.intent?.record
          : undefined;
        return this.#change({ type: "commit", next }, (event) => {
          if (event.type === "done" && finished !== undefined) {
            this.#node.world.count("checkpoint done");
            this.#node.world.checks.acknowledged(finished);
          }
          done(event);
        });
      }
      case "upload":
        return this.#upload(done);
      case "compose":
        return this.#compose(effect.source, done);
      case "stage":
        return this.#stage(effect.record, done);
    }
  }

  // ---- the store

  /** Tried again below, as the retrying store does. */
  #request(request: Request, done: (reply: Reply | null) => void, tries = STORE_TRIES): void {
    this.#node.send(request, STORE_TIMEOUT_MS, this.#facts.token, (reply) => {
      if (reply !== null || tries === 1) return done(reply);
      this.#node.later(
        this.#node.world.chance.between(50, 500),
        () => this.#request(request, done, tries - 1),
      );
    });
  }

  /** One piece of work of the head's machine, to its end. */
  #change(event: HeadEvent, done: (event: TermEvent) => void): void {
    const { mutant } = this.#node.world;
    if (this.#head === null) return done({ type: "failed", code: "internal" });
    const rules = mutant.head?.(stepHead) ?? stepHead;
    const { state, effects } = rules(this.#head, event);
    this.#head = state;
    for (const effect of effects) {
      switch (effect.type) {
        case "get":
          this.#request(
            { type: "get", cell: "head" },
            (reply) => this.#change(headEvent(reply, "read"), done),
          );
          break;
        case "prove":
          this.#node.proveHeld((held) =>
            this.#change(held ? { type: "proven" } : { type: "unproven", code: "lease-not-held" }, done)
          );
          break;
        case "put":
          this.#request(
            { type: "put", cell: "head", body: effect.head, base: effect.base },
            (reply) => this.#change(headEvent(reply, "put"), done),
          );
          break;
        case "settled": {
          const { outcome } = effect;
          const head = state.base?.head ?? null;
          this.#facts = { ...this.#facts, head };
          if (outcome.kind === "lost") return this.#fence(outcome.reason);
          if (outcome.kind === "failed") {
            if (this.#term !== null) this.#term = { ...this.#term, facts: { ...this.#term.facts, head } };
            return done({ type: "failed", code: outcome.code });
          }
          return done({ type: "done", learned: { head, previous: state.previous } });
        }
      }
    }
  }

  #record(content: string, kind: CheckpointRecord["kind"]): CheckpointRecord {
    const { world } = this.#node;
    const { token, head } = this.#facts;
    const id = world.freshId("c");
    const n = (head?.checkpoints.length ?? 0) + 1;
    return {
      id,
      n,
      time: 0,
      token,
      parent: head?.current ?? null,
      kind,
      comment: "",
      labels: {},
      root: `root ${id}`,
      root_sha256: "",
      files: { [ROOT.name]: { entries: 1, bytes: 1, manifest_sha256: content } },
      warnings: 0,
    };
  }

  #upload(done: (event: TermEvent) => void): void {
    const node = this.#node;
    const { mutant } = node.world;
    node.touch();
    const { content } = node.disk;
    const head = this.#facts.head;
    const current = head?.checkpoints.find(({ id }) => id === head.current);
    const record = this.#record(content, "interval");
    const indexes: Head["indexes"] = [];
    if (current !== undefined && contentOf(current) === content) {
      return done({ type: "done", learned: { made: null } });
    }
    const finished: TermEvent = { type: "done", learned: { made: { record, indexes } } };
    const failed: TermEvent = { type: "failed", code: "store-unreachable" };
    if (mutant.namesBeforeUpload === "pack") {
      return this.#request(
        { type: "put-object", name: record.root },
        (reply) => done(reply === null ? failed : finished),
      );
    }
    this.#request({ type: "put-object", name: `pack ${content}` }, (pack) => {
      if (pack === null) return done(failed);
      if (mutant.namesBeforeUpload === "root") return done(finished);
      this.#request(
        { type: "put-object", name: record.root },
        (root) => done(root === null ? failed : finished),
      );
    });
  }

  #compose(source: CheckpointRecord, done: (event: TermEvent) => void): void {
    const record = { ...this.#record(contentOf(source), "restore"), restored_from: source.id };
    this.#request({ type: "put-object", name: record.root }, (reply) => {
      done(
        reply === null
          ? { type: "failed", code: "store-unreachable" }
          : { type: "done", learned: { composed: record } },
      );
    });
  }

  #stage(record: CheckpointRecord, done: (event: TermEvent) => void): void {
    const node = this.#node;
    const { world } = node;
    this.#request({ type: "get-object", name: record.root }, (reply) => {
      const fails = world.happens(world.faults.stageFails);
      if (fails) world.count("stage failed");
      if (reply === null || fails) return done({ type: "failed", code: "store-unreachable" });
      if (reply.type === "absent") world.checks.fail(`checkpoint ${record.id} cannot be read back`);
      node.later(world.chance.between(50, 2_000), () => {
        node.disk = { ...node.disk, staged: contentOf(record) };
        done({ type: "done", learned: {} });
      });
    });
  }
}

function headEvent(reply: Reply | null, to: "read" | "put"): HeadEvent {
  const code: ErrorCode = "store-unreachable";
  if (reply === null) return to === "read" ? { type: "read-failed", code } : { type: "unknown", code };
  switch (reply.type) {
    case "absent":
      return { type: "read", found: null };
    case "read":
      return "epoch" in reply.body
        ? { type: "read", found: { head: reply.body, etag: reply.etag } }
        : { type: "read-failed", code };
    case "written":
      return { type: "written", etag: reply.etag };
    case "refused":
      return { type: "refused" };
  }
}
