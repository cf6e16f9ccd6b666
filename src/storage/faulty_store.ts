/** A store that fails as told, for tests and the simulator of the rooms above. */

import type { Clock } from "../platform/clock.ts";
import { type ErrorCode, StateManagerError } from "../platform/errors.ts";
import { type FaultMatch, FaultRules } from "../platform/fault_rules.ts";
import type { ObjectStore, PutOptions } from "./object_store.ts";
import { actionText, type OperationKind } from "./store_errors.ts";

export interface FaultRule extends FaultMatch<OperationKind> {
  /** Of the key; a listing is known by the prefix that it lists. */
  readonly keyPrefix?: string;
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

export function faulty(
  store: ObjectStore,
  options: { readonly clock: Clock; readonly rules?: readonly FaultRule[] },
): FaultyStore {
  const rules = new FaultRules<OperationKind, FaultRule>((rule, _kind, key) =>
    key.startsWith(rule.keyPrefix ?? "")
  );
  for (const rule of options.rules ?? []) rules.add(rule);
  let hits = 0;

  async function perform<T>(
    kind: OperationKind,
    key: string,
    signal: AbortSignal | undefined,
    call: (rule: FaultRule | undefined) => Promise<T>,
  ): Promise<T> {
    const rule = rules.strike(kind, key);
    if (rule !== undefined) hits++;
    if (rule?.delayMs !== undefined) {
      await options.clock.sleep(rule.delayMs, signal === undefined ? {} : { signal });
    }
    if (rule?.error === undefined) return await call(rule);
    if (rule.when === "after") await call(rule);
    throw new StateManagerError(rule.error, `${actionText(kind, key, store.description)}: fault of a test`);
  }

  function withoutCondition<T extends PutOptions>(put: T): Omit<T, "condition"> {
    const { condition: _ignored, ...rest } = put;
    return rest;
  }

  return {
    description: store.description,
    get hits() {
      return hits;
    },
    inject(rule) {
      return rules.add(rule).end;
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
    putLarge: (key, pieces, request) =>
      perform(
        "put",
        key,
        request.signal,
        (rule) =>
          store.putLarge(
            key,
            pieces,
            rule?.ignoreConditions === true
              ? { ...withoutCondition(request), sizeBytes: request.sizeBytes }
              : request,
          ),
      ),
    list: (request) => perform("list", request.prefix, request.signal, () => store.list(request)),
    delete: (key, request = {}) => perform("delete", key, request.signal, () => store.delete(key, request)),
    clockMs: () => store.clockMs(),
    close: () => store.close(),
  };
}
