/** A memory control group of the machine's own, in either version: what lets a test run out of memory for real. */

import { waitFor } from "./manager_process.ts";

export interface MemoryCgroup extends AsyncDisposable {
  /** Runs what comes after it inside the group. */
  readonly wrap: readonly string[];
}

interface Version {
  readonly folder: string;
  /** Written in this order; those of swap may be missing. */
  readonly limits: readonly string[];
}

/** Where one could be made: below our own group, else below the root that we see. */
function versionsHere(): readonly Version[] {
  const versions: Version[] = [];
  for (const line of Deno.readTextFileSync("/proc/self/cgroup").split("\n")) {
    const [, controllers = "", path = ""] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    for (const below of new Set([path === "/" ? "" : path, ""])) {
      if (controllers === "memory") {
        const limits = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
        versions.push({ folder: `/sys/fs/cgroup/memory${below}`, limits });
      }
      if (controllers === "" && path !== "" && givesMemory(`/sys/fs/cgroup${below}`)) {
        versions.push({ folder: `/sys/fs/cgroup${below}`, limits: ["memory.max", "memory.swap.max"] });
      }
    }
  }
  return versions;
}

function givesMemory(folder: string): boolean {
  try {
    return Deno.readTextFileSync(`${folder}/cgroup.subtree_control`).includes("memory");
  } catch {
    return false; // not mounted
  }
}

function makeFolder(): { readonly folder: string; readonly limits: readonly string[] } | null {
  for (const { folder: parent, limits } of versionsHere()) {
    const folder = `${parent}/state-manager-test-${crypto.randomUUID()}`;
    try {
      Deno.mkdirSync(folder);
      return { folder, limits };
    } catch {
      // the next one
    }
  }
  return null;
}

/** Null where this machine lets nobody make one. */
export function makeMemoryCgroup(limitBytes: number): MemoryCgroup | null {
  const made = makeFolder();
  if (made === null) return null;
  const { folder, limits } = made;
  for (const [index, name] of limits.entries()) {
    try {
      const isSwap = name === "memory.swap.max";
      Deno.writeTextFileSync(`${folder}/${name}`, isSwap ? "0" : String(limitBytes), { create: false });
    } catch (error) {
      if (index === 0) {
        Deno.removeSync(folder);
        throw error;
      }
    }
  }
  return {
    wrap: ["sh", "-c", 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"', "sh", folder],
    async [Symbol.asyncDispose]() {
      // Busy until the last of its processes is reaped.
      await waitFor("an empty control group", () => {
        Deno.removeSync(folder);
        return true;
      });
    },
  };
}

/** Whether `makeMemoryCgroup` works here. */
export function canMakeMemoryCgroup(): boolean {
  const made = makeFolder();
  if (made !== null) Deno.removeSync(made.folder);
  return made !== null;
}
