/** Globs over file names: `*` is any characters, none included, `?` one, all else itself. */

/** True when `name` as a whole is what `pattern` means. A leading dot must be in the pattern, as in a shell. */
export function matchesPattern(pattern: string, name: string): boolean {
  if (name.startsWith(".") && !pattern.startsWith(".")) return false;
  // Goes back to the last star alone: what an earlier one could take, that one can take too.
  let [at, star, retry] = [0, -1, 0];
  for (let i = 0; i < name.length;) {
    if (pattern[at] === "*") [star, retry] = [at++, i];
    else if (pattern[at] === "?" || pattern[at] === name[i]) [at, i] = [at + 1, i + 1];
    else if (star >= 0) [at, i] = [star + 1, ++retry];
    else return false;
  }
  return /^\**$/.test(pattern.slice(at));
}

/** True when some name may be meant by both patterns. */
export function patternsMeet(one: string, other: string): boolean {
  const known = new Map<number, boolean>();
  const meet = (i: number, j: number): boolean => {
    const [a, b] = [one[i], other[j]];
    if (a === undefined && b === undefined) return true;
    if (a === "*") return from(i + 1, j) || (b !== undefined && from(i, j + 1));
    if (b === "*") return from(i, j + 1) || (a !== undefined && from(i + 1, j));
    if (a === undefined || b === undefined) return false;
    return (a === b || a === "?" || b === "?") && from(i + 1, j + 1);
  };
  const from = (i: number, j: number): boolean => {
    const place = i * (other.length + 1) + j;
    const found = known.get(place);
    if (found !== undefined) return found;
    const result = meet(i, j);
    known.set(place, result);
    return result;
  };
  return from(0, 0);
}
