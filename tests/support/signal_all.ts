/** Signals for a tree of processes: some end while others are told, killed by those that were told before them. */
export function signalAll(pids: readonly number[], signal: Deno.Signal): void {
  for (const pid of pids) {
    try {
      Deno.kill(pid, signal);
    } catch {
      // gone
    }
  }
}
