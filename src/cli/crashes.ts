/**
 * `state-manager crashes NAME [ID]`: the unexpected ends of a process, and what it said before one. Of the manager, or
 * from its data folder where none runs: that is when they are wanted most.
 */

import { CrashFiles } from "../supervisor/mod.ts";
import { dataDirAt } from "../manager/data_dir.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { type JsonObject, openClient } from "./client.ts";
import { type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { findDataDirOf } from "./data_dir.ts";
import { json, table } from "./text.ts";

interface Crashes {
  /** Newest first. */
  list(): Promise<readonly JsonObject[]>;
  text(id: string): Promise<string>;
}

export async function showCrashes(
  context: Context,
  options: Options,
  [name = "", wanted]: readonly string[],
): Promise<ExitCode> {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]*$/.test(name)) {
    throw usageError("read the name: no process can have it", "state-manager ps shows their names");
  }
  try {
    using client = await openClient(context, options);
    const path = `/processes/${encodeURIComponent(name)}/crashes`;
    await show(context, options, { name, wanted }, {
      list: async () => (await client.get<{ readonly crashes: readonly JsonObject[] }>(path)).crashes,
      text: (id) => client.text(`${path}/${encodeURIComponent(id)}`),
    });
  } catch (unreachable) {
    if (!isError(unreachable, "manager-unreachable") || options.any("url")) throw unreachable;
    const files = new CrashFiles(dataDirAt(findDataDirOf(context, options)).crashes, () => {});
    if ((await files.list(name)).length === 0) throw unreachable; // nor is there anything to show
    say(context, options, "No manager answers: this is from its data folder.");
    await show(context, options, { name, wanted }, {
      list: async () => (await files.list(name)).map((crash) => ({ ...crash })),
      text: async (id) => new TextDecoder().decode(await files.read(name, id)),
    });
  }
  return 0;
}

async function show(
  { terminal }: Context,
  options: Options,
  { name, wanted }: { readonly name: string; readonly wanted: string | undefined },
  from: Crashes,
): Promise<void> {
  const asJson = options.flag("json");
  const crashes = wanted === undefined || wanted === "latest" ? await from.list() : null;
  if (wanted === undefined && crashes !== null) {
    const rows = crashes.map((crash) => ["id", "time", "cause", "bytes"].map((key) => String(crash[key])));
    return terminal.out(asJson ? json({ crashes }) : table(["ID", "TIME", "CAUSE", "BYTES"], rows));
  }
  const id = crashes === null ? wanted : crashes[0]?.["id"];
  if (id === undefined) {
    throw new StateManagerError("not-found", `show the latest crash of ${name}: there is none`, {
      hint: `state-manager crashes ${name} lists those that are kept`,
    });
  }
  const text = await from.text(String(id));
  terminal.out(asJson ? json({ id, text }) : text);
}
