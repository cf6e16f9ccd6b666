/**
 * Priority of threads beside other programs. It falls for the calling thread and for all that it starts from then on;
 * without a privilege it cannot rise again. Where libc cannot be opened nothing happens.
 */

const PRIO_PROCESS = 0;
const IOPRIO_WHO_PROCESS = 1;
/** The last level of the ordinary class: served after others, and still served. The idle class may wait for ever. */
const BEST_EFFORT_LAST = 2 << 13 | 7;
const SYS_IOPRIO_SET = Deno.build.arch === "aarch64" ? 30n : 251n;

/** Under contention about a thirtieth of the time of a program of ordinary priority; all of it where none runs. */
const NICE = 15;

/** Puts this thread behind the programs of the machine, for the processor and for the disk. True when the kernel agreed. */
export function yieldToOthers(): boolean {
  try {
    const { setpriority, syscall } = Deno.dlopen("libc.so.6", {
      setpriority: { parameters: ["i32", "u32", "i32"], result: "i32" },
      syscall: { parameters: ["i64", "i64", "i64", "i64"], result: "i64" },
    }).symbols;
    const processor = setpriority(PRIO_PROCESS, 0, NICE) === 0;
    const disk = syscall(SYS_IOPRIO_SET, BigInt(IOPRIO_WHO_PROCESS), 0n, BigInt(BEST_EFFORT_LAST)) === 0n;
    return processor && disk;
  } catch {
    return false;
  }
}
