/** What this process was started with and in: variables, user, folder, container; and files of the configuration's kind. */

import { localFileError } from "./files.ts";

/** All variables of this process, as they are now. */
export function environmentVariables(): Record<string, string> {
  return Deno.env.toObject();
}

/** The folder that relative paths on the command line start from. */
export function currentFolder(): string {
  return Deno.cwd();
}

export function isRoot(): boolean {
  return Deno.uid() === 0;
}

/** Files that container engines leave in every container: Docker's, Podman's. */
const CONTAINER_MARKS = ["/.dockerenv", "/run/.containerenv"];

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** True in a container as far as one can tell: process 1, an engine's mark, or Kubernetes' variable. */
export function inContainer(): boolean {
  return Deno.pid === 1 || CONTAINER_MARKS.some(exists) || Deno.env.has("KUBERNETES_SERVICE_HOST") ||
    Deno.env.has("container");
}

/** Permission bits of a file, or null when there is none or the system has no such thing. */
export async function fileMode(path: string): Promise<number | null> {
  try {
    return (await Deno.stat(path)).mode;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw localFileError(`look at ${path}`, error);
  }
}

/** Names of the regular files in a folder, links to files included (mounted secrets are links), sorted. */
export async function listFiles(path: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(path)) {
      const info = entry.isSymlink ? await Deno.stat(`${path}/${entry.name}`).catch(() => null) : entry;
      if (info?.isFile) names.push(entry.name);
    }
  } catch (error) {
    throw localFileError(`read folder ${path}`, error);
  }
  return names.sort();
}

/** The same in one turn, or what is wrong: for what must be known between two steps of a spawn. */
export function listFilesNow(path: string): string[] | string {
  try {
    return [...Deno.readDirSync(path)]
      .filter(({ name, isFile, isSymlink }) =>
        isFile || (isSymlink && Deno.statSync(`${path}/${name}`).isFile)
      )
      .map(({ name }) => name).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "does not exist";
    return error instanceof Error ? error.message : String(error);
  }
}
