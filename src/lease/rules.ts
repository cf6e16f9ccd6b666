/**
 * The rules of the lease, pure: (state, event, now) → state and effects. Shipped and simulated alike
 * (tests/simulation/lease_simulation_test.ts); holder.ts only executes them. They never read a clock or a file.
 *
 * What makes them safe, given a store whose conditional writes are linearizable:
 * - A term begins and goes on only by a compare-and-swap on the record's tag, and a nonce makes every write's tag new.
 * - A holder believes in its term until TTL less margin after the *first* send of the last nonce known to have landed.
 *   Another one swaps only after it saw one tag unchanged for TTL · (1 + 2ρ) of its own time. That tag landed after it
 *   was first sent, so the holder has stopped by then, whatever the clocks say and however late a request lands.
 * - A write of unknown outcome is read back. It is resent with the same bytes, never with a new nonce: so at most one
 *   write of ours is under way, and one read tells landed, not landed yet, or somebody else's.
 * - If we die at any point here, the record in the store stays what it was, and the next one waits a TTL; unless it is
 *   our own successor and can prove that we and our programs are dead: then nobody believes in that record any more,
 *   and it claims at once. A late write of ours, landing before that claim, makes it fail; after it, fails itself.
 * - The wall clock running ahead of the monotonic one may mean time that only the former counted (a machine that was
 *   frozen from outside). Then only the landing of a write that was *first sent afterwards* proves the term again: a
 *   record that still has our older nonce may be claimed by another the moment after.
 */

import type { StateManagerError } from "../platform/errors.ts";
import type { ETag } from "../storage/object_store.ts";
import { graceMs, heldBy, isTrusted, killAtMs, takeOverAfterMs } from "./machine.ts";
import type {
  Attempt,
  Common,
  Contending,
  Found,
  LeaseMachine,
  LeaseSettings,
  MachineEffect,
  MachineEvent,
  Owning,
  Resting,
  Step,
  Turn,
} from "./machine.ts";
import type { LeaseEvent, LeaseRecord } from "./types.ts";

/** One turn. A result of a request is given only while `state.request` names it. */
export function step(settings: LeaseSettings, state: LeaseMachine, event: MachineEvent, turn: Turn): Step {
  switch (state.phase) {
    case "resting":
      if (event.type !== "acquire") return { state, effects: [] };
      return { state: newContender(state, turn), effects: [{ type: "get" }] };
    case "contending":
      return stepContending(settings, state, event, turn);
    case "owning":
      return fenceAtDeadline(stepOwning(settings, state, event, turn), turn);
  }
}

function newContender({ highestToken, inherited }: Common, turn: Turn): Contending {
  return {
    phase: "contending",
    highestToken,
    inherited,
    lastError: null,
    request: "get",
    attempt: null,
    dueMs: turn.nowMs,
    seen: null,
    told: null,
    abandoned: false,
  };
}

function rest(common: Common, as: Resting["as"], effects: MachineEffect[] = []): Step {
  const { highestToken, inherited, lastError } = common;
  return { state: { phase: "resting", as, highestToken, inherited, lastError }, effects };
}

// What contender and owner share: one attempt, sent, read back, resent.

function pauseMs(settings: LeaseSettings, turn: Turn): number {
  return settings.pollMs * (0.75 + 0.5 * turn.jitter);
}

function begin(
  settings: LeaseSettings,
  state: Contending | Owning,
  turn: Turn,
  write: { purpose: Attempt["purpose"]; base: Found | null; token: number; to?: string | null },
): Step {
  const record: LeaseRecord = {
    v: 1,
    token: write.token,
    holder: settings.holder,
    nonce: turn.nonce,
    state: write.purpose === "release" ? "released" : "held",
    ttlMs: settings.ttlMs,
    info: settings.info,
    ...(typeof write.to === "string" ? { to: write.to } : {}),
  };
  const { purpose, base } = write;
  const attempt: Attempt = { purpose, record, base, firstSentMs: turn.nowMs, next: "read", doubted: false };
  return {
    state: { ...state, request: "put", attempt },
    effects: [{ type: "put", record, base }],
  };
}

