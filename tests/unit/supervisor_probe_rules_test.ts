/** The rules of probes: thresholds, the gate, freezes, and random lives. */

import assert from "node:assert/strict";
import fc from "fast-check";
import type { ProbeEffect, ProbeEvent, ProbeName, ProbesState } from "../../src/supervisor/probe_rules.ts";
import {
  DETAIL_LIMIT_CHARS,
  EAGER_PERIOD_MS,
  newProbes,
  nextProbeTickMs,
  otherProbes,
  stepProbes,
} from "../../src/supervisor/probe_rules.ts";
import type { ProbeSpec, ProcessProbes } from "../../src/supervisor/probe_types.ts";
import { NO_PROBES } from "../../src/supervisor/probe_types.ts";
import { say } from "../support/say.ts";

function probe(change: Partial<ProbeSpec> = {}): ProbeSpec {
  return {
    check: { kind: "tcp", host: "127.0.0.1", port: 1 },
    initialDelayMs: 0,
    periodMs: 10_000,
    timeoutMs: 2_000,
    failureThreshold: 3,
    successThreshold: 1,
    ...change,
  };
}
const notify = (watchdogMs: number | null = null) =>
  probe({ check: { kind: "notify", watchdogMs, socket: false } });

/** Probes driven through time; answers come from `answers`, at once, unless `hang`. */
class Watch {
  state: ProbesState;
  nowMs = 0;
  effects: ProbeEffect[] = [];
  answers: { [P in ProbeName]?: string | null } = {};
  hang = false;

  constructor(probes: Partial<ProcessProbes>, timeoutStartMs: number | null = null) {
    this.state = newProbes({ ...NO_PROBES, ...probes }, timeoutStartMs, 0);
  }

  feed(event: ProbeEvent): this {
    const step = stepProbes(this.state, event, this.nowMs);
    this.state = step.state;
    this.effects.push(...step.effects);
    for (const effect of step.effects) {
      if (effect.type !== "run" || this.hang) continue;
      const { probe, run } = effect;
      this.feed({ type: "result", probe, run, failure: this.answers[probe] ?? null });
    }
    return this;
  }

  /** Lets time pass with its ticks; gives what happened, with its seconds. */
  to(untilMs: number): string[] {
    const told: string[] = [];
    for (let due = nextProbeTickMs(this.state); due !== null && due <= untilMs;) {
      this.nowMs = Math.max(this.nowMs, due);
      this.effects = [];
      this.feed({ type: "tick" });
      told.push(...this.names());
      due = nextProbeTickMs(this.state);
    }
    this.nowMs = untilMs;
    return told;
  }

  names(): string[] {
    return this.effects.map((effect) => {
      const what = effect.type === "run"
        ? effect.probe
        : effect.type === "restart"
        ? effect.reason
        : effect.type;
      return `${this.nowMs / 1_000} ${what}`;
    });
  }

  now(event: ProbeEvent): string[] {
    this.effects = [];
    return this.feed(event).names();
  }
}

Deno.test("stepProbes runs readiness and liveness only when the startup probe has succeeded", () => {
  const watch = new Watch({
    startup: probe({ failureThreshold: 30 }),
    readiness: probe(),
    liveness: probe(),
  });
  watch.answers = { startup: "connection refused" };
  assert.deepEqual(watch.to(20_000), ["0 startup", "10 startup", "20 startup"]);
  watch.answers = {};
  assert.deepEqual(watch.to(30_000), ["30 startup", "30 readiness", "30 liveness", "30 ready"]);
  assert.deepEqual(watch.to(40_000), ["40 readiness", "40 liveness"]);
});

Deno.test("stepProbes restarts at the third failure of liveness, and a success between starts the count anew", () => {
  const watch = new Watch({ liveness: probe({ initialDelayMs: 5_000 }) });
  watch.answers = { liveness: "HTTP 500" };
  assert.deepEqual(watch.to(20_000), ["5 liveness", "15 liveness"]);
  watch.answers = {};
  watch.to(25_000);
  watch.answers = { liveness: "HTTP 500" };
  assert.deepEqual(watch.to(60_000), [
    "35 liveness",
    "45 liveness",
    "55 liveness",
    "55 abort",
    "55 liveness",
  ]);
  assert.equal(nextProbeTickMs(watch.state), null, "nothing is asked after it");
});

