/** Extended attributes given and told by Python, which shares no code with the product. */

import { findTool } from "./find_tool.ts";

export const python = findTool("python3");

const GIVE = `
import os, random, struct, sys
root, seed, as_root = os.fsencode(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1"
chance = random.Random(seed)
def acl(named):
    entries = [(1, 6, 0xffffffff), (2, chance.randrange(8), named), (4, 4, 0xffffffff), (16, 7, 0xffffffff), (32, 4, 0xffffffff)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
def give(path, kind):
    def put(name, value):
        os.setxattr(path, name, value, follow_symlinks=False)
    for i in range(chance.randrange(4) if kind in "fd" else 0):
        name = chance.choice([b"user.plain%d", b"user.%d \\xff\\xfe", b"user.with \\"quotes\\" %d", "user.ä€%d".encode()]) % i
        put(name, chance.choice([b"", b"text", chance.randbytes(chance.randrange(200)), chance.randbytes(900)]))
    if as_root and chance.random() < 0.4:
        put(b"trusted.kept", chance.randbytes(20))
    if as_root and kind == "f" and chance.random() < 0.3:
        put(b"security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    if kind in "fd" and chance.random() < 0.3:
        put(b"system.posix_acl_access", acl(1000 + seed))
    if kind == "d" and chance.random() < 0.3:
        put(b"system.posix_acl_default", acl(2000 + seed))
def kind_of(path):
    if os.path.islink(path): return "l"
    if os.path.isdir(path): return "d"
    return "f" if os.path.isfile(path) else "p"
paths = [root] + [os.path.join(folder, name) for folder, folders, files in os.walk(root) for name in folders + files]
for path in sorted(paths):
    kind = kind_of(path)
    if os.lstat(path).st_nlink == 1 or kind == "d":
        give(path, kind)
    # The default ACL of a folder is inherited by nothing here: all is made before.
`;

const LIST = `
import os, sys
root = os.fsencode(sys.argv[1])
for folder, folders, files in os.walk(root):
    for name in [b"."] * (folder == root) + folders + files:
        path = os.path.join(folder, name)
        for key in sorted(os.listxattr(path, follow_symlinks=False)):
            value = os.getxattr(path, key, follow_symlinks=False)
            shown = os.fsencode(os.path.relpath(path, root)).decode("latin1")
            print(repr((shown, os.fsencode(key).decode("latin1"), value.hex())))
`;

async function run(script: string, ...args: readonly string[]): Promise<string> {
  if (python === null) throw new Error("no python3");
  const { success, stdout, stderr } = await new Deno.Command(python, { args: ["-c", script, ...args] })
    .output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** Gives attributes of all kinds to what is in a tree; equal seeds give equal ones. */
export async function giveXattrs(root: string, seed: number, asRoot: boolean): Promise<void> {
  await run(GIVE, root, String(seed), asRoot ? "1" : "0");
}

/** One line for each attribute in a tree, sorted. */
export async function listXattrLines(root: string): Promise<string[]> {
  return (await run(LIST, root)).split("\n").filter((line) => line !== "").sort();
}