/** The outcome is not known: look. */
function readBack(state: Contending | Owning): Step {
  return { state: { ...state, request: "get" }, effects: [{ type: "get" }] };
}

function resend(state: Contending | Owning, attempt: Attempt): Step {
  return {
    state: { ...state, request: "put", attempt: { ...attempt, next: "read" } },
    effects: [{ type: "put", record: attempt.record, base: attempt.base }],
  };
}

/** What a reading says of an attempt; decided by nonce, since equal bytes have equal tags. */
function verdict(attempt: Attempt, found: Found | null): "landed" | "unchanged" | "foreign" {
  if (found === null) return attempt.base === null ? "unchanged" : "foreign";
  if (found.record.nonce === attempt.record.nonce) return "landed";
  if (found.etag === attempt.base?.etag) return "unchanged";
  return "foreign";
}

/** A failed or fruitless request: try again after a pause. */
function later(settings: LeaseSettings, state: Contending | Owning, turn: Turn): Step {
  return { state: { ...state, request: "none", dueMs: turn.nowMs + pauseMs(settings, turn) }, effects: [] };
}

/** Continues a paused attempt. */
function retry(state: Contending | Owning, attempt: Attempt): Step {
  return attempt.next === "read" ? readBack(state) : resend(state, attempt);
}

// The contender.

function stepContending(settings: LeaseSettings, state: Contending, event: MachineEvent, turn: Turn): Step {
  const { attempt } = state;
  switch (event.type) {
    case "acquire":
      return { state, effects: [] };
    case "release":
      if (attempt === null) return rest(state, "idle");
      return settleSoon({ ...state, abandoned: true }, attempt);
    case "doubt":
      // Without a claim under way there is nothing to doubt: time that was not counted only makes us wait longer.
      return {
        state: attempt === null ? state : { ...state, attempt: { ...attempt, doubted: true } },
        effects: [],
      };
    case "give-up":
      return rest(state, "idle");
    case "unreadable":
      return rest({ ...state, lastError: event.error.message }, "idle", [{
        type: "fail",
        error: event.error,
      }]);
    case "read-failed":
      return later(settings, { ...state, lastError: event.error.message }, turn);
    case "read":
      if (attempt === null) return observe(settings, state, event.found, turn);
      switch (verdict(attempt, event.found)) {
        case "landed":
          return won(settings, state, attempt, event.found?.etag ?? "", turn);
        case "unchanged":
          return later(settings, { ...state, attempt: { ...attempt, next: "send" } }, turn);
        case "foreign":
          return observe(settings, { ...state, attempt: null }, event.found, turn);
      }
      break;
    case "written":
      return attempt === null ? { state, effects: [] } : won(settings, state, attempt, event.etag, turn);
    case "refused":
      return readBack(state);
    case "unknown":
      return readBack({ ...state, lastError: event.error.message });
    case "tick":
      if (state.request !== "none" || turn.nowMs < state.dueMs) return { state, effects: [] };
      if (attempt !== null) return retry(state, attempt);
      if (state.seen !== null && turn.nowMs >= state.seen.readyMs) return claim(settings, state, turn);
      return readBack(state);
  }
}

/** Somebody wants the outcome of `attempt` soon: a pause before a retry ends now. */
function settleSoon(state: Contending | Owning, attempt: Attempt): Step {
  return state.request === "none" ? retry(state, attempt) : { state, effects: [] };
}

