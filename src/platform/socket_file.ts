/**
 * Where the unix socket lies and how a client finds it. The kernel takes paths of at most 107 bytes; a longer one
 * moves to a runtime folder, and `<data dir>/socket.path` then tells where.
 */

import { createHash } from "node:crypto";
import { StateManagerError } from "./errors.ts";
import {
  ensureFolder,
  localFileError,
  readTextIfPresent,
  removeIfPresent,
  writeFileAtomically,
} from "./files.ts";

/** sun_path has 108 bytes, the last one is 0. */
export const MAX_SOCKET_PATH_BYTES = 107;

const DEFAULT_NAME = "control.sock";
const NOTE_NAME = "socket.path";

export interface SocketPlace {
  readonly dataDir: string;
  /** `server.socket`; null: in the data dir. */
  readonly wanted: string | null;
  /** $XDG_RUNTIME_DIR; left out: from the environment. */
  readonly runtimeDir?: string | null;
}

/** The path to listen on. The folders it needs are made, and the note is written or removed to agree. */
export async function prepareSocketPath(place: SocketPlace): Promise<string> {
  const standard = `${place.dataDir}/${DEFAULT_NAME}`;
  const wanted = place.wanted ?? standard;
  const path = fits(wanted) ? wanted : await shortPath(wanted, place.runtimeDir);
  await removeStaleSocket(path);
  const note = `${place.dataDir}/${NOTE_NAME}`;
  if (path === standard) await removeIfPresent(note);
  else await writeFileAtomically(note, path + "\n");
  return path;
}

/** Where a manager with this data dir listens, if one runs. */
export async function findSocketPath(dataDir: string): Promise<string> {
  const noted = (await readTextIfPresent(`${dataDir}/${NOTE_NAME}`))?.trimEnd();
  return noted === undefined || noted === "" ? `${dataDir}/${DEFAULT_NAME}` : noted;
}

/** True when somebody accepts connections there. */
export async function isAnswering(path: string): Promise<boolean> {
  try {
    const connection = await Deno.connect({ transport: "unix", path });
    connection.close();
    return true;
  } catch {
    return false;
  }
}

function fits(path: string): boolean {
  return new TextEncoder().encode(path).length <= MAX_SOCKET_PATH_BYTES;
}

async function shortPath(wanted: string, runtimeDir?: string | null): Promise<string> {
  const absolute = wanted.startsWith("/") ? wanted : `${Deno.cwd()}/${wanted}`;
  const name = `state-manager-${createHash("sha256").update(absolute).digest("hex").slice(0, 16)}.sock`;
  const runtime = runtimeDir === undefined ? Deno.env.get("XDG_RUNTIME_DIR") : runtimeDir;
  if (runtime !== undefined && runtime !== null && runtime.startsWith("/") && fits(`${runtime}/${name}`)) {
    if (await isFolder(runtime)) return `${runtime}/${name}`;
  }
  const folder = `/tmp/state-manager-${Deno.uid() ?? 0}`;
  await ensureOwnFolder(folder);
  return `${folder}/${name}`;
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isDirectory;
  } catch {
    return false;
  }
}

/** /tmp is everybody's: a folder there that is not ours alone could hold a socket that somebody else answers. */
async function ensureOwnFolder(folder: string): Promise<void> {
  await ensureFolder(folder, 0o700);
  const { isDirectory, isSymlink, uid, mode } = await Deno.lstat(folder);
  if (isDirectory && !isSymlink && uid === Deno.uid() && ((mode ?? 0) & 0o077) === 0) return;
  throw new StateManagerError("config-invalid", `place the socket in ${folder}: it is not ours alone`, {
    hint: "remove that folder, or set server.socket to a path of at most 107 bytes",
  });
}

/** A socket file that nobody answers is left from a manager that was killed. Anything else is not ours to remove. */
async function removeStaleSocket(path: string): Promise<void> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.lstat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw localFileError(`look at ${path}`, error);
  }
  if (!info.isSocket) {
    throw new StateManagerError("config-invalid", `listen on ${path}: a file that is no socket is there`, {
      hint: "move it away, or set server.socket to another path",
    });
  }
  if (await isAnswering(path)) {
    throw new StateManagerError("config-invalid", `listen on ${path}: another program answers there`, {
      hint: "stop it, or give each manager its own data dir or server.socket",
    });
  }
  await removeIfPresent(path);
}
