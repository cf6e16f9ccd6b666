/** What every request carries through the app: how it came in, and who the caller is. */

import type { Context } from "hono";
import type { Caller } from "./access.ts";
import type { OpenStreams } from "./open_streams.ts";

/** How a request reached us. The listener says it, never the request itself. */
export interface Connection {
  readonly via: "unix" | "tcp";
  /** True when the TCP listener is bound to a loopback address. */
  readonly loopback: boolean;
  readonly tls: boolean;
  /** Streams that a stop must close first, since a graceful shutdown waits for them. */
  readonly streams: OpenStreams;
}

export interface ServerEnv {
  Bindings: Connection;
  Variables: {
    requestId: string;
    /** Null for a health route that was asked without authority. */
    caller: Caller | null;
  };
}

export type ServerContext = Context<ServerEnv>;
