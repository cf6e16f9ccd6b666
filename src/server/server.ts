/**
 * The listeners of the app: TCP or TLS, and the unix socket. Started once, stopped once: streams first, since the
 * graceful shutdown waits for them, then the listeners, and never longer than the caller allows.
 */

import { isLoopback } from "../config/mod.ts";
import type { Clock } from "../platform/clock.ts";
import { asStateManagerError, StateManagerError } from "../platform/errors.ts";
import { readTextIfPresent, removeIfPresent } from "../platform/files.ts";
import {
  type HttpListener,
  listenFailure,
  type ListenOptions,
  listenTcp,
  listenUnix,
} from "../platform/http_server.ts";
import { IdleConnections } from "../platform/idle_connections.ts";
import { log } from "../platform/log.ts";
import { prepareSocketPath } from "../platform/socket_file.ts";
import type { App } from "./app.ts";
import type { Connection } from "./env.ts";
import { OpenStreams } from "./open_streams.ts";

const logger = log("http");

export interface ServerOptions {
  readonly app: App;
  readonly clock: Clock;
  /** Where TCP listens; null: unix socket only. Port 0: any free one. */
  readonly listen: { readonly hostname: string; readonly port: number } | null;
  readonly tls: { readonly certFile: string; readonly keyFile: string } | null;
  /** Where the unix socket goes: `path` null means in the data dir. Null: no unix socket. */
  readonly socket:
    | { readonly path: string | null; readonly dataDir: string }
    | null;
}

export interface RunningServer {
  /** `http://127.0.0.1:8080`, `unix:/var/lib/state-manager/control.sock`. */
  readonly urls: readonly string[];
  readonly socketPath: string | null;
  /** Port of the TCP listener; null without one. */
  readonly port: number | null;
  /** Ends streams, takes nothing new, lets requests under way end, and resolves after `timeoutMs` at the latest. */
  stop(timeoutMs: number): Promise<void>;
}

/** Listens. Errors: `config-invalid` (exit 78) when an address can't be had or a TLS file can't be used. */
export async function startServer(
  options: ServerOptions,
): Promise<RunningServer> {
  const { app, clock, listen, socket } = options;
  const streams = new OpenStreams();
  const listeners: HttpListener[] = [];
  const urls: string[] = [];
  const watching = new AbortController();
  let port: number | null = null;
  let socketPath: string | null = null;

  const listening = (connection: Connection, address: string): ListenOptions => ({
    handler: (request) => app.fetch(request, connection),
    clock,
    onLost: (error) =>
      logger.error("no connection can be taken any more: listening again", {
        address,
        error: asStateManagerError(error, "local-io"),
      }),
  });
  const stop = async (timeoutMs: number) => {
    watching.abort();
    streams.closeAll();
    const closed = Promise.allSettled(
      listeners.map((listener) => listener.shutdown()),
    );
    const late = new AbortController();
    await Promise.race([
      closed,
      clock.sleep(timeoutMs, { signal: late.signal }).catch(() => {}),
    ]);
    late.abort();
    if (socketPath !== null) await removeIfPresent(socketPath).catch(() => {});
  };

  try {
    if (listen !== null) {
      const tls = await readTls(options.tls);
      const loopback = isLoopback(listen.hostname);
      const connection: Connection = {
        via: "tcp",
        loopback,
        tls: tls !== null,
        streams,
      };
      const observer = new IdleConnections({ clock });
      const listener = tryListen(
        `${listen.hostname}:${listen.port}`,
        () => listenTcp({ ...listen, tls, observer, ...listening(connection, urlHost(listen.hostname)) }),
      );
      listeners.push(listener);
      port = listener.port;
      urls.push(
        `${tls === null ? "http" : "https"}://${urlHost(listen.hostname)}:${port}`,
      );
      if (port !== null) observer.watch(port, watching.signal);
    }
    if (socket !== null) {
      const path = await prepareSocketPath({
        dataDir: socket.dataDir,
        wanted: socket.path,
      });
      const connection: Connection = {
        via: "unix",
        loopback: false,
        tls: false,
        streams,
      };
      listeners.push(
        tryListen(path, () => listenUnix(path, listening(connection, path))),
      );
      socketPath = path;
      urls.push(`unix:${path}`);
    }
  } catch (error) {
    await stop(0);
    throw error;
  }
  return { urls, socketPath, port, stop };
}

function urlHost(hostname: string): string {
  return hostname.includes(":") && !hostname.startsWith("[") ? `[${hostname}]` : hostname;
}

async function readTls(
  files: ServerOptions["tls"],
): Promise<{ readonly cert: string; readonly key: string } | null> {
  if (files === null) return null;
  const [cert, key] = await Promise.all([
    readTextIfPresent(files.certFile),
    readTextIfPresent(files.keyFile),
  ]);
  if (cert === null || key === null) {
    const missing = cert === null ? files.certFile : files.keyFile;
    throw new StateManagerError(
      "config-invalid",
      `start TLS: there is no file ${missing}`,
      {
        hint: "point server.tls.cert and server.tls.key at PEM files",
      },
    );
  }
  return { cert, key };
}

function tryListen(address: string, listen: () => HttpListener): HttpListener {
  try {
    return listen();
  } catch (error) {
    const failure = listenFailure(error);
    if (failure === "in-use") {
      throw new StateManagerError(
        "config-invalid",
        `listen on ${address}: the address is in use`,
        {
          hint: "stop the other program, or choose another with --listen or server.listen",
          cause: error,
        },
      );
    }
    if (failure === "not-permitted") {
      throw new StateManagerError(
        "config-invalid",
        `listen on ${address}: not permitted`,
        {
          hint: "choose a port above 1023 and a folder that this user can write",
          cause: error,
        },
      );
    }
    if (failure === "no-such-address") {
      throw new StateManagerError(
        "config-invalid",
        `listen on ${address}: this machine has no such address`,
        {
          hint: "use 127.0.0.1, [::1], 0.0.0.0 or an address of this machine",
          cause: error,
        },
      );
    }
    const text = error instanceof Error ? error.message : String(error);
    throw new StateManagerError(
      "config-invalid",
      `listen on ${address}: ${text}`,
      {
        hint: "check server.listen, server.socket and the files of server.tls",
        cause: error,
      },
    );
  }
}
