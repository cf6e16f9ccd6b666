/**
 * The manager's side of the archiver: one child per operation, bounded in what it may send, killed when the work is
 * aborted or it falls silent. Credentials go through its stdin only, never by argument or environment.
 */

import type { Clock } from "../platform/clock.ts";
import { selfCommand } from "../platform/entry.ts";
import { StateManagerError } from "../platform/errors.ts";
import { type ChildLife, converse } from "../platform/line_child.ts";
import { isMemoryShort } from "../platform/machine.ts";
import { errorFromWire } from "../platform/wire_error.ts";
import { storeToWire } from "../storage/mod.ts";
import {
  type ArchiverRates,
  type ArchiverStore,
  type HoldLine,
  LINE_LIMIT_BYTES,
  type Operation,
  PROTOCOL,
  type ReplyLine,
  type RequestLine,
  type Results,
} from "./archiver_protocol.ts";
import type { Cipher } from "./cipher.ts";
import type { CollectRequest, CollectResult } from "./collect.ts";
import type { FolderListing, FolderRequest } from "./browse.ts";
import type { Compression } from "./compression.ts";
import type { ComposeRequest, ComposeResult } from "./compose.ts";
import type { CreateRequest, CreateResult, HeadFacts } from "./create.ts";
import type { DiffRequest, DiffResult } from "./diff.ts";
import type { Hold } from "./hold.ts";
import { nextOrdinal } from "./head.ts";
import type { Names } from "./prune_rules.ts";
import type { RepairRequest, RepairResult } from "./repair.ts";
import type { PlanRequest, RestorePlan, StageResult } from "./restore.ts";
import type { StageTarget } from "./stage_root.ts";
import type { SweepResult } from "./sweep.ts";
import type { ArchiveProgress, CheckpointRecord, Head } from "./types.ts";
import type { VerifyRequest, VerifyResult } from "./verify_types.ts";

/** The child says something each second; one that is silent for this long is stuck (a dead disk, a stopped process). */
const SILENCE_LIMIT_MS = 10 * 60 * 1000;

const MIB = 1024 * 1024;

/**
 * How glibc deals with memory in the child, where several threads take and free buffers of megabytes: two places in which
 * it is kept, not one for each thread, and what is large goes back to the system at once. But the bodies of uploads use
 * the same memory again where there is enough of it: each is copied once for the network, and to touch 16 MiB of new
 * memory takes four times what the copy does.
 */
export function archiverEnv(
  store: Pick<ArchiverStore, "kind">,
  isShort: boolean,
): Readonly<Record<string, string>> {
  const [arenas, small] = [{ MALLOC_ARENA_MAX: "2" }, 128 * 1024];
  if (store.kind === "directory" || isShort) return { ...arenas, MALLOC_MMAP_THRESHOLD_: `${small}` };
  return { ...arenas, MALLOC_MMAP_THRESHOLD_: `${32 * MIB}`, MALLOC_TRIM_THRESHOLD_: `${64 * MIB}` };
}

export interface ArchiverOptions {
  readonly store: ArchiverStore;
  /** Of the repository. Its key goes to the child as the credentials do. */
  readonly cipher: Cipher;
  /** Folders in the data dir: `cache` is kept, `scratch` may be emptied at any time by its owner. */
  readonly dir: { readonly cache: string; readonly scratch: string };
  readonly clock: Clock;
  /** Left out: no limits. */
  readonly rates?: ArchiverRates;
  /** Of files; left out: "auto". */
  readonly compression?: Compression;
  /** argv of the child; the default is this program. */
  readonly command?: { readonly command: string; readonly args: readonly string[] };
  readonly silenceLimitMs?: number;
  /** Made anew for each child, before its spawn. */
  readonly watchChild?: () => ChildLife;
  /** Told of each operation how far it is, and how it ended. Must not throw. */
  readonly onWork?: (operation: Operation["op"], step: ArchiveProgress | "done" | "failed") => void;
}

export interface ArchiverWork {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: ArchiveProgress) => void;
  /** With the checkpoint's id, when its content is fixed. */
  readonly onCaptured?: (id: string) => void;
  /** Makes the programs stand still; the caller sees to it that they go on, however the work ends. */
  readonly hold?: Hold;
}

/** What the caller says of a new checkpoint; the head's part is taken from `head`. */
export type NewCheckpoint = Omit<CreateRequest, "head" | "devices" | "compression"> & { readonly head: Head };

