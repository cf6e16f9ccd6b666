/**
 * HTTP listeners over Deno.serve: TCP, TLS and unix sockets. A request is handed on with what is known of its peer.
 *
 * The runtime's server takes no more connections for good once taking one has failed, as it does where there is no
 * descriptor left for it. Its other connections go on. So we listen anew then, until we are told to stop. (2.6.10 tells
 * of the failure only when its last connection has ended, 2.9.6 at once.)
 */

import type { Clock } from "./clock.ts";

/** Answers one request; must not throw. */
export type HttpHandler = (request: Request) => Response | Promise<Response>;

/** Hears when a connection of the TCP listener begins and ends a request; the port is the peer's. */
export interface RequestObserver {
  began(peerPort: number): void;
  ended(peerPort: number): void;
}

export interface HttpListener {
  /** The bound port; null for a unix socket. */
  readonly port: number | null;
  /**
   * Takes no more connections and resolves when the last request was answered, which open streams put off: close those
   * first. The runtime offers an abort too, but an abort after this call throws from inside and ends the process.
   */
  shutdown(): Promise<void>;
}

export interface ListenOptions {
  readonly handler: HttpHandler;
  readonly clock: Clock;
  /** No more connections could be taken, or listening anew failed: it is tried again, later each time. */
  readonly onLost: (error: unknown) => void;
}

export interface TcpListenOptions extends ListenOptions {
  readonly hostname: string;
  /** 0: any free one. */
  readonly port: number;
  /** PEM texts; null: plain HTTP. */
  readonly tls: { readonly cert: string; readonly key: string } | null;
  readonly observer?: RequestObserver;
}

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;
/** One that lived so long has not failed for what the one before failed for: the pauses begin anew. */
const SOUND_AFTER_MS = 60_000;

/** Listens at once; throws Deno.errors.AddrInUse and the like. */
export function listenTcp(options: TcpListenOptions): HttpListener {
  const { hostname, tls, handler, observer } = options;
  const listen = (port: number) =>
    Deno.serve(
      { hostname, port, onListen: () => {}, ...(tls === null ? {} : { cert: tls.cert, key: tls.key }) },
      (request, info) => {
        if (observer !== undefined) {
          const { port } = info.remoteAddr;
          observer.began(port);
          info.completed.catch(() => {}).finally(() => observer.ended(port));
        }
        return handler(request);
      },
    );
  const first = listen(options.port);
  const { port } = first.addr;
  return { port, shutdown: keepListening(first, () => listen(port), options) };
}

/** Listens on a unix socket that only this user can reach. The path must be free and at most 107 bytes long. */
export function listenUnix(path: string, options: ListenOptions): HttpListener {
  const listen = () => {
    // The umask counts at bind, so that the file is never open to others, not even before a chmod could follow.
    const umask = Deno.umask(0o177);
    try {
      return Deno.serve({ path, onListen: () => {} }, (request) => options.handler(request));
    } finally {
      Deno.umask(umask);
    }
  };
  const first = listen();
  let inode = inodeOf(path);
  const again = () => {
    // Ours is still there, and in the way; somebody else's is not ours to remove.
    if (inode !== null && inodeOf(path) === inode) Deno.removeSync(path);
    const server = listen();
    inode = inodeOf(path);
    return server;
  };
  return { port: null, shutdown: keepListening(first, again, options) };
}

function inodeOf(path: string): number | null {
  try {
    return Deno.lstatSync(path).ino;
  } catch {
    return null;
  }
}

interface Server {
  readonly finished: Promise<void>;
  shutdown(): Promise<void>;
}

/** Has another server listen whenever one cannot any more; what it gives back ends that, and all that they still answer. */
function keepListening(
  first: Server,
  again: () => Server,
  { clock, onLost }: ListenOptions,
): () => Promise<void> {
  const stopped = new AbortController();
  const ending = new Set<Promise<void>>();
  /** It ends when its last request was answered. */
  const end = (server: Server) => {
    const ended = server.shutdown().catch(() => {}).finally(() => ending.delete(ended));
    ending.add(ended);
  };
  let current: Server | null = first;
  const tend = async () => {
    let pauseMs = FIRST_PAUSE_MS;
    let sinceMs = clock.monotonicMs();
    while (!stopped.signal.aborted) {
      try {
        current ??= again();
        await current.finished;
        if (stopped.signal.aborted) return;
        onLost(new Error("the listener ended"));
      } catch (error) {
        if (stopped.signal.aborted) return;
        onLost(error);
      }
      if (current !== null) end(current);
      current = null;
      if (clock.monotonicMs() - sinceMs >= SOUND_AFTER_MS) pauseMs = FIRST_PAUSE_MS;
      await clock.sleep(pauseMs, { signal: stopped.signal }).catch(() => {});
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
      sinceMs = clock.monotonicMs();
    }
  };
  void tend();
  return async () => {
    stopped.abort();
    if (current !== null) end(current);
    await Promise.all(ending);
  };
}

/** Why listening failed, as far as an operator can act on it. */
export function listenFailure(error: unknown): "in-use" | "not-permitted" | "no-such-address" | "other" {
  if (error instanceof Deno.errors.AddrInUse) return "in-use";
  if (error instanceof Deno.errors.PermissionDenied) return "not-permitted";
  if (error instanceof Deno.errors.AddrNotAvailable) return "no-such-address";
  return "other";
}
