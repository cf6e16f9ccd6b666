/** The store of the `db` commands, opened without a manager. They read only: no lease is taken, nothing changes there. */

import { findReplica, listDatabases, type StoredDatabase } from "../database/mod.ts";
import { layoutOf, type ReplicaLayout, type ReplicaPlace } from "../database/replica_layout.ts";
import { isError, StateManagerError } from "../platform/errors.ts";
import { type ObjectStore, openStore } from "../storage/mod.ts";
import { configuredStoreOptions } from "./configured_store.ts";
import { type Context, type Options, usageError } from "./context.ts";
import { readNamedRepository } from "./named_place.ts";

export interface DatabaseStore extends AsyncDisposable {
  readonly store: ObjectStore;
  /** Of what is written there by a manager; a copy of another store may have the other one. */
  readonly layout: ReplicaLayout;
  /** Says that the place is no repository: the error where no database is found there either. */
  readonly stranger: StateManagerError | null;
}

/**
 * Opens what the options, the environment or the configuration file name. A prefix without `repo.json` is taken all the
 * same, since databases may have been copied alone; a repository of a newer format is not.
 */
export async function openDatabaseStore(context: Context, options: Options): Promise<DatabaseStore> {
  const named = await configuredStoreOptions(context, options);
  const store = openStore(named, context);
  let stranger: StateManagerError | null = null;
  try {
    await readNamedRepository(store, named, context);
  } catch (error) {
    if (!isError(error, "store-not-found", "object-not-found", "data-damaged")) {
      await store.close();
      throw error;
    }
    stranger = error;
  }
  const layout = layoutOf(named);
  return { store, layout, stranger, [Symbol.asyncDispose]: () => store.close() };
}

/** All databases; throws where there are none because the place is a wrong one. */
export async function databasesIn({ store, stranger }: DatabaseStore): Promise<readonly StoredDatabase[]> {
  const databases = await listDatabases(store);
  if (databases.length === 0 && stranger !== null) throw stranger;
  return databases;
}

/** The place of the database that the command names. Error: `not-found` with the names that are there. */
export async function findDatabase(
  opened: DatabaseStore,
  [name]: readonly string[],
): Promise<ReplicaPlace> {
  if (name === undefined) throw usageError("say which database", '"state-manager db list" shows their names');
  const { store, layout } = opened;
  const place = await findReplica(store, name, layout);
  if (place !== null) return place;
  const known = (await databasesIn(opened)).map((each) => each.name);
  throw new StateManagerError("not-found", `find database: ${store.description} has none of that name`, {
    hint: known.length === 0
      ? "it has none at all: check the prefix"
      : `it has ${known.slice(0, 20).join(", ")}`,
  });
}
