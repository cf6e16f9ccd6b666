/** Who starts after whom: the order of all, and whether one edge's condition is met, may be met, or never will be. Pure. */

import type { ErrorDetail } from "../platform/errors.ts";
import { StateManagerError } from "../platform/errors.ts";
import type { Machine } from "./machine.ts";
import type { ProcessSpec } from "./types.ts";

export type Condition = "started" | "ready" | "completed" | "succeeded";

/**
 * Names in levels: each depends on earlier levels only. Starts go up, stops go down, all of a level at once.
 * Throws config-invalid for an unknown name or a cycle, with every problem named.
 */
export function orderOf(
  specs: readonly Pick<ProcessSpec, "name" | "dependsOn">[],
): readonly (readonly string[])[] {
  const names = new Set(specs.map((spec) => spec.name));
  const details: ErrorDetail[] = [];
  for (const { name, dependsOn } of specs) {
    for (const other of Object.keys(dependsOn).filter((other) => !names.has(other))) {
      details.push({
        pointer: `/processes/${name}/depends_on/${other}`,
        detail: `there is no process "${other}"`,
      });
    }
  }
  const levels: string[][] = [];
  const placed = new Set<string>();
  let rest = [...specs];
  while (rest.length > 0 && details.length === 0) {
    const level = rest.filter((spec) => Object.keys(spec.dependsOn).every((other) => placed.has(other)));
    if (level.length === 0) {
      const circle = cycleIn(rest).join(" → ");
      details.push({ pointer: "/processes", detail: `depends_on goes in a circle: ${circle}` });
      break;
    }
    levels.push(level.map((spec) => spec.name));
    for (const spec of level) placed.add(spec.name);
    rest = rest.filter((spec) => !placed.has(spec.name));
  }
  if (details.length > 0) {
    throw new StateManagerError(
      "config-invalid",
      `order processes: ${details.map(({ detail }) => detail).join("; ")}`,
      {
        hint: "name existing processes in depends_on, and no circle",
        details,
      },
    );
  }
  return levels;
}

/** One circle among `specs`, each of which depends on another of them (or on what depends on them). */
function cycleIn(specs: readonly Pick<ProcessSpec, "name" | "dependsOn">[]): string[] {
  const byName = new Map(specs.map((spec) => [spec.name, spec]));
  const path: string[] = [];
  let name = specs[0]?.name;
  while (name !== undefined && !path.includes(name)) {
    path.push(name);
    name = Object.keys(byName.get(name)?.dependsOn ?? {}).find((other) => byName.has(other));
  }
  return name === undefined ? path : [...path.slice(path.indexOf(name)), name];
}

/**
 * What the state of the other process means for a condition on it. `together`: with restart_with, that it was started once
 * and failed since is not enough.
 */
export function conditionOf(
  other: Machine,
  condition: Condition,
  together = false,
): "met" | "open" | "never" {
  switch (other.state) {
    case "starting":
    case "running":
      if (condition === "started") return other.leaderAlive ? "met" : "open";
      if (condition === "ready") return other.ready ? "met" : "open";
      return "open";
    case "completed":
      return condition === "ready" ? "never" : "met";
    case "failed": {
      const ran = other.exit !== null && other.exit.kind !== "spawn-error";
      return (condition === "completed" || (condition === "started" && ran && !together)) ? "met" : "never";
    }
    case "skipped":
      return "never";
    case "pending":
    case "stopped":
      return other.wanted === "up" ? "open" : "never";
    case "waiting":
    case "backoff":
    case "stopping":
    case "draining":
      return "open";
  }
}
