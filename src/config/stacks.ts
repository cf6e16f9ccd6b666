/** The order of start: built-in stacks and single components by name, resolved to names that are all known. */

import type { Problem } from "./problems.ts";
import type { ParsedConfig } from "./schema.ts";
import { didYouMean } from "./suggest.ts";

/** In the order in which they start when `stacks` is left out. */
const BUILT_IN = ["lease", "files", "processes"] as const;
/** Belong to the language; nothing can be configured under them in this version. */
const WITHOUT_CONTENT = ["mounts", "databases"];

/**
 * The stacks to start. `lease` is always the first: nothing may touch the data before it. Names of two components
 * that are the same, or that of a built-in stack, are problems.
 */
export function resolveStacks(parsed: ParsedConfig, problems: Problem[], warnings: string[]): string[] {
  const processes = Object.keys(parsed.processes ?? {});
  const files = Object.keys(parsed.files ?? {});
  for (const [section, names] of [["processes", processes], ["files", files]] as const) {
    for (const name of names) {
      if (![...BUILT_IN, ...WITHOUT_CONTENT].includes(name)) continue;
      problems.push({ at: [section, name], detail: "got the name of a built-in stack, wanted another name" });
    }
  }
  if (parsed.stacks === undefined) {
    return ["lease", ...(files.length > 0 ? ["files"] : []), ...(processes.length > 0 ? ["processes"] : [])];
  }
  const known = [...BUILT_IN, ...WITHOUT_CONTENT, ...files, ...processes];
  parsed.stacks.forEach((name, index) => {
    const at = ["stacks", String(index)];
    const wanted = didYouMean(name, known) || `, wanted one of ${known.join(", ")}`;
    if (!known.includes(name)) problems.push({ at, detail: `got a stack that is not configured${wanted}` });
    else if (parsed.stacks?.indexOf(name) !== index) {
      problems.push({ at, detail: "got this stack twice, wanted it once" });
    } else if (files.includes(name) && processes.includes(name)) {
      problems.push({ at, detail: "got a name of files and of a process, wanted two different names" });
    } else if (name === "lease" && index > 0) {
      problems.push({ at, detail: "got lease after others, wanted it first" });
    }
  });
  const stacks = [
    "lease",
    ...parsed.stacks.filter((name) => name !== "lease" && !WITHOUT_CONTENT.includes(name)),
  ];
  checkCoverage(parsed, stacks, problems, warnings);
  return stacks;
}

function checkCoverage(
  parsed: ParsedConfig,
  stacks: string[],
  problems: Problem[],
  warnings: string[],
): void {
  const started = (section: "files" | "processes", name: string) =>
    stacks.includes(section) || stacks.includes(name);
  const processes = parsed.processes ?? {};
  for (const name of Object.keys(parsed.files ?? {})) {
    if (!started("files", name)) {
      warnings.push(`files.${name} is in no stack: it is neither restored nor kept`);
    }
  }
  for (const [name, process] of Object.entries(processes)) {
    if (!started("processes", name)) {
      warnings.push(`processes.${name} is in no stack: it is not started`);
      continue;
    }
    for (const other of Object.keys(process.depends_on ?? {})) {
      if (!Object.hasOwn(processes, other) || started("processes", other)) continue;
      problems.push({
        at: ["processes", name, "depends_on", other],
        detail: "got a process that is in no stack, wanted it started",
      });
    }
  }
  const position = (section: "files" | "processes", names: readonly string[]) =>
    stacks.flatMap((stack, index) => stack === section || names.includes(stack) ? [index] : []);
  const firstProcess = Math.min(...position("processes", Object.keys(processes)));
  const lastFiles = Math.max(-1, ...position("files", Object.keys(parsed.files ?? {})));
  if (firstProcess < lastFiles) {
    warnings.push("stacks: a process starts before files are restored; it must not use them by then");
  }
}
