/** Does something as another user for a moment: needs to be root, and that nothing else runs meanwhile. */

let libc: Deno.DynamicLibrary<{ seteuid: { parameters: ["u32"]; result: "i32" } }> | undefined;

function become(uid: number): void {
  libc ??= Deno.dlopen("libc.so.6", { seteuid: { parameters: ["u32"], result: "i32" } });
  if (libc.symbols.seteuid(uid) !== 0) throw new Error(`cannot become user ${uid}`);
}

/** `action` must be synchronous: the whole process is that user until it returns. */
export function asUser<T>(uid: number, action: () => T): T {
  become(uid);
  try {
    return action();
  } finally {
    become(0);
  }
}
