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

function versionHere(): Version | null {
  const lines = Deno.readTextFileSync("/proc/self/cgroup").split("\n");
  for (const line of lines) {
    const [, controllers = "", path = ""] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    const own = path === "/" ? "" : path;
    if (controllers === "memory") {
      return {
        folder: `/sys/fs/cgroup/memory${own}`,
        limits: ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
      };
    }
    if (controllers !== "" || path === "") continue;
    const folder = `/sys/fs/cgroup${own}`;
    try {
      const given = Deno.readTextFileSync(`${folder}/cgroup.subtree_control`);
      if (given.includes("memory")) return { folder, limits: ["memory.max", "memory.swap.max"] };
    } catch {
      // not mounted
    }
  }
  return null;
}

/** Null where this machine lets nobody make one. */
export function makeMemoryCgroup(limitBytes: number): MemoryCgroup | null {
  const version = versionHere();
  if (version === null) return null;
  const folder = `${version.folder}/state-manager-test-${crypto.randomUUID()}`;
  try {
    Deno.mkdirSync(folder);
  } catch {
    return null;
  }
  for (const [index, name] of version.limits.entries()) {
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
  const version = versionHere();
  if (version === null) return false;
  const folder = `${version.folder}/state-manager-test-${crypto.randomUUID()}`;
  try {
    Deno.mkdirSync(folder);
    Deno.removeSync(folder);
    return true;
  } catch {
    return false;
  }
}
