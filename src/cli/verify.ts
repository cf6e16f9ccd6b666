/** `state-manager checkpoint verify` and `storage check`: through the manager, or straight on the store. */

import {
  type Cipher,
  findCheckpoint,
  parseCheckpointReference,
  readHead,
  verifyRepository,
  type VerifyResult,
} from "../checkpoint/mod.ts";
import type { ArchiveProgress } from "../checkpoint/types.ts";
import { type ReplicaLayout, verifyPositions } from "../database/mod.ts";
import { type DatabasesDepth, withDatabases } from "../manager/mod.ts";
import { isError } from "../platform/errors.ts";
import { removeTreeIfPresent } from "../platform/files.ts";
import { isEmptyFolder } from "../platform/folder.ts";
import { randomHex } from "../platform/random.ts";
import { depthOf, verifyResultView } from "../server/mod.ts";
import type { ObjectStore } from "../storage/mod.ts";
import { type JsonObject, openClient } from "./client.ts";
import { openInQuestion } from "./offline.ts";
import { type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { findDataDirOf } from "./data_dir.ts";
import { fromManagerOrStore } from "./manager_or_store.ts";
import { progressEvent, showProgress } from "./progress.ts";
import { count, printable, size } from "./text.ts";

/** Something is missing or damaged. */
const DAMAGED = 65;
/** Names of files below each finding; `--json` has more. */
const FILES_SHOWN = 5;

export async function verifyCheckpoint(
  context: Context,
  options: Options,
  [text]: readonly string[],
): Promise<ExitCode> {
  const isAll = options.flag("all");
  if (isAll && text !== undefined) throw usageError("checkpoint verify: name one checkpoint, or --all");
  const reference = parseCheckpointReference(text ?? "latest");
  if (reference === null) throw usageError("read the checkpoint: want an id, an ordinal (3 or v3) or latest");
  return await verify(context, options, isAll ? null : reference);
}

export function checkStorage(context: Context, options: Options): Promise<ExitCode> {
  return verify(context, options, null);
}

async function verify(context: Context, options: Options, reference: string | null): Promise<ExitCode> {
  const depth = depthOf(wishedDepth(options));
  const progress = showProgress(context, options);
  let result: JsonObject;
  try {
    result = await fromManagerOrStore(
      context,
      options,
      async () => {
        using client = await openClient(context, options);
        return await client.stream(`/checkpoints/${reference ?? "all"}/verify`, depth, progress.onEvent);
      },
      async () => {
        const { store, cipher, layout } = await openInQuestion(context, options);
        const scratchFolder = scratchFolderOf(context, options);
        try {
          const { signal } = new AbortController(); // an interrupt ends the process
          const onProgress = (value: ArchiveProgress) => progress.onEvent(progressEvent(value));
          const environment = { ...context, store, cipher, signal, onProgress };
          const files = await verifyRepository({ ...depth, checkpoint: reference, known: null }, {
            ...environment,
            cacheFolder: await cacheFolderOf(context, options),
            scratchFolder,
          });
          const found = await withDatabasesHere(files, reference, {
            depth,
            layout,
            scratchFolder,
            environment,
          });
          const view = verifyResultView(found, reference);
          if (options.flag("json")) progress.onEvent({ type: "complete", ...view });
          return view;
        } finally {
          await removeTreeIfPresent(scratchFolder);
          await store.close();
        }
      },
    );
  } finally {
    progress.done();
  }
  if (!options.flag("json")) context.terminal.out(findingsText(result));
  say(context, options, summaryText(result));
  return result["ok"] === true ? 0 : DAMAGED;
}

interface Here {
  readonly depth: DatabasesDepth;
  readonly layout: ReplicaLayout;
  readonly scratchFolder: string;
  readonly environment: Pick<Context, "clock" | "random"> & {
    readonly store: ObjectStore;
    readonly cipher: Cipher;
    readonly signal: AbortSignal;
    readonly onProgress: (progress: ArchiveProgress) => void;
  };
}

/** Of a head that cannot be read no positions are known; that it cannot is a finding already. */
async function withDatabasesHere(
  files: VerifyResult,
  reference: string | null,
  { depth, layout, scratchFolder, environment }: Here,
): Promise<VerifyResult> {
  const { store, cipher, signal, onProgress } = environment;
  const read = () =>
    readHead(store, { cipher, signal }).then((state) => state?.head ?? null, (error) => {
      if (isError(error, "data-damaged")) return null;
      throw error;
    });
  const head = await read();
  if (head === null) return files;
  const records = reference === null ? head.checkpoints : [findCheckpoint(head, { checkpoint: reference })];
  return await withDatabases(files, {
    depth,
    records,
    verify: ({ name, ...request }) =>
      verifyPositions({ ...request, place: { layout, name }, scratchFile: `${scratchFolder}/position.db` }, {
        ...environment,
        onProgress: ({ files, bytes }) =>
          onProgress({ phase: "check", entries: files, bytes, totalBytes: null }),
      }),
    listed: async () => new Set((await read())?.checkpoints.map(({ id }) => id)),
  });
}

function wishedDepth(options: Options): Parameters<typeof depthOf>[0] {
  const [level, text] = [options.text("level"), options.text("percent")];
  const percent = text === undefined || !/^\d{1,3}(\.\d+)?$/.test(text) ? NaN : Number(text);
  if (text !== undefined && !(percent <= 100)) {
    throw usageError("read --percent: want a number from 0 to 100");
  }
  return {
    ...(level === undefined ? {} : { level: (["1", "2", "3", "4"].indexOf(level) + 1) as 1 | 2 | 3 | 4 }),
    ...(text === undefined ? {} : { percent }),
  };
}

/** A manager's data folder remembers what was read; without one each run chooses by chance. */
async function cacheFolderOf(context: Context, options: Options): Promise<string | null> {
  const folder = `${findDataDirOf(context, options)}/cache`;
  return await isEmptyFolder(folder) ? null : folder;
}

/** A name of its own for each run: nothing that is there is ever taken for ours. */
function scratchFolderOf(context: Context, options: Options): string {
  const parent = options.text("scratch") ?? context.environment["TMPDIR"] ?? "/tmp";
  const folder = parent.startsWith("/") ? parent : `${context.folder}/${parent}`;
  return `${folder}/state-manager-${randomHex(context.random, 8)}`;
}

function findingsText(result: JsonObject): string {
  const findings = result["findings"] as readonly JsonObject[];
  const lines = findings.flatMap((finding) => {
    const files = finding["files"] as readonly { readonly root: string; readonly path: string | null }[];
    const checkpoints = finding["checkpoints"] as readonly { readonly n: number }[];
    const total = Number(finding["files_total"]);
    const shown = files.slice(0, FILES_SHOWN).map(({ root, path }) =>
      path === null ? `${root} (its list of files)` : `${root}/${path}`
    );
    const more = total > shown.length ? ` and ${total - shown.length} more` : "";
    const hurt = checkpoints.length === 0 ? "no checkpoint" : checkpoints.map(({ n }) => `v${n}`).join(" ");
    return [
      `${String(finding["problem"]).padEnd(8)} ${printable(String(finding["object"]))}`,
      `         ${printable(String(finding["detail"]))}`,
      `         hurts ${hurt}${shown.length === 0 ? "" : `: ${printable(shown.join(", "))}${more}`}`,
    ];
  });
  const untold = Number(result["findings_total"]) - findings.length;
  if (untold > 0) lines.push(`and ${untold} more objects`);
  return lines.map((line) => line + "\n").join("");
}

function summaryText(result: JsonObject): string {
  const number = (key: string) => Number(result[key]);
  const read = number("packs_read") === 0
    ? ""
    : `, ${number("packs_read")} of them read (${size(number("bytes_read"))})`;
  const since = result["all_read_since"];
  const verdict = result["ok"] === true
    ? "nothing is missing or damaged"
    : `${count(number("findings_total"), "object")} missing or damaged`;
  const positions = number("positions_checked");
  const databases = positions === 0 ? "" : `, ${count(positions, "database position")}`;
  return `level ${number("level")}: ${count(number("checkpoints"), "checkpoint")}, ` +
    `${count(number("packs"), "pack")}${read}${databases}: ${verdict}` +
    (typeof since === "string" ? `; every pack was read since ${since}` : "");
}
