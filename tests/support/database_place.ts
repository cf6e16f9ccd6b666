/** One machine with one replicated database that a chain of rows is written to, as end-to-end tests start it again and again. */

import assert from "node:assert/strict";
import { chainProgram, checkChain, readJournal } from "./chain.ts";
import { ManagerProcess, runProgram, waitFor } from "./manager_process.ts";
import type { TestStore } from "./test_stores.ts";

export interface Place {
  readonly root: string;
  readonly database: string;
  readonly journal: string;
}

export function placeAt(root: string): Place {
  Deno.mkdirSync(root, { recursive: true });
  return { root, database: `${root}/db/app.db`, journal: `${root}/journal` };
}

export interface StartOptions {
  readonly perSecond?: number;
  readonly args?: readonly string[];
  readonly pragmas?: string | undefined;
}

/** Rows that the program commits. */
export const PER_SECOND = 200;

/** A manager whose program commits rows of a chain to the database, "app". */
export function startAt(place: Place, store: TestStore, options: StartOptions = {}): ManagerProcess {
  const { root, database, journal } = place;
  const { perSecond = PER_SECOND, args = [], pragmas } = options;
  Deno.mkdirSync(`${root}/db`, { recursive: true });
  const program = chainProgram({
    database,
    journal,
    perSecond,
    ...(pragmas === undefined ? {} : { pragmas }),
  });
  return new ManagerProcess({
    args: [
      "run",
      ...store.args,
      ...["--database", `app=${database}`, "--data-dir", `${root}/data`],
      ...args,
      "--",
      ...program,
    ],
    env: { ...store.env, STATE_MANAGER_LEASE_TTL: "5s", STATE_MANAGER_LEASE_RENEW: "1s" },
  });
}

export async function untilRow(place: Place, manager: ManagerProcess, n: number): Promise<void> {
  const describe = () => manager.tail();
  await waitFor(`row ${n}`, () => (readJournal(place.journal).rows.at(-1)?.n ?? 0) >= n, 60_000, describe);
}

/** Restores to a file by the command line, with no manager. */
export async function restoreTo(store: TestStore, to: string, args: readonly string[] = []): Promise<number> {
  const done = await runProgram(["db", "restore", "app", ...store.args, "--to", to, ...args], {
    env: store.env,
  });
  assert.equal(done.code, 0, done.stderr);
  return checkChain(to);
}
