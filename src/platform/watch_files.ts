/** Changes of files as the kernel tells them (inotify). */

import { StateManagerError } from "./errors.ts";

export interface WatchFilesOptions {
  /** Hears the absolute path of what changed; the watched path itself where that cannot be told. */
  readonly onChange: (path: string) => void;
  /** Ends it. */
  readonly signal: AbortSignal;
}

/**
 * Watches a folder with all below it, or a file, also one that is replaced by renaming and one that is a link into a
 * folder that is (as Kubernetes mounts them). Resolves when the signal aborts, or when the folder itself is gone. Rejects
 * (local-io) where there is nothing to watch, or no more watches are to be had. A large tree takes a moment at the start.
 */
export async function watchFiles(path: string, options: WatchFilesOptions): Promise<void> {
  const { onChange, signal } = options;
  const isFolder = look(path)?.isDirectory ?? null;
  if (isFolder === null) throw failed(path, "it does not exist");
  const root = isFolder ? path : path.slice(0, path.lastIndexOf("/")) || "/";
  let watcher: Deno.FsWatcher;
  try {
    watcher = Deno.watchFs(root, { recursive: isFolder });
  } catch (error) {
    throw failed(path, error instanceof Error ? error.message : String(error));
  }
  let before = stampOf(path);
  const close = () => watcher.close();
  signal.addEventListener("abort", close, { once: true });
  try {
    if (signal.aborted) return;
    for await (const event of watcher) {
      if (event.kind === "access") continue;
      if (isFolder) {
        for (const changed of event.paths.length === 0 ? [path] : event.paths) onChange(changed);
        if (look(path) === null) return;
        continue;
      }
      const now = stampOf(path);
      if (now !== before) onChange(path);
      before = now;
    }
  } finally {
    signal.removeEventListener("abort", close);
    if (!signal.aborted) watcher.close();
  }
}

function look(path: string): Deno.FileInfo | null {
  try {
    return Deno.statSync(path);
  } catch {
    return null;
  }
}

function stampOf(path: string): string {
  const info = look(path);
  return info === null ? "" : [info.dev, info.ino, info.size, info.mtime?.getTime()].join(" ");
}

function failed(path: string, what: string): StateManagerError {
  return new StateManagerError("local-io", `watch ${path}: ${what}`, {
    hint: "check the path; where the machine is out of watches raise fs.inotify.max_user_watches",
  });
}
