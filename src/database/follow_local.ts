/** Local commit files as others read them: the slot writer to send them, the compactor instead of asking the store for them. */

import { StateManagerError } from "../platform/errors.ts";
import { localFileError } from "../platform/files.ts";
import { type LocalFiles, readRange } from "../platform/local_files.ts";
import { type ObjectStore, withOperations } from "../storage/object_store.ts";
import type { Captor } from "./follow_ports.ts";
import { COMMIT_LEVEL, parseReplicaKey, type ReplicaPlace } from "./replica_layout.ts";
import type { LocalCommitFile } from "./slot_writer.ts";

/** `local-io` when it cannot be read, also when it is gone. */
export async function openCommitFile(
  captor: Pick<Captor, "localFiles">,
  txid: number,
  files: LocalFiles,
): Promise<LocalCommitFile> {
  const found = captor.localFiles().find((file) => file.txid === txid);
  if (found === undefined) {
    throw new StateManagerError("local-io", `read local file of TXID ${txid}: it is gone`);
  }
  const { path } = found;
  try {
    const file = await files.open(path);
    return {
      async read(start, end) {
        const bytes = await readRange(file, start, end - start);
        if (bytes.length === end - start) return bytes;
        throw new StateManagerError(
          "data-damaged",
          `read ${path}: it ends at ${start + bytes.length}, wanted ${end}`,
        );
      },
      [Symbol.asyncDispose]() {
        file[Symbol.dispose]();
        return Promise.resolve();
      },
    };
  } catch (error) {
    throw localFileError(`read ${path}`, error);
  }
}

/**
 * `store`, but commits that are still on this disk are read there: they are the same bytes, which the slot writer has
 * seen to, and whoever reads them verifies them anyway. Any trouble with the local file leaves it to the store.
 */
export function localFirst(
  store: ObjectStore,
  place: ReplicaPlace,
  captor: Pick<Captor, "localFiles">,
  files: LocalFiles,
  /** Earlier ones are not what the store has. */
  firstTxid: number,
): ObjectStore {
  return withOperations(store, {
    async get(key, options = {}) {
      const name = parseReplicaKey(place, key);
      const file = name?.level === COMMIT_LEVEL && name.minTxid >= firstTxid
        ? captor.localFiles().find(({ txid }) => txid === name.minTxid)
        : undefined;
      if (file === undefined) return await store.get(key, options);
      const { txid, sizeBytes } = file;
      const { start, end } = options.range ?? { start: 0, end: sizeBytes };
      try {
        await using open = await openCommitFile(captor, txid, files);
        const body = await open.read(start, Math.min(end, sizeBytes));
        return { key, sizeBytes, etag: `local-${txid}`, modifiedMs: 0, metadata: {}, body };
      } catch {
        return await store.get(key, options);
      }
    },
  });
}
