/** Leaves this process without a descriptor. Run it under `ulimit -n`, in a process of its own. */

import { isOutOfDescriptors } from "../../src/platform/errno.ts";

/** Takes every descriptor that is free, until it is disposed. */
export function takeAllDescriptors(): Disposable {
  const taken: Deno.FsFile[] = [];
  try {
    while (true) taken.push(Deno.openSync("/dev/null"));
  } catch (error) {
    if (!isOutOfDescriptors(error)) throw error;
  }
  return {
    [Symbol.dispose]() {
      for (const file of taken) file.close();
    },
  };
}
