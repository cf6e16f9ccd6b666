/**
 * `state-manager storage repair`: new indexes from the packs. By the manager that runs, under its lease; straight on the
 * store where none does: then it takes the lease for as long as it works, so that nobody else changes the head meanwhile.
 */

import { configuredKey, HeadSession, readHead, rebuildIndexes, repositoryCipher } from "../checkpoint/mod.ts";
import { LeaseHolder } from "../lease/mod.ts";
import { StateManagerError } from "../platform/errors.ts";
import { repairView } from "../server/mod.ts";
import { openStore } from "../storage/mod.ts";
import { type JsonObject, openClient } from "./client.ts";
import { configuredPlace } from "./configured_store.ts";
import { confirm, type Context, type ExitCode, type Options, say } from "./context.ts";
import { fromManagerOrStore } from "./manager_or_store.ts";
import { readNamedRepository } from "./named_place.ts";
import { progressEvent, showProgress } from "./progress.ts";
import { count, json, printable } from "./text.ts";

/** Chunks are lost for good. */
const DAMAGED = 65;
/** The defaults of `lease.ttl` and `lease.renew`. */
const LEASE = { ttlMs: 30_000, renewMs: 8_000 };
const RELEASE_TIMEOUT_MS = 10_000;

export async function repairStorage(context: Context, options: Options): Promise<ExitCode> {
  const result = await fromManagerOrStore(context, options, repairByManager, repairAlone);
  return tell(context, options, result);
}

async function repairByManager(context: Context, options: Options): Promise<JsonObject> {
  using client = await openClient(context, options);
  await client.get("/"); // before anybody is asked: there is one
  const dryRun = options.flag("dryRun");
  if (!dryRun) {
    await confirm(
      context,
      options,
      "This writes the indexes anew where they are damaged, beside the running programs. Go on?",
    );
  }
  const progress = showProgress(context, options);
  try {
    const body = { dry_run: dryRun, read: options.flag("read") };
    return await client.stream("/storage/repair", body, progress.onEvent);
  } finally {
    progress.done();
  }
}

async function repairAlone(context: Context, options: Options): Promise<JsonObject> {
  const { clock, random } = context;
  const { store: settings, encryptionKeyFile } = await configuredPlace(context, options);
  const key = await configuredKey(encryptionKeyFile);
  const dryRun = options.flag("dryRun");
  await using stack = new AsyncDisposableStack();
  const store = openStore(settings, { clock, random });
  stack.defer(() => store.close());
  const repo = await readNamedRepository(store, settings, context);
  const cipher = await repositoryCipher(repo, key, random);
  const seen = await readHead(store, { cipher });
  if (seen === null) {
    throw new StateManagerError("checkpoint-not-found", "repair: the repository has no checkpoint yet", {
      hint: "check the prefix: there is nothing to repair",
    });
  }
  if (!dryRun) {
    await confirm(
      context,
      options,
      "This takes the lease and writes the indexes anew where they are damaged. Go on?",
    );
  }
  const progress = showProgress(context, options);
  stack.defer(() => progress.done());
  const environment = {
    store,
    cipher,
    clock,
    random,
    signal: new AbortController().signal, // an interrupt ends the process: only garbage is left
    onProgress: (value: Parameters<typeof progressEvent>[0]) => progress.onEvent(progressEvent(value)),
  };
  const readPacks = options.flag("read");
  if (dryRun) {
    const request = { head: seen.head, token: seen.head.epoch, readPacks, dryRun };
    return toldAlone(context, options, await rebuildIndexes(request, environment));
  }
  // The lease reads back by itself and needs to see every single outcome: no retries below it.
  const plain = openStore(settings, { clock, random, plain: true });
  stack.defer(() => plain.close());
  const lease = new LeaseHolder({
    store: plain,
    clock,
    random,
    ...LEASE,
    tokenFloor: seen.head.epoch,
    info: { command: "storage repair" },
    onEvent: () => {},
  });
  stack.use(lease);
  const term = await lease.acquire({ wait: false });
  stack.defer(() => lease.release({ timeoutMs: RELEASE_TIMEOUT_MS }).catch(() => {}));
  const assertHeld = async () => {
    await lease.confirmHeld();
    lease.assertHeld();
  };
  const head = new HeadSession(store, {
    repo,
    cipher,
    token: term.token,
    writer: `${term.holder}.${term.token}`,
    assertHeld,
  });
  await head.look();
  await head.takeOver();
  const request = { head: head.head, token: term.token, readPacks, dryRun };
  const result = await rebuildIndexes(request, environment);
  if (result.damaged.length > 0) await head.commit((before) => ({ ...before, indexes: result.indexes }));
  return toldAlone(context, options, result);
}

/** As a manager answers it; with `--json` it is out. */
function toldAlone(
  context: Context,
  options: Options,
  result: Awaited<ReturnType<typeof rebuildIndexes>>,
): JsonObject {
  const view = repairView(result, { dryRun: options.flag("dryRun"), checkpoint: null });
  if (options.flag("json")) context.terminal.out(json({ type: "complete", ...view }));
  return view;
}

function tell(context: Context, options: Options, result: JsonObject): ExitCode {
  const dryRun = options.flag("dryRun");
  const damaged = result["damaged"] as readonly JsonObject[];
  const lostChunks = result["lost_chunks"] as readonly string[];
  const [recoveredPacks, savedChunks] = [Number(result["recovered_packs"]), Number(result["saved_chunks"])];
  if (!options.flag("json")) {
    for (const { problem, object, detail } of damaged) {
      context.terminal.out(
        `${String(problem).padEnd(8)} ${printable(String(object))}: ${printable(String(detail))}\n`,
      );
    }
  }
  const verb = dryRun ? "would be" : "were";
  say(
    context,
    options,
    damaged.length === 0
      ? "nothing to repair"
      : `${count(damaged.length, "object")} missing or damaged; ${count(recoveredPacks, "pack")} and ` +
        `${count(savedChunks, "chunk")} ${verb} saved, ${lostChunks.length} lost` +
        afterwards(result),
  );
  // What a checkpoint has stored again since is for the next check to say.
  return lostChunks.length === 0 || result["checkpoint"] !== null ? 0 : DAMAGED;
}

function afterwards(result: JsonObject): string {
  const checkpoint = result["checkpoint"] as JsonObject | null;
  if (checkpoint !== null) {
    return `; v${
      checkpoint["n"]
    } has read all files and stored what they still have: storage check says what is left`;
  }
  const isLost = (result["lost_chunks"] as readonly string[]).length > 0;
  return isLost ? ": the next checkpoint that reads all files stores again what they still have" : "";
}
