/** Where the real programs are that tests compare with, or run against. */

function isProgram(path: string): boolean {
  try {
    const { isFile, mode } = Deno.statSync(path);
    return isFile && ((mode ?? 0) & 0o111) !== 0;
  } catch {
    return false;
  }
}

/** STATE_MANAGER_TEST_<NAME>, else the project's own copy, else PATH; null where there is none. */
export function findTool(name: string): string | null {
  const named = Deno.env.get(`STATE_MANAGER_TEST_${name.toUpperCase()}`);
  if (named !== undefined && named !== "") return isProgram(named) ? named : null;
  const own = new URL(`../../.cache/tools/${name}`, import.meta.url).pathname;
  const folders = (Deno.env.get("PATH") ?? "").split(":").filter((folder) => folder !== "");
  return [own, ...folders.map((folder) => `${folder}/${name}`)].find(isProgram) ?? null;
}
