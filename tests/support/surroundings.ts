/**
 * What a container may make of the program: process 1 of its PID namespace, a child of tini, a user without rights, a
 * root folder that nobody can write to. Made by unshare, so that a test needs no image.
 */

import { findTool } from "./find_tool.ts";
import { binaryPath } from "./manager_process.ts";
import { isRoot } from "./small_root.ts";

/** No account has it. */
const NOBODY = "65534";

export interface Surroundings {
  readonly name: string;
  /** For the name of a test. */
  readonly needs: string;
  readonly missing: boolean;
  /** PID 1 of its namespace is the manager itself. */
  readonly isInit: boolean;
  readonly isRoot: boolean;
  /** argv to put before the program; `folder` is the only one that it may write to. */
  wrap(folder: string): string[];
  /** Variables that a container of this kind needs. */
  env(folder: string): Record<string, string>;
}

const tini = findTool("tini");
const canUnshare = isRoot && works("unshare", "--mount", "--pid", "--fork", "true");
const UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
/** The scratch folder is a mount of its own, so it stays as it is when the root becomes read-only. */
const READ_ONLY = `mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro / &&
  for place in /tmp /var/tmp /dev/shm /run; do
    ! mountpoint -q "$place" || mount -o remount,bind,ro "$place" || exit 1
  done; shift; exec "$@"`;

function works(command: string, ...args: string[]): boolean {
  try {
    return new Deno.Command(command, { args, stdin: "null", stdout: "null", stderr: "null" }).outputSync()
      .success;
  } catch {
    return false;
  }
}

/** As on a machine where the manager is one program of many: what it leaves would be there afterwards. */
export const PLAIN: Surroundings = {
  name: "a plain program",
  needs: "",
  missing: false,
  isInit: true,
  isRoot: true,
  wrap: () => [],
  env: () => ({}),
};

/** Where the home of root cannot be read or the cache of packages not be written, the program does not run from source. */
export const SURROUNDINGS: readonly Surroundings[] = [
  {
    name: "PID 1",
    needs: "[needs root]",
    missing: !canUnshare,
    isInit: true,
    isRoot: true,
    wrap: () => UNSHARE,
    env: () => ({}),
  },
  {
    name: "a child of tini",
    needs: "[needs root] [needs tini]",
    missing: !canUnshare || tini === null,
    isInit: false,
    isRoot: true,
    wrap: () => [...UNSHARE, tini ?? "tini", "--"],
    env: () => ({}),
  },
  {
    name: "PID 1 without rights",
    needs: "[needs root] [needs binary]",
    missing: !canUnshare || binaryPath === null,
    isInit: true,
    isRoot: false,
    wrap: () => [
      ...UNSHARE,
      ...["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--bounding-set", "-all"],
    ],
    env: (folder) => ({ HOME: folder }),
  },
  {
    name: "PID 1 on a read-only root",
    needs: "[needs root] [needs binary]",
    missing: !canUnshare || binaryPath === null,
    isInit: true,
    isRoot: true,
    wrap: (folder) => [...UNSHARE, "sh", "-c", READ_ONLY, "sh", folder],
    env: (folder) => ({ HOME: folder, TMPDIR: folder }),
  },
];

/**
 * One test of the same in each of `places` at once, since most of it is waiting; a place that is not to be had is a
 * test of its own that is left out.
 */
export function testEach(
  places: readonly Surroundings[],
  what: string,
  run: (surroundings: Surroundings) => Promise<void>,
): void {
  for (const { name, needs } of places.filter(({ missing }) => missing)) {
    Deno.test({ name: `${name}: ${what} ${needs}`, ignore: true, fn: () => {} });
  }
  const there = places.filter(({ missing }) => !missing);
  if (there.length === 0) return;
  Deno.test(`${there.map(({ name }) => name).join(", ")}: ${what}`, async () => {
    const ends = await Promise.allSettled(there.map(run));
    const failures = ends.flatMap((end, index) =>
      end.status === "fulfilled" ? [] : [new Error(there[index]?.name, { cause: end.reason })]
    );
    if (failures.length > 0) throw failures.length === 1 ? failures[0] : new AggregateError(failures);
  });
}
