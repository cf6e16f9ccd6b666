/** A value without some of its parts, in one walk however many they are: a body may have tens of thousands that are wrong. */

import type { KeyPath } from "./problems.ts";

interface Cuts {
  isGone: boolean;
  readonly inner: Map<string, Cuts>;
}

function cutsOf(paths: readonly KeyPath[]): Cuts {
  const root: Cuts = { isGone: false, inner: new Map() };
  for (const path of paths) {
    let at = root;
    for (const part of path) {
      const next = at.inner.get(part) ?? { isGone: false, inner: new Map() };
      at.inner.set(part, next);
      at = next;
    }
    at.isGone = true;
  }
  return root;
}

function cut(value: unknown, { inner }: Cuts): unknown {
  if (inner.size === 0 || typeof value !== "object" || value === null) return value;
  const kept = (entries: [string, unknown][]) =>
    entries.flatMap(([key, item]): [string, unknown][] => {
      const cuts = inner.get(key);
      if (cuts === undefined) return [[key, item]];
      return cuts.isGone ? [] : [[key, cut(item, cuts)]];
    });
  if (Array.isArray(value)) {
    return kept(value.map((item, index) => [String(index), item])).map(([, item]) => item);
  }
  return Object.fromEntries(kept(Object.entries(value)));
}

/** `paths` are of `value` as it is, list positions too; one that is not there changes nothing, nor does the whole value's. */
export function withoutPaths(value: unknown, paths: readonly KeyPath[]): unknown {
  return cut(value, cutsOf(paths));
}