Deno.test("stepProbes moves readiness by its thresholds and never restarts for it", () => {
  const watch = new Watch({ readiness: probe({ successThreshold: 2 }) });
  watch.answers = { readiness: "HTTP 503" };
  watch.to(5_000);
  watch.answers = {};
  assert.deepEqual(
    watch.to(7_000),
    ["6 readiness", "7 readiness", "7 ready"],
    "asked often until it is ready",
  );
  watch.answers = { readiness: "HTTP 503" };
  assert.deepEqual(watch.to(37_000), ["17 readiness", "27 readiness", "37 readiness", "37 not-ready"]);
  assert.deepEqual(watch.state.failure, { probe: "readiness", detail: "HTTP 503" });
  watch.answers = {};
  assert.deepEqual(watch.to(57_000), ["47 readiness", "57 readiness", "57 ready"]);
  assert.equal(watch.state.failure, null);
  assert.equal(EAGER_PERIOD_MS, 1_000);
});

Deno.test("stepProbes restarts what is not ready in time, and says what failed last", () => {
  const watch = new Watch({ readiness: probe() }, 60_000);
  watch.answers = { readiness: "x".repeat(10_000) };
  const told = watch.to(61_000);
  assert.deepEqual(told.slice(-2), ["60 abort", "60 startup"]);
  const restart = watch.effects.at(-1);
  assert.ok(restart?.type === "restart");
  assert.match(restart.detail, /^not ready after 60 s; readiness: x+…$/);
  assert.ok(restart.detail.length < DETAIL_LIMIT_CHARS + 100);
  const failed = new Watch({ startup: probe() }, 60_000);
  failed.answers = { startup: "HTTP 500" };
  assert.deepEqual(failed.to(60_000).at(-1), "20 startup", "its startup probe gave up before");
  const ready = new Watch({ readiness: notify() }, 60_000);
  assert.deepEqual(ready.now({ type: "told", what: "ready" }), ["0 ready"]);
  assert.deepEqual(ready.to(120_000), []);
});

Deno.test("stepProbes never has two runs of a probe at once", () => {
  const watch = new Watch({ liveness: probe({ periodMs: 1_000 }) });
  watch.hang = true;
  assert.deepEqual(watch.to(5_500), ["0 liveness"]);
  watch.hang = false;
  watch.feed({ type: "result", probe: "liveness", run: 1, failure: null });
  assert.deepEqual(watch.to(6_500), ["5.5 liveness", "6.5 liveness"]);
});

Deno.test("stepProbes drops answers nobody waits for any more", () => {
  const watch = new Watch({ liveness: probe({ failureThreshold: 1 }) });
  watch.hang = true;
  watch.to(0);
  assert.deepEqual(watch.now({ type: "result", probe: "liveness", run: 7, failure: "of another run" }), []);
  assert.deepEqual(watch.now({ type: "frozen" }), ["0 abort"]);
  assert.deepEqual(watch.now({ type: "result", probe: "liveness", run: 1, failure: "it was frozen" }), []);
});

Deno.test("stepProbes lets nothing fail for a time in which the process was frozen, or we stood still", () => {
  const watch = new Watch({ readiness: probe(), liveness: notify(30_000) }, 60_000);
  watch.answers = { readiness: "refused" };
  watch.to(50_000);
  watch.feed({ type: "frozen" });
  assert.deepEqual(watch.to(500_000), [], "asked nothing while frozen");
  watch.feed({ type: "thawed" });
  watch.answers = {};
  assert.deepEqual(watch.to(501_000).at(-1), "501 ready", "ten seconds were left");
  watch.to(520_000);
  watch.nowMs = 3_000_000; // a suspended machine: no tick came
  assert.deepEqual(watch.now({ type: "tick" }).filter((what) => /watchdog/.test(what)), []);
  assert.ok(watch.to(3_015_000).includes("3010 watchdog"), "what was left of the interval counts");
  const late = new Watch({ liveness: probe({ failureThreshold: 1 }) });
  late.hang = true;
  late.to(0);
  late.nowMs = 60_000;
  assert.deepEqual(late.now({ type: "result", probe: "liveness", run: 1, failure: "no answer" }), []);
});

