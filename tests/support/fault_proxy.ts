/**
 * A proxy on loopback in front of a real S3 service, which fails as told. Requests pass byte for byte (the signature
 * covers the Host header, which names this proxy); each is read whole before it is passed on, each answer before it is
 * given, so that "before" and "after" the work are told apart.
 */

import { type ActiveFault, type FaultMatch, FaultRules } from "../../src/platform/fault_rules.ts";
import { serveWire, type WireReply, type WireRequest } from "./http_wire.ts";
import { type S3Operation, s3Request } from "./s3_server.ts";

/** What happens to the requests that match. */
export interface ProxyFault extends FaultMatch<S3Operation> {
  /** Of the whole key in the bucket; a listing is known by the prefix that it lists. */
  readonly keyPrefix?: string;
  /** HTTP status instead of the service's answer. */
  readonly status?: number;
  /** Ends the connection instead of an answer. */
  readonly reset?: boolean;
  /** Whether status and reset strike with the work not done, or done ("after": the reply is lost). Default "before". */
  readonly when?: "before" | "after";
  /** Waits before the request is passed on: a client that gave up meanwhile may still have its request done. */
  readonly delayMs?: number;
  /** Ends the connection at once, and passes the request on so much later. */
  readonly lateMs?: number;
  /** Waits before the answer is given. */
  readonly replyDelayMs?: number;
  /** Passes the request on twice; the second answer is given. */
  readonly duplicate?: boolean;
  /** Gives so many bytes of the answer (head and body), then ends the connection. */
  readonly cutAfter?: number;
  /** Called when status or reset strike, before the client can know. */
  readonly onStrike?: () => void;
}

export interface ProxyOptions {
  /** What a listing shows is older by so much, as in a store that has stood for a while. */
  readonly listedAgeMs?: number;
  /**
   * How far the clock of those who ask is ahead of the service's, by the time of the service. Their requests are passed
   * on unsigned, so the bucket must be open to all (`openToAll`), and the times in what it answers are by their clock.
   */
  readonly aheadMs?: (atMs: number) => number;
}

/**
 * How the service is away. "silent": nothing is answered, and what is asked meanwhile is dropped when it is back.
 * "refused": connections end at once. "late": nothing is answered, and what was asked meanwhile is done when it is
 * back, as packets that a network held.
 */
export type Outage = "silent" | "refused" | "late";

export interface SeenByProxy {
  readonly operation: S3Operation;
  readonly key: string;
  /** Status of the service's answer; null: not passed on (yet). */
  status: number | null;
}

export interface FaultProxy extends AsyncDisposable {
  readonly endpoint: string;
  /** Every request that came, in order. */
  readonly requests: readonly SeenByProxy[];
  /** The first rule that hits counts, in the order in which they were added. */
  fail(fault: ProxyFault): ActiveFault;
  /** Default "silent". Ends with `false`; a second call changes the way. */
  outage(on: boolean | Outage): void;
  /** Ends every connection; what was delayed is dropped. */
  stop(): Promise<void>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** One request to the service and its answer as bytes, on a connection of its own. */
async function passOn(target: URL, request: WireRequest, open: Set<Deno.TcpConn>): Promise<WireReply> {
  const socket = await Deno.connect({ hostname: target.hostname, port: Number(target.port) });
  open.add(socket);
  try {
    for (const part of [request.head, request.body]) {
      for (let written = 0; written < part.length;) written += await socket.write(part.subarray(written));
    }
    return await answerFrom(socket, request.method === "HEAD");
  } finally {
    open.delete(socket);
    try {
      socket.close();
    } catch {
      // Closed by stop().
    }
  }
}

/** One whole answer; "reset" where the service ended the connection without one. */
async function answerFrom(socket: Deno.TcpConn, headOnly: boolean): Promise<WireReply> {
  let bytes = new Uint8Array();
  for (;;) {
    const end = headEnd(bytes);
    if (end > 0 && bytes.length >= end + bodyBytes(bytes, end, headOnly)) return { bytes, last: false };
    const piece = new Uint8Array(256 * 1024);
    const count = await socket.read(piece);
    if (count === null) return end > 0 ? { bytes, last: true } : "reset";
    bytes = join([bytes, piece.subarray(0, count)]);
  }
}

/** Bytes of the head with the empty line; 0 while it is not whole. Heads are ASCII: characters are bytes. */
function headEnd(bytes: Uint8Array): number {
  const at = new TextDecoder("latin1").decode(bytes.subarray(0, 64 * 1024)).indexOf("\r\n\r\n");
  return at < 0 ? 0 : at + 4;
}

/** How many bytes of body the head announces; Infinity until the last chunk of a chunked one is there. */
function bodyBytes(bytes: Uint8Array, end: number, headOnly: boolean): number {
  const head = decoder.decode(bytes.subarray(0, end));
  if (headOnly || / (204|304) /.test(head.slice(0, 16))) return 0;
  if (/\r\ntransfer-encoding: *chunked/i.test(head)) {
    return decoder.decode(bytes.slice(-5)) === "0\r\n\r\n" ? 0 : Infinity;
  }
  return Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? Infinity);
}

function statusOf(reply: WireReply): number | null {
  if (reply === "reset" || !("bytes" in reply)) return null;
  return Number(decoder.decode(reply.bytes.subarray(0, 64)).split(" ")[1]);
}

