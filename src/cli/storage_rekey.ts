/**
 * `state-manager storage rekey`: another encryption key for the same content. Works straight on the store, beside a
 * running manager too: what it changes is read at a start only.
 */

import { readEncryptionKey, rekeyRepository, repositoryCipher } from "../checkpoint/mod.ts";
import { openStore } from "../storage/mod.ts";
import { configuredPlace } from "./configured_store.ts";
import { type Context, type ExitCode, type Options, say, usageError } from "./context.ts";
import { readNamedRepository } from "./named_place.ts";
import { json } from "./text.ts";

export async function rekeyStorage(context: Context, options: Options): Promise<ExitCode> {
  const given = options.text("newEncryptionKeyFile");
  if (given === undefined) throw usageError("storage rekey: give the new key by --new-encryption-key-file");
  const place = await configuredPlace(context, options);
  if (place.encryptionKeyFile === null) {
    throw usageError(
      "storage rekey: nothing names the key that opens the repository now",
      "give --encryption-key-file, or a configuration with checkpoint.encryption_key_file",
    );
  }
  // Both are read before anything is asked of the store: a typing mistake changes nothing.
  const key = await readEncryptionKey(place.encryptionKeyFile);
  const newKey = await readEncryptionKey(given.startsWith("/") ? given : `${context.folder}/${given}`);
  const store = openStore(place.store, { clock: context.clock, random: context.random });
  let keys: number;
  try {
    const { random } = context;
    await readNamedRepository(store, place.store, context); // tells a wrong place
    keys = await rekeyRepository(store, { key, newKey, keepOthers: options.flag("keepOthers"), random });
    // Read back with what the file holds: nobody throws the old key away for one that does not open.
    await repositoryCipher(await readNamedRepository(store, place.store, context), newKey, random);
  } finally {
    await store.close();
  }
  if (options.flag("json")) context.terminal.out(json({ keys }));
  else {
    const others = keys === 1 ? "no other key does any more" : `so do ${keys - 1} older ones`;
    say(context, options, `The new key opens the repository; ${others}.`);
  }
  return 0;
}
