/** HTTP listeners over Deno.serve: TCP, TLS and unix sockets. A request is handed on with what is known of its peer. */

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

export interface TcpListenOptions {
  readonly hostname: string;
  /** 0: any free one. */
  readonly port: number;
  /** PEM texts; null: plain HTTP. */
  readonly tls: { readonly cert: string; readonly key: string } | null;
  readonly handler: HttpHandler;
  readonly observer?: RequestObserver;
}

/** Listens at once; throws Deno.errors.AddrInUse and the like. */
export function listenTcp({ hostname, port, tls, handler, observer }: TcpListenOptions): HttpListener {
  const server = Deno.serve(
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
  return { port: server.addr.port, shutdown: () => server.shutdown() };
}

/** Listens on a unix socket that only this user can reach. The path must be free and at most 107 bytes long. */
export function listenUnix(path: string, handler: HttpHandler): HttpListener {
  // The umask counts at bind, so that the file is never open to others, not even before a chmod could follow.
  const umask = Deno.umask(0o177);
  try {
    const server = Deno.serve({ path, onListen: () => {} }, (request) => handler(request));
    return { port: null, shutdown: () => server.shutdown() };
  } finally {
    Deno.umask(umask);
  }
}

/** Why listening failed, as far as an operator can act on it. */
export function listenFailure(error: unknown): "in-use" | "not-permitted" | "no-such-address" | "other" {
  if (error instanceof Deno.errors.AddrInUse) return "in-use";
  if (error instanceof Deno.errors.PermissionDenied) return "not-permitted";
  if (error instanceof Deno.errors.AddrNotAvailable) return "no-such-address";
  return "other";
}
