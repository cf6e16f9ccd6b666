/** The order of start: built-in stacks and single components by name, resolved to names that are all known. */

import type { Problem } from "./problems.ts";
import type { ParsedConfig } from "./schema.ts";
import { didYouMean } from "./suggest.ts";

/** In the order in which they start when `stacks` is left out. */
const BUILT_IN = ["lease", "databases", "files", "processes"] as const;
/** Belongs to the language; nothing can be configured under it in this version. */
const WITHOUT_CONTENT = ["mounts"];
/** Built-in stacks of components that have names, and what one of them is called. */
const SECTIONS = ["databases", "files", "processes"] as const;
type Section = (typeof SECTIONS)[number];
const CALLED: Readonly<Record<Section, string>> = {
  databases: "a database",
  files: "files",
  processes: "a process",
};

/**
 * The stacks to start. `lease` is always the first: nothing may touch the data before it. Names of two components
 * that are the same, or that of a built-in stack, are problems.
 */
export function resolveStacks(parsed: ParsedConfig, problems: Problem[], warnings: string[]): string[] {
  const names = {
    databases: Object.keys(parsed.databases ?? {}),
    files: Object.keys(parsed.files ?? {}),
    processes: Object.keys(parsed.processes ?? {}),
  };
  for (const section of SECTIONS) {
    for (const name of names[section]) {
      if (![...BUILT_IN, ...WITHOUT_CONTENT].includes(name)) continue;
      problems.push({ at: [section, name], detail: "got the name of a built-in stack, wanted another name" });
    }
  }
  if (parsed.stacks === undefined) {
    return ["lease", ...SECTIONS.filter((section) => names[section].length > 0)];
  }
  const known = [...BUILT_IN, ...WITHOUT_CONTENT, ...SECTIONS.flatMap((section) => names[section])];
  parsed.stacks.forEach((name, index) => {
    const at = ["stacks", String(index)];
    const [one, other] = SECTIONS.filter((section) => names[section].includes(name));
    const wanted = `${didYouMean(name, known) || ","} wanted one of ${[...new Set(known)].join(", ")}`;
    if (!known.includes(name)) problems.push({ at, detail: `got a stack that is not configured${wanted}` });
    else if (parsed.stacks?.indexOf(name) !== index) {
      problems.push({ at, detail: "got this stack twice, wanted it once" });
    } else if (one !== undefined && other !== undefined) {
      problems.push({
        at,
        detail: `got a name of ${CALLED[one]} and of ${CALLED[other]}, wanted two different names`,
      });
    } else if (name === "lease" && index > 0) {
      problems.push({ at, detail: "got lease after others, wanted it first" });
    }
  });
  const stacks = [
    "lease",
    ...parsed.stacks.filter((name) => name !== "lease" && !WITHOUT_CONTENT.includes(name)),
  ];
  checkCoverage(parsed, names, stacks, problems, warnings);
  return stacks;
}

function checkCoverage(
  parsed: ParsedConfig,
  names: Readonly<Record<Section, readonly string[]>>,
  stacks: string[],
  problems: Problem[],
  warnings: string[],
): void {
  const started = (section: Section, name: string) => stacks.includes(section) || stacks.includes(name);
  for (const section of ["databases", "files"] as const) {
    for (const name of names[section]) {
      if (started(section, name)) continue;
      warnings.push(`${section}.${name} is in no stack: it is neither restored nor kept`);
    }
  }
  const processes = parsed.processes ?? {};
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
}
