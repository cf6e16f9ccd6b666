/**
 * The exec helper: the hidden subcommand `__exec PLAN COMMAND ARG…` sets what the runtime cannot set for a child (user
 * with all groups, limits, umask, niceness) on itself and then becomes the command, with the same pid. It runs only for
 * processes that ask for one of these, or for the terminal. If it cannot become the command it says so on stderr and ends with 126 or 127, as
 * a shell does.
 */

import { errnoReader } from "./errno.ts";
import { moveToForeground } from "./foreground.ts";

/** Plain data: it goes over the command line, so it never holds a secret. */
export interface ExecPlan {
  readonly identity:
    | { readonly uid: number; readonly gid: number; readonly groups: readonly number[] }
    | null;
  readonly umask: number | null;
  readonly nice: number | null;
  /** By name of `RESOURCES`; null: unlimited. Soft and hard limit alike. */
  readonly limits: Readonly<Record<string, number | null>>;
  /** It leaves our group for one of its own, in the foreground of the terminal (foreground.ts). */
  readonly terminal: boolean;
  /** Added to the environment, such as HOME: not before, since the helper itself is still the manager's. */
  readonly env: Readonly<Record<string, string>>;
}

/** Numbers of Linux on x86-64 and arm64. */
const RESOURCES: Readonly<Record<string, number>> = {
  cpu: 0,
  fsize: 1,
  stack: 3,
  core: 4,
  nproc: 6,
  nofile: 7,
  memlock: 8,
};
const UNLIMITED = 0xffff_ffff_ffff_ffffn;
const PRIO_PROCESS = 0;
const SIG_DFL = 0n;
/** The runtime ignores PIPE; a program that inherits that never ends when its reader does. */
const SIGPIPE = 13;
const NOT_FOUND = 127;
const CANNOT_RUN = 126;
const ENOENT = 2;

const ERRNO_TEXT: Readonly<Record<number, string>> = {
  1: "not permitted",
  2: "not found, or its interpreter or loader was not found",
  7: "argument list too long",
  8: "not a program that this machine can run",
  11: "too many processes of this user (limits.nproc)",
  12: "not enough memory",
  13: "permission denied",
  22: "invalid value",
  26: "being written just now",
};

const SYMBOLS = {
  setgroups: { parameters: ["usize", "buffer"], result: "i32" },
  setgid: { parameters: ["u32"], result: "i32" },
  setuid: { parameters: ["u32"], result: "i32" },
  setpriority: { parameters: ["i32", "u32", "i32"], result: "i32" },
  prlimit: { parameters: ["i32", "i32", "buffer", "buffer"], result: "i32" },
  umask: { parameters: ["u32"], result: "u32" },
  signal: { parameters: ["i32", "usize"], result: "usize" },
  execvpe: { parameters: ["buffer", "buffer", "buffer"], result: "i32" },
} as const;

/** Becomes the command; returns only when that failed, with the exit code. */
export function execMain([planText = "{}", ...argv]: readonly string[]): number {
  const plan: ExecPlan = JSON.parse(planText);
  const { symbols } = Deno.dlopen("libc.so.6", SYMBOLS);
  const errno = errnoReader();
  const command = argv[0] ?? "";
  const fail = (what: string, number: number): number => {
    const text = `state-manager: start ${command}: ${what}: ${ERRNO_TEXT[number] ?? `errno ${number}`}\n`;
    Deno.stderr.writeSync(new TextEncoder().encode(text));
    return number === ENOENT ? NOT_FOUND : CANNOT_RUN;
  };
  const { identity, umask, nice, limits } = plan;
  if (plan.terminal) moveToForeground();
  // Before we are somebody else: who changed its user may not read its own /proc any more.
  const file = textBytes(command);
  const args = pointers(argv.map(textBytes));
  const environment = pointers(environmentBytes(plan.env));
  // As long as we are root: a limit may be raised only then.
  for (const [name, value] of Object.entries(limits)) {
    const words = new BigUint64Array(2).fill(value === null ? UNLIMITED : BigInt(value));
    const resource = RESOURCES[name] ?? -1;
    if (symbols.prlimit(0, resource, new Uint8Array(words.buffer), null) !== 0) {
      return fail(`set limits.${name} to ${value ?? "unlimited"}`, errno());
    }
  }
  if (nice !== null && symbols.setpriority(PRIO_PROCESS, 0, nice) !== 0) {
    return fail(`set nice to ${nice}`, errno() === 13 ? 1 : errno());
  }
  if (umask !== null) symbols.umask(umask);
  if (identity !== null) {
    // The user comes last: it takes the right to do the rest away.
    const groups = new Uint32Array(identity.groups);
    if (symbols.setgroups(BigInt(groups.length), new Uint8Array(groups.buffer)) !== 0) {
      return fail("set its groups", errno());
    }
    if (symbols.setgid(identity.gid) !== 0) return fail(`become group ${identity.gid}`, errno());
    if (symbols.setuid(identity.uid) !== 0) return fail(`become user ${identity.uid}`, errno());
  }
  // Handlers go away by themselves with exec; what is ignored stays so.
  symbols.signal(SIGPIPE, SIG_DFL);
  symbols.execvpe(file, args.buffer, environment.buffer);
  return fail("run it", errno());
}

function textBytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}

/** Our own environment byte by byte, as the kernel has it: values need not be text. */
function environmentBytes(added: Readonly<Record<string, string>>): Uint8Array<ArrayBuffer>[] {
  const block = Deno.readFileSync("/proc/self/environ");
  const entries: Uint8Array<ArrayBuffer>[] = [];
  let from = 0;
  for (let end = block.indexOf(0); end >= 0; end = block.indexOf(0, from)) {
    const entry = block.slice(from, end + 1);
    from = end + 1;
    const name = new TextDecoder("latin1").decode(entry).split("=")[0] ?? "";
    if (!Object.hasOwn(added, name)) entries.push(entry);
  }
  return [...entries, ...Object.entries(added).map(([name, value]) => textBytes(`${name}=${value}`))];
}

/** A null-ended list of addresses; `kept` must outlive the call that reads it. */
function pointers(kept: readonly Uint8Array<ArrayBuffer>[]) {
  const words = new BigUint64Array(kept.length + 1);
  kept.forEach((bytes, index) => {
    words[index] = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
  });
  return { buffer: new Uint8Array(words.buffer), kept };
}
