/** Random lives of a chain of processes with restart_with, on the table of states.ts, in a world that answers it. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { conditionOf } from "../../src/supervisor/dependencies.ts";
import {
  isLive,
  type Machine,
  type MachineEvent,
  newMachine,
  nextTickMs,
} from "../../src/supervisor/machine.ts";
import { type EdgeRunner, RestartEdges } from "../../src/supervisor/restart_edges.ts";
import { transition } from "../../src/supervisor/states.ts";
import type { ProcessSpec } from "../../src/supervisor/types.ts";
import { EVENTS, exit } from "../support/process_life.ts";
import { processSpec } from "../support/process_specs.ts";
import { say } from "../support/say.ts";

/** edge on web on db, and side on db and web; by `restart_with` all. */
const SPECS: Readonly<Record<string, Partial<ProcessSpec>>> = {
  edge: { dependsOn: { web: "started" }, restartWith: ["web"] },
  side: { dependsOn: { db: "ready", web: "started" }, restartWith: ["db", "web"] },
  web: { dependsOn: { db: "ready" }, restartWith: ["db"] },
  db: {},
};
const NAMES = Object.keys(SPECS);
type Act = "crash" | "unwell" | "stop" | "start" | "restart" | "answer";
const ACTS: readonly Act[] = ["crash", "unwell", "stop", "start", "restart", "answer"];

Deno.test("restart_with keeps its promises over random lives of a chain", () => {
  const seed = Date.now() % 2 ** 31;
  say(`seed ${seed}`);
  const act = fc.record({
    what: fc.constantFrom(...ACTS),
    who: fc.constantFrom(...NAMES),
    waitMs: fc.nat(1_500),
  });
  const delay = fc.constantFrom(0, 200);
  fc.assert(
    fc.property(fc.array(act, { maxLength: 25, size: "max" }), delay, (acts, restartDelayMs) => {
      const world = new World(restartDelayMs);
      for (const { what, who, waitMs } of acts) {
        world.pass(waitMs);
        world.act(what, who);
      }
      world.end();
    }),
    { numRuns: 3_000, seed },
  );
});

class One implements EdgeRunner {
  machine: Machine = newMachine();
  readonly survivors = [];
  readonly spec: ProcessSpec;
  leader = false;
  /** It got the stop signal. */
  asked = false;
  /** It may end before those that stop with it. */
  unordered = false;
  readonly #world: World;
  #queue: MachineEvent[] = [];

  constructor(world: World, spec: ProcessSpec) {
    this.#world = world;
    this.spec = spec;
  }

  dispatch(event: MachineEvent): void {
    this.#queue.push(event);
    if (this.#queue.length > 1) return;
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const step = transition(this.spec, this.machine, next, { nowMs: this.#world.nowMs, roll: 0.5 });
      this.machine = step.machine;
      for (const effect of step.effects) {
        if (effect === "spawn") this.#spawn();
        if (effect === "signal-group" && this.leader) this.#ask();
      }
      this.#queue.shift();
    }
  }

  #spawn(): void {
    const beside = this.#world.dependentsOf(this).filter(({ leader }) => leader);
    assert.deepEqual(beside.map(({ spec }) => spec.name), [], `beside a new ${this.spec.name}`);
    assert.ok(!this.#world.held.has(this.spec.name), "a person stopped it");
    this.leader = true;
    this.asked = this.unordered = false;
    this.dispatch(EVENTS.spawned);
  }

  #ask(): void {
    const left = this.#world.dependentsOf(this).filter(({ leader }) => leader);
    assert.ok(
      this.unordered || left.length === 0,
      `${this.spec.name} is stopped before ${left[0]?.spec.name}`,
    );
    this.asked = true;
  }

  /** Of its own: crashed, or having been asked. */
  ends(code: number): void {
    this.leader = false;
    this.dispatch({ type: "leader-exited", cause: exit(code), groupGone: true });
    this.dispatch(EVENTS["output-ended"]);
  }
}

class World {
  nowMs = 0;
  readonly held = new Set<string>();
  readonly all: Map<string, One>;
  readonly edges: RestartEdges;
  #evaluating = false;

