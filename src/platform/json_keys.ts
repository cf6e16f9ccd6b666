/** Keys of JSON objects that are no good: those that JavaScript takes for its own, and those that are there twice. */

export type JsonPath = readonly (string | number)[];

/** More of them help nobody. */
const MOST_TOLD = 20;

/** Keys that every JavaScript object seems to have; a check that took one for known would be a hole. */
export function isForbiddenKey(key: string): boolean {
  // By name as well: the runtime takes `__proto__` away from Object.prototype in some versions.
  return key in Object.prototype || key === "__proto__" || key === "prototype";
}

/** Where such keys are, in any depth. */
export function forbiddenKeys(value: unknown, path: JsonPath = []): JsonPath[] {
  if (typeof value !== "object" || value === null) return [];
  if (Array.isArray(value)) return value.flatMap((item, index) => forbiddenKeys(item, [...path, index]));
  return Object.entries(value).flatMap(([key, inner]) =>
    isForbiddenKey(key) ? [[...path, key]] : forbiddenKeys(inner, [...path, key])
  );
}

/** An object or list that is open, and where in it we are. */
interface Open {
  /** Null: a list. */
  readonly keys: Set<string> | null;
  at: string | number;
  /** True where the next text is a key. */
  wantsKey: boolean;
}

/**
 * Where an object of `text` has a key that it had before: the parser takes the last one without a word. `text` must be
 * what `JSON.parse` took.
 */
export function repeatedKeys(text: string): JsonPath[] {
  const found: JsonPath[] = [];
  const open: Open[] = [];
  for (let i = 0; i < text.length && found.length < MOST_TOLD; i++) {
    const inner = open.at(-1);
    switch (text[i]) {
      case "{":
        open.push({ keys: new Set(), at: "", wantsKey: true });
        break;
      case "[":
        open.push({ keys: null, at: 0, wantsKey: false });
        break;
      case "}":
      case "]":
        open.pop();
        break;
      case ",":
        if (typeof inner?.at === "number") inner.at++;
        else if (inner !== undefined) inner.wantsKey = true;
        break;
      case '"': {
        const end = endOfText(text, i);
        if (inner?.wantsKey === true && inner.keys !== null) {
          const key = String(JSON.parse(text.slice(i, end + 1)));
          inner.at = key;
          inner.wantsKey = false;
          if (inner.keys.has(key)) found.push(open.map(({ at }) => at));
          inner.keys.add(key);
        }
        i = end;
      }
    }
  }
  return found;
}

/** Place of the quote that ends the text that begins at `start`. */
function endOfText(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at;
}
