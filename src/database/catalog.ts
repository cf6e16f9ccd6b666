/**
 * The catalog: a local history of what happened (checkpoints, starts and exits, lease terms, …) for `GET /history`.
 * A convenience, never needed to recover: it takes events without waiting and never throws at who tells them, drops and
 * counts what does not fit, and loses events rather than hold up the manager. Its SQLite lives in a Worker (catalog_worker).
 */

import type { Clock } from "../platform/clock.ts";
import { workerUrl } from "../platform/entry.ts";
import { StateManagerError } from "../platform/errors.ts";
import { parentOf } from "../platform/files.ts";
import type { Log } from "../platform/log.ts";
import { plainFields } from "../platform/plain_value.ts";
import type {
  CatalogEvent,
  CatalogInsert,
  CatalogOperation,
  CatalogReply,
  CatalogRow,
  EventPlace,
  HistoryQuery,
} from "./catalog_types.ts";

/** The part of a Worker that the catalog uses, so that tests can bring one that hangs or dies. */
export type CatalogThread = Pick<
  Worker,
  "postMessage" | "terminate" | "onmessage" | "onerror"
>;

export interface CatalogOptions {
  /** Absolute path of the SQLite file; its folder exists and is where a native add-on may be unpacked. */
  readonly path: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Rows kept of each kind. */
  readonly rowsPerKind?: number;
  readonly startThread?: () => CatalogThread;
}

export interface Catalog {
  /** Takes an event; returns at once and never throws. */
  record(event: CatalogEvent): void;
  /** The same for one that is in its form already. */
  keep(event: CatalogInsert): void;
  /** With everything recorded before the call. Rejects where the catalog is out of order. */
  history(query: HistoryQuery): Promise<CatalogRow[]>;
  /** Writes what is queued for at most `deadlineMs`, then ends the Worker whatever it does. */
  close(deadlineMs: number): Promise<void>;
  /** Events that did not get into the catalog. */
  readonly droppedEvents: number;
}

/** Events of a crash loop while the disk stalls; about 10 MB at most. */
const QUEUE_LIMIT = 10_000;
/** One transaction; keeps a single message and the Worker's turn short. */
const BATCH_LIMIT = 200;
const HISTORY_LIMIT = 1000;
/** Two weeks of checkpoints every five minutes; with at most 5 KiB a row the file stays under 150 MiB. */
const ROWS_PER_KIND = 5000;
/** Longer details lose everything but this mark: the log has them. */
const DETAIL_LIMIT_BYTES = 4096;
const TEXT_LIMIT = 512;
/** A disk that takes longer for one small transaction is out of order. */
const REQUEST_DEADLINE_MS = 30_000;
/** The pause after a failure doubles from here … */
const RETRY_DELAY_MS = 1000;
/** … to here: a full disk is noticed to be free again soon enough, and trying costs nothing by then. */
const RETRY_MAX_DELAY_MS = 300_000;

interface Waiting {
  readonly resolve: (reply: CatalogReply) => void;
  readonly reject: (error: Error) => void;
}

interface HistoryRequest {
  readonly query: HistoryQuery;
  /** Count of recorded events that must be settled first. */
  readonly after: number;
  readonly resolve: (rows: CatalogRow[]) => void;
  readonly reject: (error: Error) => void;
}

/** Plain, bounded, without secrets: what may be kept of `event`. Throws where it is not of the shape that it has to be. */
export function keptForm(event: CatalogEvent, nowMs: number, place: EventPlace | null): CatalogInsert {
  const detail = JSON.stringify(plainFields(event.detail ?? {}));
  return {
    timeMs: Math.floor(event.atMs ?? nowMs),
    kind: event.kind,
    subject: event.subject.slice(0, TEXT_LIMIT),
    summary: event.summary.slice(0, TEXT_LIMIT),
    detail: detail.length > DETAIL_LIMIT_BYTES ? '{"truncated":true}' : detail,
    place,
  };
}

function unusable(reason: string): StateManagerError {
  return new StateManagerError("local-io", `read history: ${reason}`, {
    hint: "the log says what is wrong with the catalog; nothing else depends on it",
  });
}

