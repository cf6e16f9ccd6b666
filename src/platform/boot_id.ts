/** Which boot of the kernel this is: a random id that every boot makes anew, the same in all containers of a machine. */

const BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id";

/** The boot's id; null where the kernel does not tell it. */
export function readBootId(): string | null {
  try {
    const id = Deno.readTextFileSync(BOOT_ID_FILE).trim();
    return id === "" ? null : id;
  } catch {
    return null;
  }
}
