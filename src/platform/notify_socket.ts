/**
 * The socket of systemd's way to tell how a program does: datagrams to the path in NOTIFY_SOCKET. Who may write to it is
 * up to the socket's own mode: the program's user alone. So a message counts whichever process of the program sent it, also
 * when that one has ended by now. Descriptors that come with a message are closed by the kernel, since nobody takes them:
 * that ends the wait of systemd's `BARRIER=1`, too.
 */

import { SpawnError } from "./child_process.ts";
import { errnoReader } from "./errno.ts";
import { readyDescriptors } from "./ready_descriptors.ts";
import { MAX_SOCKET_PATH_BYTES } from "./socket_file.ts";

/** systemd takes no longer ones. */
export const MESSAGE_LIMIT_BYTES = 4096;
/** Then others have their turn; the kernel keeps what waits, and a sender waits when that is much. */
const MESSAGES_A_TURN = 64;

const AF_UNIX = 1;
/** A datagram, never blocks, not inherited. */
const SOCKET_KIND = 2 | 0o4000 | 0o2000000;
/** struct sockaddr_un: the family, then the path and a zero. */
const FAMILY_BYTES = 2;
const CANNOT_RUN = 126;
/** Others may pass through and nothing more: nobody but us puts, moves or lists anything there. */
const FOLDER_MODE = 0o711;
const SOCKET_MODE = 0o600;

export interface NotifySocket {
  readonly path: string;
  /** Hands on each message, good until `take` returns; null: one that was too long. Called once. */
  listen(take: (message: Uint8Array | null) => void): void;
  /** Nothing is heard after it. */
  close(): void;
}

/** Who is to reach it; the groups are all it has. */
export interface SocketUser {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

function openLibc() {
  try {
    return Deno.dlopen("libc.so.6", {
      socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
      bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
      close: { parameters: ["i32"], result: "i32" },
    }).symbols;
  } catch {
    return null;
  }
}

let opened: ReturnType<typeof openLibc> | undefined;

/**
 * Listens at `name` in `folder`, which is made, for `user` (null: ours). What an earlier manager left there goes. Throws
 * SpawnError.
 */
export function openNotifySocket(folder: string, name: string, user: SocketUser | null): NotifySocket {
  const path = `${folder}/${name}`;
  const failed = (what: string, isPermanent: boolean, cause?: unknown) =>
    new SpawnError(`listen on ${path} for NOTIFY_SOCKET: ${what}`, CANNOT_RUN, isPermanent, cause);
  const { length } = new TextEncoder().encode(path);
  if (length > MAX_SOCKET_PATH_BYTES) {
    throw failed(
      `got a path of ${length} bytes, wanted at most ${MAX_SOCKET_PATH_BYTES}: a data folder nearer to /`,
      true,
    );
  }
  const libc = opened === undefined ? (opened = openLibc()) : opened;
  if (libc === null) throw failed("this machine's libc has no such sockets", true);
  const ready = readyDescriptors();
  if (ready === null) throw failed("nothing to wait for its messages with", false);
  try {
    Deno.mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
    Deno.chmodSync(folder, FOLDER_MODE);
    removeIfPresent(path);
  } catch (error) {
    throw failed(textOf(error), false, error);
  }
  const closed = user === null ? null : closedTo(user, folder);
  if (closed !== null) {
    throw failed(
      `${closed} cannot be entered by uid ${user?.uid}: allow that (chmod o+x), or choose another data folder`,
      true,
    );
  }
  const descriptor = libc.socket(AF_UNIX, SOCKET_KIND, 0);
  if (descriptor < 0) throw failed(`socket: errno ${errnoReader()()}`, false);
  const address = addressOf(path);
  if (libc.bind(descriptor, address, address.length) !== 0) {
    const errno = errnoReader()();
    libc.close(descriptor);
    throw failed(`bind: errno ${errno}`, false);
  }
  try {
    Deno.chmodSync(path, SOCKET_MODE);
    if (user !== null) Deno.chownSync(path, user.uid, user.gid);
  } catch (error) {
    libc.close(descriptor);
    throw failed(textOf(error), false, error);
  }
  const watched = ready.watch(descriptor);
  const buffer = new Uint8Array(MESSAGE_LIMIT_BYTES + 1);
  let isOpen = true;
  return {
    path,
    listen(take) {
      const look = () => {
        try {
          for (let count = 0; isOpen && count < MESSAGES_A_TURN; count++) {
            const size = watched.read(buffer);
            if (size < 0) break;
            take(size > MESSAGE_LIMIT_BYTES ? null : buffer.subarray(0, size));
          }
        } finally {
          if (isOpen) watched.arm(look); // one message that could not be taken is not the last one
        }
      };
      watched.arm(look);
    },
    close() {
      if (!isOpen) return;
      isOpen = false;
      watched.release();
      libc.close(descriptor);
      try {
        removeIfPresent(path);
      } catch {
        // The next one to listen there tells it.
      }
    },
  };
}

function addressOf(path: string): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(`${path}\0`);
  const address = new Uint8Array(FAMILY_BYTES + text.length);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(text, FAMILY_BYTES);
  return address;
}

/** The first folder on the way that the user may not pass through. */
function closedTo({ uid, gid, groups }: SocketUser, folder: string): string | null {
  if (uid === 0) return null;
  const parts = folder.split("/").slice(1);
  for (let depth = 0; depth <= parts.length; depth++) {
    const path = `/${parts.slice(0, depth).join("/")}`;
    const info = Deno.statSync(path);
    const mode = info.mode ?? 0;
    const isMember = info.gid === gid || groups.some((group) => group === info.gid);
    const shift = info.uid === uid ? 6 : isMember ? 3 : 0;
    if ((mode >> shift & 1) === 0) return path;
  }
  return null;
}

function removeIfPresent(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
