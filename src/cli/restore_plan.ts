/** How the command line shows what a restore would do. */

import type { JsonObject } from "./client.ts";
import { count, printable, size } from "./text.ts";

/** Paths shown to people; `--json` gives all that were told. */
const PATHS_SHOWN = 20;
const MARKS: Readonly<Record<string, string>> = { added: "+", changed: "M", removed: "-" };

/** What a plan would fetch, at most. */
export function fetchText(totals: JsonObject | null): string {
  return totals === null ? "" : `, fetching at most ${size(Number(totals["bytes_transferred"]))}`;
}

/** Lines for each files root of a plan, as the server's view has it. */
export function planText(plan: unknown): string {
  if (!Array.isArray(plan)) return "";
  return plan.map((root: JsonObject) => rootText(root)).join("");
}

function rootText(root: JsonObject): string {
  const sum = (key: string) => {
    const { entries, bytes } = root[key] as { entries: number; bytes: number };
    return `${entries} ${key} (${size(bytes)})`;
  };
  const free = root["free_bytes"];
  const paths = root["paths"] as readonly JsonObject[];
  const total = Number(root["paths_total"]);
  const shown = paths.slice(0, PATHS_SHOWN);
  const lines = [
    `${String(root["name"])}: ${["added", "changed", "removed", "unchanged"].map(sum).join(", ")}`,
    `  needs ${size(Number(root["needed_bytes"]))}${
      typeof free === "number" ? `, ${size(free)} are free` : ""
    }`,
    ...shown.map(({ change, path }) => `  ${MARKS[String(change)] ?? "?"} ${printable(String(path))}`),
    ...(total > shown.length ? [`  … and ${count(total - shown.length, "more path")}`] : []),
  ];
  return lines.join("\n") + "\n";
}
