/**
 * `state-manager storage repair`: new indexes from the packs, straight on the store. It takes the lease for as long as
 * it works, so that nobody else changes the head meanwhile, and gives it back.
 */

import {
  configuredKey,
  HeadSession,
  readHead,
  readRepository,
  rebuildIndexes,
  repositoryCipher,
} from "../checkpoint/mod.ts";
import { LeaseHolder } from "../lease/mod.ts";
import { StateManagerError } from "../platform/errors.ts";
import { openStore } from "../storage/mod.ts";
import { configuredPlace } from "./configured_store.ts";
import { confirm, type Context, type ExitCode, type Options, say } from "./context.ts";
import { progressEvent, showProgress } from "./progress.ts";
import { count, json, printable } from "./text.ts";

/** Chunks are lost for good. */
const DAMAGED = 65;
/** The defaults of `lease.ttl` and `lease.renew`. */
const LEASE = { ttlMs: 30_000, renewMs: 8_000 };
const RELEASE_TIMEOUT_MS = 10_000;

export async function repairStorage(context: Context, options: Options): Promise<ExitCode> {
  const { clock, random } = context;
  const { store: settings, encryptionKeyFile } = await configuredPlace(context, options);
  const key = await configuredKey(encryptionKeyFile);
  const dryRun = options.flag("dryRun");
  await using stack = new AsyncDisposableStack();
  const store = openStore(settings, { clock, random });
  stack.defer(() => store.close());
  const repo = await readRepository(store);
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
    return tell(context, options, await rebuildIndexes(request, environment));
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
  return tell(context, options, result);
}

function tell(
  context: Context,
  options: Options,
  { damaged, recoveredPacks, savedChunks, lostChunks }: Awaited<ReturnType<typeof rebuildIndexes>>,
): ExitCode {
  const dryRun = options.flag("dryRun");
  if (options.flag("json")) {
    context.terminal.out(json({
      type: "complete",
      dry_run: dryRun,
      damaged,
      recovered_packs: recoveredPacks,
      saved_chunks: savedChunks,
      lost_chunks: lostChunks,
    }));
  } else {
    for (const { problem, object, detail } of damaged) {
      context.terminal.out(`${problem.padEnd(8)} ${printable(object)}: ${printable(detail)}\n`);
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
        (lostChunks.length === 0 ? "" : ": the next checkpoint stores again what the files still have"),
  );
  return lostChunks.length === 0 ? 0 : DAMAGED;
}
