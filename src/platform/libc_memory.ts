/**
 * Memory that is free goes back to the system. glibc keeps what a start needed for as long as the process lives: a quarter
 * of a quiet manager. Where there is no glibc nothing happens.
 */

/** On another thread: who frees or takes memory meanwhile waits for microseconds. */
export async function giveBackMemory(): Promise<void> {
  try {
    const libc = Deno.dlopen("libc.so.6", {
      malloc_trim: { parameters: ["usize"], result: "i32", nonblocking: true },
    });
    await libc.symbols.malloc_trim(0n).finally(() => libc.close());
  } catch {
    // Another libc.
  }
}