function unknownEvent(): StateManagerError {
  return new StateManagerError("not-found", "read history: nothing is kept of the run of this event", {
    hint: "it is too long ago, or of another data folder: begin without it",
  });
}

class LocalCatalog implements Catalog {
  readonly #options: CatalogOptions;
  readonly #queue: CatalogInsert[] = [];
  readonly #histories: HistoryRequest[] = [];
  readonly #waiting = new Map<number, Waiting>();
  /** Ends the pause after a failure: there is no later time to wait for. */
  readonly #closing = new AbortController();
  readonly #ended = new AbortController();
  #thread: CatalogThread | undefined;
  #working: Promise<void> | undefined;
  #recorded = 0;
  #settled = 0;
  #dropped = 0;
  #unreported = 0;
  #failures = 0;
  #requests = 0;
  #closed = false;
  /** Why it does not work just now; null while it is not known to be out of order. */
  #pausedBy: string | null = null;

  constructor(options: CatalogOptions) {
    this.#options = options;
  }

  get droppedEvents(): number {
    return this.#dropped;
  }

  record(event: CatalogEvent): void {
    let kept: CatalogInsert;
    try {
      kept = keptForm(event, this.#options.clock.wallMs(), null);
    } catch {
      return this.#drop(1); // an event of the wrong shape, from code that casts
    }
    this.keep(kept);
  }

  keep(event: CatalogInsert): void {
    if (this.#closed || this.#queue.length >= QUEUE_LIMIT) return this.#drop(1);
    this.#queue.push(event);
    this.#recorded++;
    this.#work();
  }

  history(query: HistoryQuery): Promise<CatalogRow[]> {
    if (this.#closed) return Promise.reject(unusable("the catalog is closed"));
    if (this.#pausedBy !== null) {
      return Promise.reject(unusable(this.#pausedBy));
    }
    const limit = Math.max(1, Math.min(HISTORY_LIMIT, Math.floor(query.limit)));
    return new Promise((resolve, reject) => {
      this.#histories.push({
        query: { ...query, limit },
        after: this.#recorded,
        resolve,
        reject,
      });
      this.#work();
    });
  }

  async close(deadlineMs: number): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#closing.abort();
    const timer = new AbortController();
    const deadline = this.#options.clock.sleep(deadlineMs, {
      signal: timer.signal,
    }).catch(() => {});
    const finish = async () => {
      await this.#working;
      // A clean close folds the WAL in; without it the next open does.
      if (this.#thread !== undefined) {
        await this.#ask({ operation: "close" }).catch(() => {});
      }
    };
    await Promise.race([finish(), deadline]);
    timer.abort();
    this.#ended.abort();
    this.#endThread("the catalog is closed");
    this.#dropAll();
  }