Deno.test("stepProbes wants heartbeats from the moment it is ready, and restarts without them", () => {
  const watch = new Watch({ readiness: notify(), liveness: notify(5_000) });
  assert.deepEqual(watch.to(100_000), []);
  watch.feed({ type: "told", what: "ready" });
  for (let count = 1; count < 10; count++) {
    assert.deepEqual(watch.to(100_000 + count * 4_000), []);
    watch.feed({ type: "told", what: "heartbeat" });
  }
  assert.deepEqual(watch.to(200_000), ["141 abort", "141 watchdog"]);
});

Deno.test("stepProbes takes a line or a word as said even before the startup probe has succeeded", () => {
  const log = probe({ check: { kind: "log", pieces: ["ready"] } });
  const watch = new Watch({ startup: probe({ initialDelayMs: 3_000 }), readiness: log });
  watch.to(1_000);
  assert.deepEqual(watch.now({ type: "seen", probe: "readiness" }), []);
  assert.deepEqual(watch.to(3_000), ["3 startup", "3 ready"]);
  const both = new Watch({ startup: notify(), readiness: notify() });
  assert.deepEqual(both.now({ type: "told", what: "ready" }), ["0 ready"]);
  assert.deepEqual(both.now({ type: "told", what: "not-ready" }), ["0 not-ready"]);
  assert.deepEqual(both.now({ type: "told", what: "ready" }), ["0 ready"]);
});

Deno.test("otherProbes keeps what is known: who is ready stays so, who has started is not asked whether", () => {
  const log = probe({ check: { kind: "log", pieces: ["ready"] } });
  const change = (
    before: Watch | null,
    probes: Partial<ProcessProbes>,
    seen: { ready: boolean; wasReady: boolean },
  ) => {
    const rules = { probes: { ...NO_PROBES, ...probes }, timeoutStartMs: 60_000 };
    const watch = before ?? new Watch({});
    const step = otherProbes(before?.state ?? null, rules, seen, watch.nowMs);
    watch.state = step.state;
    return { watch, effects: step.effects.map(({ type }) => type) };
  };
  const isReady = { ready: true, wasReady: true };
  const never = { ready: false, wasReady: false };
  // Ready, and gets a startup and a readiness probe: the flag moves only when the new one fails often enough.
  const ready = change(null, { startup: probe(), readiness: probe(), liveness: probe() }, isReady);
  assert.deepEqual(ready.effects, []);
  ready.watch.answers = { readiness: "no" };
  const told = ready.watch.to(120_000);
  assert.ok(!told.some((what) => /startup/.test(what)), "no limit to its start, and no question about it");
  assert.ok(told.includes("20 not-ready"));
  assert.ok(told.includes("120 liveness"));
  // Not ready yet, and loses what would have told so.
  assert.deepEqual(change(new Watch({ readiness: probe() }), {}, never).effects, ["ready"]);
  // Gets a startup probe before it was ready: that one tells.
  const starting = change(new Watch({ readiness: probe() }), { startup: probe() }, never);
  assert.deepEqual(starting.watch.to(0), ["0 startup", "0 ready"]);
  // A line seen before counts when the startup probe in front of it goes away; another line does not.
  const seen = new Watch({ startup: probe({ initialDelayMs: 9_000 }), readiness: log });
  seen.feed({ type: "seen", probe: "readiness" });
  assert.deepEqual(change(seen, { readiness: log }, never).effects, ["ready"]);
  const other = probe({ check: { kind: "log", pieces: ["up"] } });
  const lined = new Watch({ startup: probe({ initialDelayMs: 9_000 }), readiness: log });
  lined.feed({ type: "seen", probe: "readiness" });
  assert.deepEqual(change(lined, { readiness: other }, never).effects, []);
  // Heartbeats go on.
  const beats = change(new Watch({ liveness: notify(5_000) }), { liveness: notify(5_000) }, isReady);
  assert.deepEqual(beats.watch.to(6_000), ["5 abort", "5 watchdog"]);
});

