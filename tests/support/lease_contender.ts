/**
 * One contender for a lease, a process of its own: obeys JSON lines on stdin and answers with JSON lines on stdout.
 * Whoever holds the lease creates `<folder>/lock` exclusively and writes its token into `<folder>/token`: outside the
 * store, so that the file system is the witness of an overlap.
 */

import { LeaseHolder } from "../../src/lease/mod.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { asStateManagerError } from "../../src/platform/errors.ts";
import { systemRandom } from "../../src/platform/random.ts";
import { openContendedStore, type StoreAddress } from "./contended_store.ts";

/** First line on stdin. */
export interface ContenderSetup {
  readonly store: StoreAddress;
  readonly folder: string;
  readonly ttlMs: number;
  readonly renewMs: number;
  readonly pollMs: number;
  readonly requestTimeoutMs: number;
}

/** `round`: try for `waitMs`, hold for `holdMs`, release. `hold`: hold until the end. */
export type ContenderCommand =
  | { readonly do: "round"; readonly waitMs: number; readonly holdMs: number }
  | { readonly do: "hold" };

export type ContenderAnswer =
  | { readonly type: "ready" }
  | {
    readonly type: "term";
    readonly token: number;
    readonly holder: string;
    readonly previousToken: number;
    readonly clean: boolean;
  }
  /** Two were inside at once, or a smaller token wrote after a larger one. */
  | { readonly type: "violation"; readonly what: string }
  | { readonly type: "event"; readonly event: string }
  | { readonly type: "done"; readonly error: string | null };

function answer(value: ContenderAnswer): void {
  const line = new TextEncoder().encode(JSON.stringify(value) + "\n");
  for (let sent = 0; sent < line.length;) {
    sent += Deno.stdout.writeSync(line.subarray(sent));
  }
}

async function* linesOf(
  input: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<string> {
  let rest = "";
  for await (const text of input.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/** What a holder does to the world; `check` is asked right before each write. */
function writeToken(folder: string, token: number, check: () => void): void {
  const path = `${folder}/token`;
  const last = Number(Deno.readTextFileSync(path));
  check();
  if (last > token) {
    answer({
      type: "violation",
      what: `token ${token} writes after token ${last}`,
    });
  }
  Deno.writeTextFileSync(path, String(token));
}

function enter(folder: string): boolean {
  try {
    Deno.openSync(`${folder}/lock`, { write: true, createNew: true }).close();
    return true;
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    answer({ type: "violation", what: "somebody else is inside" });
    return false;
  }
}

const clock = systemClock();
const lines = linesOf(Deno.stdin.readable);
const setup: ContenderSetup = JSON.parse((await lines.next()).value ?? "null");
const { folder } = setup;
const holder = new LeaseHolder({
  store: openContendedStore(setup.store),
  clock,
  random: systemRandom(),
  ttlMs: setup.ttlMs,
  renewMs: setup.renewMs,
  pollMs: setup.pollMs,
  requestTimeoutMs: setup.requestTimeoutMs,
  info: { pid: String(Deno.pid) },
  onEvent: ({ type }) => answer({ type: "event", event: type }),
});

async function acquire(wait: boolean | number): Promise<number> {
  const { token, holder: id, previous, clean } = await holder.acquire({ wait });
  answer({
    type: "term",
    token,
    holder: id,
    previousToken: previous?.token ?? 0,
    clean,
  });
  return token;
}

async function round(waitMs: number, holdMs: number): Promise<void> {
  const token = await acquire(waitMs);
  holder.assertHeld(holdMs * 2);
  const entered = enter(folder);
  try {
    writeToken(folder, token, () => holder.assertHeld());
    await clock.sleep(holdMs);
  } finally {
    if (entered) Deno.removeSync(`${folder}/lock`);
    await holder.release();
  }
}

async function hold(): Promise<void> {
  const token = await acquire(true);
  while (!holder.signal.aborted) {
    try {
      writeToken(folder, token, () => holder.assertHeld());
    } catch {
      // suspended: nothing is written
    }
    await clock.sleep(5);
  }
}

answer({ type: "ready" });
for await (const line of lines) {
  const command: ContenderCommand = JSON.parse(line);
  try {
    await (command.do === "round" ? round(command.waitMs, command.holdMs) : hold());
    answer({ type: "done", error: null });
  } catch (error) {
    answer({ type: "done", error: asStateManagerError(error).code });
  }
}
await holder[Symbol.asyncDispose]();
