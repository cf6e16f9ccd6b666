/**
 * `<data dir>/units.json`: which run used this folder last and what it started, so that the next start can end what a
 * killed manager and a killed guard left behind. The run's id is durable before its first spawn and is in the tag of
 * all that it starts; the units are added soon after their spawn, for programs that overwrote their environment.
 */

import { assert } from "../platform/assert.ts";
import type { Clock } from "../platform/clock.ts";
import { readTextIfPresent, replaceFileUnsynced, writeFileAtomically } from "../platform/files.ts";
import { log } from "../platform/log.ts";
import type { UnitWatch, WatchedUnit } from "../supervisor/mod.ts";

const VERSION = 1;

const logger = log("units");

export interface RunRecord {
  /** Pids and start times mean something in this boot of the kernel only. Null: it could not be told. */
  readonly bootId: string | null;
  readonly runId: string;
  /** Of manager.lock (platform/folder_lock.ts): in a copy of the folder it is another one. */
  readonly lockIdentity: string;
  /** The manager itself: while it lives, the folder this was read from is a copy of its. */
  readonly manager: { readonly pid: number; readonly startTicks: number };
  readonly units: readonly WatchedUnit[];
  /** The manager ended in order and saw nothing of all this left. */
  readonly ended: boolean;
}

/** The record of the run before, null when there is none; "damaged" when it cannot be read as one. */
export async function readRunRecord(path: string): Promise<RunRecord | null | "damaged"> {
  const text = await readTextIfPresent(path);
  if (text === null) return null;
  try {
    return parseRunRecord(JSON.parse(text));
  } catch {
    return "damaged";
  }
}

function parseRunRecord(value: Record<string, unknown>): RunRecord {
  assert(value["v"] === VERSION, `version is ${VERSION}`);
  const { boot_id: bootId, run_id: runId, lock, manager, units, ended } = value;
  assert(bootId === null || typeof bootId === "string", "boot_id is a text or null");
  assert(typeof runId === "string" && /^[0-9a-f]{16,}$/.test(runId), "run_id is hexadecimal");
  assert(Array.isArray(units), "units is a list");
  assert(typeof lock === "string", "lock is a text");
  assert(typeof ended === "boolean", "ended is true or false");
  const { pid, start_ticks } = fieldsOf(manager);
  return {
    bootId,
    runId,
    ended,
    lockIdentity: lock,
    manager: { pid: wholeNumber(pid), startTicks: wholeNumber(start_ticks) },
    units: units.map((unit) => {
      const { name, group_id, start_ticks, tag } = fieldsOf(unit);
      assert(typeof name === "string" && typeof tag === "string", "name and tag are texts");
      return { name, tag, groupId: wholeNumber(group_id), startTicks: wholeNumber(start_ticks) };
    }),
  };
}

function fieldsOf(value: unknown): Record<string, unknown> {
  assert(typeof value === "object" && value !== null, "it is an object");
  return Object.fromEntries(Object.entries(value));
}

function wholeNumber(value: unknown): number {
  assert(typeof value === "number" && Number.isSafeInteger(value) && value >= 0, "it is a whole number");
  return value;
}

function textOf({ bootId, runId, lockIdentity, manager, units, ended }: RunRecord): string {
  const record = {
    v: VERSION,
    boot_id: bootId,
    run_id: runId,
    ended,
    lock: lockIdentity,
    manager: { pid: manager.pid, start_ticks: manager.startTicks },
    units: units.map(({ name, groupId, startTicks, tag }) => ({
      name,
      group_id: groupId,
      start_ticks: startTicks,
      tag,
    })),
  };
  return JSON.stringify(record) + "\n";
}

type Run = Pick<RunRecord, "bootId" | "runId" | "lockIdentity" | "manager">;

/** Enough for an end and the start that follows it to come together. */
const WRITE_AFTER_MS = 2;

/** Keeps the record of this run. */
export class UnitRecord implements UnitWatch {
  readonly #path: string;
  readonly #run: Run;
  readonly #units = new Map<number, WatchedUnit>();
  readonly #clock: Clock;
  #isDirty = false;
  #hasEnded = false;
  #writing: Promise<void> | null = null;

  constructor(path: string, run: Run, clock: Clock) {
    this.#path = path;
    this.#run = run;
    this.#clock = clock;
  }

  /**
   * Replaces the record of the run before, whose leftovers must have been ended. Nothing may be spawned before this
   * resolves. If we die before: the old record, and nothing of ours was started.
   */
  async begin(): Promise<void> {
    await writeFileAtomically(this.#path, this.#text());
  }

  watch(unit: WatchedUnit): void {
    this.#units.set(unit.groupId, unit);
    this.#writeSoon();
  }

  forget(groupId: number): void {
    if (this.#units.delete(groupId)) this.#writeSoon();
  }

  /** Marks the run as ended in order, unless something of it is left. Best effort: without the mark the next start looks. */
  async end(): Promise<void> {
    this.#hasEnded = this.#units.size === 0;
    this.#writeSoon();
    await this.#writing;
  }

  #text(): string {
    return textOf({ ...this.#run, units: [...this.#units.values()], ended: this.#hasEnded });
  }

  /** After the turn of the spawn, which a new file would hold up longer than all else, and once for all that comes in one. */
  #writeSoon(): void {
    this.#isDirty = true;
    this.#writing ??= this.#write().finally(() => this.#writing = null);
  }

  async #write(): Promise<void> {
    await this.#clock.sleep(WRITE_AFTER_MS);
    while (this.#isDirty) {
      this.#isDirty = false;
      try {
        await replaceFileUnsynced(this.#path, this.#text());
      } catch (error) {
        // The tags still tell; only a program that overwrote its environment would not be found.
        logger.warn("units not recorded", { error });
      }
    }
  }
}
