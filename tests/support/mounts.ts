/** System tools that a test may lack, and whether this user may mount: a test that needs it says "[needs mount]". */

import { isRoot } from "../../src/platform/libc_files.ts";

/** Asked once, before any test: it loads libc, which older runtimes count as a leak of the test that does it. */
const asRoot = isRoot();

/** Runs a system tool; false where it is missing or does not work (no right to mount, say). */
export function tool(command: string, ...args: string[]): boolean {
  try {
    return new Deno.Command(command, { args, stdin: "null", stdout: "null", stderr: "null" }).outputSync()
      .success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function probe(mount: (folder: string) => readonly string[]): boolean {
  if (!asRoot) return false;
  const folder = Deno.makeTempDirSync({ prefix: "mount-probe-" });
  try {
    for (const name of ["lower", "upper", "work", "target"]) Deno.mkdirSync(`${folder}/${name}`);
    const target = `${folder}/target`;
    return tool("mount", ...mount(folder), target) && tool("umount", target);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

export function overlayLayers(folder: string): string {
  return ["lower", "upper", "work"].map((name) => `${name}dir=${folder}/${name}`).join(",");
}

export const canMount = probe(() => ["-t", "tmpfs", "none"]);
export const canMountOverlay = probe((folder) => ["-t", "overlay", "-o", overlayLayers(folder), "none"]);
/** Mounts that only the test's own processes see. */
export const canUnshareMounts = asRoot &&
  tool("unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt");
