/** A root folder as small as an image can be: glibc's few libraries, CA certificates and the binary; busybox is the user's program. */

import { binaryPath } from "./manager_process.ts";

const LIBRARY_FOLDER = "/lib/x86_64-linux-gnu";
const LIBRARIES = [
  "libc.so.6",
  "libm.so.6",
  "libdl.so.2",
  "libpthread.so.0",
  "librt.so.1",
  "libgcc_s.so.1",
];

function which(program: string): string | null {
  for (
    const folder of (Deno.env.get("PATH") ?? "").split(":").concat(
      "/usr/sbin",
      "/sbin",
    )
  ) {
    try {
      if (Deno.statSync(`${folder}/${program}`).isFile) {
        return `${folder}/${program}`;
      }
    } catch {
      // not there
    }
  }
  return null;
}

export const isRoot = Deno.uid() === 0;
export const busybox = which("busybox");
export const runc = which("runc");
export const unshare = which("unshare");

/** Makes the root below `path`; needs to be root for /dev/null. */
export async function makeSmallRoot(path: string): Promise<void> {
  if (binaryPath === null || busybox === null) {
    throw new Error("a small root needs the binary and busybox");
  }
  for (
    const folder of [
      "lib64",
      LIBRARY_FOLDER.slice(1),
      "etc/ssl/certs",
      "proc",
      "dev",
      "tmp",
      "app",
      "store",
      "data",
      "files",
    ]
  ) {
    await Deno.mkdir(`${path}/${folder}`, { recursive: true });
  }
  await Deno.copyFile(
    "/lib64/ld-linux-x86-64.so.2",
    `${path}/lib64/ld-linux-x86-64.so.2`,
  );
  for (const library of LIBRARIES) {
    await Deno.copyFile(
      `${LIBRARY_FOLDER}/${library}`,
      `${path}${LIBRARY_FOLDER}/${library}`,
    );
  }
  await Deno.copyFile(
    "/etc/ssl/certs/ca-certificates.crt",
    `${path}/etc/ssl/certs/ca-certificates.crt`,
  );
  await Deno.copyFile(binaryPath, `${path}/state-manager`);
  await Deno.copyFile(busybox, `${path}/app/busybox`);
  await Deno.chmod(`${path}/state-manager`, 0o755);
  await Deno.chmod(`${path}/app/busybox`, 0o755);
  for (const folder of ["tmp", "store", "data", "files"]) {
    await Deno.chmod(`${path}/${folder}`, 0o1777);
  }
  const made = await new Deno.Command("mknod", {
    args: ["-m", "666", `${path}/dev/null`, "c", "1", "3"],
  }).output();
  if (!made.success) throw new Error(new TextDecoder().decode(made.stderr));
}
