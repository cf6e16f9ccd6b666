/**
 * How a process can tell us something, from its start until nothing of it is left: what it finds in its environment, and
 * what it says in systemd's way, to NOTIFY_SOCKET.
 */

import { SpawnError } from "../platform/child_process.ts";
import type { Clock } from "../platform/clock.ts";
import { NOTIFY_DESCRIPTOR } from "../platform/notify_child.ts";
import { openNotifySocket, type SocketUser } from "../platform/notify_socket.ts";
import { noteOf } from "./lines.ts";
import { notifyVariables, wantsNotifySocket } from "./probe_types.ts";
import type { OutputHandler, ProcessSpec } from "./types.ts";

export interface HearingOptions {
  /** Where sockets are made; null: nowhere. */
  readonly notifyFolder: string | null;
  /** As whom the process runs; null: as we do. */
  readonly user: SocketUser | null;
  /** Takes a message; false: it is none. Not called any more after `close`. */
  readonly hear: (message: Uint8Array) => boolean;
  readonly output: OutputHandler;
  readonly clock: Clock;
}

export interface Hearing {
  /** Null where none of its probes listens: then it needs no descriptor either. */
  readonly variables: Readonly<Record<string, string>> | null;
  close(): void;
}

const CANNOT_RUN = 126;

/** Listens where its probes want that. Throws SpawnError. */
export function hearingOf({ name, probes }: ProcessSpec, options: HearingOptions): Hearing {
  const socket = wantsNotifySocket(probes) ? listen(name, options) : null;
  return {
    variables: notifyVariables(probes, NOTIFY_DESCRIPTOR, socket?.path ?? null),
    close: () => socket?.close(),
  };
}

function listen(name: string, { notifyFolder, user, hear, output, clock }: HearingOptions) {
  if (notifyFolder === null) {
    throw new SpawnError(`start ${name}: no folder for NOTIFY_SOCKET`, CANNOT_RUN, true, undefined);
  }
  const socket = openNotifySocket(notifyFolder, name, user);
  let isTold = false;
  socket.listen((message) => {
    if ((message !== null && hear(message)) || isTold) return;
    isTold = true;
    const text = `${name} sent to NOTIFY_SOCKET what is no list of NAME=value`;
    void output(name, noteOf(text, clock.wallMs()));
  });
  return socket;
}