function factsOf(head: Head): HeadFacts {
  const current = head.checkpoints.find((record) => record.id === head.current) ?? null;
  const doomed = head.doomed.map(({ pack }) => pack);
  return { repo_id: head.repo_id, n: nextOrdinal(head), current, indexes: head.indexes, doomed };
}

export class Archiver {
  readonly #options: ArchiverOptions;
  readonly #closed = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  /** Devices of the roots as this manager saw them: one that changes means a volume came or went. */
  #devices: Readonly<Record<string, string>> = {};

  constructor(options: ArchiverOptions) {
    this.#options = options;
  }

  /** Reads and uploads; the caller commits the record with the indexes into the head that it gave. */
  async create(request: NewCheckpoint, work: ArchiverWork = {}): Promise<CreateResult> {
    const { compression = "auto" } = this.#options;
    const full: CreateRequest = {
      ...request,
      compression,
      head: factsOf(request.head),
      devices: this.#devices,
      held: work.hold !== undefined,
    };
    const result = await this.#run(
      { op: "create", request: full },
      work,
      () => work.onCaptured?.(request.id),
    );
    this.#devices = { ...this.#devices, ...result.devices };
    return result;
  }

  /** Brings files roots into stages that do not exist yet; `former` ones of the same restore are used up. */
  async stage(
    request: {
      readonly head: Head;
      readonly record: CheckpointRecord;
      readonly roots: readonly StageTarget[];
    },
    work: ArchiverWork = {},
  ): Promise<StageResult> {
    const { head, record, roots } = request;
    const result = await this.#run({ op: "stage", request: { record, indexes: head.indexes, roots } }, work);
    // A restored root may come to lie on another device than the one before it.
    const restored = new Set(roots.map((root) => root.name));
    this.#devices = Object.fromEntries(Object.entries(this.#devices).filter(([name]) => !restored.has(name)));
    return result;
  }

  /** What staging and swapping would do. */
  plan(
    request: Omit<PlanRequest, "indexes"> & { readonly head: Head },
    work: ArchiverWork = {},
  ): Promise<RestorePlan> {
    const { head, ...rest } = request;
    return this.#run({ op: "plan", request: { ...rest, indexes: head.indexes } }, work);
  }

  /** The record of a restore to the past: items of `source` for `names`, the current ones for all else. */
  composeRestore(
    request: Omit<ComposeRequest, "head" | "comment" | "labels"> & {
      readonly head: Head;
      readonly comment?: string;
      readonly labels?: Readonly<Record<string, string>>;
    },
    work: ArchiverWork = {},
  ): Promise<ComposeResult> {
    const { comment = "", labels = {}, ...rest } = request;
    return this.#run(
      { op: "compose", request: { ...rest, comment, labels, head: factsOf(request.head) } },
      work,
    );
  }

  /** Reads what the store has; what is wrong is in the result. One at a time: level 4 uses the scratch folder. */
  verify(
    request: Omit<VerifyRequest, "known"> & { readonly head: Head },
    work: ArchiverWork = {},
  ): Promise<VerifyResult> {
    const { head, ...rest } = request;
    const { repo_id, seq, current, checkpoints, indexes } = head;
    const known = seq === 0 ? null : { repo_id, seq, current, checkpoints, indexes };
    return this.#run({ op: "verify", request: { ...rest, known } }, work);
  }

  /** New indexes from the packs; the caller commits them into the head that it gave. Never beside a `create`. */
  repair(
    request: Omit<RepairRequest, "head"> & { readonly head: Head },
    work: ArchiverWork = {},
  ): Promise<RepairResult> {
    const { epoch, doomed, indexes } = request.head;
    return this.#run({ op: "repair", request: { ...request, head: { epoch, doomed, indexes } } }, work);
  }

  /**
   * What may be doomed, and the indexes without it. `keep`: every checkpoint whose chunks must stay. Never beside a
   * `create` of the same manager: what that one has sent would look like garbage.
   */
  collect(
    request: {
      readonly token: number;
      readonly head: Head;
      readonly keep: readonly CheckpointRecord[];
      readonly dryRun: boolean;
    },
    work: ArchiverWork = {},
  ): Promise<CollectResult> {
    const { token, keep, dryRun } = request;
    const { doomed, doomed_objects, indexes } = request.head;
    const full: CollectRequest = {
      token,
      head: { doomed, indexes, ...(doomed_objects === undefined ? {} : { doomed_objects }) },
      roots: keep.map(({ id, root, root_sha256 }) => ({ id, root, root_sha256 })),
      dryRun,
    };
    return this.#run({ op: "collect", request: full }, work);
  }

  /** Deletes names that a head which we committed dooms. */
  sweep(names: Names, work: ArchiverWork = {}): Promise<SweepResult> {
    return this.#run({ op: "sweep", request: names }, work);
  }

  /** What is in a folder of a checkpoint. */
  files(request: FolderRequest, work: ArchiverWork = {}): Promise<FolderListing> {
    return this.#run({ op: "files", request }, work);
  }

  /** What differs between two checkpoints. */
  diff(request: DiffRequest, work: ArchiverWork = {}): Promise<DiffResult> {
    return this.#run({ op: "diff", request }, work);
  }

  /** Ends what runs; no call may follow. */
  async close(): Promise<void> {
    this.#closed.abort(new StateManagerError("cancelled", "archive: the manager stops"));
    await Promise.allSettled(this.#running);
  }

  #run<Op extends Operation["op"]>(
    operation: Extract<Operation, { op: Op }>,
    work: ArchiverWork,
    onCaptured: () => void = () => {},
  ): Promise<Results[Op]> {
    const signals = [this.#closed.signal, ...(work.signal === undefined ? [] : [work.signal])];
    const { onWork } = this.#options;
    const onProgress = (progress: ArchiveProgress) => {
      onWork?.(operation.op, progress);
      work.onProgress?.(progress);
    };
    const listeners = { onProgress, onCaptured, hold: work.hold };
    const run = runArchiver(this.#options, operation, AbortSignal.any(signals), listeners);
    run.then(() => onWork?.(operation.op, "done"), () => onWork?.(operation.op, "failed"));
    const tracked = run.finally(() => this.#running.delete(tracked));
    this.#running.add(tracked);
    // The child is this program: what it says of a result is what its types say.
    return tracked as Promise<Results[Op]>;
  }
}

interface Listeners {
  readonly onProgress: (progress: ArchiveProgress) => void;
  readonly onCaptured: () => void;
  readonly hold: Hold | undefined;
}

/** One child from its start to its end. */
async function runArchiver(
  options: ArchiverOptions,
  operation: Operation,
  outside: AbortSignal,
  { onProgress, onCaptured, hold }: Listeners,
): Promise<unknown> {
  outside.throwIfAborted();
  const failed = new AbortController();
  const signal = AbortSignal.any([outside, failed.signal]);
  const { store, cipher, dir, clock } = options;
  const request = (): readonly [RequestLine] => [{
    ...operation,
    protocol: PROTOCOL,
    store: storeToWire(store),
    rates: options.rates ?? { upload: 0, download: 0 },
    cipher: cipher.forWorker(),
    cacheFolder: dir.cache,
    scratchFolder: dir.scratch,
  }];
  const life = options.watchChild?.();
  const child = {
    action: "archive",
    name: "archiver",
    command: options.command ?? selfCommand(["__archive"]),
    protocol: PROTOCOL,
    clock,
    lineLimitBytes: LINE_LIMIT_BYTES,
    silenceLimitMs: options.silenceLimitMs ?? SILENCE_LIMIT_MS,
    signal,
    life: life === undefined
      ? undefined
      : { ...life, env: { ...archiverEnv(store, isMemoryShort()), ...life.env } },
  };
  return await converse(child, async ({ replies, send }) => {
    const holding = hold === undefined ? null : new Holding(hold, send, (error) => failed.abort(error));
    for await (const reply of replies(request)) {
      const line = reply as ReplyLine;
      if (line.type === "progress") onProgress(line.progress);
      else if (line.type === "captured") onCaptured();
      else if (line.type === "hold") holding?.begin();
      else if (line.type === "release") holding?.end();
      else if (line.type === "error") throw errorFromWire(line.error);
      else if (line.type === "done") return line.result;
    }
    return undefined; // not reached: the replies end by throwing
  });
}

/** Does what the child asks of a hold, beside the talk with it. */
class Holding {
  readonly #hold: Hold;
  readonly #send: (line: HoldLine) => void;
  readonly #fail: (error: unknown) => void;

  constructor(hold: Hold, send: (line: HoldLine) => void, fail: (error: unknown) => void) {
    this.#hold = hold;
    this.#send = send;
    this.#fail = fail;
    hold.over.addEventListener("abort", () => send({ type: "over" }), { once: true });
  }

  begin(): void {
    this.#hold.begin().then(() => this.#send({ type: "held" }), this.#fail);
  }

  end(): void {
    this.#hold.end().then((released) => this.#send({ type: "released", released }), this.#fail);
  }
}
