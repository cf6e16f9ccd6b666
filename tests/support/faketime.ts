/** Another clock on the wall for one program alone, by libfaketime: that of the machine is everybody's. */

const library = ["x86_64", "aarch64"]
  .map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketime.so.1`)
  .find(isFile) ?? null;

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

export const hasFaketime = library !== null;

/** Variables for a program whose clock on the wall is so much ahead; what it starts has them too. */
export function aheadBy(ms: number): Record<string, string> {
  return { ...faketime(), FAKETIME: `+${Math.round(ms / 1000)}` };
}

/** The same, by a file that may change while the program runs: it holds "+30d" and the like. */
export function byClockFile(path: string): Record<string, string> {
  return { ...faketime(), FAKETIME_TIMESTAMP_FILE: path, FAKETIME_NO_CACHE: "1" };
}

/** Durations are none of its business. */
function faketime(): Record<string, string> {
  return { LD_PRELOAD: library ?? "", FAKETIME_DONT_FAKE_MONOTONIC: "1" };
}
