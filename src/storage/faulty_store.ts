/** A store that fails as told, for tests and the simulator of the rooms above. */

import type { Clock } from "../platform/clock.ts";
import { type ErrorCode, StateManagerError } from "../platform/errors.ts";
import type { ObjectStore, PutOptions } from "./object_store.ts";
import { actionText, type OperationKind } from "./store_errors.ts";

export interface FaultRule {
  /** Left out: every kind. */
  readonly operation?: OperationKind;
  readonly keyPrefix?: string;
  /** Which of the matching operations it hits first, from 1 (default 1). */
  readonly nth?: number;
  /** How many it hits from there on (default 1); Infinity for all. */
  readonly count?: number;
  /** The error; left out: the operation goes on (delayed, or with its conditions ignored). */
  readonly error?: ErrorCode;
  /** "before": nothing happens. "after": it happens and the reply is lost. Default "before". */
  readonly when?: "before" | "after";
  /** Waits before the operation. */
  readonly delayMs?: number;
  /** Puts go through whatever their condition says. */
  readonly ignoreConditions?: boolean;
}

export interface FaultyStore extends ObjectStore {
  /** Adds a rule; calling the result ends it. */
  inject(rule: FaultRule): () => void;
  /** Matching operations so far, those of ended rules not counted. */
  readonly hits: number;
}

interface ActiveRule {
  readonly rule: FaultRule;
  seen: number;
}

export function faulty(
  store: ObjectStore,
  options: { readonly clock: Clock; readonly rules?: readonly FaultRule[] },
): FaultyStore {
  const active = new Set<ActiveRule>((options.rules ?? []).map((rule) => ({ rule, seen: 0 })));
  let hits = 0;

  /** The first rule that hits this operation; every matching rule counts it. */
  function strike(kind: OperationKind, key: string): FaultRule | undefined {
    let struck: FaultRule | undefined;
    for (const entry of active) {
      const { operation, keyPrefix = "", nth = 1, count = 1 } = entry.rule;
      if ((operation !== undefined && operation !== kind) || !key.startsWith(keyPrefix)) continue;
      entry.seen++;
      if (entry.seen >= nth && entry.seen < nth + count) struck ??= entry.rule;
    }
    if (struck !== undefined) hits++;
    return struck;
  }

  async function perform<T>(
    kind: OperationKind,
    key: string,
    signal: AbortSignal | undefined,
    call: (rule: FaultRule | undefined) => Promise<T>,
  ): Promise<T> {
    const rule = strike(kind, key);
    if (rule?.delayMs !== undefined) {
      await options.clock.sleep(rule.delayMs, signal === undefined ? {} : { signal });
    }
    if (rule?.error === undefined) return await call(rule);
    if (rule.when === "after") await call(rule);
    throw new StateManagerError(rule.error, `${actionText(kind, key, store.description)}: fault of a test`);
  }

  function withoutCondition(put: PutOptions): PutOptions {
    const { condition: _ignored, ...rest } = put;
    return rest;
  }

  return {
    description: store.description,
    get hits() {
      return hits;
    },
    inject(rule) {
      const entry = { rule, seen: 0 };
      active.add(entry);
      return () => void active.delete(entry);
    },
    get: (key, request = {}) => perform("get", key, request.signal, () => store.get(key, request)),
    head: (key, request = {}) => perform("head", key, request.signal, () => store.head(key, request)),
    put: (key, body, request = {}) =>
      perform(
        "put",
        key,
        request.signal,
        (rule) => store.put(key, body, rule?.ignoreConditions === true ? withoutCondition(request) : request),
      ),
    list: (request) => perform("list", request.prefix, request.signal, () => store.list(request)),
    delete: (key, request = {}) => perform("delete", key, request.signal, () => store.delete(key, request)),
    close: () => store.close(),
  };
}
