/**
 * The one way to find this program again: its own children (`__archive`, …), its Workers and its assets, from
 * source, under `deno test`, bundled, and compiled. The bundler does not rewrite `new URL(…, import.meta.url)`,
 * so nothing else in the tree may resolve a module path by itself.
 */

const fromSource = import.meta.url.endsWith("/src/platform/entry.ts");
const root = new URL(fromSource ? "../../" : "./", import.meta.url);

/** Saved at start: after an upgrade in place `Deno.execPath()` says "… (deleted)", this path is the new version. */
const executable = Deno.execPath();

/** argv that runs this same program with `args`, e.g. `["__archive"]`. */
export function selfCommand(args: readonly string[]): { command: string; args: string[] } {
  if (Deno.build.standalone) return { command: executable, args: [...args] };
  const main = new URL(fromSource ? "main.ts" : "main.js", root).pathname;
  const flags = fromSource ? ["--config", new URL("deno.json", root).pathname] : ["--no-config"];
  return { command: executable, args: ["run", "-A", "--quiet", ...flags, main, ...args] };
}

/** URL of the Worker whose module is `path`, relative to the project's root and without extension. */
export function workerUrl(path: string): URL {
  return new URL(path + (fromSource ? ".ts" : ".js"), root);
}

/** URL of a file that ships with the program; the relative path is the same in source, bundle and binary. */
export function assetUrl(path: string): URL {
  return new URL(path, root);
}
