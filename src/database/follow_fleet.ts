/**
 * All followed databases of one process: looks at each several times a second, finds new ones in folders, answers
 * questions, and tells what changed. One database that fails, hangs or ends holds up no other.
 */

import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { isMissing, type LocalFiles, systemFiles } from "../platform/local_files.ts";
import { errorToWire, type WireError } from "../platform/wire_error.ts";
import { databasesIn } from "./follow_folder.ts";
import { LOOK_INTERVAL_MS } from "./follow_pace.ts";
import type { Places } from "./follow_places.ts";
import type { UnitParts } from "./follow_ports.ts";
import {
  ALIVE_INTERVAL_MS,
  type FollowedDatabase,
  type FollowedFolder,
  type FollowEvent,
  type FollowQuestion,
  type FollowReply,
  type Positions,
} from "./follow_protocol.ts";
import { FollowUnit, type SealOutcome } from "./follow_unit.ts";

const FOLDER_INTERVAL_MS = 1_000;
const STATUS_INTERVAL_MS = 300;

export interface FleetOptions {
  readonly parts: UnitParts;
  readonly clock: Clock;
  /** For files too large to be in memory for each database at once. */
  readonly uploads: Places;
  readonly folders: readonly FollowedFolder[];
  readonly removed: readonly string[];
  /** Where each was left, by name. */
  readonly behind: Readonly<Record<string, number>>;
  readonly send: (reply: FollowReply) => void;
  readonly files?: LocalFiles;
}

export class FollowFleet {
  readonly #options: FleetOptions;
  readonly #units = new Map<string, FollowUnit>();
  readonly #stop = new AbortController();
  readonly #changed = new Set<string>();
  readonly #gone = new Set<string>();
  /** Not to be found again in a folder, until they are added: their files may be replaced just now. */
  readonly #removed: Set<string>;
  /** Last status told, as text. */
  readonly #told = new Map<string, string>();
  /** Folder and file name: said once. */
  readonly #refused = new Set<string>();
  #fenced: StateManagerError | null = null;
  #isFinishing = false;
  #lastStatusMs = -Infinity;
  #lastDurableMs = -Infinity;
  #isTellingDurable = false;
  #lastWordMs = -Infinity;
  #lastFolderMs = -Infinity;

  constructor(options: FleetOptions) {
    this.#options = options;
    this.#removed = new Set(options.removed);
  }

  add(database: FollowedDatabase): void {
    const { name } = database;
    if (this.#units.has(name) || this.#fenced !== null) return;
    const { parts, clock, uploads, behind } = this.#options;
    const unit = new FollowUnit(database, behind[name] ?? null, {
      parts,
      clock,
      places: uploads,
      backlogBytes: () => this.#backlogBytes(),
      onChange: () => this.#changed.add(name),
      onDurable: () => {
        this.#changed.add(name);
        void this.#tellDurable();
      },
      onEvent: (event) => this.event(event),
      onFenced: (error) => this.#fence(name, error),
    });
    this.#units.set(name, unit);
    this.#gone.delete(name);
    this.#removed.delete(name);
    this.#changed.add(name);
    unit.start();
  }

  pins(pins: Readonly<Record<string, readonly number[]>>, wanted: Readonly<Record<string, number>>): void {
    for (const [name, kept] of Object.entries(pins)) this.#units.get(name)?.pin(kept);
    for (const [name, unit] of this.#units) {
      const txid = wanted[name];
      unit.want(txid === undefined ? [] : [txid]);
    }
  }

  event(event: FollowEvent): void {
    this.#options.send({ type: "event", event });
  }

  /** Looks and tells, until `stop`. */
  async run(): Promise<void> {
    const { clock, folders } = this.#options;
    const { signal } = this.#stop;
    for (let lookMs = clock.monotonicMs(); !signal.aborted;) {
      const nowMs = clock.monotonicMs();
      if (nowMs - this.#lastFolderMs >= FOLDER_INTERVAL_MS) {
        this.#lastFolderMs = nowMs;
        await this.#scanFolders();
      }
      let pauseMs = this.#units.size > 0 && folders.length === 0 ? Infinity : LOOK_INTERVAL_MS;
      for (const unit of this.#units.values()) pauseMs = Math.min(pauseMs, unit.tick(nowMs));
      this.#tell(nowMs);
      // In time with a beat, so that ten looks are a second; one that comes late begins another beat.
      lookMs = Math.max(lookMs + pauseMs, nowMs);
      await clock.sleep(lookMs - clock.monotonicMs(), { signal }).catch(() => {});
    }
  }

  /** Lets go of everything at once. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all([...this.#units.values()].map((unit) => unit.stop()));
  }

  /** What the question is answered with, when the status that goes with it has been told. Rejects where it cannot be. */
  async answer(question: FollowQuestion): Promise<unknown> {
    try {
      return await this.#answer(question);
    } finally {
      this.#tellChanges(this.#options.clock.monotonicMs());
    }
  }

  async #answer(question: FollowQuestion): Promise<unknown> {
    if (this.#fenced !== null) throw this.#fenced;
    switch (question.type) {
      case "sync": {
        const txid = await this.#unit(question.name).barrier();
        if (txid === null) throw noFile(question.name);
        return { txid };
      }
      case "position":
        return await this.#ofAll((unit) => unit.position());
      case "seal":
        return await this.#ofAll((unit) => unit.seal());
      case "finish":
        this.#isFinishing = true;
        return await this.#ofAll((unit) => unit.finish());
      case "remove":
        return await this.#remove(question.name);
    }
  }

  async #remove(name: string): Promise<null> {
    const unit = this.#units.get(name);
    this.#units.delete(name);
    this.#removed.add(name);
    await unit?.stop();
    this.#told.delete(name);
    this.#changed.delete(name);
    if (unit !== undefined) this.#gone.add(name);
    return null;
  }

  async #ofAll(ask: (unit: FollowUnit) => Promise<number | null | SealOutcome>): Promise<Positions> {
    const positions: Record<string, number> = {};
    const failures: Record<string, WireError> = {};
    const absorbed: Record<string, number> = {};
    await Promise.all([...this.#units].map(async ([name, unit]) => {
      try {
        const outcome = await ask(unit);
        if (typeof outcome === "number") positions[name] = outcome;
        else if (outcome?.kind === "sealed") positions[name] = outcome.txid;
        else if (outcome?.kind === "absorbed") absorbed[name] = outcome.txid;
      } catch (error) {
        failures[name] = errorToWire(error);
      }
    }));
    if (this.#fenced !== null) throw this.#fenced;
    return { positions, failures, absorbed };
  }

