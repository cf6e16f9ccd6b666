/**
 * The catalog's thread. libsql is synchronous: a slow disk would stop the lease's timers if it ran on the main thread.
 * Takes one request after the other, answers each, and can be terminated at any moment (SQLite's journal sees to it).
 */

import { keepHeapSmall } from "../platform/heap.ts";
import { offerNativeFolder } from "../platform/native_folder.ts";
import { CatalogFile } from "./catalog_file.ts";
import type { CatalogReply, CatalogRequest, CatalogRow } from "./catalog_types.ts";

/** The part of a Worker's global that we use; the DOM's types describe a window. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<CatalogRequest>) => void) | null;
  postMessage(reply: CatalogReply): void;
}

keepHeapSmall();

const scope = globalThis as unknown as WorkerScope;
let file: CatalogFile | undefined;
let last: Promise<void> = Promise.resolve();

async function answer(request: CatalogRequest): Promise<readonly CatalogRow[] | null> {
  if (request.operation === "open") {
    offerNativeFolder(request.nativeFolder);
    file = new CatalogFile(request.path, request.rowsPerKind);
    await file.open(request.stamp);
    return [];
  }
  if (file === undefined) throw new Error("use catalog: it was not opened");
  if (request.operation === "record") {
    await file.record(request.rows, request.stamp);
  }
  if (request.operation === "history") {
    return await file.history(request.query, request.stamp);
  }
  if (request.operation === "close") file.close();
  return [];
}

async function handle(request: CatalogRequest): Promise<void> {
  const { id } = request;
  try {
    const rows = await answer(request);
    scope.postMessage({
      id,
      ok: true,
      rows: rows ?? [],
      notices: file?.takeNotices() ?? [],
      isUnknown: rows === null,
    });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    scope.postMessage({ id, ok: false, message: text });
  }
}

scope.onmessage = (event) => {
  last = last.then(() => handle(event.data));
};
