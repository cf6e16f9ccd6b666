/**
 * The repository at the place that a person named for a command without a manager. Where none is, a mistyped prefix is
 * told from a repository that lost its `repo.json`, with the names that are near.
 */

import { mayPrecede, readRepository } from "../checkpoint/mod.ts";
import type { RepositoryRecord } from "../checkpoint/types.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { type ObjectStore, openStore, type OpenStoreEffects, type OpenStoreOptions } from "../storage/mod.ts";
import { printable } from "./text.ts";

/** What a repository has at its top, beside what may be there before it. */
const OURS = ["head.json", "checkpoints", "databases"];
/** Names that are shown; each costs a request. */
const MOST_NAMES = 10;

/** Errors: `store-not-found` where no repository is, else those of `readRepository`. */
export async function readNamedRepository(
  store: ObjectStore,
  place: OpenStoreOptions,
  effects: OpenStoreEffects,
): Promise<RepositoryRecord> {
  try {
    return await readRepository(store);
  } catch (error) {
    throw await explained(error, store, place, effects);
  }
}

/** `error` itself, or what it means where no repository is. */
export async function explained(
  error: unknown,
  store: ObjectStore,
  place: OpenStoreOptions,
  effects: OpenStoreEffects,
): Promise<unknown> {
  if (!isError(error, "object-not-found")) return error;
  const below = await namesIn(store);
  if (below.some((name) => OURS.includes(name))) return error; // repo.json is lost, the rest is not
  return new StateManagerError(
    "store-not-found",
    `open repository in ${store.description}: ${below.length === 0 ? "nothing is there" : "there is none"}`,
    {
      hint: `check ${
        place.kind === "directory" ? "the folder" : "bucket, endpoint"
      } and key prefix${await nearNames(below, place, effects)}`,
      cause: error,
    },
  );
}

async function nearNames(
  below: readonly string[],
  place: OpenStoreOptions,
  effects: OpenStoreEffects,
): Promise<string> {
  const parts = (place.keyPrefix ?? "").split("/").filter((part) => part !== "");
  if (below.length > 0) return told(below, parts);
  if (parts.length === 0) return "";
  const outer = parts.slice(0, -1);
  const parent = openStore({ ...place, keyPrefix: outer.join("/") }, effects);
  try {
    return told(await namesIn(parent), outer);
  } finally {
    await parent.close();
  }
}

function told(names: readonly string[], outer: readonly string[]): string {
  if (names.length === 0) return "";
  const more = names.length > MOST_NAMES ? ", …" : "";
  const shown = names.slice(0, MOST_NAMES).map((name) => printable([...outer, name].join("/")));
  return `; under ${outer.length === 0 ? "no prefix" : printable(outer.join("/"))} there ${
    names.length === 1 ? "is" : "are"
  } ${shown.join(", ")}${more}`;
}

/** First parts of the keys, at most one more than are shown; one request for each, however many objects are below it. */
async function namesIn(store: ObjectStore): Promise<string[]> {
  const names: string[] = [];
  let startAfter: string | undefined;
  while (names.length <= MOST_NAMES) {
    const { objects: [first] } = await store.list({
      prefix: "",
      limit: 1,
      ...(startAfter === undefined ? {} : { startAfter }),
    });
    if (first === undefined) break;
    const [name = ""] = first.key.split("/");
    if (!mayPrecede(first.key)) names.push(name);
    startAfter = first.key === name ? name : `${name}0`; // "0" comes after "/"
  }
  return names;
}