/** A reading without a claim under way: claim what is free, else wait for it to change or stand still long enough. */
function observe(settings: LeaseSettings, before: Contending, found: Found | null, turn: Turn): Step {
  const readyMs = before.seen !== null && before.seen.found?.etag === found?.etag
    ? before.seen.readyMs
    : turn.nowMs + waitMs(settings, before, found);
  const state: Contending = {
    ...before,
    request: "none",
    lastError: null,
    seen: { found, readyMs },
    highestToken: Math.max(before.highestToken, found?.record.token ?? 0),
  };
  if (state.abandoned) return rest(state, "idle");
  if (turn.nowMs >= readyMs) return claim(settings, state, turn);
  const dueMs = Math.min(readyMs, turn.nowMs + pauseMs(settings, turn));
  const other = heldBy(state);
  const name = other === null ? "" : `${other.token} ${other.holder}`;
  if (name === state.told) return { state: { ...state, dueMs }, effects: [] };
  return {
    state: { ...state, dueMs, told: name },
    effects: [{ type: "tell", event: { type: "waiting", heldBy: other } }],
  };
}

/**
 * Nothing there, released, or held by a predecessor that is proven dead: no wait. Released to another one: a grace, in
 * which that one is quicker. A record that vanished from under its holder: the holder may not know yet.
 */
function waitMs(settings: LeaseSettings, before: Contending, found: Found | null): number {
  const { record } = found ?? before.seen?.found ?? { record: null };
  if (record === null) return 0;
  if (record.state === "released") {
    return record.to === undefined || record.to === settings.holder ? 0 : graceMs(settings);
  }
  if (found !== null && before.inherited.includes(record.nonce)) return 0;
  return takeOverAfterMs(record.ttlMs);
}

function claim(settings: LeaseSettings, state: Contending, turn: Turn): Step {
  const base = state.seen?.found ?? null;
  return begin(settings, state, turn, { purpose: "claim", base, token: state.highestToken + 1 });
}

function won(settings: LeaseSettings, state: Contending, attempt: Attempt, etag: ETag, turn: Turn): Step {
  const previous = attempt.base?.record ?? null;
  const { record } = attempt;
  const owning: Owning = {
    phase: "owning",
    highestToken: record.token,
    inherited: state.inherited,
    lastError: null,
    request: "none",
    attempt,
    dueMs: turn.nowMs,
    term: {
      token: record.token,
      holder: record.holder,
      previous,
      clean: previous === null || previous.state === "released",
    },
    own: { etag, record },
    deadlineMs: -Infinity,
    announced: false,
    suspended: false,
    inDoubt: false,
    ending: state.abandoned,
    releaseTo: null,
  };
  return landed(settings, owning, attempt, etag, turn);
}

// The owner.

function stepOwning(settings: LeaseSettings, state: Owning, event: MachineEvent, turn: Turn): Step {
  const { attempt } = state;
  switch (event.type) {
    case "acquire":
      return { state, effects: [] };
    case "release": {
      const ending: Owning = { ...state, ending: true, releaseTo: event.to ?? state.releaseTo };
      return attempt === null ? renewOrRelease(settings, ending, turn) : settleSoon(ending, attempt);
    }
    case "doubt": {
      const inDoubt: Owning = { ...state, inDoubt: true };
      if (attempt === null) return renewOrRelease(settings, inDoubt, turn);
      const doubted: Attempt = { ...attempt, doubted: true };
      return settleSoon({ ...inDoubt, attempt: doubted }, doubted);
    }
    case "give-up":
      return rest(state, "idle");
    case "unreadable":
      return unreadable(state, event.error);
    case "read-failed":
      return later(settings, { ...state, lastError: event.error.message }, turn);
    case "read":
      if (attempt === null) return { state: { ...state, request: "none" }, effects: [] };
      switch (verdict(attempt, event.found)) {
        case "landed":
          return landed(settings, state, attempt, event.found?.etag ?? "", turn);
        case "unchanged":
          return later(settings, { ...state, attempt: { ...attempt, next: "send" } }, turn);
        case "foreign":
          // Another's record after our release was sent: it landed and the next one was quick, or we were late. Either
          // way the term had ended here before, and the lease is not ours.
          if (attempt.purpose === "release" && event.found !== null) return released(state);
          return lost(settings, state, event.found, turn);
      }
      break;
    case "written":
      return attempt === null ? { state, effects: [] } : landed(settings, state, attempt, event.etag, turn);
    case "refused":
      return readBack(state);
    case "unknown":
      return readBack({ ...state, lastError: event.error.message });
    case "tick":
      if (state.request !== "none" || turn.nowMs < state.dueMs) return { state, effects: [] };
      return attempt === null ? renewOrRelease(settings, state, turn) : retry(state, attempt);
  }
}

