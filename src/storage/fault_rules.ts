/** Which operations a fault hits: one shape for the stores, the test service and the proxy in front of a real one. */

import type { OperationKind } from "./store_errors.ts";

export interface FaultMatch {
  /** Left out: every kind. */
  readonly operation?: OperationKind;
  /** A listing is known by the prefix that it lists. */
  readonly keyPrefix?: string;
  /** Which of the matching operations it hits first, from 1 (default 1). */
  readonly nth?: number;
  /** How many it hits from there on (default 1); Infinity for all. */
  readonly count?: number;
}

export interface ActiveFault {
  /** Operations that this rule struck. */
  readonly hits: number;
  end(): void;
}

interface Entry<Rule> {
  readonly rule: Rule;
  seen: number;
  hits: number;
}

/** Rules in the order in which they were added: the first that hits counts, every matching one counts along. */
export class FaultRules<Rule extends FaultMatch> {
  readonly #entries = new Set<Entry<Rule>>();

  add(rule: Rule): ActiveFault {
    const entry = { rule, seen: 0, hits: 0 };
    this.#entries.add(entry);
    return {
      get hits() {
        return entry.hits;
      },
      end: () => void this.#entries.delete(entry),
    };
  }

  strike(operation: OperationKind, key: string): Rule | undefined {
    let struck: Entry<Rule> | undefined;
    for (const entry of this.#entries) {
      const { operation: wanted, keyPrefix = "", nth = 1, count = 1 } = entry.rule;
      if ((wanted !== undefined && wanted !== operation) || !key.startsWith(keyPrefix)) continue;
      entry.seen++;
      if (entry.seen >= nth && entry.seen < nth + count) struck ??= entry;
    }
    if (struck !== undefined) struck.hits++;
    return struck?.rule;
  }
}
