/**
 * One pattern of gitignore's form against paths, as git itself understands it (gitignore(5), and for what that page
 * leaves open, `git check-ignore`). Matching takes time in proportion to pattern times path, whatever the pattern is,
 * so no regular expressions: `*a*a*a*b` would cost one seconds per name. Pure.
 */

/** One thing that matches one character, or `*`. */
type Token =
  | { readonly kind: "character"; readonly character: string }
  | { readonly kind: "any" }
  | { readonly kind: "star" }
  | { readonly kind: "class"; readonly has: (character: string) => boolean };

/** The part of a pattern between two slashes says which names it means; `**` alone stands for any number of folders. */
type Segment = ((name: string) => boolean) | "**";

export interface Pattern {
  readonly directoryOnly: boolean;
  /** A `!pattern` brings back what an earlier one left out. */
  readonly keep: boolean;
  /** `path` is relative to the root, `/` between names. */
  readonly matches: (path: string) => boolean;
}

/** Null for what is no pattern: an empty line, a comment, or one that git says can match nothing. */
export function parsePattern(line: string): Pattern | null {
  if (line.startsWith("#")) return null;
  let glob = withoutTrailingBlanks(line);
  const keep = glob.startsWith("!");
  if (keep) glob = glob.slice(1);
  const directoryOnly = glob.endsWith("/");
  if (directoryOnly) glob = glob.slice(0, -1);
  if (glob === "") return null;
  // A slash at the beginning or in the middle ties the pattern to the root; else it matches a name at every depth.
  const anchored = glob.includes("/");
  const segments = segmentsOf(glob.startsWith("/") ? glob.slice(1) : glob);
  if (segments === null) return null;
  const [only] = segments;
  const matches = anchored || only === undefined
    ? (path: string) => matchesPath(segments, path.split("/"))
    : (path: string) => only === "**" || only(path.slice(path.lastIndexOf("/") + 1));
  return { directoryOnly, keep, matches };
}

/** Blanks at the end do not count, unless a backslash is before them. */
function withoutTrailingBlanks(line: string): string {
  let end = line.length;
  while (end > 0 && line[end - 1] === " ") end--;
  let backslashes = 0;
  while (backslashes < end && line[end - 1 - backslashes] === "\\") backslashes++;
  const escaped = backslashes % 2 === 1 && end < line.length;
  return line.slice(0, escaped ? end + 1 : end);
}

const isFolders = (text: string) => /^\*\*+$/.test(text);
const anyName = () => true;

/** Null where a bracket is not closed or nothing follows a backslash. */
function segmentsOf(glob: string): Segment[] | null {
  const segments: Segment[] = [];
  let tokens: Token[] = [];
  let start = 0;
  const close = (end: number) => {
    segments.push(isFolders(glob.slice(start, end)) ? "**" : nameMatcher(tokens));
    tokens = [];
    start = end + 1;
  };
  for (let at = 0; at < glob.length; at++) {
    const character = glob[at] ?? "";
    if (character === "/") close(at);
    else if (character === "?") tokens.push({ kind: "any" });
    else if (character === "*") {
      if (tokens.at(-1)?.kind !== "star") tokens.push({ kind: "star" });
    } else if (character === "[") {
      const found = classAt(glob, at);
      if (found === null) return null;
      tokens.push(found.token);
      at = found.end;
    } else if (character === "\\") {
      at++;
      if (at === glob.length) return null;
      const point = glob.codePointAt(at);
      const escaped = point === undefined ? "" : String.fromCodePoint(point);
      if (escaped === "/") {
        const folders = isFolders(glob.slice(start, at - 1));
        close(at - 1);
        start = at + 1;
        if (folders) segments.push(anyName); // for git, `**` with an escaped slash is one folder at least
      } else tokens.push({ kind: "character", character: escaped });
      at += escaped.length - 1;
    } else {
      const whole = String.fromCodePoint(glob.codePointAt(at) ?? 0);
      tokens.push({ kind: "character", character: whole });
      at += whole.length - 1;
    }
  }
  close(glob.length);
  return segments;
}

