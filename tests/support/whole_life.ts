/**
 * A whole life of the real program, for tests that make something in it fail: start with a restore, checkpoint, restore
 * to the past, stop. Its program tells which state it found at each start, and the checks say what must hold whatever
 * happened in between.
 */

import assert from "node:assert/strict";
import { ManagerProcess, waitFor } from "./manager_process.ts";

const STATIC_FILES = 20;
/** A life that got nowhere by then is ended: it waits for the store. */
const PATIENCE_MS = 4_000;
/** More where the machine is so slow that a life without failures takes a good part of that. */
let patienceMs = PATIENCE_MS;

/**
 * Makes the next state, then says which one it found; whether all of it was there it says before. So who has heard of a
 * start may stop it: the next state is there. Never changes the rest.
 */
const PROGRAM = `
found=$(cat value); ls static | wc -l >> "$SEEN.files"
echo 2 > value.new; mv value.new value
echo "$found" >> "$SEEN"
exec sleep 1000`;

export interface Machine {
  /** A folder of its own; files, data folder and what the program saw are in it. */
  readonly root: string;
  readonly store: { readonly args: readonly string[]; readonly env: Readonly<Record<string, string>> };
}

/** For a life that meets failures; one that is to end well has all the time that a slow disk takes. */
const SHORT_STOP = { budget: "4s", reserve: "2s" } as const;
const LONG_STOP = { budget: "60s", reserve: "50s" } as const;

export function startMachine(
  { root, store }: Machine,
  wrap: readonly string[] = [],
  stop: typeof SHORT_STOP | typeof LONG_STOP = SHORT_STOP,
): ManagerProcess {
  Deno.mkdirSync(`${root}/files`, { recursive: true });
  return new ManagerProcess({
    wrap,
    args: [
      ...[
        "run",
        ...store.args,
        "--files",
        `app=${root}/files`,
        "--data-dir",
        `${root}/data`,
        "--checkpoint-interval",
        "0",
      ],
      ...[
        "--lease-ttl",
        "8s",
        "--shutdown-budget",
        stop.budget,
        "--",
        "sh",
        "-c",
        `cd ${root}/files; ${PROGRAM}`,
      ],
    ],
    env: {
      ...store.env,
      STATE_MANAGER_SHUTDOWN_FLUSH_RESERVE: stop.reserve,
      SEEN: `${root}/seen`,
    },
  });
}

function lines(path: string): string[] {
  try {
    return Deno.readTextFileSync(path).split("\n").filter((line) => line !== "");
  } catch {
    return [];
  }
}

/** Every state that a program found when it started. */
export const seen = ({ root }: Machine) => lines(`${root}/seen`);

async function untilSeen(machine: Machine, count: number, manager: ManagerProcess): Promise<void> {
  await waitFor(`program start ${count}`, () => seen(machine).length >= count, 60_000, () => manager.tail());
}

/** An answer within patience, or null: the request that waits for the store is given up. */
async function ask(manager: ManagerProcess, path: string, json: unknown): Promise<number | null> {
  try {
    return await manager.statusOf(path, { json, signal: AbortSignal.timeout(patienceMs) });
  } catch {
    return null;
  }
}

/** Start with a restore, checkpoint, restore to the past, stop. Returns the exit code. */
export async function live(
  machine: Machine,
  wrap: readonly string[] = [],
): Promise<{ code: number; manager: ManagerProcess }> {
  await using manager = startMachine(machine, wrap);
  let ended = false;
  manager.ended.then(() => ended = true);
  const before = seen(machine).length;
  await waitFor("a start, an end or nothing", () => ended || seen(machine).length > before, patienceMs)
    .catch(() => {});
  if (!ended && seen(machine).length > before) {
    await manager.state("running", patienceMs).catch(() => {});
    await ask(manager, "/checkpoint", {});
    await ask(manager, "/restore", { checkpoint: "1" });
  }
  if (!ended) manager.signal("SIGTERM");
  return { code: await manager.exit(), manager };
}

export function check(machine: Machine): void {
  for (const value of seen(machine)) assert.match(value, /^[12]$/);
  for (const count of lines(`${machine.root}/seen.files`)) assert.equal(Number(count), STATIC_FILES);
}

/** Ends with what was asked for, or with a reason and an advice. */
export function checkEnd(code: number, manager: ManagerProcess): void {
  if (code === 143) return;
  assert.ok([69, 74, 75, 78].includes(code), `exit code ${code}\n${manager.tail()}`);
  assert.match(manager.stderr, /"hint":"|\n {2}hint: /, `no advice for ${code}\n${manager.tail()}`);
}

/** Makes a repository whose newest state is 1; `root` is scratch. */
export async function makeFirstState({ root, store }: Machine): Promise<void> {
  Deno.mkdirSync(`${root}/files/static`, { recursive: true });
  for (let n = 0; n < STATIC_FILES; n++) Deno.writeTextFileSync(`${root}/files/static/${n}`, `static ${n}\n`);
  Deno.writeTextFileSync(`${root}/files/value`, "1\n");
  const beganMs = performance.now();
  await using manager = new ManagerProcess({
    args: [
      ...["run", ...store.args, "--files", `app=${root}/files`, "--data-dir", `${root}/data`],
      ...["--checkpoint-interval", "0", "--", "true"],
    ],
    env: store.env,
  });
  assert.equal(await manager.exit(), 0, manager.tail());
  patienceMs = Math.max(PATIENCE_MS, 4 * (performance.now() - beganMs));
}

/** With all well again: the same folder comes up and stops in order, and another machine gets what it left. */
export async function proveRecovery(machine: Machine, otherRoot: string): Promise<void> {
  {
    await using well = startMachine(machine, [], LONG_STOP);
    await untilSeen(machine, seen(machine).length + 1, well);
    well.signal("SIGTERM");
    assert.equal(await well.exit(), 143, well.tail());
    check(machine);
  }
  const other = { ...machine, root: otherRoot };
  Deno.mkdirSync(other.root);
  await using elsewhere = startMachine(other, [], LONG_STOP);
  await untilSeen(other, 1, elsewhere);
  assert.deepEqual(seen(other), ["2"], "the clean stop's state is what another machine gets");
  check(other);
  elsewhere.signal("SIGTERM");
  assert.equal(await elsewhere.exit(), 143, elsewhere.tail());
}
