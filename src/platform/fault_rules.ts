/** Which operations a fault hits: one way to count for stores, file systems, and the services and proxies of tests. */

export interface FaultMatch<Operation extends string> {
  /** Left out: every kind. */
  readonly operation?: Operation;
  /** Which of the matching operations it hits first, from 1 (default 1). */
  readonly nth?: number;
  /** How many it hits from there on (default 1); Infinity for all. */
  readonly count?: number;
}

export interface ActiveFault {
  /** Operations that this rule struck. */
  readonly hits: number;
  /** Operations that it matched. */
  readonly seen: number;
  end(): void;
}

interface Entry<Rule> {
  readonly rule: Rule;
  seen: number;
  hits: number;
}

/** Rules in the order in which they were added: the first that hits counts, every matching one counts along. */
export class FaultRules<Operation extends string, Rule extends FaultMatch<Operation>> {
  readonly #isAbout: (rule: Rule, operation: Operation, subject: string) => boolean;
  readonly #entries = new Set<Entry<Rule>>();

  /** `isAbout`: whether a rule is about this subject (a key, a path). */
  constructor(isAbout: (rule: Rule, operation: Operation, subject: string) => boolean) {
    this.#isAbout = isAbout;
  }

  add(rule: Rule): ActiveFault {
    const entry = { rule, seen: 0, hits: 0 };
    this.#entries.add(entry);
    return {
      get hits() {
        return entry.hits;
      },
      get seen() {
        return entry.seen;
      },
      end: () => void this.#entries.delete(entry),
    };
  }

  strike(operation: Operation, subject: string): Rule | undefined {
    let struck: Entry<Rule> | undefined;
    for (const entry of this.#entries) {
      const { operation: wanted, nth = 1, count = 1 } = entry.rule;
      if (wanted !== undefined && wanted !== operation) continue;
      if (!this.#isAbout(entry.rule, operation, subject)) continue;
      entry.seen++;
      if (entry.seen >= nth && entry.seen < nth + count) struck ??= entry;
    }
    if (struck !== undefined) struck.hits++;
    return struck?.rule;
  }
}