function errorAnswer(status: number): WireReply {
  const code = status === 503 ? "SlowDown" : status === 403 ? "AccessDenied" : "InternalError";
  const body = encoder.encode(
    `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>fault of a test</Message></Error>`,
  );
  return { status, headers: { "content-type": "application/xml" }, body };
}

/**
 * The same answer in as many bytes, with other times of objects, and of its own where `now`: `shift` gives what is added
 * to each.
 */
function shifted(reply: WireReply, shift: (atMs: number) => number, now: boolean): WireReply {
  if (reply === "reset" || !("bytes" in reply)) return reply;
  const end = headEnd(reply.bytes);
  const moved = (text: string) => new Date(Date.parse(text) + shift(Date.parse(text)));
  const head = latin1Of(reply.bytes.subarray(0, end));
  const times = now ? /(?<=^(?:last-modified|date): *)[^\r]+/gim : /(?<=^last-modified: *)[^\r]+/gim;
  const movedHead = head.replace(times, (text) => moved(text).toUTCString());
  const body = reply.bytes.subarray(end);
  const movedBody = /^content-type: *application\/xml/im.test(head)
    ? bytesOf(latin1Of(body).replace(LISTED_TIME, (text) => moved(text).toISOString()))
    : body;
  return { ...reply, bytes: join([bytesOf(movedHead), movedBody]) };
}

/** The request without its signature. */
function unsigned(request: WireRequest): WireRequest {
  return { ...request, head: bytesOf(latin1Of(request.head).replace(/^authorization:[^\r]*\r\n/im, "")) };
}

const LISTED_TIME = /(?<=<LastModified>)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z(?=<)/g;

/** Characters are bytes. */
function latin1Of(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return text;
}

function bytesOf(latin1: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(latin1.length);
  for (let at = 0; at < latin1.length; at++) bytes[at] = latin1.charCodeAt(at);
  return bytes;
}

/** `target` is the service's endpoint, e.g. "http://127.0.0.1:9000". */
export function startFaultProxy(target: string, { listedAgeMs = 0, aheadMs }: ProxyOptions = {}): FaultProxy {
  const service = new URL(target);
  const rules = new FaultRules<S3Operation, ProxyFault>((rule, _operation, key) =>
    key.startsWith(rule.keyPrefix ?? "")
  );
  const requests: SeenByProxy[] = [];
  const open = new Set<Deno.TcpConn>();
  const stopping = new AbortController();
  let outage: Outage | null = null;
  let back = Promise.withResolvers<void>();

  /** False when the proxy is stopped first. */
  async function pause(ms: number): Promise<boolean> {
    const { signal } = stopping;
    if (signal.aborted) return false;
    return await new Promise((resolve) => {
      const end = (whole: boolean) => () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", aborted);
        resolve(whole);
      };
      const aborted = end(false);
      const timer = setTimeout(end(true), ms);
      signal.addEventListener("abort", aborted);
    });
  }

  /** What the outage means for something under way now; true: it goes on. */
  async function passable(): Promise<boolean> {
    while (outage !== null) {
      const how: Outage = outage;
      if (how === "refused") return false;
      await back.promise;
      if (how === "silent" || stopping.signal.aborted) return false;
    }
    return true;
  }

  async function pass(request: WireRequest, seen: SeenByProxy): Promise<WireReply> {
    const passed = aheadMs === undefined ? request : unsigned(request);
    const reply = await passOn(service, passed, open).catch(() => "reset" as const);
    seen.status = statusOf(reply);
    if (aheadMs !== undefined) return shifted(reply, aheadMs, true);
    return seen.operation === "list" && listedAgeMs > 0 ? shifted(reply, () => -listedAgeMs, false) : reply;
  }

  async function handle(request: WireRequest): Promise<WireReply> {
    const { operation, subject } = s3Request(request);
    const seen: SeenByProxy = { operation, key: subject, status: null };
    requests.push(seen);
    const fault = rules.strike(operation, subject) ?? {};
    if (fault.lateMs !== undefined) {
      void pause(fault.lateMs).then((whole) => whole ? pass(request, seen) : null);
      return "reset";
    }
    if (fault.delayMs !== undefined && !await pause(fault.delayMs)) return "reset";
    if (!await passable()) return "reset";
    const instead = fault.reset === true
      ? "reset"
      : fault.status === undefined
      ? null
      : errorAnswer(fault.status);
    if (instead !== null && fault.when !== "after") {
      fault.onStrike?.();
      return instead;
    }
    if (fault.duplicate === true) await pass(request, seen);
    const reply = await pass(request, seen);
    if (fault.replyDelayMs !== undefined && !await pause(fault.replyDelayMs)) return "reset";
    if (!await passable()) return "reset";
    if (instead !== null) {
      fault.onStrike?.();
      return instead;
    }
    if (fault.cutAfter === undefined || reply === "reset" || !("bytes" in reply)) return reply;
    return { bytes: reply.bytes.subarray(0, fault.cutAfter), last: true };
  }

  const wire = serveWire(handle);
  const stop = async () => {
    stopping.abort();
    outage = null;
    back.resolve();
    for (const socket of open) {
      try {
        socket.close();
      } catch {
        // Ended at this moment.
      }
    }
    await wire.stop();
  };
  return {
    endpoint: `http://127.0.0.1:${wire.port}`,
    requests,
    fail: (fault) => rules.add(fault),
    outage(on) {
      outage = on === false ? null : on === true ? "silent" : on;
      back.resolve();
      back = Promise.withResolvers();
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
