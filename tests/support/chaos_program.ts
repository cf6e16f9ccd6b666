/**
 * The program of the crash tests: counts, and keeps the count in files and a database (chaos_state.ts). It is also the
 * witness that nobody counts beside it: it holds an exclusive lock outside the bucket, which the kernel frees when it
 * dies, and shouts when another living program has it. What it reached stands in a journal outside the bucket.
 */

import { DatabaseSync } from "node:sqlite";
import { systemClock } from "../../src/platform/clock.ts";
import { beginState, readState, settleState, writeBallast, writeValue } from "./chaos_state.ts";

/** First argument, as JSON. */
export interface ProgramOptions {
  readonly machine: string;
  readonly one: string;
  readonly two: string;
  readonly journal: string;
  readonly lock: string;
  readonly shouts: string;
  readonly database: boolean;
  /** How long it takes to stop when asked to. */
  readonly stopMs: number;
  readonly tickMs: number;
}

/** One line of the journal. Times are CLOCK_BOOTTIME: one clock for all processes of a host. */
export interface JournalLine {
  readonly timeMs: number;
  readonly pid: number;
  readonly machine: string;
  /** found: what the disk held at the start. start: settled, counting begins. value: is on the disk. stopping, stopped. */
  readonly event: "found" | "start" | "value" | "stopping" | "stopped";
  readonly value: number;
  readonly greatest?: number;
  readonly torn?: readonly string[];
}

/** One line of the shouts. */
export interface Shout {
  readonly timeMs: number;
  readonly pid: number;
  readonly machine: string;
  readonly holder: number;
  readonly holderState: string;
}

const O_RDWR_CREAT_CLOEXEC = 0o2 | 0o100 | 0o2000000;
const LOCK_EX_NB = 2 | 4;
const SIGKILL_PENDING = 1n << 8n;

const options: ProgramOptions = JSON.parse(Deno.args[0] ?? "{}");
const folders = [options.one, options.two] as const;
const clock = systemClock();

const journal = Deno.openSync(options.journal, { append: true, create: true });
function tell(event: JournalLine["event"], value: number, more: Partial<JournalLine> = {}): void {
  const line: JournalLine = {
    timeMs: clock.monotonicMs(),
    pid: Deno.pid,
    machine: options.machine,
    event,
    value,
    ...more,
  };
  journal.writeSync(new TextEncoder().encode(JSON.stringify(line) + "\n"));
}

const libc = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
});
const lockDescriptor = libc.symbols.open(
  new TextEncoder().encode(options.lock + "\0"),
  O_RDWR_CREAT_CLOEXEC,
  0o600,
);
let locked = false;
const shouted = new Set<number>();

/** What the holder of the lock is doing: null where it can do nothing any more (gone, stopped, or about to die). */
function activityOf(pid: number): string | null {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, "m").exec(status)?.[1] ?? "";
    const state = field("State");
    if ("TtZX".includes(state)) return null;
    const killed = BigInt(`0x${field("SigPnd")}`) | BigInt(`0x${field("ShdPnd")}`);
    return (killed & SIGKILL_PENDING) !== 0n ? null : state;
  } catch {
    return null;
  }
}

/** Takes the lock, or shouts where a program that can run has it. One that is stopped runs beside nobody. */
function watchLock(): void {
  if (locked) return;
  if (libc.symbols.flock(lockDescriptor, LOCK_EX_NB) === 0) {
    locked = true;
    Deno.writeTextFileSync(options.lock, String(Deno.pid));
    return;
  }
  const holder = Number(Deno.readTextFileSync(options.lock));
  const holderState = holder > 0 ? activityOf(holder) : null;
  if (holderState === null || shouted.has(holder)) return;
  shouted.add(holder);
  const shout: Shout = {
    timeMs: clock.monotonicMs(),
    pid: Deno.pid,
    machine: options.machine,
    holder,
    holderState,
  };
  Deno.writeTextFileSync(options.shouts, JSON.stringify(shout) + "\n", { append: true });
}

watchLock();
const found = readState(folders);
let value = found.value;
let addRow: ((n: number) => void) | null = null;
if (options.database) {
  Deno.mkdirSync(options.one, { recursive: true });
  const database = new DatabaseSync(`${options.one}/app.db`);
  database.exec("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000");
  database.exec("CREATE TABLE IF NOT EXISTS log (n INTEGER PRIMARY KEY)");
  const { rows, last } = database.prepare("SELECT count(*) AS rows, max(n) AS last FROM log").get() as {
    rows: number;
    last: number | null;
  };
  const check = database.prepare("PRAGMA quick_check").get() as { quick_check: string };
  if (check.quick_check !== "ok" || rows !== (last ?? 0)) {
    tell("found", value, { ...found, torn: [...found.torn, `app.db: ${check.quick_check}, ${rows} rows`] });
    Deno.exit(70);
  }
  value = Math.min(value, last ?? 0);
  database.prepare("DELETE FROM log WHERE n > ?").run(value);
  const insert = database.prepare("INSERT INTO log (n) VALUES (?)");
  addRow = (n) => void insert.run(n);
}
tell("found", value, { greatest: found.greatest, torn: found.torn });
if (found.torn.length > 0) Deno.exit(70);
beginState(folders, Math.trunc(clock.wallMs()) & 0xffffff);
settleState(folders, value);
tell("start", value);

const timer = setInterval(() => {
  watchLock();
  addRow?.(value + 1);
  writeValue(folders, value + 1);
  value++;
  if (value % 4 === 0) writeBallast(folders, value / 4, value * 2654435761 + Deno.pid);
  tell("value", value);
}, options.tickMs);

Deno.addSignalListener("SIGTERM", () => {
  clearInterval(timer);
  tell("stopping", value);
  setTimeout(() => {
    tell("stopped", value);
    Deno.exit(143);
  }, options.stopMs);
});
