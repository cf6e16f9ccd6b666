/**
 * The n-th file-changing system call of a whole life fails (no space, I/O error), or is the last one that the process
 * makes, for n = 1, 2, 3 … of each thread of the manager and its children: by strace, on the real program over a folder
 * store, so the store's own files are among them. STATE_MANAGER_ALL_FAULT_POINTS=1 tries every point, else a sample.
 */

import assert from "node:assert/strict";
import { say } from "../support/say.ts";
import { scratchFolder } from "../support/manager_process.ts";
import { check, checkEnd, live, type Machine, makeFirstState, proveRecovery } from "../support/whole_life.ts";

const ALL_POINTS = Deno.env.get("STATE_MANAGER_ALL_FAULT_POINTS") === "1";

const haveStrace = new Deno.Command("sh", { args: ["-c", "strace -o /dev/null true"], stderr: "null" })
  .outputSync().success;

interface Point {
  /** Names of system calls, with commas between. */
  readonly calls: string;
  readonly at: number;
  readonly what: "ENOSPC" | "EIO" | "KILL";
}

/** -D: the manager is our own child, and strace the grandchild that looks on. */
function traced({ calls, at, what }: Point, log: string): string[] {
  const how = what === "KILL" ? "signal=KILL" : `error=${what}`;
  // Quicker, but with it strace sends no signals.
  const filter = what === "KILL" ? [] : ["--seccomp-bpf"];
  return [
    ...["strace", "-D", "-f", "-q", ...filter, "-o", log, "-e", `trace=${calls}`],
    ...["-e", `inject=${calls}:${how}:when=${at}`],
  ];
}

function machineAt(root: string, store: string): Machine {
  Deno.mkdirSync(root);
  return { root, store: { args: ["--directory", store], env: {} } };
}

/** False when no thread made that many such calls. */
async function tryPoint(template: string, point: Point): Promise<boolean> {
  using scratch = scratchFolder();
  const store = `${scratch.path}/store`;
  new Deno.Command("cp", { args: ["-a", template, store] }).outputSync();
  const machine = machineAt(`${scratch.path}/one`, store);
  const log = `${scratch.path}/strace`;
  const { code, manager } = await live(machine, traced(point, log));
  const struck = /INJECTED|killed by SIGKILL/.test(Deno.readTextFileSync(log));
  check(machine);
  if (point.what !== "KILL") checkEnd(code, manager);
  await proveRecovery(machine, `${scratch.path}/two`);
  return struck;
}

/** strace counts each thread's calls of a set together; names and durability are what a crash can cut through. */
const CASES: readonly { what: Point["what"]; calls: string; stride: number }[] = [
  {
    what: "KILL",
    calls: "rename,renameat,renameat2,link,linkat,mkdir,mkdirat,unlink,unlinkat,fsync,syncfs",
    stride: 3,
  },
  { what: "ENOSPC", calls: "mkdir,mkdirat,link,linkat,rename,fsync,ftruncate", stride: 4 },
  { what: "EIO", calls: "fsync,fdatasync,rename,link,unlink,ftruncate,syncfs", stride: 5 },
];

for (const { what, calls, stride } of CASES) {
  Deno.test({
    name: `a life whose n-th file operation ends in ${what} leaves the old or the new state, whole${
      haveStrace ? "" : " [needs strace]"
    }`,
    ignore: !haveStrace,
    fn: async () => {
      using scratch = scratchFolder();
      const template = `${scratch.path}/store`;
      await makeFirstState(machineAt(`${scratch.path}/first`, template));
      let tried = 0;
      for (let at = 1;; at += ALL_POINTS ? 1 : stride) {
        let struck: boolean;
        try {
          struck = await tryPoint(template, { calls, at, what });
        } catch (error) {
          throw new Error(`call ${at}: ${error instanceof Error ? error.message : error}`, { cause: error });
        }
        if (!struck) break;
        tried++;
      }
      say(`${tried} points tried`);
      // The runtime deals the calls out to its threads as it likes: how many the busiest of them makes, nobody knows.
      assert.ok(tried > 0, "no call was struck");
    },
  });
}
