/** What is in a tree, told by find and sha256sum and not by the code under test: one line per entry, sorted. */

async function output(
  command: string,
  args: readonly string[],
  cwd: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const { code, stdout, stderr } = await new Deno.Command(command, {
    args: [...args],
    cwd,
    env: { LC_ALL: "C" },
  }).output();
  if (code !== 0) {
    throw new Error(`${command}: ${new TextDecoder().decode(stderr)}`);
  }
  return stdout;
}

/** Paths as latin1, since names need not be UTF-8. */
const records = (bytes: Uint8Array): string[] =>
  new TextDecoder("latin1").decode(bytes).split("\0").filter((text) => text !== "");

/** The runtime's "latin1" is windows-1252: some bytes come as other characters than their own number. */
const byteOf = new Map(
  Array.from({ length: 256 }, (_, byte) => [
    new TextDecoder("latin1").decode(Uint8Array.of(byte)),
    String.fromCharCode(byte),
  ]),
);

/** A path of a listing as the product's byte text. */
export function byteTextOf(path: string): string {
  return [...path].map((character) => byteOf.get(character) ?? character).join("");
}

/**
 * One line for each entry: path, type, mode, owner, group, mtime with nanoseconds, size, target, hash of the content, and
 * for hard links the first path of their group. Sizes of folders are the file system's and left out.
 */
export async function listTree(root: string): Promise<string[]> {
  return (await listRows(root)).map((row) => row.join(" "));
}

/** As `listTree`, the columns of each line apart. */
export async function listRows(root: string): Promise<string[][]> {
  const format = "%P\\t%y\\t%m\\t%U\\t%G\\t%T@\\t%s\\t%l\\t%n\\t%i\\0";
  const found = records(await output("find", [".", "-printf", format], root));
  const hashes = new Map(
    records(
      await output("find", [
        ".",
        "-type",
        "f",
        "-exec",
        "sha256sum",
        "-z",
        "{}",
        "+",
      ], root),
    )
      .map((line) => [line.slice(68), line.slice(0, 64)]), // "<64 hex>  ./path"
  );
  const firstOf = new Map<string, string>();
  return found.sort().map((line) => {
    const [
      path = "",
      type = "",
      mode = "",
      uid = "",
      gid = "",
      mtime = "",
      size = "",
      target = "",
      links = "",
      inode = "",
    ] = line.split("\t");
    const group = type === "f" && links !== "1" ? firstOf.get(inode) ?? path : "";
    firstOf.set(inode, group);
    const bytes = type === "d" ? "" : size;
    return [
      path,
      type,
      mode,
      uid,
      gid,
      mtime,
      bytes,
      target,
      hashes.get(path) ?? "",
      group,
    ];
  });
}
