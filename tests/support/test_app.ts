/** The app over a fake manager, and requests to it as they come in by each way. */

import { systemClock } from "../../src/platform/clock.ts";
import { systemRandom } from "../../src/platform/random.ts";
import type { Control } from "../../src/manager/control.ts";
import type { Clock } from "../../src/platform/clock.ts";
import { createApp } from "../../src/server/mod.ts";
import { OpenStreams } from "../../src/server/open_streams.ts";
import type { Connection } from "../../src/server/env.ts";
import { fakeControl, recordingLog } from "./fake_control.ts";

const machineClock = systemClock();

export interface TestRequest {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON with its content type. */
  readonly json?: unknown;
  /** Sent as it is. */
  readonly body?: BodyInit;
  readonly connection?: Partial<Connection>;
  /** No connection at all: what a mistake in the wiring would look like. */
  readonly unknownConnection?: true;
}

export interface TestApp {
  ask(path: string, request?: TestRequest): Promise<Response>;
  readonly logged: { message: string; fields: unknown }[];
  readonly streams: OpenStreams;
  /** What is served, and by which method. */
  readonly routes: readonly { readonly method: string; readonly path: string }[];
}

export function testApp(
  change: Partial<Control> = {},
  clock: Clock = machineClock,
): TestApp {
  const { log, lines } = recordingLog();
  const app = createApp({
    control: fakeControl(change),
    clock,
    random: systemRandom(),
    log,
  });
  const streams = new OpenStreams();
  return {
    logged: lines,
    streams,
    routes: app.routes,
    async ask(path, request = {}) {
      const {
        json,
        body,
        headers = {},
        method = json === undefined && body === undefined ? "GET" : "POST",
      } = request;
      const init: RequestInit = {
        method,
        headers: {
          host: "localhost:8080",
          ...(json === undefined ? {} : { "content-type": "application/json" }),
          ...headers,
        },
        ...(json === undefined ? body === undefined ? {} : { body } : { body: JSON.stringify(json) }),
      };
      const connection: Connection = {
        via: "tcp",
        loopback: true,
        tls: false,
        streams,
        ...request.connection,
      };
      return await (request.unknownConnection
        ? app.request(path, init)
        : app.request(path, init, connection));
    },
  };
}
