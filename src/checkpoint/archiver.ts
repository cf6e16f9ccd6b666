/**
 * The archiver: the hidden subcommand `__archive`, a child of the manager that lives for one operation. All reading of
 * trees, compressing and transferring happens here, so that the manager stays small and quick. It may be killed at any
 * moment: it changes nothing live and commits nothing, so only garbage is left. It ends when its stdin closes.
 */

import { buildInfo } from "../platform/build_info.ts";
import { systemClock } from "../platform/clock.ts";
import { StateManagerError } from "../platform/errors.ts";
import { ensureFolder, removeIfPresent } from "../platform/files.ts";
import { keepHeapSmallWhereShort } from "../platform/heap.ts";
import { yieldToOthers } from "../platform/libc_priority.ts";
import { memoryLimitBytes, usableCores } from "../platform/machine.ts";
import { exitNow, openParentPipe, type ParentPipe } from "../platform/parent_pipe.ts";
import { systemRandom } from "../platform/random.ts";
import { errorToWire } from "../platform/wire_error.ts";
import { openWireStore, RateLimit, rateLimited } from "../storage/mod.ts";
import {
  type HoldLine,
  LINE_LIMIT_BYTES,
  PROTOCOL,
  type ReplyLine,
  type RequestLine,
  type Results,
  WARNINGS_LIMIT,
} from "./archiver_protocol.ts";
import { openCipher } from "./cipher.ts";
import { collectGarbage } from "./collect.ts";
import { listFolder } from "./browse.ts";
import { composeRestoreRoot } from "./compose.ts";
import { createCheckpoint } from "./create.ts";
import { diffCheckpoints } from "./diff.ts";
import type { Hold, Released } from "./hold.ts";
import { rebuildIndexes } from "./repair.ts";
import { planRestore, stageCheckpoint } from "./restore.ts";
import { sweepNames } from "./sweep.ts";
import type { ArchiveProgress, FileWarning } from "./types.ts";
import { verifyRepository } from "./verify.ts";

/** A sign of life, so that the manager can tell slow from stuck. */
const ALIVE_INTERVAL_MS = 1000;

/** Runs the one operation. Resolves with its exit code; 0 also for an error that was told. */
export async function archiverMain(): Promise<number> {
  keepHeapSmallWhereShort();
  const pipe = openParentPipe(LINE_LIMIT_BYTES);
  const send = (line: ReplyLine) => pipe.send(line);
  await send({ type: "hello", protocol: PROTOCOL, build: buildInfo().build });
  const first = await pipe.lines.next();
  if (first.done === true) return 0; // the manager went away before it asked
  const hold = new AskedHold(send);
  // Nobody is left to tell: end at once. Everything here is garbage until the manager commits it.
  listen(pipe, hold).catch(() => exitNow(1));
  try {
    const request: RequestLine = JSON.parse(first.value);
    if (request.protocol !== PROTOCOL) {
      throw new StateManagerError(
        "wrong-state",
        `archive: protocol ${request.protocol}, known is ${PROTOCOL}`,
        {
          hint: "the program was replaced while it ran: restart the manager",
        },
      );
    }
    const result = await runOperation(request, send, hold);
    await send({ type: "done", result });
  } catch (error) {
    await send({ type: "error", error: errorToWire(error) });
  }
  return 0;
}

async function listen(pipe: ParentPipe, hold: AskedHold): Promise<void> {
  for await (const text of pipe.lines) hold.told(JSON.parse(text));
  exitNow(0);
}

/** The hold that the manager has: asked for and given back by lines. Each wait ends at the latest with the manager. */
class AskedHold implements Hold {
  readonly #send: (line: ReplyLine) => Promise<void>;
  readonly #held = Promise.withResolvers<void>();
  readonly #released = Promise.withResolvers<Released>();
  readonly #over = new AbortController();

  constructor(send: (line: ReplyLine) => Promise<void>) {
    this.#send = send;
  }

  get over(): AbortSignal {
    return this.#over.signal;
  }

  async begin(): Promise<void> {
    await this.#send({ type: "hold" });
    await this.#held.promise;
  }

