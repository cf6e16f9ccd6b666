/** Which program this is. From source the build is "dev"; tools/compile.ts writes the real one into the bundle. */

/** Equal to deno.json's (a tidy test compares them). */
const VERSION = "0.1.0";

const MARK = "state-manager-build:";
const BAKED = "state-manager-build:dev";

/** `build` tells two binaries of one version apart: `<commit>-<hash of the bundles>`, or "dev". */
export function buildInfo(): { readonly version: string; readonly build: string } {
  return { version: VERSION, build: BAKED.slice(MARK.length) };
}