function renewOrRelease(settings: LeaseSettings, state: Owning, turn: Turn): Step {
  const purpose = state.ending ? "release" : "renew";
  const to = state.ending ? state.releaseTo : null;
  return begin(settings, state, turn, { purpose, base: state.own, token: state.term.token, to });
}

/** A write of ours is known to be the record now. */
function landed(settings: LeaseSettings, before: Owning, attempt: Attempt, etag: ETag, turn: Turn): Step {
  if (attempt.purpose === "release") {
    return released(before);
  }
  const state: Owning = {
    ...before,
    request: "none",
    attempt: null,
    lastError: null,
    own: { etag, record: attempt.record },
    // A doubted write proves nothing about now, so it moves no deadline either.
    deadlineMs: attempt.doubted
      ? before.deadlineMs
      : attempt.firstSentMs + settings.ttlMs - settings.marginMs,
    inDoubt: attempt.doubted,
    dueMs: attempt.firstSentMs + settings.renewMs,
  };
  // The answer came too late to be used: a new nonce, whose success again proves that nobody came between.
  if (state.ending || state.inDoubt || turn.nowMs >= state.deadlineMs) {
    return renewOrRelease(settings, state, turn);
  }
  const news: LeaseEvent[] = [];
  if (!state.announced) news.push({ type: "acquired", term: state.term });
  else if (state.suspended) news.push({ type: "regained" });
  const fenceAtMs = state.deadlineMs;
  news.push({ type: "renewed", fenceAtMs, killAtMs: killAtMs(settings, fenceAtMs) });
  return {
    state: { ...state, announced: true, suspended: false },
    effects: news.map((event) => ({ type: "tell", event })),
  };
}

/** A term that nobody heard of ends unheard too. */
function released(state: Owning): Step {
  const tell: MachineEffect[] = state.announced ? [{ type: "tell", event: { type: "released" } }] : [];
  return rest({ ...state, lastError: null }, state.announced ? "released" : "idle", tell);
}

function whyLost(found: Found | null): string {
  if (found === null) return "lease.json is gone from the store, it must never be deleted";
  const { holder, token, state } = found.record;
  return `the store's record is now ${holder}'s, token ${token}, ${state}`;
}

/** The record is not ours any more. A term nobody heard of just goes back to contending. */
function lost(settings: LeaseSettings, state: Owning, found: Found | null, turn: Turn): Step {
  if (!state.announced && !state.ending) return observe(settings, newContender(state, turn), found, turn);
  return ended(state, whyLost(found));
}

function unreadable(state: Owning, error: StateManagerError): Step {
  if (state.announced) return ended(state, error.message);
  return rest({ ...state, lastError: error.message }, "idle", [{ type: "fail", error }]);
}

function ended(state: Owning, error: string): Step {
  const tell: MachineEffect[] = state.announced ? [{ type: "tell", event: { type: "lost", error } }] : [];
  return rest({ ...state, lastError: error }, state.announced ? "lost" : "idle", tell);
}

/** Runs after every turn of an owner, so that an event that comes late (a paused process) fences too. */
function fenceAtDeadline(turned: Step, turn: Turn): Step {
  const { state } = turned;
  if (state.phase !== "owning" || !isTrusted(state) || turn.nowMs < state.deadlineMs) return turned;
  const error = state.lastError ?? "no renewal was confirmed in time";
  return {
    state: { ...state, suspended: true },
    effects: [...turned.effects, { type: "tell", event: { type: "suspended", error } }],
  };
}
