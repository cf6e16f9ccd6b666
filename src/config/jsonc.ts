/** The file's text to a value: JSON with comments and trailing commas, duplicate keys refused, depth bounded. */

import { createScanner, type Node, type ParseError, parseTree, printParseErrorCode } from "jsonc-parser";
import { isForbiddenKey } from "../platform/json_keys.ts";
import type { KeyPath, Problem } from "./problems.ts";

/** Deeper nesting than any key of ours has; a bound so that no text can exhaust the stack. */
const DEEPEST = 16;
/** No sensible configuration is larger; the API's bodies have the same bound. */
export const LARGEST_CONFIG_CHARACTERS = 1024 * 1024;

function position(text: string, offset: number): string {
  const before = text.slice(0, offset);
  const line = before.split("\n").length;
  return `line ${line}, column ${offset - before.lastIndexOf("\n")}`;
}

function words(code: string): string {
  return code.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
}

/** Looked at before parsing: the parser recurses, and a text of nothing but brackets would exhaust its stack. */
function isTooDeep(text: string): boolean {
  const scanner = createScanner(text, true);
  let depth = 0;
  for (scanner.scan(); scanner.getTokenOffset() < text.length; scanner.scan()) {
    const first = text[scanner.getTokenOffset()]; // a text's token begins with its quote
    if (first === "{" || first === "[") depth++;
    if (first === "}" || first === "]") depth--;
    if (depth > DEEPEST) return true;
  }
  return false;
}

function valueOf(node: Node, path: KeyPath, problems: Problem[]): unknown {
  if (node.type === "array") {
    return (node.children ?? []).map((child, index) => valueOf(child, [...path, String(index)], problems));
  }
  if (node.type !== "object") return node.value;
  const entries = new Map<string, unknown>();
  for (const property of node.children ?? []) {
    const [name, item] = property.children ?? [];
    if (name === undefined || item === undefined) continue;
    const key = String(name.value);
    const at = [...path, key];
    if (isForbiddenKey(key)) problems.push({ at, detail: "unknown key" });
    else if (entries.has(key)) problems.push({ at, detail: "got this key twice, wanted it once" });
    else entries.set(key, valueOf(item, at, problems));
  }
  return Object.fromEntries(entries);
}

/** Value and problems; the value is undefined when the text is not JSON. `source` names the file in problems. */
export function parseJsonc(text: string, source: string): { value: unknown; problems: Problem[] } {
  if (text.length > LARGEST_CONFIG_CHARACTERS) {
    return {
      value: undefined,
      problems: [{
        at: source,
        detail: `got ${text.length} characters, wanted at most ${LARGEST_CONFIG_CHARACTERS}`,
      }],
    };
  }
  if (isTooDeep(text)) {
    return {
      value: undefined,
      problems: [{ at: source, detail: `got more than ${DEEPEST} levels, wanted fewer` }],
    };
  }
  const errors: ParseError[] = [];
  const problems: Problem[] = [];
  const tree = parseTree(text.replace(/^\ufeff/, ""), errors, { allowTrailingComma: true });
  for (const error of errors) {
    const what = words(printParseErrorCode(error.error));
    problems.push({ at: source, detail: `${position(text, error.offset)}: ${what}, wanted JSON` });
  }
  if (tree === undefined || errors.length > 0) {
    if (errors.length === 0) problems.push({ at: source, detail: "got an empty file, wanted a JSON object" });
    return { value: undefined, problems };
  }
  return { value: valueOf(tree, [], problems), problems };
}

/** The same bounds for a value that was parsed elsewhere (an API body). */
export function checkShape(value: unknown, path: KeyPath = []): Problem[] {
  if (path.length >= DEEPEST) return [{ at: path, detail: `got more than ${DEEPEST} levels, wanted fewer` }];
  if (Array.isArray(value)) return value.flatMap((item, index) => checkShape(item, [...path, String(index)]));
  if (typeof value !== "object" || value === null) return [];
  return Object.keys(value).flatMap((key) => {
    const at = [...path, key];
    if (isForbiddenKey(key)) return [{ at, detail: "unknown key" }];
    return checkShape((value as Record<string, unknown>)[key], at);
  });
}