  #unit(name: string): FollowUnit {
    const unit = this.#units.get(name);
    if (unit === undefined) throw new StateManagerError("not-found", `follow: there is no database ${name}`);
    return unit;
  }

  #backlogBytes(): number {
    let sum = 0;
    for (const unit of this.#units.values()) sum += unit.waitingBytes;
    return sum;
  }

  #fence(name: string, error: StateManagerError): void {
    if (this.#fenced !== null) return;
    this.#fenced = error;
    this.#options.send({ type: "fenced", name, error: errorToWire(error) });
    for (const unit of this.#units.values()) unit.stop().catch(() => {});
  }

  async #scanFolders(): Promise<void> {
    if (this.#isFinishing || this.#fenced !== null) return;
    const { folders, files = systemFiles } = this.#options;
    for (const folder of folders) {
      try {
        const entries = await files.list(folder.folder);
        // A file that is there already, as another name's, is left to it.
        const paths = new Set([...this.#units.values()].map(({ database }) => database.path));
        const scan = databasesIn(
          folder,
          entries.filter(({ kind }) => kind === "file").map(({ name }) => name),
        );
        for (const database of scan.databases) if (!paths.has(database.path)) this.#found(database);
        for (const name of scan.refused) this.#refuse(folder, `${folder.folder}/${name}`);
      } catch (error) {
        // It may come yet; anything else is said once.
        if (!isMissing(error)) this.#cannotList(folder, asStateManagerError(error));
      }
    }
  }

  #found(database: FollowedDatabase): void {
    const { name, path } = database;
    if (this.#removed.has(name)) return;
    this.event({ level: "info", kind: "found", name, message: `${name}: follows ${path}`, hint: null });
    this.add(database);
  }

  #refuse({ name }: FollowedFolder, path: string): void {
    this.#once(path, name, `${path} is not followed: its name has other characters than A-Z a-z 0-9 . _ -`);
  }

  #cannotList({ name, folder }: FollowedFolder, error: StateManagerError): void {
    this.#once(folder, name, `${name}: cannot list ${folder}: ${error.message}`);
  }

  #once(subject: string, name: string, message: string): void {
    if (this.#refused.has(subject)) return;
    this.#refused.add(subject);
    this.event({ level: "warn", kind: "warning", name, message, hint: null });
  }

  /** What changed, at most a few times a second; else now and then that we live. */
  #tell(nowMs: number): void {
    if (nowMs - this.#lastStatusMs >= STATUS_INTERVAL_MS) this.#tellChanges(nowMs);
    if (nowMs - this.#lastWordMs >= ALIVE_INTERVAL_MS) this.#say({ type: "alive" }, nowMs);
  }

  /** Looks may be a second apart: what they told of as waiting would seem to wait until the next one. Limited by itself. */
  async #tellDurable(): Promise<void> {
    if (this.#isTellingDurable) return;
    this.#isTellingDurable = true;
    const { clock } = this.#options;
    const { signal } = this.#stop;
    const waitMs = this.#lastDurableMs + STATUS_INTERVAL_MS - clock.monotonicMs();
    if (waitMs > 0) await clock.sleep(waitMs, { signal }).catch(() => {});
    this.#isTellingDurable = false;
    if (signal.aborted) return;
    this.#lastDurableMs = clock.monotonicMs();
    this.#tellChanges(this.#lastDurableMs);
  }

  #tellChanges(nowMs: number): void {
    if (this.#changed.size + this.#gone.size === 0) return;
    const databases = [...this.#changed].flatMap((name) => this.#newStatus(name) ?? []);
    const gone = [...this.#gone];
    this.#changed.clear();
    this.#gone.clear();
    this.#lastStatusMs = nowMs;
    if (databases.length + gone.length > 0) this.#say({ type: "status", databases, gone }, nowMs);
  }

  #newStatus(name: string) {
    const status = this.#units.get(name)?.status();
    if (status === undefined) return null;
    const text = JSON.stringify(status);
    if (this.#told.get(name) === text) return null;
    this.#told.set(name, text);
    return status;
  }

  #say(reply: FollowReply, nowMs: number): void {
    this.#lastWordMs = nowMs;
    this.#options.send(reply);
  }
}

function noFile(name: string): StateManagerError {
  return new StateManagerError("wrong-state", `sync ${name}: its file is not there yet`, {
    hint: "it is followed from its first commit on",
  });
}