Deno.test("stepProbes keeps its promises over random lives", () => {
  const seed = Date.now() % 2 ** 31;
  say(`seed ${seed}`);
  const one = fc.option(fc.record({
    kind: fc.constantFrom("tcp", "notify", "log"),
    initialDelayMs: fc.nat(3_000),
    periodMs: fc.integer({ min: 100, max: 5_000 }),
    failureThreshold: fc.integer({ min: 1, max: 3 }),
  }));
  const event = fc.constantFrom(
    "fail",
    "succeed",
    "seen",
    "ready",
    "not-ready",
    "heartbeat",
    "freeze",
    "thaw",
    "pause",
  );
  const steps = fc.array(fc.tuple(event, fc.nat(4_000)), { maxLength: 40, size: "max" });
  fc.assert(
    fc.property(
      fc.tuple(one, one, one),
      fc.option(fc.integer({ min: 1, max: 20_000 })),
      steps,
      (kinds, limit, events) => {
        const [startup, readiness, liveness] = kinds.map((kind) => {
          if (kind === null) return null;
          const check = kind.kind === "tcp"
            ? probe().check
            : kind.kind === "log"
            ? { kind: "log", pieces: [] } as const
            : { kind: "notify", watchdogMs: 2_000, socket: false } as const;
          return probe({ ...kind, check });
        });
        live(
          { startup: startup ?? null, readiness: readiness ?? null, liveness: liveness ?? null },
          limit,
          events,
        );
      },
    ),
    { numRuns: 5_000, seed },
  );
});

function live(
  probes: ProcessProbes,
  limitMs: number | null,
  events: readonly (readonly [string, number])[],
): void {
  let state = newProbes(probes, limitMs, 0);
  let nowMs = 0;
  let frozen = false;
  let over = false;
  let ready = false;
  const running = new Map<ProbeName, number>();
  const feed = (event: ProbeEvent) => {
    const step = stepProbes(state, event, nowMs);
    state = step.state;
    for (const effect of step.effects) {
      assert.ok(!over, "something after the restart");
      if (effect.type === "run") {
        assert.ok(!frozen, "asked while frozen");
        assert.ok(!running.has(effect.probe), "two runs of one probe");
        assert.ok(effect.probe === "startup" || state.started || probes.startup === null, "the gate");
        running.set(effect.probe, effect.run);
      } else if (effect.type === "abort") running.clear();
      else if (effect.type === "restart") {
        assert.ok(!frozen || event.type !== "tick", "restarted while frozen");
        over = true;
      } else {
        assert.notEqual(ready, effect.type === "ready", "said twice");
        ready = effect.type === "ready";
      }
    }
    const tickMs = nextProbeTickMs(state);
    assert.ok(tickMs === null || Number.isFinite(tickMs));
  };
  for (const [what, waitMs] of events) {
    const untilMs = nowMs + waitMs;
    for (let due = nextProbeTickMs(state); due !== null && due <= untilMs && what !== "pause";) {
      nowMs = Math.max(nowMs, due);
      const before = state;
      feed({ type: "tick" });
      if (state === before) break;
      due = nextProbeTickMs(state);
      if (due !== null && due <= nowMs) break;
    }
    nowMs = untilMs;
    if (what === "freeze" || what === "thaw") {
      frozen = what === "freeze";
      feed({ type: frozen ? "frozen" : "thawed" });
    } else if (what === "seen") feed({ type: "seen", probe: "readiness" });
    else if (what === "ready" || what === "not-ready" || what === "heartbeat") feed({ type: "told", what });
    else {
      for (const [probe, run] of [...running]) {
        running.delete(probe);
        feed({ type: "result", probe, run, failure: what === "fail" ? "refused" : null });
      }
    }
  }
}