  #dropAll(): void {
    this.#drop(this.#queue.length);
    this.#queue.length = 0;
    this.#rejectHistories("the catalog is closed");
  }

  #rejectHistories(reason: string): void {
    for (const each of this.#histories.splice(0)) each.reject(unusable(reason));
  }

  #drop(count: number): void {
    this.#dropped += count;
    this.#unreported += count;
  }

  /** Sees to it that one loop empties the queue. */
  #work(): void {
    this.#working ??= this.#loop();
  }

  async #loop(): Promise<void> {
    while (
      (this.#queue.length > 0 || this.#histories.length > 0) &&
      !this.#ended.signal.aborted
    ) {
      try {
        await this.#step();
        this.#succeeded();
      } catch (error) {
        await this.#failed(error);
      }
    }
    this.#working = undefined; // in the same turn as the last look at the queue, or an event could be left behind
  }

  /** One request to the Worker: a history whose turn it is, else a batch of events. */
  async #step(): Promise<void> {
    if (this.#thread === undefined) await this.#startThread();
    const history = this.#histories[0];
    if (history !== undefined && history.after <= this.#settled) {
      const reply = await this.#ask({
        operation: "history",
        query: history.query,
        stamp: this.#stamp(),
      });
      if (this.#histories[0] === history) this.#histories.shift();
      if (!reply.ok) history.reject(unusable(reply.message));
      else if (reply.isUnknown === true) history.reject(unknownEvent());
      else history.resolve([...reply.rows]);
      return;
    }
    const rows = this.#queue.splice(0, BATCH_LIMIT);
    try {
      const reply = await this.#ask({
        operation: "record",
        rows,
        stamp: this.#stamp(),
      });
      if (!reply.ok) {
        throw new StateManagerError(
          "local-io",
          `record events: ${reply.message}`,
        );
      }
    } catch (error) {
      this.#drop(rows.length);
      throw error;
    } finally {
      this.#settled += rows.length;
    }
  }

  #succeeded(): void {
    this.#failures = 0;
    if (this.#unreported === 0) return;
    this.#options.log.warn("events are missing in the catalog", {
      events: this.#unreported,
    });
    this.#unreported = 0;
  }

  /** The Worker failed or the file refused: told once, then tried again after a pause that grows. */
  async #failed(error: unknown): Promise<void> {
    if (this.#ended.signal.aborted) return;
    const { log, clock } = this.#options;
    this.#endThread("the catalog failed");
    if (this.#closed) return this.#dropAll();
    if (++this.#failures === 1) {
      log.warn("the catalog does not work; trying again later", { error });
    }
    this.#pausedBy = error instanceof Error ? error.message : String(error);
    this.#rejectHistories(this.#pausedBy);
    const delayMs = Math.min(
      RETRY_MAX_DELAY_MS,
      RETRY_DELAY_MS * 2 ** (this.#failures - 1),
    );
    await clock.sleep(delayMs, { signal: this.#closing.signal }).catch(
      () => {},
    );
    this.#pausedBy = null;
  }

  #stamp(): string {
    return new Date(this.#options.clock.wallMs()).toISOString().replaceAll(
      ":",
      "",
    );
  }

  async #startThread(): Promise<void> {
    const { path, startThread, rowsPerKind } = this.#options;
    const thread = startThread?.() ??
      new Worker(workerUrl("src/database/catalog_worker"), { type: "module" });
    this.#thread = thread;
    thread.onmessage = (event: MessageEvent<CatalogReply>) => {
      const waiting = this.#waiting.get(event.data.id);
      this.#waiting.delete(event.data.id);
      waiting?.resolve(event.data);
    };
    thread.onerror = (event: ErrorEvent) => {
      event.preventDefault(); // unhandled it would end the process
      this.#endThread(`its Worker failed: ${event.message}`);
    };
    const reply = await this.#ask({
      operation: "open",
      path,
      nativeFolder: parentOf(path),
      rowsPerKind: rowsPerKind ?? ROWS_PER_KIND,
      stamp: this.#stamp(),
    });
    if (!reply.ok) {
      throw new StateManagerError(
        "local-io",
        `open catalog ${path}: ${reply.message}`,
      );
    }
  }

  #endThread(reason: string): void {
    this.#thread?.terminate();
    this.#thread = undefined;
    for (const waiting of this.#waiting.values()) {
      waiting.reject(unusable(reason));
    }
    this.#waiting.clear();
  }

  /** Sends a request and waits for its reply, at most REQUEST_DEADLINE_MS. */
  async #ask(operation: CatalogOperation): Promise<CatalogReply> {
    const id = ++this.#requests;
    const answered = new AbortController();
    const reply = new Promise<CatalogReply>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#thread?.postMessage({ ...operation, id });
    });
    const deadline = this.#options.clock.sleep(REQUEST_DEADLINE_MS, {
      signal: answered.signal,
    })
      .then(
        () => this.#endThread(`no answer within ${REQUEST_DEADLINE_MS / 1000} s`),
        () => {},
      );
    try {
      const answer = await reply;
      if (answer.ok) {
        for (const notice of answer.notices) this.#options.log.warn(notice);
      }
      return answer;
    } finally {
      answered.abort();
      await deadline;
    }
  }
}

/** A catalog on `path`. Nothing is opened or started before the first event or question. */
export function openCatalog(options: CatalogOptions): Catalog {
  return new LocalCatalog(options);
}