  async end(): Promise<Released> {
    await this.#send({ type: "release" });
    return await this.#released.promise;
  }

  told(line: HoldLine): void {
    if (line.type === "held") this.#held.resolve();
    else if (line.type === "over") this.#over.abort(new StateManagerError("timeout", "hold: it is over"));
    else this.#released.resolve(line.released);
  }
}

async function runOperation(
  line: RequestLine,
  send: (line: ReplyLine) => Promise<void>,
  hold: Hold,
): Promise<Results[RequestLine["op"]]> {
  const clock = systemClock();
  const random = systemRandom();
  if (yields(line)) yieldToOthers();
  const store = rateLimited(openWireStore(line.store, { clock, random }), {
    ...(line.rates.upload > 0 ? { upload: new RateLimit(line.rates.upload, clock) } : {}),
    ...(line.rates.download > 0 ? { download: new RateLimit(line.rates.download, clock) } : {}),
  });
  let latest: ArchiveProgress | null = null;
  const onProgress = (progress: ArchiveProgress) => {
    latest = progress;
    send({ type: "progress", progress }).catch(() => exitNow(1));
  };
  const alive = setInterval(() => {
    if (latest !== null) onProgress(latest);
  }, ALIVE_INTERVAL_MS);
  const signal = new AbortController().signal; // cancelling is killing
  const madeBy = `state-manager ${buildInfo().version} (${buildInfo().build})`;
  const cipher = openCipher(line.cipher, random);
  const { cacheFolder } = line;
  const isNear = line.store.kind === "directory";
  const environment = { store, isNear, cipher, clock, random, cacheFolder, madeBy, signal, onProgress };
  try {
    switch (line.op) {
      case "create": {
        const scratchFolder = `${line.scratchFolder}/create`;
        await removeIfPresent(scratchFolder); // what a killed one left
        await ensureFolder(scratchFolder, 0o700);
        const machine = { cores: usableCores(), memoryLimitBytes: memoryLimitBytes(), putsInPlace: isNear };
        const onCaptured = () => void send({ type: "captured" }).catch(() => exitNow(1));
        const result = await createCheckpoint(line.request, {
          ...environment,
          machine,
          scratchFolder,
          onCaptured,
          ...(line.request.held === true ? { hold } : {}),
        });
        await removeIfPresent(scratchFolder);
        return { ...result, warnings: firstWarnings(result.warnings) };
      }
      case "stage": {
        const result = await stageCheckpoint(line.request, environment);
        return { ...result, warnings: firstWarnings(result.warnings) };
      }
      case "plan":
        return await planRestore(line.request, environment);
      case "compose":
        return await composeRestoreRoot(line.request, environment);
      case "verify":
        return await verifyRepository(line.request, { ...environment, scratchFolder: line.scratchFolder });
      case "repair":
        return await rebuildIndexes(line.request, environment);
      case "files":
        return await listFolder(line.request, environment);
      case "diff":
        return await diffCheckpoints(line.request, environment);
      case "collect":
        return await collectGarbage(line.request, environment);
      case "sweep": {
        let entries = 0;
        const onDeleted = () => latest = { phase: "finish", entries: ++entries, bytes: 0, totalBytes: null };
        onProgress({ phase: "finish", entries, bytes: 0, totalBytes: null });
        return await sweepNames(line.request, { store, signal, onDeleted });
      }
    }
  } finally {
    clearInterval(alive);
    await store.close();
  }
}

/** True beside running programs, which need the machine more; false where they wait for us or have ended. */
function yields(line: RequestLine): boolean {
  if (line.op === "create") return line.request.kind === "interval" || line.request.kind === "request";
  return line.op === "verify" || line.op === "repair" || line.op === "collect" || line.op === "sweep";
}

function firstWarnings(warnings: readonly FileWarning[]): readonly FileWarning[] {
  if (warnings.length <= WARNINGS_LIMIT) return warnings;
  const more = warnings.length - WARNINGS_LIMIT;
  return [...warnings.slice(0, WARNINGS_LIMIT), { root: "", path: "", reason: `${more} more warnings` }];
}