const CLASSES: ReadonlyMap<string, RegExp> = new Map([
  ["alnum", /^[0-9A-Za-z]$/],
  ["alpha", /^[A-Za-z]$/],
  ["blank", /^[ \t]$/],
  // deno-lint-ignore no-control-regex
  ["cntrl", /^[\x00-\x1f\x7f]$/],
  ["digit", /^[0-9]$/],
  ["graph", /^[\x21-\x7e]$/],
  ["lower", /^[a-z]$/],
  ["print", /^[\x20-\x7e]$/],
  ["punct", /^[!-/:-@[-`{-~]$/],
  ["space", /^[\t-\r ]$/],
  ["upper", /^[A-Z]$/],
  ["xdigit", /^[0-9A-Fa-f]$/],
]);

/** The class that begins with the bracket at `start`, and where its closing bracket is. */
function classAt(glob: string, start: number): { readonly token: Token; readonly end: number } | null {
  const tests: ((character: string) => boolean)[] = [];
  let at = start + 1;
  const negated = glob[at] === "!" || glob[at] === "^";
  if (negated) at++;
  let before: string | null = null; // what a "-" that follows begins a range with
  for (let first = true; first || glob[at] !== "]"; first = false) {
    if (at >= glob.length) return null;
    const named = glob.startsWith("[:", at) ? /^\[:([^\]]*):\]/.exec(glob.slice(at)) : null;
    if (named !== null) {
      const test = CLASSES.get(named[1] ?? "");
      if (test === undefined) return null;
      tests.push((character) => test.test(character));
      at += named[0].length;
      before = null;
      continue;
    }
    const isRange: boolean = glob[at] === "-" && before !== null && at + 1 < glob.length &&
      glob[at + 1] !== "]";
    if (isRange) at++;
    const literal = literalAt(glob, at);
    if (literal === null) return null;
    at += literal.length;
    const from = isRange ? before ?? "" : literal.character;
    tests.push((character) => isBetween(character, from, literal.character));
    before = isRange ? null : literal.character;
  }
  // A slash is between names, and in none.
  const has = (character: string) => tests.some((test) => test(character)) !== negated;
  return { token: { kind: "class", has }, end: at };
}

function literalAt(
  glob: string,
  start: number,
): { readonly character: string; readonly length: number } | null {
  const escaped = glob[start] === "\\";
  const point = glob.codePointAt(start + (escaped ? 1 : 0));
  if (point === undefined) return null;
  const character = String.fromCodePoint(point);
  return { character, length: character.length + (escaped ? 1 : 0) };
}

function isBetween(character: string, from: string, to: string): boolean {
  const point = character.codePointAt(0) ?? 0;
  return point >= (from.codePointAt(0) ?? 0) && point <= (to.codePointAt(0) ?? 0);
}

function matchesToken(token: Token, character: string): boolean {
  if (token.kind === "character") return token.character === character;
  return token.kind === "any" || (token.kind === "class" && token.has(character));
}

/**
 * `items` against `pattern`, in which a wildcard stands for any number of items. When something does not fit, only the
 * last wildcard takes one more: what an earlier one took was the least it could, and more would gain nothing.
 */
function matchesSequence<Item, Part>(
  pattern: readonly Part[],
  items: readonly Item[],
  isWildcard: (part: Part) => boolean,
  fits: (part: Part, item: Item) => boolean,
): boolean {
  let p = 0;
  let i = 0;
  let retry: { p: number; i: number } | null = null;
  while (i < items.length) {
    const part = pattern[p];
    const item = items[i] as Item;
    if (part !== undefined && isWildcard(part)) {
      retry = { p: ++p, i };
    } else if (part !== undefined && fits(part, item)) {
      p++;
      i++;
    } else if (retry !== null) {
      p = retry.p;
      i = ++retry.i;
    } else return false;
  }
  while (p < pattern.length && isWildcard(pattern[p] as Part)) p++;
  return p === pattern.length;
}

const isStar = (token: Token) => token.kind === "star";

function nameMatcher(tokens: readonly Token[]): (name: string) => boolean {
  const literal = tokens.map((token) => token.kind === "character" ? token.character : null);
  if (!literal.includes(null)) {
    const text = literal.join("");
    return (name) => name === text;
  }
  return (name) => matchesSequence(tokens, [...name], isStar, matchesToken);
}

const isWild = (segment: Segment) => segment === "**";
const matchesSegment = (segment: Segment, name: string) => segment !== "**" && segment(name);

/** `**` at the end is all that is inside, and not the folder itself. */
function matchesPath(segments: readonly Segment[], names: readonly string[]): boolean {
  const inside = segments.length > 1 && segments.at(-1) === "**";
  const wanted: readonly Segment[] = inside ? [...segments, anyName] : segments;
  return matchesSequence(wanted, names, isWild, matchesSegment);
}
