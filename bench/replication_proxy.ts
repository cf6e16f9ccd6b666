/**
 * A pipe on loopback in front of an S3 service that counts: requests by kind, bytes in both directions as they are on
 * the wire, and the moment at which the service's answer to each request began. It changes nothing, so that every
 * client is measured in the same way, whatever it says of itself.
 */

import type { Clock } from "../src/platform/clock.ts";

/** What came so far; the difference of two of them is what came between. */
export interface Traffic {
  readonly requests: number;
  /** Heads and bodies. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** By method; listings and deletions of many as "LIST" and "DELETE MANY". */
  readonly kinds: Readonly<Record<string, number>>;
}

/** An object that the service has acknowledged. */
export interface StoredObject {
  /** Path in the URL: bucket and key. */
  readonly path: string;
  /** CLOCK_BOOTTIME at which its answer began. */
  readonly atMs: number;
}

export interface CountingProxy extends AsyncDisposable {
  readonly endpoint: string;
  /** Of the requests whose path (bucket and key; of a listing the prefix that it lists) is chosen. */
  traffic(isChosen: (path: string) => boolean): Traffic;
}

const MOST_HEAD_BYTES = 64 * 1024;
const HEAD_END = [13, 10, 13, 10];

interface Request {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  /** In the count of its path. */
  readonly count: Count;
  answered: boolean;
}

interface Count {
  requests: number;
  sentBytes: number;
  receivedBytes: number;
  readonly kinds: Map<string, number>;
}

function kindOf(method: string, path: string, query: string): string {
  if (method === "GET" && (/list-type=/.test(query) || path.split("/").length <= 2)) return "LIST";
  if (method === "POST" && /(^|&)delete/.test(query)) return "DELETE MANY";
  return method;
}

/** Follows the requests of one connection: heads, and bodies by their length. */
class Connection {
  readonly #countOf: (path: string) => Count;
  readonly #onStored: (path: string) => void;
  #head: number[] = [];
  #bodyBytes = 0;
  #current: Request | null = null;

  constructor(countOf: (path: string) => Count, onStored: (path: string) => void) {
    this.#countOf = countOf;
    this.#onStored = onStored;
  }

  sent(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      if (this.#bodyBytes > 0) {
        const part = Math.min(this.#bodyBytes, bytes.length - at);
        this.#bodyBytes -= part;
        if (this.#current !== null) this.#current.count.sentBytes += part;
        at += part;
        continue;
      }
      this.#head.push(bytes[at++] ?? 0);
      if (this.#head.length > MOST_HEAD_BYTES) throw new Error("count requests: a head without an end");
      if (HEAD_END.every((byte, n) => this.#head.at(n - 4) === byte)) this.#begin();
    }
  }

  #begin(): void {
    const head = new TextDecoder().decode(Uint8Array.from(this.#head));
    const [method = "", target = ""] = head.split(" ", 2);
    const [path = "", query = ""] = target.split("?");
    if (/\r\ntransfer-encoding:/i.test(head)) throw new Error(`count requests: ${method} ${path} is chunked`);
    this.#bodyBytes = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
    const kind = kindOf(method, path, query);
    const listed = kind === "LIST" ? new URLSearchParams(query).get("prefix") ?? "" : null;
    const subject = decodeURIComponent(path) + (listed === null ? "" : `/${listed}`);
    const count = this.#countOf(subject);
    count.requests++;
    count.sentBytes += this.#head.length;
    count.kinds.set(kind, (count.kinds.get(kind) ?? 0) + 1);
    this.#current = { method, path: subject, query, count, answered: false };
    this.#head = [];
  }

  received(bytes: Uint8Array): void {
    const request = this.#current;
    if (request === null) return;
    request.count.receivedBytes += bytes.length;
    if (request.answered) return;
    const status = Number(new TextDecoder().decode(bytes.subarray(0, 12)).split(" ")[1]);
    if (status === 100) return; // the body may come
    request.answered = true;
    const stores = request.method === "PUT" && !/partNumber=/.test(request.query) ||
      request.method === "POST" && /uploadId=/.test(request.query);
    if (stores && status === 200) this.#onStored(request.path);
  }
}

async function pump(from: Deno.TcpConn, to: Deno.TcpConn, see: (bytes: Uint8Array) => void): Promise<void> {
  const buffer = new Uint8Array(256 * 1024);
  try {
    for (let count = await from.read(buffer); count !== null; count = await from.read(buffer)) {
      see(buffer.subarray(0, count));
      for (let written = 0; written < count;) written += await to.write(buffer.subarray(written, count));
    }
  } finally {
    for (const socket of [from, to]) {
      try {
        socket.close();
      } catch {
        // The other direction has closed it.
      }
    }
  }
}

/** `target` is the service's endpoint. `onStored` hears of every object once it is acknowledged. */
export function startCountingProxy(
  target: string,
  clock: Clock,
  onStored: (object: StoredObject) => void,
): CountingProxy {
  const service = new URL(target);
  const counts = new Map<string, Count>();
  const countOf = (path: string) => {
    const known = counts.get(path);
    if (known !== undefined) return known;
    const fresh: Count = { requests: 0, sentBytes: 0, receivedBytes: 0, kinds: new Map() };
    counts.set(path, fresh);
    return fresh;
  };
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const open = new Map<Deno.TcpConn, Promise<unknown>>();

  async function serve(client: Deno.TcpConn): Promise<void> {
    const server = await Deno.connect({ hostname: service.hostname, port: Number(service.port) });
    client.setNoDelay();
    server.setNoDelay();
    const seen = new Connection(countOf, (path) => onStored({ path, atMs: clock.monotonicMs() }));
    const ways = [
      pump(client, server, (bytes) => seen.sent(bytes)),
      pump(server, client, (bytes) => seen.received(bytes)),
    ];
    for (const result of await Promise.allSettled(ways)) {
      const reason = result.status === "rejected" ? result.reason : null;
      // A connection that somebody ended is no failure; what cannot be counted is.
      if (reason instanceof Error && reason.message.startsWith("count requests")) throw reason;
    }
  }

  const accepting = (async () => {
    try {
      for await (const client of listener) {
        open.set(client, serve(client).finally(() => open.delete(client)));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error; // closed
    }
  })();
  return {
    endpoint: `http://127.0.0.1:${listener.addr.port}`,
    traffic(isChosen) {
      const kinds: Record<string, number> = {};
      const sum = { requests: 0, sentBytes: 0, receivedBytes: 0, kinds };
      for (const [path, count] of counts) {
        if (!isChosen(path)) continue;
        sum.requests += count.requests;
        sum.sentBytes += count.sentBytes;
        sum.receivedBytes += count.receivedBytes;
        for (const [kind, n] of count.kinds) kinds[kind] = (kinds[kind] ?? 0) + n;
      }
      return sum;
    },
    async [Symbol.asyncDispose]() {
      listener.close();
      await accepting;
      for (const client of open.keys()) {
        try {
          client.close();
        } catch {
          // It has ended.
        }
      }
      await Promise.allSettled(open.values());
    },
  };
}

/** What came between two looks. */
export function trafficBetween(first: Traffic, second: Traffic): Traffic {
  const kinds: Record<string, number> = {};
  for (const [kind, n] of Object.entries(second.kinds)) kinds[kind] = n - (first.kinds[kind] ?? 0);
  return {
    requests: second.requests - first.requests,
    sentBytes: second.sentBytes - first.sentBytes,
    receivedBytes: second.receivedBytes - first.receivedBytes,
    kinds,
  };
}
