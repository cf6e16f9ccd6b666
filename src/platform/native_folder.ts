/**
 * Where a compiled binary may unpack its one native add-on (libsql, kept compressed in the binary). Asked for by the
 * small loader that tools/compile.ts writes, through a name on the global of the Worker that loads it: TMPDIR would
 * work too, but the environment belongs to the whole process and every program started meanwhile would inherit it.
 */

const NAME = Symbol.for("state-manager.native-folder");

/** Offers `folder` to the loader; call it in the same thread before the add-on is imported. */
export function offerNativeFolder(folder: string): void {
  Object.defineProperty(globalThis, NAME, { value: folder, configurable: true });
}