  constructor(restartDelayMs: number) {
    const common = { restart: "always", restartDelayMs, timeoutStopMs: 600_000 } as const;
    const startLimit = { burst: 0, intervalMs: 1, rearmMs: null };
    this.all = new Map(
      NAMES.map((
        name,
      ) => [name, new One(this, processSpec({ ...common, startLimit, ...SPECS[name], name }))]),
    );
    this.edges = new RestartEdges(this.all);
    for (const one of this.all.values()) one.dispatch(EVENTS["want-up"]);
    this.evaluate();
  }

  one(name: string): One {
    const one = this.all.get(name);
    assert.ok(one);
    return one;
  }

  dependentsOf({ spec: { name } }: One): One[] {
    return [...this.all.values()].filter(({ spec }) => spec.restartWith.includes(name));
  }

  act(what: Act, name: string): void {
    const one = this.one(name);
    if (what === "crash" && name === "db" && one.leader) {
      one.unordered = true;
      one.ends(1);
    }
    if (what === "unwell" && name === "db") {
      one.unordered = true;
      one.dispatch({ type: "restart", reason: "liveness", detail: null });
    }
    if (what === "answer" && one.leader && one.asked) one.ends(0);
    if (what === "stop") {
      this.held.add(name);
      this.edges.end(name, { type: "want-down", deadlineMs: Infinity });
    }
    if (what === "start") {
      this.held.delete(name);
      this.edges.spare(name);
      one.dispatch(EVENTS["want-up"]);
    }
    if (what === "restart") {
      this.held.delete(name);
      this.edges.end(name, { type: "restart", reason: "person", detail: null });
    }
    this.evaluate();
  }

  /** As the supervisor does it. */
  evaluate(): void {
    if (this.#evaluating) return;
    this.#evaluating = true;
    for (let changed = true, rounds = 0; changed; rounds++) {
      assert.ok(rounds < 100, "it never comes to rest");
      changed = this.edges.step();
      for (const one of this.all.values()) {
        if (one.machine.state !== "waiting" || !this.mayStart(one)) continue;
        this.edges.starts(one.spec.name);
        one.dispatch(EVENTS.met);
        changed = true;
      }
    }
    this.#evaluating = false;
    for (const { spec, machine, leader, asked } of this.all.values()) {
      if (spec.name === "db") continue;
      const isLeft = spec.restartWith.some((other) => this.one(other).machine.state === "backoff");
      assert.ok(!leader || !isLeft || asked || this.edges.isDue(spec.name), `${spec.name} is not told`);
      assert.deepEqual([machine.failureTimesMs, machine.restarts], [[], 0], `${spec.name} is blamed`);
    }
  }

  mayStart({ spec }: One): boolean {
    const isMet = Object.entries(spec.dependsOn).every(([name, condition]) =>
      conditionOf(this.one(name).machine, condition, true) === "met" && !this.edges.isDue(name)
    );
    return isMet && this.edges.mayStart(spec.name);
  }

  pass(ms: number): void {
    const untilMs = this.nowMs + ms;
    while (true) {
      const due = [...this.all.values()].map((one) => [one, nextTickMs(one.machine) ?? Infinity] as const)
        .sort(([, a], [, b]) => a - b)[0];
      if (due === undefined || due[1] > untilMs) break;
      this.nowMs = Math.max(this.nowMs, due[1]);
      due[0].dispatch(EVENTS.tick);
      this.evaluate();
    }
    this.nowMs = untilMs;
  }

  /** Everybody answers, and is wanted: all run, each beside the run that it was started beside. */
  end(): void {
    for (const name of NAMES) this.act("start", name);
    for (let round = 0; round < 20; round++) {
      for (const name of NAMES) this.act("answer", name);
      this.pass(2_000);
    }
    for (const { spec, machine, leader } of this.all.values()) {
      assert.ok(leader && isLive(machine) && machine.state === "running", `${spec.name} is ${machine.state}`);
    }
    assert.ok(!this.edges.step());
  }
}
