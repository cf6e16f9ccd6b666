/**
 * HTTP/1.1 on a bare socket: what a server can't do that keeps to the rules (break a connection before or after the
 * work, send less than it announced) is a test's business. Requests with Content-Length only, as S3 wants them.
 */

export interface WireRequest {
  readonly method: string;
  /** Raw, as sent. */
  readonly path: string;
  readonly query: string;
  readonly headers: Headers;
  /** The head as it came, with the empty line that ends it. */
  readonly head: Uint8Array<ArrayBuffer>;
  readonly body: Uint8Array<ArrayBuffer>;
}

export interface WireAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** Sends only so many bytes of the body, then ends the connection. */
  readonly cutAfter?: number;
}

/** Bytes that are a whole answer already; `last` ends the connection after them. */
export interface WireBytes {
  readonly bytes: Uint8Array;
  readonly last: boolean;
}

/** What the handler wants to happen: an answer, or the end of the connection without one. */
export type WireReply = WireAnswer | WireBytes | "reset";

export interface WireServer {
  readonly port: number;
  stop(): Promise<void>;
}

const MOST_HEAD_BYTES = 64 * 1024;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

class Connection {
  readonly #socket: Deno.TcpConn;
  #pending: Uint8Array<ArrayBuffer> = new Uint8Array();

  constructor(socket: Deno.TcpConn) {
    this.#socket = socket;
  }

  async #more(): Promise<boolean> {
    const piece = new Uint8Array(256 * 1024);
    const count = await this.#socket.read(piece);
    if (count === null) return false;
    const joined = new Uint8Array(this.#pending.length + count);
    joined.set(this.#pending);
    joined.set(piece.subarray(0, count), this.#pending.length);
    this.#pending = joined;
    return true;
  }

  /** Null at the end of the connection. */
  async request(): Promise<WireRequest | null> {
    let end = -1;
    while (
      (end = decoder.decode(this.#pending.subarray(0, MOST_HEAD_BYTES)).indexOf(
        "\r\n\r\n",
      )) < 0
    ) {
      if (!await this.#more()) return null;
    }
    const head = this.#pending.slice(0, end + 4);
    const [first = "", ...lines] = decoder.decode(head.subarray(0, end)).split("\r\n");
    this.#pending = this.#pending.slice(end + 4);
    const [method = "", target = ""] = first.split(" ");
    const headers = new Headers();
    for (const line of lines) {
      const colon = line.indexOf(":");
      headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
    }
    const length = Number(headers.get("content-length") ?? 0);
    const body = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      if (this.#pending.length === 0 && !await this.#more()) return null;
      const part = this.#pending.subarray(0, length - filled);
      body.set(part, filled);
      filled += part.length;
      this.#pending = this.#pending.slice(part.length);
    }
    const mark = target.indexOf("?");
    const path = mark < 0 ? target : target.slice(0, mark);
    return {
      method,
      path,
      query: mark < 0 ? "" : target.slice(mark + 1),
      headers,
      head,
      body,
    };
  }

  async answer(answer: WireAnswer, withBody: boolean): Promise<void> {
    const body = answer.body ?? new Uint8Array();
    const headers: Record<string, string> = {
      "content-length": String(body.length),
      ...answer.headers,
    };
    if (answer.status === 204) delete headers["content-length"];
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join("");
    const head = encoder.encode(`HTTP/1.1 ${answer.status} Status\r\n${lines}\r\n`);
    const sent = withBody ? body.subarray(0, answer.cutAfter ?? body.length) : new Uint8Array();
    const whole = new Uint8Array(head.length + sent.length); // in one write: two would wait for each other's ACK
    whole.set(head);
    whole.set(sent, head.length);
    await this.write(whole);
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let written = 0; written < bytes.length;) {
      written += await this.#socket.write(bytes.subarray(written));
    }
  }
}

/** Serves on a free port of loopback; each connection in order, all of them at once. */
export function serveWire(
  handle: (request: WireRequest) => Promise<WireReply>,
): WireServer {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const sockets = new Map<Deno.TcpConn, Promise<void>>();

  async function serve(socket: Deno.TcpConn): Promise<void> {
    try {
      const connection = new Connection(socket);
      for (;;) {
        const request = await connection.request();
        if (request === null) return;
        const reply = await handle(request);
        if (reply === "reset") return;
        if ("bytes" in reply) {
          await connection.write(reply.bytes);
          if (reply.last) return;
          continue;
        }
        await connection.answer(reply, request.method !== "HEAD");
        if (reply.cutAfter !== undefined) return;
      }
    } catch {
      // The client went away.
    } finally {
      sockets.delete(socket);
      try {
        socket.close();
      } catch {
        // Closed by stop().
      }
    }
  }

  const accepting = (async () => {
    try {
      for await (const socket of listener) sockets.set(socket, serve(socket));
    } catch {
      // Closed.
    }
  })();
  return {
    port: listener.addr.port,
    async stop() {
      listener.close();
      await accepting;
      const serving = [...sockets.values()];
      for (const socket of sockets.keys()) {
        try {
          socket.close();
        } catch {
          // Ended at this moment.
        }
      }
      await Promise.all(serving);
    },
  };
}
