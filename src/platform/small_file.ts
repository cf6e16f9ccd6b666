/** A small text file, read in one turn: for what must be known between two steps of a spawn. */

export type SmallFile =
  | { readonly content: string; readonly error: null }
  | { readonly content: null; readonly error: string };

/** Never throws. Anything but a regular file is refused: a pipe would hold the whole program up. */
export function readSmallFile(path: string, limitBytes: number): SmallFile {
  const refused = (error: string): SmallFile => ({ content: null, error });
  try {
    const info = Deno.statSync(path);
    if (!info.isFile) return refused("not a file");
    if (info.size > limitBytes) return refused(`larger than ${limitBytes} bytes`);
    const content = new TextDecoder("utf-8", { fatal: true }).decode(Deno.readFileSync(path));
    return { content, error: null };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return refused("does not exist");
    if (error instanceof Deno.errors.PermissionDenied) return refused("permission denied");
    if (error instanceof TypeError) return refused("not UTF-8");
    return refused(error instanceof Error ? error.message : String(error));
  }
}
