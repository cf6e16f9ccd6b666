/**
 * `${VAR}`, `${VAR:-default}` and `$$` in the file's texts. Never in commands, which belong to a shell or to nobody,
 * and never in API bodies: those are escaped before they are persisted, so that they read back as they were sent.
 */

import type { KeyPath, Problem } from "./problems.ts";

const VARIABLE_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

type Expansion = { readonly text: string } | { readonly problem: string };

/** One text. `:-` takes its default where the variable is unset or empty, as a shell does. */
export function expandText(text: string, variables: Readonly<Record<string, string>>): Expansion {
  let problem: string | undefined;
  const expanded = text.replace(
    /\$\$|\$\{([^}]*)(\}?)/g,
    (match, inner: string | undefined, close: string) => {
      if (match === "$$") return "$";
      const [, name = "", fallback] = /^([^:]*)(?::-([\s\S]*))?$/.exec(inner ?? "") ?? [];
      if (close === "" || !VARIABLE_NAME.test(name)) {
        problem ??= 'got a "${" that is no reference, wanted ${NAME}, ${NAME:-default}, or $$ for a dollar';
        return "";
      }
      const value = Object.hasOwn(variables, name) ? variables[name] : undefined;
      if (fallback !== undefined) return value === undefined || value === "" ? fallback : value;
      if (value === undefined) {
        problem ??= `got \${${name}} with ${name} unset, wanted it set, or \${${name}:-default}`;
      }
      return value ?? "";
    },
  );
  return problem === undefined ? { text: expanded } : { problem };
}

/** The text that `expandText` turns back into `text`, whatever the variables. */
export function escapeText(text: string): string {
  return text.replaceAll("$", "$$$$"); // in a replacement "$$" stands for one dollar
}

/** Commands are passed on untouched. */
function isCommand(path: KeyPath): boolean {
  if (path.length === 2) return path[0] === "checkpoint" && (path[1] === "before" || path[1] === "after");
  if (path[0] !== "processes") return false;
  return (path.length === 3 && path[2] === "command") ||
    (path.length === 6 && path[2] === "probes" && path[4] === "exec" && path[5] === "command");
}

function mapTexts(value: unknown, path: KeyPath, change: (text: string, path: KeyPath) => string): unknown {
  if (isCommand(path)) return value;
  if (typeof value === "string") return change(value, path);
  if (Array.isArray(value)) {
    return value.map((item, index) => mapTexts(item, [...path, String(index)], change));
  }
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, mapTexts(item, [...path, key], change)]),
    );
  }
  return value;
}

/** A copy of the file's value with every reference replaced; what cannot be is a problem and stays as it is. */
export function expandValue(
  value: unknown,
  variables: Readonly<Record<string, string>>,
): { value: unknown; problems: Problem[] } {
  const problems: Problem[] = [];
  const expanded = mapTexts(value, [], (text, path) => {
    const expansion = expandText(text, variables);
    if ("text" in expansion) return expansion.text;
    problems.push({ at: path, detail: expansion.problem });
    return text;
  });
  return { value: expanded, problems };
}

/** A copy of an API body in the file's language: reading it back with expansion gives the body. */
export function escapeValue(value: unknown): unknown {
  return mapTexts(value, [], escapeText);
}
