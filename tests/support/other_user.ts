/** Does something as another user for a moment: needs to be root, and that nothing else runs meanwhile. */

let libc: Deno.DynamicLibrary<{ seteuid: { parameters: ["u32"]; result: "i32" } }> | undefined;

function become(uid: number): void {
  libc ??= Deno.dlopen("libc.so.6", { seteuid: { parameters: ["u32"], result: "i32" } });
  if (libc.symbols.seteuid(uid) !== 0) throw new Error(`cannot become user ${uid}`);
}

/** The whole process is that user until `action` has ended. */
export async function asUser<T>(uid: number, action: () => T | Promise<T>): Promise<T> {
  become(uid);
  try {
    return await action();
  } finally {
    become(0);
  }
}
