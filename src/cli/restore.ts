/** `state-manager restore`: in place, or with `--to` straight from the store into a new folder. */

import { parseInnerPath } from "../checkpoint/mod.ts";
import { type Context, type ExitCode, type Options, usageError } from "./context.ts";
import { namedPath } from "./flags.ts";
import { restoreInPlace } from "./restore_in_place.ts";
import { type Target, targetOf } from "./restore_target.ts";

export async function restore(
  context: Context,
  options: Options,
  args: readonly string[],
): Promise<ExitCode> {
  const target = targetOf(options, args);
  const to = options.text("to");
  if (options.flag("salvage")) {
    if (to === undefined) throw usageError("restore --salvage: say where to with --to DIR");
    const { salvage } = await import("./salvage.ts");
    return await salvage(context, options, target, to);
  }
  if (to !== undefined) {
    const { restoreOffline } = await import("./restore_offline.ts");
    return await restoreOffline(context, options, target, to);
  }
  return await inPlace(context, options, target);
}

async function inPlace(context: Context, options: Options, target: Target): Promise<ExitCode> {
  const files = placesIn(options.list("files"), "--files");
  const databases = placesIn(options.list("databases"), "--databases");
  const names = [...files.names, ...databases.names];
  const paths = options.list("path");
  paths.forEach(parseInnerPath); // told before anybody is asked
  if (paths.length > 0 && files.names.length > 1) {
    throw usageError(
      "restore --path: say of which files",
      "give --files NAME once, or one path after the other",
    );
  }
  const body = {
    ...("at" in target ? { at: target.at } : target),
    ...(files.names.length === 0 ? {} : { files: files.names }),
    ...(databases.names.length === 0 ? {} : { databases: databases.names }),
    ...(paths.length === 0 ? {} : { paths }),
    consistent: options.flag("consistent"),
  };
  return await restoreInPlace(context, options, {
    body,
    what: whatOf(names, paths),
    places: {
      ...(files.places.length === 0 ? {} : { files: files.places }),
      ...(databases.places.length === 0 ? {} : { database: databases.places }),
    },
  });
}

function whatOf(names: readonly string[], paths: readonly string[]): string {
  if (paths.length === 0) return names.length === 0 ? "all files and databases" : names.join(", ");
  return `${paths.join(", ")}${names.length === 0 ? "" : ` in ${names.join(", ")}`}, and nothing beside it`;
}

/** `NAME` means what the configuration calls so, `NAME=PATH` also says where it is. */
function placesIn(texts: readonly string[], flag: string) {
  const given = texts.map((text) => /^[^/=]+=/.test(text) ? namedPath(text, flag) : text);
  return {
    names: given.map((each) => typeof each === "string" ? each : each.name ?? each.path),
    places: given.filter((each) => typeof each !== "string"),
  };
}
