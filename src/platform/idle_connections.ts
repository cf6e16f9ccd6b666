/**
 * Ends connections that ask nothing. The HTTP server of the runtime has no time limit for a client that connects and
 * sends nothing, or half a header; enough of those would use up our file descriptors, and with them the store, the
 * lease and the programs. So we look at our own sockets and shut down(2) what is idle: the runtime then sees the end
 * of the stream and closes the descriptor itself. All in one turn of the event loop, so that a descriptor number
 * cannot change its meaning between looking and ending.
 */

import type { Clock } from "./clock.ts";
import type { RequestObserver } from "./http_server.ts";

/** How long a connection may be quiet between two requests, or before the first. */
const IDLE_MS = 60_000;

/** How often we look. */
const PERIOD_MS = 5_000;

/** Above this many connections the quiet ones go at once, the longest quiet first. */
const MAX_CONNECTIONS = 256;

/** Where descriptors cannot be listed: so many take a few milliseconds. */
const NUMBERS_TRIED = 16_384;

const SHUT_RDWR = 2;

/** Large enough for sockaddr_in6 (28 bytes); the port is in bytes 2 and 3, in network order, for IPv4 as for IPv6. */
const ADDRESS_BYTES = 128;
const AF_INET = 2;
const AF_INET6 = 10;

interface Sockets extends Disposable {
  /** Local and peer port of a connected IP socket; null for all else. */
  ports(fd: number): { readonly local: number; readonly peer: number } | null;
  end(fd: number): void;
}

function openSockets(): Sockets | null {
  try {
    const libc = Deno.dlopen("libc.so.6", {
      getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
      getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
      shutdown: { parameters: ["i32", "i32"], result: "i32" },
    });
    const address = new Uint8Array(ADDRESS_BYTES);
    const view = new DataView(address.buffer);
    const length = new Uint8Array(4);
    const port = (call: "getsockname" | "getpeername", fd: number): number | null => {
      new DataView(length.buffer).setUint32(0, ADDRESS_BYTES, true);
      if (libc.symbols[call](fd, address, length) !== 0) return null;
      const family = view.getUint16(0, true);
      return family === AF_INET || family === AF_INET6 ? view.getUint16(2) : null;
    };
    return {
      ports(fd) {
        const local = port("getsockname", fd);
        const peer = local === null ? null : port("getpeername", fd);
        return local === null || peer === null ? null : { local, peer };
      },
      end: (fd) => void libc.symbols.shutdown(fd, SHUT_RDWR),
      [Symbol.dispose]: () => libc.close(),
    };
  } catch {
    return null; // another libc: no limit then; listen on loopback or behind a proxy there
  }
}

export interface IdleConnectionsOptions {
  readonly clock: Clock;
  readonly idleMs?: number;
  readonly periodMs?: number;
  readonly maxConnections?: number;
}

export class IdleConnections implements RequestObserver {
  readonly #options: Required<IdleConnectionsOptions>;
  /** Requests under way, by port of the peer. Two peers of one port are kept together: an error on the safe side. */
  readonly #active = new Map<number, number>();
  /** When a connection was first seen quiet, by port of the peer. */
  #quietSinceMs = new Map<number, number>();

  constructor(options: IdleConnectionsOptions) {
    this.#options = { idleMs: IDLE_MS, periodMs: PERIOD_MS, maxConnections: MAX_CONNECTIONS, ...options };
  }

  began(peerPort: number): void {
    this.#active.set(peerPort, (this.#active.get(peerPort) ?? 0) + 1);
    this.#quietSinceMs.delete(peerPort);
  }

  ended(peerPort: number): void {
    const left = (this.#active.get(peerPort) ?? 1) - 1;
    if (left > 0) this.#active.set(peerPort, left);
    else this.#active.delete(peerPort);
  }

  /** Watches the connections of the listener on `localPort` until the signal aborts. */
  async watch(localPort: number, signal: AbortSignal): Promise<void> {
    using sockets = openSockets();
    if (sockets === null) return;
    const { clock, periodMs } = this.#options;
    while (!signal.aborted) {
      await clock.sleep(periodMs, { signal }).catch(() => {});
      if (!signal.aborted) this.#sweep(localPort, sockets);
    }
  }

  #sweep(localPort: number, sockets: Sockets): void {
    const { clock, idleMs, maxConnections } = this.#options;
    const nowMs = clock.monotonicMs();
    const quiet: { fd: number; sinceMs: number }[] = [];
    const seen = new Map<number, number>();
    let total = 0;
    for (const fd of openDescriptors()) {
      const ports = sockets.ports(fd);
      if (ports === null || ports.local !== localPort) continue;
      total++;
      if (this.#active.has(ports.peer)) continue;
      const sinceMs = this.#quietSinceMs.get(ports.peer) ?? nowMs;
      seen.set(ports.peer, sinceMs);
      quiet.push({ fd, sinceMs });
    }
    this.#quietSinceMs = seen;
    quiet.sort((a, b) => a.sinceMs - b.sinceMs);
    let surplus = total - maxConnections;
    for (const { fd, sinceMs } of quiet) {
      if (nowMs - sinceMs < idleMs && surplus <= 0) break;
      sockets.end(fd);
      surplus--;
    }
  }
}

/**
 * Numbers of our open descriptors. Where they cannot be listed, each that may be one: most of all where connections have
 * used them up, so that none is left to list them with.
 */
function openDescriptors(): number[] {
  try {
    return Array.from(Deno.readDirSync("/proc/self/fd"), ({ name }) => Number(name));
  } catch {
    return Array.from({ length: NUMBERS_TRIED }, (_, number) => number);
  }
}
